"""A record of the operations of a network, and the way back through them, each by its own rule.

Every operation is met where torch dispatches it, whatever the network is made of: modules, functions, TorchScript,
exported graphs; nothing in the network is changed. What an operation read and wrote is kept as places in memory
(:mod:`seglens.engine.rules.cells`), so that views, in-place operations and layers that are used twice need no care.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from math import inf
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from seglens.core.errors import NoRule
from seglens.core.run import Run
from seglens.engine.fast import Watching, give_back, spare
from seglens.engine.lighter import pads_nothing
from seglens.engine.rules.cells import Cell, Memory
from seglens.engine.rules.steps import Mark, Rule, Slot, Step, all_of, names, no_rule

# Operations that read nothing but a tensor's shape.
SHAPES = names(
    "empty_like zeros_like ones_like full_like rand_like randn_like randint_like new_empty new_empty_strided "
    "new_zeros new_ones new_full bernoulli sym_size sym_stride sym_numel"
)
EMPTY = frozenset(["empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"])
WHOLE = "network"  # the name of a module that is no part of another
BLIND = names("set_ set_data resize_ resize_as_ _resize_output_ swap_ view_as_complex view_as_real")


class Rules(Protocol):
    """A choice of rules."""

    def choose(self, step: Step, tape: Tape) -> Rule | None:
        """The rule of an operation, asked while the network runs; ``None`` refuses it if anything comes back to it."""

    def finish(self, tape: Tape) -> None:
        """Look at the whole record once, before anything goes back."""


@dataclass(eq=False)
class Tape:
    """The operations of one run of a network through which the input goes.

    Args:
        rules: what is kept, and how to go back.
        run: cancel; asked at every operation.
    """

    rules: Rules
    run: Run
    steps: list[Step | Mark] = field(default_factory=list)
    declared: set[str] = field(default_factory=set)
    writes: Counter[int] = field(default_factory=Counter)
    uses: Counter[int] = field(default_factory=Counter)
    tags: dict[str, set[int]] = field(default_factory=dict)
    leaves: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        """Nothing recorded yet."""
        self._reached: set[int] = set()
        self._unwritten: set[int] = set()
        self._kept: dict[int, list[Slot]] = {}
        self._alive: dict[int, StorageWeakRef] = {}
        self._inside: list[tuple[str, int]] = [("", 0)]
        self._spare = inf
        self._calls: Counter[str] = Counter()
        self._left: tuple[Tensor | None, Cell | None] = (None, None)  # the last layer's answer
        self.source: Cell | None = None
        self.answer: Cell | None = None

    def record(self, network: Callable[[Tensor], Tensor], x: Tensor, layers: nn.Module | None = None) -> Tensor:
        """Run the network on an input that it may overwrite, and record it.

        Args:
            network: any function of torch operations.
            x: its input.
            layers: a module whose parts give operations their names; its own hooks stay, ours are gone afterwards.

        Raises:
            NoRule: something was computed that torch does not tell of.
            Cancelled: within one operation of the request.
        """
        self.source, self._spare = Cell.of(x), spare(x, self.run)
        self.reach(x)
        self.tags["input"] = {_store(x)}
        with torch.no_grad(), _Plain(), _named(layers, self), _Seeing(self):
            out = network(x)
        self._left = (None, None)
        self.answer = Cell.of(out)
        self.rules.finish(self)
        return out

    def tagged(self, tag: str, cell: Cell) -> bool:
        """Whether a tensor lies where something was tagged."""
        return cell.store in self.tags.get(tag, ())

    def reach(self, t: Tensor) -> None:
        """From here on this memory holds something of the input."""
        store = _store(t)
        if store not in self._alive:
            self._hold(t)
        self._reached.add(store)

    def reached(self, t: Tensor) -> bool:
        """Whether anything of the input is in a tensor."""
        return (t.is_floating_point() or t.is_complex()) and _store(t) in self._reached

    def see(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation and write it down."""
        self.run.check()
        kind = _kind(func)
        tensors = all_of(Tensor, (args, tuple(kwargs.values())) if kwargs else args)
        written = _written(kind, args, kwargs) if kind.writes else []
        if self._unwritten and not kind.shapes:
            self._refuse_unseen(kind.name, tensors, written)
        if kind.shapes or not any(map(self.reached, tensors)):
            return self._constant(kind.name, func, args, kwargs, written)
        if kind.blind:
            raise no_rule(kind.name, self._inside[-1][0])
        if kind.view:
            return func(*args, **kwargs)
        step = self._step(kind.name, args, kwargs, written)
        give_back(self._spare)
        out = func(*args, **kwargs)
        made = all_of(Tensor, out)
        if not written and {_store(t) for t in made} <= {_store(t) for t in tensors}:
            return out  # a view that does not say so
        self._finish(step, made if kind.new else written)
        return out

    def enter(self, name: str, *_: Any) -> None:
        """A module begins."""
        self._calls[name] += 1
        self._inside.append((name, self._calls[name]))

    def leave(self, name: str, _: Any, __: Any, out: Any) -> None:
        """A module ends."""
        _, call = self._inside.pop()
        if not isinstance(out, Tensor):
            return
        if out is not self._left[0]:  # what holds a layer answers what that has answered
            self._left = (out, Cell.of(out) if self.reached(out) else None)
        if self._left[1] is not None:
            self.steps.append(Mark(name, call, self._left[1]))

    def back(
        self,
        memory: Memory,
        *,
        before: int | None = None,
        after: int = -1,
        seen: Callable[[Step, Sequence[Tensor | None], list[tuple[Slot, Tensor]]], None] | None = None,
    ) -> Memory:
        """Go back through all operations, or those between two numbers.

        Args:
            memory: what comes back, at the end: where the network answered, say.
            before, after: numbers in :attr:`steps`; what lies between them is gone through.
            seen: told what came to an operation and what it handed on.

        Returns:
            The same memory: what has come to the input lies at :attr:`source`, the rest has come to constants.

        Raises:
            NoRule: something came back to an operation that has no rule.
            Cancelled: within one operation of the request.
        """
        for number in range(len(self.steps) if before is None else before, after + 1, -1):
            step = self.steps[number - 1]
            self.run.check()
            if isinstance(step, Mark):
                continue
            came = [None if a.cell is None else memory.take(a.cell) for a in step.answers]
            if all(c is None for c in came):
                continue
            if step.rule is None:
                raise no_rule(step.name, step.layer)
            give_back(self._spare)
            gave = step.rule.back(step, came)
            for slot, values in gave:
                if slot.cell is not None:
                    memory.add(slot.cell, values)
            if seen is not None:
                seen(step, came, gave)
        return memory

    def _constant(self, name: str, func: Any, args: Any, kwargs: Any, written: list[Tensor]) -> Any:
        self._preserve(written)
        out = func(*args, **kwargs)
        for t in written:
            self._unwritten.discard(_store(t))
        if name in EMPTY and out.numel():
            self._hold(out)
            self._unwritten.add(_store(out))
        return out

    def _refuse_unseen(self, name: str, tensors: list[Tensor], written: list[Tensor]) -> None:
        filled = {_store(t) for t in written}
        if any(_store(t) in self._unwritten and _store(t) not in filled for t in tensors if t.numel()):
            raise NoRule(
                f"Something inside {self._inside[-1][0] or 'the network'} is computed where torch does not tell of it "
                f"(before {name}), so it cannot be followed back.",
                fix="Explain this network with methods that need no rules: vanilla-gradient, occlusion.",
            )

    def _step(self, name: str, args: Any, kwargs: Any, written: list[Tensor]) -> Step:
        """The step before its operation runs, with what its rule needs."""
        layer, call = self._inside[-1]
        self._left = (None, None)
        given = {key: self._slotted(value) for key, value in kwargs.items()}
        step = Step(name, self._slotted(args), given, layer, call)
        step.rule = self.rules.choose(step, self)
        changed = {_store(t) for t in written}
        for slot in step.slots:
            if slot.cell is not None:
                self.uses[slot.cell.store] += 1
            if slot.value is None:
                continue
            if slot.cell is not None and (step.rule is None or not step.rule.inputs):
                slot.value = None
            elif _store(slot.value) in changed:
                slot.value = slot.value.clone()
        self._preserve(written)
        return step

    def _finish(self, step: Step, answers: list[Tensor]) -> None:
        keep, form = ((), _as_it_is) if step.rule is None else (step.rule.answers, step.rule.kept)
        outs = []
        for number, t in enumerate(answers):
            if t.is_complex():
                step.rule = None  # no rule knows what complex numbers owe to what
            elif not t.is_floating_point():
                outs.append(Slot(None, form(t)))
                continue
            self.reach(t)
            cell = Cell.of(t)
            self.writes[cell.store] += 1
            self._unwritten.discard(cell.store)
            for tag in step.tags:
                self.tags.setdefault(tag, set()).add(cell.store)
            outs.append(Slot(cell, form(t) if number in keep else None))
        step.answers = tuple(outs)
        for slot in (*step.slots, *step.answers):
            if slot.value is not None:
                self._kept.setdefault(_store(slot.value), []).append(slot)
        self.steps.append(step)

    def _slotted(self, thing: Any) -> Any:
        """The same with a slot for each tensor."""
        if isinstance(thing, Tensor):
            return Slot(Cell.of(thing) if self.reached(thing) else None, thing)
        if isinstance(thing, (tuple, list)) and any(isinstance(t, (Tensor, tuple, list)) for t in thing):
            return type(thing)([self._slotted(t) for t in thing])
        return thing

    def _hold(self, t: Tensor) -> None:
        """See that the number of its memory is not given away again; the memory itself may go."""
        self._alive[_store(t)] = StorageWeakRef(t.untyped_storage())  # type: ignore[no-untyped-call]

    def _preserve(self, written: list[Tensor]) -> None:
        """Keep what rules need before it is overwritten."""
        for t in written:
            for slot in self._kept.pop(_store(t), ()):
                slot.value = None if slot.value is None else slot.value.clone()


