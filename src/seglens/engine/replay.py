"""Prefix cache: what a change at a layer cannot touch runs once; only the rest is computed again.

The network's own code runs every time, and every operation is met on its way: one whose inputs are as they were
answers from the record, one that a change has reached is computed. So nothing has to be cut out of the network;
skip connections, in-place operations and nested modules are covered, and the answer is checked once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from seglens.core.errors import MissingNeed
from seglens.engine.fast import Peak, Watching
from seglens.engine.plan import ALIKE

Network = Callable[[Tensor], Tensor]
LAYOUT = {4: torch.channels_last, 5: torch.channels_last_3d}  # with channels together


class Replay:
    """A network from one layer on.

    Args:
        network: input (1, C, *space) to logits.
        module: the layer, inside the network.
        x: the input.
        trust: ``False`` computes everything again each time, to compare with.

    Attributes:
        activation: what the layer answers to ``x``, (1, K, *s).
        share: the part of the network's multiplications that lies behind the layer.
        bytes: what one copy takes on its way through the network, at most.
        exact: whether the record could be used; else everything is computed again each time.
        forwards: copies that were sent through to make and to check the record.

    Raises:
        MissingNeed: the layer is never called, or returns no tensor.
    """

    def __init__(self, network: Network, module: nn.Module, x: Tensor, *, trust: bool = True) -> None:
        """Run the network once, and once more to see that the record holds."""
        self._network, self._module, self._x = network, module, x
        self._record = _Record(x)
        with torch.inference_mode(), _swapped(module, None) as seen, Peak() as peak, self._record:
            self.clean = network(x)
        self.bytes = peak.bytes
        if not seen:
            raise MissingNeed(
                "The network does not call this layer, or the layer returns no tensor.", fix="Choose another layer."
            )
        self.activation = seen[-1]
        self.share, self.exact, self.forwards = 1.0, True, 5 if trust else 1
        self.exact = trust and self._holds()
        if not self.exact:
            self._record, self.share = _Record(x), 1.0

    def __call__(self, changed: Tensor) -> Tensor:
        """Logits (n, K, *space) with the layer's answer replaced by ``changed`` (n, K, *s)."""
        with torch.inference_mode():
            if not self.exact:
                return self._whole(changed)
            mode = _Again(self._record, len(changed))
            with _swapped(self._module, changed, mode.touch), mode:
                out = self._network(self._x)
            self._record.learn(mode)
            if not mode.touched(out):
                # the network does not listen to the layer; of what no change has reached only shapes may be left
                return self.clean.expand(len(changed), *self.clean.shape[1:])
            return out if len(out) == len(changed) else out.expand(len(changed), *out.shape[1:])

    def _whole(self, changed: Tensor) -> Tensor:
        with _swapped(self._module, changed):
            return self._network(self._x.expand(len(changed), *self._x.shape[1:]))

    def _holds(self) -> bool:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(self.activation.shape, generator=generator).to(self.activation)
        changed = torch.cat([self.activation, self.activation + noise * (self.activation.std() + 1e-6)])
        try:
            fast = self(changed)
            slow = self._whole(changed)
        except (RuntimeError, TypeError, IndexError):
            return False
        total, behind = self._record.multiplications, self._record.behind
        self.share = behind / total if total else 1.0
        self._record.drop_unused()
        scale = max(1e-12, float(slow.abs().max()))
        return bool(torch.isfinite(fast).all()) and float((fast - slow).abs().max()) <= ALIKE * scale


