"""What a network computes, written down operation by operation, so that a part of an answer can be computed alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from seglens.engine.fast import Watching

# what is the same values again, in the same shape
SAME = (
    "alias", "alpha_dropout", "clone", "contiguous", "detach", "dropout", "expand", "expand_as",
    "feature_alpha_dropout", "feature_dropout", "flatten", "lift_fresh", "native_dropout", "narrow", "reshape",
    "reshape_as", "slice", "to",
    "_to_copy", "type_as", "unsafe_chunk", "view", "view_as", "_unsafe_view",
)  # fmt: skip
# what only looks at shape and kind
SHAPE_ONLY = (
    "empty_like", "full_like", "new_empty", "new_full", "new_ones", "new_zeros", "ones_like", "rand_like", "randn_like",
    "zeros_like",
)  # fmt: skip
DECIDES = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


@dataclass(frozen=True)
class Value:
    """A tensor that depends on the input, by its number; 0 is the input."""

    number: int


@dataclass(frozen=True)
class Step:
    """One operation, as if nothing worked in place.

    Args:
        func: the operation of PyTorch.
        name: its name.
        call: all of its arguments by name; tensors that depend on the input are :class:`Value`.
        inputs: the values among them.
        item: which of several answers this is.
        out: the value that it makes.
    """

    func: Any
    name: str
    call: dict[str, Any]
    inputs: tuple[int, ...]
    item: int
    out: int

    def __call__(self, tensors: dict[int, Tensor], **changed: Any) -> Tensor:
        """Do it with these tensors as the values, and with some arguments changed."""

        def told(a: Any) -> Any:
            return tensors[a.number] if isinstance(a, Value) else a

        schema = self.func._schema.arguments
        call = {k: tree_map(told, v) for k, v in (self.call | changed).items()}
        placed = [call[a.name] for a in schema if not a.kwarg_only]
        answer = self.func(*placed, **{a.name: call[a.name] for a in schema if a.kwarg_only})
        return answer if isinstance(answer, Tensor) else answer[self.item]


@dataclass(frozen=True)
class Trace:
    """The operations that lead from the input to the answer, in order.

    Args:
        shapes: of every value.
        steps: the operations.
        out: the value that is the answer.
    """

    shapes: tuple[tuple[int, ...], ...]
    steps: tuple[Step, ...]
    out: int


class Tracer(Watching):
    """A mode under which a network runs as ever, once, while its operations are written down.

    Args:
        x: the network's input.
    """

    def __init__(self, x: Tensor) -> None:
        """Nothing seen yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._number: Any = WeakIdKeyDictionary()  # of living tensors; None: lost
        self._number[x] = 0
        self._shapes = [tuple(x.shape)]
        self._kinds = [x.dtype]
        self._steps: list[Step] = []
        self._broken = False

    def trace(self, out: Tensor) -> Trace | None:
        """What led to ``out``; ``None`` if that cannot be told, or if it does not depend on the input."""
        number = self._number.get(out)
        if self._broken or number is None:
            return None
        needed, steps = {number}, []
        for step in reversed(self._steps):
            if step.out in needed:
                needed.update(step.inputs)
                steps.append(step)
        return Trace(tuple(self._shapes), tuple(reversed(steps)), number)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do it and write it down, if it has to do with the input."""
        kwargs = kwargs or {}
        inputs = [t for t in _tensors((args, kwargs)) if t in self._number]
        if self._broken or not inputs:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        call = {a.name: a.default_value for a in func._schema.arguments if a.has_default_value()}
        call |= dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        numbers = [self._number[t] for t in inputs]
        call = {k: tree_map(self._told, v) for k, v in call.items()}
        written = _written(func, args, kwargs)
        out = func(*args, **kwargs)
        outs = _tensors(out)
        if None in numbers or any(tag in func.tags for tag in DECIDES) or len(outs) != len(tree_leaves(out)):
            # a value that was lost, or a decision by value: another image may take another way
            self._broken = True
        elif name in SHAPE_ONLY:
            return out
        elif written:
            self._rewritten(func, name, call, tuple(numbers), written, outs)
        elif self._is_same(name, call, numbers, outs):
            self._number[outs[0]] = numbers[0]
        else:
            for item, one in enumerate(outs):
                self._number[one] = self._add(func, name, call, tuple(numbers), item, one)
        return out

    def _told(self, a: Any) -> Any:
        return Value(self._number[a]) if isinstance(a, Tensor) and a in self._number else a

    def _add(self, func: Any, name: str, call: dict[str, Any], inputs: tuple[int, ...], item: int, out: Tensor) -> int:
        self._shapes.append(tuple(out.shape))
        self._kinds.append(out.dtype)
        self._steps.append(Step(func, name, call, inputs, item, len(self._shapes) - 1))
        return len(self._shapes) - 1

    def _is_same(self, name: str, call: dict[str, Any], numbers: list[int], outs: list[Tensor]) -> bool:
        if name not in SAME or len(outs) != 1 or call.get("train"):
            return False
        before = numbers[0]
        return self._shapes[before] == tuple(outs[0].shape) and self._kinds[before] == outs[0].dtype

    def _rewritten(
        self,
        func: Any,
        name: str,
        call: dict[str, Any],
        inputs: tuple[int, ...],
        written: list[Tensor],
        outs: list[Tensor],
    ) -> None:
        """Whoever holds the tensor, or an alias of it, holds the new value from now on."""
        pure = _pure(func, name)
        t = written[0]
        if pure is None or len(written) != 1 or [id(o) for o in outs] != [id(t)] or t not in self._number:
            self._broken = True
            return
        new = self._add(pure, name.removesuffix("_"), call, inputs, 0, t)
        storage = t.untyped_storage().data_ptr()
        for other in list(self._number):
            if other.untyped_storage().data_ptr() == storage:
                # what shows only a part has changed as well, in a way that is not followed
                self._number[other] = new if _place(other) == _place(t) else None


def _pure(func: Any, name: str) -> Callable[..., Any] | None:
    """The same operation, not in place."""
    packet = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    found = getattr(packet, func._overloadname, None)
    return found if found is not None and not found._schema.is_mutable else None


def _place(t: Tensor) -> tuple[Any, ...]:
    return t.storage_offset(), tuple(t.shape), t.stride()


def _tensors(thing: Any) -> list[Tensor]:
    return [t for t in tree_leaves(thing) if isinstance(t, Tensor)]


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation writes into."""
    if not func._schema.is_mutable:
        return []
    found = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += _tensors(args[place] if place < len(args) else kwargs.get(argument.name))
    return found
