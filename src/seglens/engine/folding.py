"""A network without what costs time and changes nothing: batch norms behind convolutions, pads by nothing.

In eval mode a batch norm multiplies and shifts each channel, which the convolution before it can do on its way. Pairs
are found by the order of calls, not by names of modules. Nothing in the network is changed: while the mode is on, in
this thread alone, a convolution computes with the folded weights, and the batch norm that gets its answer passes it
on. A pad by nothing costs a copy, in a layout that the next convolution does not like.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from seglens.engine.fast import kept_memory
from seglens.engine.lighter import CONVOLUTIONS, TRANSPOSED, convolved, lighter, pads_nothing
from seglens.engine.plan import ALIKE
from seglens.models.device import fine
from seglens.models.rest import remembered
from seglens.models.segmentation import SegmentationModel, pick_output, quiet

WEIGHTED = CONVOLUTIONS | TRANSPOSED
SIDE = 16  # pixels of the picture on which pairs are looked for, at least


class Norm(NamedTuple):
    """What batch norm is called with; names as in torch."""

    input: Tensor
    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None = None
    bias: Tensor | None = None
    training: bool = False
    momentum: float = 0.1
    eps: float = 1e-5


@dataclass(eq=False)
class Pair:
    """A convolution and the batch norm behind it.

    Args:
        weight, bias: of the convolution, (out, in, *k) or, transposed, (in, out, *k).
        norm: its call, without the input.
        transposed: which of the two.
        groups: of the convolution.
    """

    weight: Tensor
    bias: Tensor | None
    norm: Norm
    transposed: bool
    groups: int
    _of: tuple[Any, ...] = ()
    _folded: tuple[Tensor, Tensor] | None = None

    @property
    def folded(self) -> tuple[Tensor, Tensor]:
        """Weights and bias of both together; made again when one of the tensors has changed."""
        now = tuple(_state(t) for t in (self.weight, self.bias, *self.norm[1:5]))
        if self._folded is None or now != self._of:
            with torch.inference_mode(False), torch.no_grad():  # so that they may enter graphs
                self._folded, self._of = self._made(), now
        return self._folded

    def _made(self) -> tuple[Tensor, Tensor]:
        norm, weight = self.norm, fine(self.weight.detach())
        if norm.running_mean is None or norm.running_var is None:
            raise TypeError("a batch norm without statistics is no pair")
        mean, scale = fine(norm.running_mean), (fine(norm.running_var) + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * fine(norm.weight.detach())
        shift = -mean * scale
        if norm.bias is not None:
            shift = shift + fine(norm.bias.detach())
        if self.bias is not None:
            shift = shift + fine(self.bias.detach()) * scale
        spread = (1,) * (weight.ndim - 2)
        if self.transposed:
            parts = weight.reshape(self.groups, -1, *weight.shape[1:]) * scale.reshape(self.groups, 1, -1, *spread)
            weight = parts.flatten(0, 1)
        else:
            weight = weight * scale.reshape(-1, 1, *spread)
        return weight.to(self.weight.dtype), shift.to(self.weight.dtype)


class Folded(TorchFunctionMode):
    """Convolutions of pairs compute what their batch norm would make of their answer."""

    def __init__(self, pairs: list[Pair], spare: float = inf) -> None:
        """Fold the weights."""
        super().__init__()
        self._spare = spare
        self._pairs = {id(p.weight): (p, *p.folded) for p in pairs}
        self._last: tuple[Tensor, Tensor | None] | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, or what stands for it."""
        kwargs = kwargs or {}
        if pads_nothing(func, args, kwargs):
            return args[0]
        if func is F.batch_norm and self._last is not None:
            norm, (out, mean) = Norm(*args, **kwargs), self._last
            if norm.input is out and norm.running_mean is mean and not norm.training:
                self._last = None
                return out
        if func not in WEIGHTED or len(args) < 2:
            return lighter(func, args, kwargs)
        found = self._pairs.get(id(args[1]))
        bias = kwargs.pop("bias", None) if len(args) < 3 else args[2]
        if found is None:
            return convolved(func, args[0], args[1], bias, args[3:], kwargs, self._spare)
        pair, weight, bias = found
        out = convolved(func, args[0], weight, bias, args[3:], kwargs, self._spare)
        self._last = (out, pair.norm.running_mean)
        return out