class _Record(Watching):
    """Every operation's answer, in order."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.answers: list[Any] = []
        self.changed_later: set[int] = set()
        self.needed: set[int] = set()
        self.multiplications = self.behind = 0.0
        self.counted = False
        self.from_x: Any = WeakIdKeyDictionary()
        self.from_x[x] = True
        self._made_by: dict[int, list[int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        number = len(self.answers)
        if func._schema.is_mutable:
            for t in _mutated(func, args, kwargs):
                self._before_change(t)
        out = func(*args, **kwargs)
        self.multiplications += _multiplications(func, args, out)
        if any(t in self.from_x for t in _tensors((args, kwargs))):
            for t in _tensors(out):
                self.from_x[t] = True
        for t in _tensors(out):
            self._made_by.setdefault(t.untyped_storage().data_ptr(), []).append(number)
        self.answers.append(out)
        return out

    def _before_change(self, t: Tensor) -> None:
        """Keep what earlier operations answered before it is overwritten."""
        for number in self._made_by.pop(t.untyped_storage().data_ptr(), []):
            self.changed_later.add(number)
            kept = tree_map(lambda a: a.clone() if isinstance(a, Tensor) else a, self.answers[number])
            for old, new in zip(_tensors(self.answers[number]), _tensors(kept), strict=True):
                if old in self.from_x:
                    self.from_x[new] = True
            self.answers[number] = kept

    def learn(self, again: _Again) -> None:
        """Which answers a changed operation asks for, and how much lies behind the layer."""
        if not self.counted:
            self.needed, self.behind, self.counted = again.needed, again.behind, True

    def drop_unused(self) -> None:
        """Forget what no changed operation asked for; only shapes are left of it."""
        for number, answer in enumerate(self.answers):
            if number not in self.needed:
                self.answers[number] = tree_map(_hollow, answer)


class _Again(Watching):
    """The same operations again: answered from the record where no change has come to."""

    def __init__(self, record: _Record, copies: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._record, self._copies = record, copies
        self._number = -1
        self._touched: Any = WeakIdKeyDictionary()
        self._from: Any = WeakIdKeyDictionary()
        self.needed: set[int] = set()
        self.behind = 0.0

    def touch(self, t: Tensor) -> None:
        """A tensor that is not as it was."""
        self._touched[t] = True

    def touched(self, t: Tensor) -> bool:
        """Whether a change has come to it."""
        return t in self._touched

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self._number += 1
        if not any(t in self._touched for t in _tensors((args, kwargs))):
            return self._known(func, args, kwargs)
        wide_args, wide_kwargs = tree_map(self._wide, (args, kwargs))
        out = func(*wide_args, **wide_kwargs)
        for t in _tensors(out):
            self._touched[t] = True
        self._count(func, wide_args, out)
        return out

    def _known(self, func: Any, args: Any, kwargs: Any) -> Any:
        answer = self._record.answers[self._number]
        if func._schema.is_mutable:
            # the tensor that the network's code holds has to change as well
            for t, after in zip(_mutated(func, args, kwargs), _tensors(answer), strict=False):
                if not _is_hollow(t) and not _is_hollow(after):
                    t.copy_(after)
                    self._from[t] = {*self._from.get(t, ()), self._number}
                    return t
            return answer
        if self._number in self._record.changed_later:
            answer = tree_map(lambda a: a.clone() if isinstance(a, Tensor) and not _is_hollow(a) else a, answer)
            for t in _tensors(answer):
                self._record.from_x[t] = True
        for t in _tensors(answer):
            self._from[t] = {self._number}
        return answer

    def _wide(self, a: Any) -> Any:
        """A clean tensor beside changed ones: as many copies of it, in its layout."""
        if not isinstance(a, Tensor) or a in self._touched:
            return a
        if a in self._from:
            self.needed |= self._from[a]
        if a in self._record.from_x and a.ndim > 1 and a.shape[0] == 1:
            wide = a.expand(self._copies, *a.shape[1:])
            # without memory of its own it would lead cat, and all that follows, into the slow layout
            return wide.contiguous(memory_format=LAYOUT[a.ndim]) if _is_arranged(a) else wide
        return a

    def _count(self, func: Any, args: Any, out: Any) -> None:
        if not self._record.counted:
            self.behind += _multiplications(func, args, out) / self._copies


@contextmanager
def _swapped(
    module: nn.Module, changed: Tensor | None, touch: Callable[[Tensor], None] | None = None
) -> Iterator[list[Tensor]]:
    """Record what a layer answers, or replace it; the hook is gone afterwards."""
    seen: list[Tensor] = []

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        # copies, since an operation behind the layer may work in place; they are no operations of the network
        with _disable_current_modes():
            if changed is None:
                seen.append(output.clone())
                return output
            swapped = changed.clone()
        if touch is not None:
            touch(swapped)
        return swapped

    handle = module.register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


def _tensors(thing: Any) -> list[Tensor]:
    return [t for t in tree_leaves(thing) if isinstance(t, Tensor)]


def _mutated(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation writes into."""
    found = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            found += _tensors(value)
    return found


def _multiplications(func: Any, args: Any, out: Any) -> float:
    name = func.overloadpacket.__name__
    if not name.startswith("conv"):
        return 0.0
    transposed = "transpose" in name or (name == "convolution" and bool(args[6]))
    return float(args[1][0].numel() * (args[0].numel() if transposed else out.numel()))


def _is_arranged(a: Tensor) -> bool:
    return a.ndim in LAYOUT and a.is_contiguous(memory_format=LAYOUT[a.ndim]) and not a.is_contiguous()


def _hollow(a: Any) -> Any:
    return a.new_empty(()).expand(a.shape) if isinstance(a, Tensor) and a.numel() > 1 else a


def _is_hollow(t: Tensor) -> bool:
    return t.numel() > 1 and all(s == 0 for s in t.stride())
