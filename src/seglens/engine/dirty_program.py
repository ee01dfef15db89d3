"""A network as a list of local operations: where a change goes, and the rectangles in which alone it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from seglens.engine.dirty_rules import Line, Rule, Span, rules
from seglens.engine.dirty_trace import Trace

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Along:
    """Where the changes of several windows go along one axis, for every value of the network.

    Args:
        lengths: of what may have changed, by value; the same for all windows. 0: nothing.
        starts: by value, by window.
    """

    lengths: list[int]
    starts: list[list[int]]


@dataclass(frozen=True)
class Amount:
    """What is computed: multiplications of convolutions, numbers that are made or copied, calls, copies of patches."""

    multiplications: float = 0.0
    numbers: float = 0.0
    calls: int = 0
    patches: int = 0


class Program:
    """The operations of a network, each with the rule by which a part of its answer is computed.

    Args:
        trace: what the network did with one image.
        found: a rule for every step.
    """

    def __init__(self, trace: Trace, found: dict[int, Rule]) -> None:
        """Find out which values have to be kept."""
        self.trace, self.rules = trace, found
        self.dims = len(trace.shapes[0]) - 2
        self._made = {s.out: s for s in trace.steps}
        self.kept = self._contexts()
        self._lengths: dict[tuple[int, Span, Span], list[int]] = {}
        self._last: dict[int, int] = {}
        for place, step in enumerate(trace.steps):
            if not found[step.out].joins:
                self._last |= dict.fromkeys((v for i in step.inputs for v in self.leaves(i)), place)
        self._last |= dict.fromkeys(self.leaves(trace.out), len(trace.steps))

    @staticmethod
    def of(trace: Trace | None) -> Program | None:
        """The program of a trace; ``None`` if an operation has no rule: it is not local, or not known."""
        try:
            found = None if trace is None else rules(trace)
        except (LookupError, TypeError, ValueError):  # arguments of a form that nobody thought of
            return None
        return None if trace is None or found is None else Program(trace, found)

    @property
    def bytes(self) -> int:
        """What keeping the answers to the clean image takes."""
        return 4 * sum(prod(self.trace.shapes[v]) for v in self.kept)

    def leaves(self, value: int) -> list[int]:
        """The values of which a concatenation is made; else the value itself."""
        if value and self.rules[value].joins:
            return [leaf for v in self._made[value].inputs for leaf in self.leaves(v)]
        return [value]

    def _contexts(self) -> set[int]:
        """The values that are looked at beyond what has changed in them."""
        kept = set(self.leaves(self.trace.out))
        for step in self.trace.steps:
            rule = self.rules[step.out]
            if rule.joins or rule.lines or len(set(step.inputs)) > 1:
                kept.update(v for i in step.inputs for v in self.leaves(i))
        return kept

    def clean(self, x: Tensor) -> dict[int, Tensor]:
        """What is kept of the answers to the clean image (1, C, *space), by value."""
        now: dict[int, Tensor] = {0: x}
        kept: dict[int, Tensor] = {}
        with torch._C.DisableTorchFunction():
            self._whole(now, kept)
        return {v: t for v, t in (kept | now).items() if v in self.kept}

    def _whole(self, now: dict[int, Tensor], kept: dict[int, Tensor]) -> None:
        last = {v: place for place, step in enumerate(self.trace.steps) for v in step.inputs}
        for place, step in enumerate(self.trace.steps):
            now[step.out] = step(now)
            for v in step.inputs:
                if last[v] == place and v in now:
                    if v in self.kept:
                        kept[v] = now[v]
                    del now[v]

    def sizes(self, value: int) -> Sizes:
        """Space of a value."""
        return self.trace.shapes[value][2:]

    def wanted(self, axis: int, span: Span) -> list[Span | None]:
        """By value, the part along an axis on which a span of the answer depends."""
        wanted: list[Span | None] = [None] * len(self.trace.shapes)
        wanted[self.trace.out] = span
        for step in reversed(self.trace.steps):
            own = wanted[step.out]
            if own is not None:
                rule = self.rules[step.out]
                low, high = rule.lines[axis].wanted(*own) if rule.lines else own
                for v in step.inputs:
                    a, b = wanted[v] or (low, high)
                    wanted[v] = min(a, low), max(b, high)
        return wanted

    def lengths(self, axis: int, span: Span, seen: Span) -> list[int]:
        """By value, how much a change in one span of the input changes along an axis, where it is looked at."""
        key = (axis, span, seen)
        if key not in self._lengths:
            self._lengths[key] = self.along(axis, [span], self.wanted(axis, seen)).lengths
        return self._lengths[key]

    def along(self, axis: int, spans: Sequence[Span], wanted: Sequence[Span | None]) -> Along:
        """Where changes go that are made in spans of the input; what is not wanted is left out."""
        count = len(self.trace.shapes)
        found = Along([0] * count, [[0] * len(spans)] * count)

        def put(value: int, places: list[Span]) -> None:
            length = max(0, *(b - a for a, b in places)) if places else 0
            most = self.sizes(value)[axis] - length
            found.lengths[value] = length
            found.starts[value] = [max(0, min(a, most)) for a, _ in places]

        put(0, list(spans))
        for step in self.trace.steps:
            rule, inputs = self.rules[step.out], set(step.inputs)
            if len(inputs) == 1 and not rule.lines:
                (v,) = inputs
                found.lengths[step.out], found.starts[step.out] = found.lengths[v], found.starts[v]
                continue
            low, high = wanted[step.out] or (0, 0)
            if rule.joins:
                low, high = 0, self.sizes(step.out)[axis]
            places = []
            for window in range(len(spans)):
                changed = [
                    (a, a + length) for v in inputs if (length := found.lengths[v]) for a in [found.starts[v][window]]
                ]
                if rule.lines:
                    changed = [rule.lines[axis].seen(*span) for span in changed]
                first = max(low, min((a for a, _ in changed), default=high))
                places.append((first, min(high, max((b for _, b in changed), default=low))))
            put(step.out, places)
        return found

    def amount(self, along: Sequence[Along] | None = None) -> Amount:
        """What one window takes; without ``along`` the whole image."""
        work = numbers = 0.0
        calls = patches = 0

        def sizes(v: int) -> Sizes:
            return self.sizes(v) if along is None else tuple(a.lengths[v] for a in along)

        for step in self.trace.steps:
            rule, size = self.rules[step.out], sizes(step.out)
            if rule.joins or not all(size):
                continue
            read = size
            if rule.lines:
                read = self.sizes(step.inputs[0])
                if along is not None:
                    read = tuple(_read(line, n) for line, n in zip(rule.lines, size, strict=True))
            work += rule.work * prod(read if rule.up else size)
            numbers += self.trace.shapes[step.out][1] * prod(size)
            calls += 1
            if along is not None and (rule.lines or len(set(step.inputs)) > 1):
                leaves = [leaf for v in step.inputs for leaf in self.leaves(v)]
                numbers += prod(read) * sum(self.trace.shapes[leaf][1] for leaf in leaves)
                patches += len(leaves)
        return Amount(work, numbers, calls, patches)

    def peak(self, along: Sequence[Along]) -> int:
        """Bytes that one window takes on its way, at most."""
        most = now = 0
        for place, step in enumerate(self.trace.steps):
            size = [a.lengths[step.out] for a in along]
            rule = self.rules[step.out]
            if rule.joins or not all(size):
                continue
            own = self.trace.shapes[step.out][1] * prod(size)
            read = [_read(line, n) for line, n in zip(rule.lines, size, strict=True)] if rule.lines else size
            most = max(most, now + own + sum(self.trace.shapes[v][1] for v in step.inputs) * prod(read))
            now += own
            for v in {leaf for i in step.inputs for leaf in self.leaves(i)}:
                if self._last[v] == place:
                    now -= self.trace.shapes[v][1] * prod(a.lengths[v] for a in along)
        return 4 * most

    def is_last(self, value: int, place: int) -> bool:
        """Whether nobody asks for a value after a step."""
        return self._last.get(value) == place


def _read(line: Line, length: int) -> int:
    """How many inputs so many outputs need, about."""
    return (
        max(1, -(-(length + line.extent) // line.stride)) if line.up else (length - 1) * line.stride + line.extent + 1
    )