class _Seeing(Watching):
    """The mode that meets every operation."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tape = tape

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._tape.see(func, args, kwargs or {})


class _Plain(TorchFunctionMode):
    """While it is there, torch's attention takes no fast path of one closed operation; a pad by nothing is left out."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        return args[0] if pads_nothing(func, args, kwargs) else func(*args, **kwargs)


@contextmanager
def _named(module: nn.Module | None, tape: Tape) -> Iterator[None]:
    """Tell the tape which named part of a module is at work; the hooks are gone afterwards."""
    handles = []
    try:
        for name, part in () if module is None else module.named_modules():
            if not part._modules:
                tape.leaves.add(name)
            handles.append(part.register_forward_pre_hook(partial(tape.enter, name or WHOLE)))
            handles.append(part.register_forward_hook(partial(tape.leave, name or WHOLE)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _as_it_is(t: Tensor) -> Tensor:
    return t


def _store(t: Tensor) -> int:
    return t.untyped_storage()._cdata  # type: ignore[no-any-return]


@cache
def _name(func: Any) -> str:
    """The operation's name, ``relu`` for ``aten::relu_``; those of other libraries with their library."""
    space, _, name = func._schema.name.partition("::")
    if func._schema.is_mutable and name.endswith("_") and not name.endswith("__") and name not in BLIND:
        name = name[:-1]
    return str(name if space == "aten" else f"{space}.{name}")


class _Kind(NamedTuple):
    """What is known of an operation whatever its arguments."""

    name: str
    shapes: bool
    blind: bool
    view: bool
    new: bool
    writes: tuple[tuple[int, str], ...]


@cache
def _kind(func: Any) -> _Kind:
    name, schema = _name(func), func._schema
    writes = [(n, a.name) for n, a in enumerate(schema.arguments) if a.alias_info is not None and a.alias_info.is_write]
    return _Kind(
        name,
        shapes=name in SHAPES,
        blind=name in BLIND or (name == "view" and func._overloadname == "dtype"),
        view=any(r.alias_info is not None and not r.alias_info.is_write for r in schema.returns),
        new=any(r.alias_info is None for r in schema.returns),
        writes=tuple(writes) if schema.is_mutable else (),
    )


def _written(kind: _Kind, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operation writes into."""
    given = (args[place] if place < len(args) else kwargs.get(name) for place, name in kind.writes)
    return all_of(Tensor, tuple(given))
