"""What is written down of a network's run: operations, what they read and answered, and how to go back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from seglens.core.errors import NoRule
from seglens.engine.fast import blank
from seglens.engine.rules.cells import Cell

Thing = TypeVar("Thing")


def names(text: str) -> frozenset[str]:
    """Names of operations, written with spaces between them."""
    return frozenset(text.split())


@dataclass(eq=False, slots=True)
class Slot:
    """A tensor among the arguments or answers of an operation.

    Args:
        cell: where it lies; ``None`` if nothing in it comes from the network's input.
        value: the tensor, if the rule needs it.
    """

    cell: Cell | None
    value: Tensor | None

    def tensor(self) -> Tensor:
        """Its value; if that was not kept, any tensor of the same kind, for rules that look at shapes only."""
        if self.value is not None:
            return self.value
        assert self.cell is not None  # what does not come from the input is always kept
        return blank(self.cell.size, self.cell.stride, self.cell.dtype, self.cell.device)


@dataclass(frozen=True)
class Rule:
    """How one operation hands on what comes back.

    Args:
        name: as reports show it.
        back: (step, what came to each answer) to pairs of an input and what is handed on to it.
        inputs: whether it needs the values that the operation read.
        answers: the numbers of the answers whose values it needs.
        kept: in what form it needs them; :func:`signs`, say, takes a quarter of the memory.
    """

    name: str
    back: Callable[[Step, Sequence[Tensor | None]], list[tuple[Slot, Tensor]]]
    inputs: bool = False
    answers: tuple[int, ...] = ()
    kept: Callable[[Tensor], Tensor] = lambda t: t


def signs(t: Tensor) -> Tensor:
    """1 where a rectifier's answer is above zero, else 0; a byte a value."""
    return t.bool().view(torch.uint8)


def places(t: Tensor) -> Tensor:
    """Where the largest values were, in 32 bits: more pixels than these can number are refused before."""
    return t.to(torch.int32)


@dataclass(eq=False, slots=True)
class Step:
    """One operation that was met.

    Args:
        name: of the operation, in its form that writes nothing in place.
        args, kwargs: as they were given, with a :class:`Slot` for each tensor.
        layer: the module in which it ran, and ``call``, a number of that module's run.
        rule: how to go back; ``None``: there is none.
        answers: what it returned, flattened.
        tags: what is known of the answer, for later rules.
        twin: the same operation in another run of the network.
        affine: what a later normalisation does to its answer: factor and shift; see :func:`fold`.
        folded: whether this normalisation counts as part of the operation before it.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    layer: str = ""
    call: int = 0
    rule: Rule | None = None
    answers: tuple[Slot, ...] = ()
    tags: tuple[str, ...] = ()
    twin: Step | None = None
    affine: Step | None = None
    folded: bool = False
    _slots: list[Slot] | None = field(default=None, init=False)

    @property
    def slots(self) -> list[Slot]:
        """The tensors among the arguments."""
        if self._slots is None:
            self._slots = all_of(Slot, (self.args, tuple(self.kwargs.values())))
        return self._slots

    @property
    def reads(self) -> list[Slot]:
        """The arguments that come from the input."""
        return [s for s in self.slots if s.cell is not None]

    @property
    def constants(self) -> list[Slot]:
        """The arguments that do not."""
        return [s for s in self.slots if s.cell is None]

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The operation on other arguments, writing nothing in place."""
        packet = getattr(torch.ops.aten, self.name, None)
        if packet is None:
            space, _, name = self.name.partition(".")
            packet = getattr(getattr(torch.ops, space), name)
        return packet(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class Mark:
    """The moment at which a named layer answered."""

    layer: str
    call: int
    cell: Cell


def all_of(kind: type[Thing], things: Any) -> list[Thing]:
    """All of a kind in nested tuples and lists."""
    if isinstance(things, kind):
        return [things]
    found: list[Thing] = []
    if isinstance(things, (tuple, list)):
        for thing in things:
            if isinstance(thing, kind):
                found.append(thing)
            elif isinstance(thing, (tuple, list)):
                found += all_of(kind, thing)
    return found


def no_rule(name: str, layer: str) -> NoRule:
    """The refusal of an operation, by name."""
    where = f" (in {layer})" if layer else ""
    return NoRule(
        f"The network uses the operation {name}{where}, which has no rule here.",
        fix="Replace it by operations that have one, or choose a method that needs no rules, such as vanilla-gradient, "
        "integrated-gradients or occlusion.",
    )
