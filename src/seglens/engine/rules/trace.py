"""Rules asked about a case: the network is recorded on the part of the image that matters, and gone back through."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seglens.core.boxes import Box, at_box, whole
from seglens.core.errors import MissingNeed
from seglens.core.explanation import Table
from seglens.engine import fast
from seglens.engine.gradients import guarded
from seglens.engine.rules.cells import Memory
from seglens.engine.rules.moves import Came, Gave
from seglens.engine.rules.relevance import Relevance
from seglens.engine.rules.rescale import Rescale, pair
from seglens.engine.rules.steps import Mark, Step
from seglens.engine.rules.tape import Rules, Tape
from seglens.engine.target import FrozenTarget
from seglens.models.device import fine, fine_sum

if TYPE_CHECKING:
    from seglens.engine.case import Case

OUTSIDE = "around the network"


@dataclass
class Row:
    """What a layer was given and what it handed on.

    Args:
        layer: its name, and how often it had run; an operation between the layers stands by itself.
        operations: what ran in it, and the rules.
        came, gave: sums over all answers and all inputs, per operation.
    """

    layer: str
    operations: list[str] = field(default_factory=list)
    came: list[Tensor] = field(default_factory=list)
    gave: list[Tensor] = field(default_factory=list)

    @property
    def leak(self) -> float:
        """What biases, constants and ε have absorbed."""
        return float(sum(self.came) - sum(self.gave))


@dataclass(frozen=True, eq=False)
class Flow:
    """What has come back to the input.

    Args:
        values: (N, C, *space) of the whole image; zero outside the field.
        start: the sum of what went in at the end of the network.
        rows: layer by layer, in the order in which they ran; empty if nobody asked.
        constants: what came to memory that holds nothing of the input.
    """

    values: Tensor
    start: float
    rows: tuple[Row, ...] = ()
    constants: float = 0.0

    @property
    def total(self) -> float:
        """The sum over the input."""
        return float(fine_sum(self.values))

    @property
    def kept(self) -> float:
        """The share of the start that has come to the input; 0 if nothing started."""
        return self.total / self.start if self.start else 0.0

    def table(self, name: str = "conservation") -> Table:
        """Layer by layer: what came to its answer, what it handed on, what it absorbed, and what is left of the start.

        Layers beside each other (skip connections) share the relevance, so that no column needs to be constant; the
        last one counts all that is under way at that depth.
        """
        leaks = [row.leak for row in self.rows]
        under_way = [self.start - sum(leaks[i:]) for i in range(len(leaks))]
        return Table(
            name,
            {
                "layer": [row.layer for row in self.rows],
                "operations": [", ".join(dict.fromkeys(reversed(row.operations))) for row in self.rows],
                "came": [float(row.came[0]) for row in self.rows],
                "handed on": [float(row.gave[-1]) for row in self.rows],
                "absorbed": leaks,
                "under way": under_way,
            },
        )


class Trace:
    """A record of a case's network under some rules, to go back through as often as wanted.

    Args:
        case: the question; the model runs on its field alone, where that is exact.
        rules: how to go back.
        x: input (N, C, *space); the clean one by default.

    Raises:
        NoRule: something was computed that torch does not tell of.
        OutOfMemory, Cancelled: as everywhere.
    """

    def __init__(self, case: Case, rules: Rules, x: Tensor | None = None, *, box: Box | None = None) -> None:
        """Run the network once."""
        self.case, self.rules = case, rules
        self.x = case.x if x is None else x
        opens = x is None and box is None and case.clean.opens
        self.box = box or (whole(case.shape) if opens else case.cheap_field)
        self._model = case.model.within(self.box, case.shape)
        self._scored = isinstance(rules, Rescale)
        self.tape, self._own = Tape(rules, case.run), 0
        out = self._record(self.tape, self.x, opens=opens)
        self.logits = None if self._scored else out
        if opens and not self._scored:
            case.clean.see(out)
        if self.x[at_box(self.box)].shape != self.x.shape:
            case.run.engine["crop"] = [[s.start, s.stop] for s in self.box]

    @property
    def target(self) -> FrozenTarget:
        """The case's, as it is asked of the logits of the box."""
        return self.case.target.within(self.box)

    def compare(self, baseline: Tensor) -> float:
        """Record the network on a baseline (N, C, *space) beside, as DeepLift needs it; see :func:`pair`.

        Returns:
            The target's number on the baseline.
        """
        beside = Tape(self.rules, self.case.run)
        score = self._record(beside, baseline, named=False)
        pair(self.tape, beside, self._own)
        return float(score.mean())

    def start(self) -> Tensor:
        """What goes in at the end: the target's derivative at each logit, for relevance times the logit.

        For a target that reads the logits themselves, relevance sums up to the target's number.
        """
        if self.logits is None:
            return torch.ones(len(self.x), device=self.x.device, dtype=self.x.dtype)
        leaf = self.logits.detach().clone().requires_grad_(True)
        with torch.enable_grad():
            total = self.target(leaf).sum()
            (gradient,) = torch.autograd.grad(total, leaf)
        return gradient * leaf.detach() if isinstance(self.rules, Relevance) else gradient

    def back(self, start: Tensor | None = None, *, rows: bool = False) -> Flow:
        """Go back to the input.

        Args:
            start: what goes in at the end, in the shape of the answer; :meth:`start` by default.
            rows: report layer by layer.

        Raises:
            NoRule: something came to an operation that has no rule.
        """
        return self._gone(self._entered(start), None, rows)

    def at(self, layer: str, start: Tensor | None = None) -> Tensor:
        """What comes back to a layer's last answer, (N, K, *s) of the field; zeros if nothing does.

        Raises:
            NoRule: something came to an operation that has no rule.
            MissingNeed: the layer answers nothing that comes from the input.
        """
        number, mark = self._mark(layer)
        with guarded(self.case.model), fast.kept_memory(self.case.model), torch.no_grad():
            came = self.tape.back(self._entered(start), after=number).peek(mark.cell)
        self.case.run.cost.backwards += len(self.x)
        return mark.cell.empty().zero_() if came is None else came.clone()

    def below(self, layer: str, came: Tensor, *, rows: bool = False) -> Flow:
        """Go back to the input from a layer's last answer, where ``came`` (N, K, *s) has come; all else is left out."""
        number, mark = self._mark(layer)
        memory = Memory()
        memory.add(mark.cell, came)
        return self._gone(memory, number, rows)

    def _gone(self, memory: Memory, before: int | None, rows: bool) -> Flow:
        book = _Book(self.tape) if rows else None
        start = memory.total()
        with guarded(self.case.model), fast.kept_memory(self.case.model), torch.no_grad():
            self.tape.back(memory, before=before, seen=None if book is None else book.write)
        self.case.run.cost.backwards += len(self.x)
        assert self.tape.source is not None
        values = torch.zeros_like(self.x)
        came = memory.take(self.tape.source)
        if came is not None:
            values[at_box(self.box)] = came.to(values)
        return Flow(values, start, () if book is None else book.rows(), memory.total())

    def at_image(self, values: Tensor) -> Tensor:
        """A layer's map (1, 1, *s) at image size (*space); zero outside the field."""
        sizes = tuple(s.stop - s.start for s in self.box)
        mode = "bilinear" if len(sizes) == 2 else "trilinear"
        full = F.interpolate(values.float(), self._model.padded(sizes), mode=mode, align_corners=False)[0, 0]
        out = full.new_zeros(self.case.shape)
        out[self.box] = full[tuple(slice(0, n) for n in sizes)]
        return out

    def _record(self, tape: Tape, x: Tensor, *, opens: bool = False, named: bool = True) -> Tensor:
        model, run = self._model, self.case.run
        part = fast.arranged(x[at_box(self.box)].detach().clone())
        layers: nn.Module | None = model.module if named and model.layered else None

        def scored(x: Tensor) -> Tensor:
            logits = model.logits(x)
            self._own = sum(isinstance(s, Step) for s in tape.steps)
            return self.case.clean.score(logits) if opens else self.target(logits)

        run.check()
        with guarded(self.case.model), fast.kept_memory(self.case.model):
            out = tape.record(scored if self._scored else model.logits, part, layers)
        run.cost.forwards += len(x)
        return out

    def _entered(self, start: Tensor | None) -> Memory:
        memory = Memory()
        assert self.tape.answer is not None
        memory.add(self.tape.answer, self.start() if start is None else start)
        return memory

    def _mark(self, layer: str) -> tuple[int, Mark]:
        found = [(n, s) for n, s in enumerate(self.tape.steps) if isinstance(s, Mark) and s.layer == layer]
        if not found:
            raise MissingNeed(
                f"Nothing of the image comes to the layer {layer}, or it returns no tensor.",
                fix="Choose another layer.",
            )
        return found[-1]


