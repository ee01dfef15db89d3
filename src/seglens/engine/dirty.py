"""Dirty rectangles: of every layer only the rectangle is computed again in which a window can have changed it.

The network's operations are written down once, and the clean image's answers are kept. A window changes a rectangle of
the input; operation by operation the rectangle grows as far as kernels reach and shrinks with every stride, and is cut
to what the targets can see. Windows whose rectangles have about one size go together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seglens.core.boxes import Box, around, at_box, common, moved
from seglens.engine import fast
from seglens.engine.dirty_patches import Corner, run
from seglens.engine.dirty_program import Along, Amount, Program
from seglens.engine.dirty_rules import Span
from seglens.engine.packing import Parts
from seglens.engine.perturb import Perturbations
from seglens.engine.plan import ALIKE, Plan, Scored
from seglens.models.device import finest, free_cache, room

if TYPE_CHECKING:
    from seglens.engine.evaluator import Evaluator

# rectangles of about one size: along one axis the largest costs at most so much more than the smallest
SLACKS = (1.02, 1.1, 1.25, 1.5, 2.0, 1e9)
BATCH, MANY = 8, 64  # for the estimate: windows that go together, whole passes of one size
SURE = 0.9  # of what whole passes cost: rectangles have to be cheaper by more than the estimate may be wrong
WEIGHT = 4  # a pixel of a rectangle counts for so many in a batch: small batches are as fast, and take less memory
RECORD = 0.4  # of the memory that is allowed, for the clean image's answers
GAPS = 0.3  # likewise, for what rectangles of other sizes leave behind
CHECKS = 4  # passes beside the windows: the clean image, and three that are compared
# What making a number, calling an operation, copying a patch and preparing an operation for a new size take, in
# multiplications of a convolution: measured on CPUs, for other devices a guess on the safe side.
PRICES = {"cpu": (100.0, 3e6, 1.5e6, 3e7), "cuda": (100.0, 1e8, 3e8, 1e8)}


class NotLocal(Exception):
    """Rectangles do not give what whole passes give."""


@dataclass(frozen=True)
class Group:
    """Windows whose rectangles have one size.

    Args:
        members: numbers of their copies.
        along: where they go, per axis.
        windows: per member its number along every axis.
    """

    members: tuple[int, ...]
    along: tuple[Along, ...]
    windows: tuple[Corner, ...]


@dataclass(frozen=True)
class Rectangles:
    """How windows are scored by rectangles.

    Args:
        program: the network's operations.
        groups: the windows.
        share: of the multiplications of a pass of the crop, for one window on average.
        cost: of all windows, in multiplications; what comes with them is counted in.
        whole: of one pass of the crop.
        pixels, peak: of the largest window: what it counts for in a batch, and bytes on its way.
        checks: passes of the crop that come on top.
    """

    program: Program
    groups: tuple[Group, ...]
    share: float
    cost: float
    whole: float
    pixels: int
    peak: int
    checks: int = CHECKS

    @property
    def passes(self) -> int:
        """Windows."""
        return sum(len(g.members) for g in self.groups)

    def until(self, done: int, size: int) -> int:
        """Where a batch of at most ``size`` windows ends that starts at ``done``: even parts of one group."""
        first = 0
        for group in self.groups:
            count = len(group.members)
            if first + count > done:
                parts = -(-count // size)
                return next(end for n in range(parts) if (end := first - (-count * (n + 1) // parts)) > done)
            first += count
        return first

    def at(self, start: int, stop: int) -> Iterator[tuple[Group, slice]]:
        """The groups of some windows."""
        first = 0
        for group in self.groups:
            low, high = max(0, start - first), min(len(group.members), stop - first)
            if low < high:
                yield group, slice(low, high)
            first += len(group.members)


def rectangles(program: Program, boxes: dict[int, Box], seen: Box, slack: float, device: str = "cpu") -> Rectangles:
    """Group windows.

    Args:
        program: the network on the crop.
        boxes: per copy what it changes, in the crop.
        seen: what the targets look at, in the crop.
        slack: windows go together if the largest costs at most so much more, along each axis.
        device: its kind.
    """
    dims = len(seen)
    classes: list[list[tuple[Along, dict[Span, int]]]] = []
    for axis in range(dims):
        spans = sorted({(b[axis].start, b[axis].stop) for b in boxes.values()})
        classes.append(_classes(program, axis, spans, (seen[axis].start, seen[axis].stop), slack))
    found: dict[tuple[int, ...], list[tuple[int, Corner]]] = {}
    where = [{span: n for n, (_, members) in enumerate(of) for span in members} for of in classes]
    for number, box in boxes.items():
        spans_of = [(s.start, s.stop) for s in box]
        key = tuple(w[s] for w, s in zip(where, spans_of, strict=True))
        corner = tuple(of[k][1][s] for of, k, s in zip(classes, key, spans_of, strict=True))
        found.setdefault(key, []).append((number, corner))
    groups, amounts = [], []
    # the largest group first: most of the image is seen early, and memory that runs out is found out early
    for key, members in sorted(found.items(), key=lambda item: -len(item[1])):
        along = tuple(of[k][0] for of, k in zip(classes, key, strict=True))
        groups.append(Group(tuple(n for n, _ in members), along, tuple(c for _, c in members)))
        amounts.append(program.amount(along))
    whole = program.amount()
    count = max(1, sum(len(g.members) for g in groups))
    work = sum(a.multiplications * len(g.members) for a, g in zip(amounts, groups, strict=True))
    out = program.trace.out
    return Rectangles(
        program,
        tuple(groups),
        work / count / max(1.0, whole.multiplications),
        sum(_cost(a, len(g.members), device) for a, g in zip(amounts, groups, strict=True)),
        _cost(whole, MANY, device) / MANY,
        WEIGHT * max((prod(a.lengths[out] for a in g.along) for g in groups), default=1) or 1,
        max((program.peak(g.along) for g in groups), default=1) or 1,
    )


def _cost(amount: Amount, copies: int, device: str) -> float:
    number, *others = PRICES.get(device, PRICES["cuda"])
    # several threads make convolutions faster, and hardly what comes with them
    call, patch, size = (price * (torch.get_num_threads() if device == "cpu" else 1) for price in others)
    one = amount.multiplications + number * amount.numbers + patch * amount.patches
    batches = -(-copies // BATCH)
    return one * copies + (call * batches + size * min(2, batches)) * amount.calls


def _classes(
    program: Program, axis: int, spans: Sequence[Span], seen: Span, slack: float
) -> list[tuple[Along, dict[Span, int]]]:
    """Spans that go together, as what they change along this axis is about as much."""
    wanted = program.wanted(axis, seen)
    full = [prod(program.sizes(v)) * program.trace.shapes[v][1] / program.sizes(v)[axis] for v in _values(program)]
    alone = {span: program.lengths(axis, span, seen) for span in spans}

    def size(lengths: Sequence[int]) -> float:
        return sum(lengths[v] * weight for v, weight in zip(_values(program), full, strict=True))

    made: list[list[Span]] = []
    largest: list[int] = []
    for span in sorted(spans, key=lambda s: -size(alone[s])):
        both = [max(a, b) for a, b in zip(largest, alone[span], strict=True)] if made else []
        if made and size(both) <= slack * size(alone[span]):
            made[-1].append(span)
            largest = both
        else:
            made.append([span])
            largest = list(alone[span])
    return [(program.along(axis, m, wanted), {span: n for n, span in enumerate(m)}) for m in made]


def _values(program: Program) -> list[int]:
    return [0, *(s.out for s in program.trace.steps)]


class Dirty:
    """Scores windows by the rectangles that they change."""

    def __init__(self, engine: Evaluator, perturbations: Perturbations, how: Plan, rectangles: Rectangles) -> None:
        """Keep what the network answers to the clean image."""
        self._engine, self._copies, self._how, self._plan = engine, perturbations, how, rectangles
        self._corner = tuple(s.start for s in how.crop)
        program = rectangles.program
        engine.run.cost.forwards += 1
        engine.run.cost.images += how.share
        self._clean = program.clean(fast.arranged(engine.x[at_box(how.crop)]))
        self._out = torch.cat([self._clean[v] for v in program.leaves(program.trace.out)], 1)
        self._parts, device = Parts(engine, how, self._out), self._out.device
        self._silent = engine.clean.to(device, finest(device))

    def check(self, clean: Tensor) -> None:
        """See that rectangles give what whole passes give, for noise in the first, the last and one of the windows.

        Args:
            clean: logits of the crop, of an ordinary pass.

        Raises:
            NotLocal: they do not.
        """
        limit = ALIKE * max(1e-12, float(clean.abs().max()))
        places = [(n, group, at) for group in self._plan.groups for at, n in enumerate(group.members)]
        largest = self._plan.groups[0]
        middle = (-1, largest, len(largest.members) // 2)
        # at the corners there are borders, and what pads an odd size
        tried = (min(places, key=lambda p: p[0]), max(places, key=lambda p: p[0]), middle)
        alike = float((self._out - clean).abs().max()) <= limit
        if not alike or not all(self._same(group, at, clean) <= limit for _, group, at in tried):
            raise NotLocal

    def _same(self, group: Group, number: int, clean: Tensor) -> float:
        """The largest difference from a whole pass, for noise in one window."""
        self._engine.run.check()
        at = slice(number, number + 1)
        box, _ = self._boxes(group, at, 0)
        here = at_box(moved(box[0], self._corner))
        x = self._engine.x[at_box(self._how.crop)].clone()
        noise = torch.randn(x[here].shape, generator=torch.Generator().manual_seed(0)).to(x)
        x[here] += noise * (self._engine.x.std() + 1e-3)
        truth = self._engine.run_on(x, self._how.crop)
        self._engine.run.cost.forwards += 1
        self._engine.run.cost.images += self._how.share
        answer = clean.clone()
        part = run(self._plan.program, x[here], self._clean, group.along, group.windows[at])
        if part is not None:
            boxes, _ = self._boxes(group, at, self._plan.program.trace.out)
            answer[at_box(moved(boxes[0], self._corner))] = part
        seen = at_box(moved(around([t.box for t in self._engine.targets]), self._corner))
        return float((answer - truth)[seen].abs().max())

    def score(self, start: int, stop: int) -> Scored:
        """Some of the windows."""
        index: list[int] = []
        scores: list[Tensor] = []
        for group, at in self._plan.at(start, stop):
            if at.start == 0:
                fast.give_back(GAPS * room(self._engine.model.device, self._engine.run))
            boxes, size = self._boxes(group, at, 0)
            fresh = [self._copies.within(b).batch(n, n + 1) for b, n in zip(boxes, group.members[at], strict=True)]
            part = run(self._plan.program, fast.arranged(torch.cat(fresh)), self._clean, group.along, group.windows[at])
            boxes, size = self._boxes(group, at, self._plan.program.trace.out)
            index += group.members[at]
            for number, box in enumerate(boxes):
                scores.append(
                    self._silent if part is None or not all(size) else self._parts.score(part[number : number + 1], box)
                )
        return Scored(torch.tensor(index), torch.stack(scores).cpu().double())

    def _boxes(self, group: Group, at: slice, value: int) -> tuple[list[Box], list[int]]:
        """Rectangles of a value that has the input's grid, in the image."""
        size = [a.lengths[value] for a in group.along]
        boxes = []
        for window in group.windows[at]:
            starts = [a.starts[value][n] + c for a, n, c in zip(group.along, window, self._corner, strict=True)]
            boxes.append(tuple(slice(s, s + n) for s, n in zip(starts, size, strict=True)))
        return boxes, size