class _Watch(TorchFunctionMode):
    """Which batch norms get the answer of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.pairs: list[Pair] = []
        self._calls: list[tuple[Tensor, Any, Any, Any]] = []  # answers stay, so that no other has their place

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if func in WEIGHTED and len(args) > 1:
            self._calls.append((out, func, args, kwargs))
        elif func is F.batch_norm:
            self._meet(Norm(*args, **kwargs))
        return out

    def once(self) -> list[Pair]:
        """Pairs whose weights and whose statistics are used in one call."""
        weights = [id(args[1]) for _, _, args, _ in self._calls]
        means = [id(p.norm.running_mean) for p in self.pairs]
        return [p for p in self.pairs if weights.count(id(p.weight)) == 1 and means.count(id(p.norm.running_mean)) == 1]

    def _meet(self, norm: Norm) -> None:
        if norm.training or norm.running_mean is None or norm.running_var is None:
            return
        for out, func, args, kwargs in self._calls:
            if out is norm.input:
                bias = args[2] if len(args) > 2 else kwargs.get("bias")
                groups = kwargs.get("groups", args[6] if len(args) > 6 else 1)
                bare = norm._replace(input=norm.running_mean)
                self.pairs.append(Pair(args[1], bias, bare, func in TRANSPOSED, groups))


# a network that cannot be folded is looked at again each time: that takes two passes of a tiny picture
_found: WeakKeyDictionary[nn.Module, list[Pair] | None] = WeakKeyDictionary()


@contextmanager
def lean(model: SegmentationModel, *keep: nn.Module, spare: float = inf) -> Iterator[None]:
    """Memory kept between layers and batch norms folded, for whoever calls the network in this thread.

    Where the network would answer differently it is left as it is.

    Args:
        model: its weights may change between two uses.
        keep: layers whose answer somebody wants to see: what lies across their border is left as it is.
        spare: bytes of freed memory that a pass back and forth may keep; beyond, it is given back to the system.
    """
    pairs = remembered(model.module, "pairs", lambda: _pairs(model))
    free = [p for p in pairs or () if all(_apart(p, layer) for layer in keep)]
    with kept_memory(model), nullcontext() if pairs is None else Folded(free, spare):
        yield


def _pairs(model: SegmentationModel) -> list[Pair] | None:
    spec = model.spec
    if spec.size is not None or spec.batch is not None:
        return None  # graphs of one size are closed
    known = _found.get(model.module)
    if known is None or len(_own(known, model.module)) < len(known):
        known = _found[model.module] = _look(model)
    return known


def _look(model: SegmentationModel) -> list[Pair] | None:
    """Pairs, if the network with all of them folded answers as it does without; else ``None``."""
    spec = model.spec
    sides = (max(2 * spec.divisor, spec.min_size, SIDE),) * spec.ndim
    x = torch.randn(1, len(spec.channels), *sides, generator=torch.Generator().manual_seed(0)).to(model.device)
    try:
        with quiet(model.module), torch.inference_mode():
            with _Watch() as watch:
                there = pick_output(model.module(x), spec, ndim=x.ndim)
            pairs = _own(watch.once(), model.module)
            with Folded(pairs):
                here = pick_output(model.module(x), spec, ndim=x.ndim)
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError):
        return None  # networks may refuse a picture this small
    same = here.shape == there.shape and float((here - there).abs().max()) <= ALIKE * float(there.abs().max())
    return pairs if same else None


def _own(pairs: list[Pair], module: nn.Module) -> list[Pair]:
    """Pairs of tensors that the network holds, and does not make anew for each call."""
    held = {id(t) for t in (*module.parameters(), *module.buffers())}
    return [p for p in pairs if {id(p.weight), id(p.norm.running_mean), id(p.norm.running_var)} <= held]


def _apart(pair: Pair, layer: nn.Module) -> bool:
    inside = {id(p) for p in layer.parameters()}
    return id(pair.weight) not in inside or id(pair.norm.running_mean) in {id(b) for b in layer.buffers()}


def _state(t: Tensor | None) -> tuple[int, int] | None:
    if t is None:
        return None
    return (t.data_ptr(), 0 if t.is_inference() else t._version)