class _Book:
    """Sums of what comes to layers and goes on."""

    def __init__(self, tape: Tape) -> None:
        self._rows: dict[tuple[str, int, int], Row] = {}
        self._leaves = tape.leaves
        self._twice = {s.layer for s in tape.steps if isinstance(s, Step) and s.call > 1}

    def write(self, step: Step, came: Came, gave: Gave) -> None:
        """Called for each operation, from the last to the first."""
        leaf = step.layer in self._leaves
        key = (step.layer, step.call, -1 if leaf else len(self._rows))
        if key not in self._rows:
            self._rows[key] = Row(self._name(step, leaf))
        row = self._rows[key]
        rule = "folded" if step.folded else "" if step.rule is None else step.rule.name
        row.operations.append(f"{step.name} ({rule})")
        row.came.append(_sum([c for c in came if c is not None]))
        row.gave.append(_sum([values for slot, values in gave if slot.cell is not None]))

    def rows(self) -> tuple[Row, ...]:
        """From the first layer to the last."""
        return tuple(self._rows.values())[::-1]

    def _name(self, step: Step, leaf: bool) -> str:
        name = (step.layer or OUTSIDE) + (f" ({step.call})" if step.layer in self._twice else "")
        return name if leaf else f"{name}: {step.name}"


def _sum(values: list[Tensor]) -> Tensor:
    return torch.stack([fine(v.sum()) for v in values]).sum() if values else torch.zeros(())