def choose(engine: Evaluator, how: Plan, perturbations: Perturbations) -> Plan:
    """The plan, with rectangles if they are available, fit into the memory and cost less than its passes."""
    boxes = _inside(how, perturbations)
    program = engine.first(how.crop).program if boxes else None
    if program is None or program.bytes > RECORD * room(engine.model.device, engine.run):
        return how
    seen = moved(around([t.box for t in engine.targets]), [s.start for s in how.crop])
    device = engine.model.device.type
    found = min((rectangles(program, boxes, seen, s, device) for s in SLACKS), key=lambda r: r.cost)
    if found.cost + found.checks * found.whole >= SURE * how.passes * found.whole:
        return how
    return replace(how, rectangles=found, silent=tuple(n for n in range(how.count) if n not in boxes))


def scorer(engine: Evaluator, copies: Perturbations, how: Plan, rectangles: Rectangles, clean: Tensor) -> Dirty:
    """What scores windows by rectangles, checked against whole passes.

    Raises:
        NotLocal: they differ, or cannot be computed.
    """
    try:
        dirty = Dirty(engine, copies, how, rectangles)
        dirty.check(clean)
    except (RuntimeError, TypeError, ValueError, LookupError, MemoryError) as error:
        # an operation was met in a form that nobody thought of, or memory ran out: whole passes take less
        free_cache()
        raise NotLocal from error
    return dirty


def _inside(how: Plan, perturbations: Perturbations) -> dict[int, Box]:
    """Per copy that counts, what it changes, in the coordinates of the crop."""
    corner = [s.start for s in how.crop]
    found = {}
    for number, box in enumerate(perturbations.boxes or ()):
        inside = common(box, how.crop)
        if inside is not None and (how.groups is None or number in how.met):
            found[number] = moved(inside, corner)
    return found
