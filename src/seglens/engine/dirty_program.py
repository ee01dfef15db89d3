"""A network as a list of local operations: where a change goes, and the rectangles in which alone it is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from seglens.engine.dirty_rules import Line, Rule, Span, rules
from seglens.engine.dirty_trace import Step, Trace

Corner = tuple[int, ...]
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
        self._last: dict[int, int] = {}
        for place, step in enumerate(trace.steps):
            if not found[step.out].joins:
                self._last |= dict.fromkeys((v for i in step.inputs for v in self.leaves(i)), place)
        self._last |= dict.fromkeys(self.leaves(trace.out), len(trace.steps))

    @staticmethod
    def of(trace: Trace | None) -> Program | None:
        """The program of a trace; ``None`` if an operation has no rule: it is not local, or not known."""
        found = None if trace is None else rules(trace)
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
        now, kept = {0: x}, {}
        last = {v: place for place, step in enumerate(self.trace.steps) for v in step.inputs}
        for place, step in enumerate(self.trace.steps):
            now[step.out] = step(now)
            for v in step.inputs:
                if last[v] == place and v in now:
                    if v in self.kept:
                        kept[v] = now[v]
                    del now[v]
        return {v: t for v, t in (kept | now).items() if v in self.kept}

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

    def run(
        self, fresh: Tensor, clean: dict[int, Tensor], along: Sequence[Along], windows: Sequence[Corner]
    ) -> Tensor | None:
        """What has changed in the answer (n, K, *lengths); ``None`` if nothing can have.

        Args:
            fresh: the input where it is changed (n, C, *lengths).
            clean: from :meth:`clean`.
            along: where changes go, per axis.
            windows: per copy its number along every axis.
        """
        return _Patches(self, fresh, clean, along, windows).run()

    def is_last(self, value: int, place: int) -> bool:
        """Whether nobody asks for a value after a step."""
        return self._last.get(value) == place


class _Patches:
    """The changed rectangles of some windows, value by value."""

    def __init__(
        self,
        program: Program,
        fresh: Tensor,
        clean: dict[int, Tensor],
        along: Sequence[Along],
        windows: Sequence[Corner],
    ) -> None:
        self._program, self._clean, self._along, self._windows = program, clean, along, windows
        self._layout: Any = torch.channels_last if program.dims == 2 else torch.channels_last_3d
        self._data = {0: fresh}

    def run(self) -> Tensor | None:
        program = self._program
        for place, step in enumerate(program.trace.steps):
            rule = program.rules[step.out]
            size = self._size(step.out)
            if not rule.joins and all(size):
                if rule.lines:
                    self._data[step.out] = self._through(step, rule)
                else:
                    starts = self._starts(step.out)
                    self._data[step.out] = rule.run(*(self._patch(v, starts, size) for v in step.inputs))
            for v in {leaf for i in step.inputs for leaf in program.leaves(i)}:
                if program.is_last(v, place):
                    self._data.pop(v, None)
        out = program.trace.out
        size = self._size(out)
        return self._patch(out, self._starts(out), size) if all(size) else None

    def _size(self, value: int) -> Sizes:
        return tuple(a.lengths[value] for a in self._along)

    def _starts(self, value: int) -> list[Corner]:
        columns = [a.starts[value] for a in self._along]
        return [tuple(c[n] for c, n in zip(columns, window, strict=True)) for window in self._windows]

    def _through(self, step: Step, rule: Rule) -> Tensor:
        """What an operation with a window answers."""
        size, starts = self._size(step.out), self._starts(step.out)
        firsts, counts, skips = [], [], []
        for axis, (line, length) in enumerate(zip(rule.lines, size, strict=True)):
            spans = [line.read(s[axis], s[axis] + length) for s in starts]
            made = rule.made[axis] if rule.made else line
            skip = [s[axis] - made.seen(a, a + 1)[0] if line.up else 0 for s, (a, _) in zip(starts, spans, strict=True)]
            count = max(b - a for a, b in spans)
            if line.up:
                count = max(count, -((made.extent + 1 - max(skip) - length) // made.stride) + 1)
            firsts.append([a for a, _ in spans])
            counts.append(count)
            skips.append(skip)
        patch = self._patch(step.inputs[0], list(zip(*firsts, strict=True)), tuple(counts), rule)
        out = rule.run(patch)
        if tuple(out.shape[2:]) == size:
            return out
        return _narrowed(out, list(zip(*skips, strict=True)), size)

    def _patch(self, value: int, starts: Sequence[Corner], size: Sizes, rule: Rule | None = None) -> Tensor:
        """A value as it is now, in a rectangle per window (n, C, *size)."""
        leaves = self._program.leaves(value)
        if len(leaves) == 1 and value in self._data and self._size(value) == size and self._starts(value) == starts:
            return self._data[value]
        channels = [self._program.trace.shapes[v][1] for v in leaves]
        out = torch.empty(
            (len(starts), sum(channels), *size),
            dtype=self._clean[leaves[0]].dtype,
            device=self._clean[leaves[0]].device,
            memory_format=self._layout,
        )
        first = 0
        for leaf, count in zip(leaves, channels, strict=True):
            self._write(out[:, first : first + count], leaf, starts, rule or Rule())
            first += count
        return out

    def _write(self, out: Tensor, value: int, starts: Sequence[Corner], rule: Rule) -> None:
        clean, sizes = self._clean[value][0], self._program.sizes(value)
        changed = self._data.get(value)
        corners = self._starts(value) if changed is not None else [()] * len(starts)
        own = self._size(value)
        for number, (one, start, corner) in enumerate(zip(out, starts, corners, strict=True)):
            new = None if changed is None else changed[number]
            if rule.edge and any(a < 0 or a + n > m for a, n, m in zip(start, one.shape[1:], sizes, strict=True)):
                _mirrored(one, clean, new, start, corner, rule.edge)
            else:
                _paste(one, clean, new, start, corner, own, rule.fill)


def _paste(
    one: Tensor, clean: Tensor, new: Tensor | None, start: Corner, corner: Corner, own: Sizes, fill: float
) -> None:
    """The clean image from ``start`` on, and over it what is new from ``corner`` on."""
    inside, there = [slice(None)], [slice(None)]
    partly = False
    for a, n, m in zip(start, one.shape[1:], clean.shape[1:], strict=True):
        low, high = max(a, 0), min(a + n, m)
        partly = partly or low > a or high < a + n
        inside.append(slice(low - a, max(low, high) - a))
        there.append(slice(low, max(low, high)))
    if partly:
        one.fill_(fill)
    if new is None:
        one[tuple(inside)] = clean[tuple(there)]
        return
    to, of = [slice(None)], [slice(None)]
    covered = True
    for a, n, c, k, m in zip(start, one.shape[1:], corner, own, clean.shape[1:], strict=True):
        low, high = max(a, c), min(a + n, c + k)
        covered = covered and low <= max(a, 0) and high >= min(a + n, m)
        to.append(slice(low - a, max(low, high) - a))
        of.append(slice(low - c, max(low, high) - c))
    if not covered:
        one[tuple(inside)] = clean[tuple(there)]
    one[tuple(to)] = new[tuple(of)]


def _mirrored(one: Tensor, clean: Tensor, new: Tensor | None, start: Corner, corner: Corner, edge: str) -> None:
    """The same where the image goes on beyond its border."""
    places = []
    for a, n, m in zip(start, one.shape[1:], clean.shape[1:], strict=True):
        at = torch.arange(a, a + n, device=clean.device)
        if edge == "reflect":
            at = at.abs()
            at = (m - 1) - ((m - 1) - at).abs()
        places.append(at.clamp(0, m - 1))
    first = tuple(int(p.min()) for p in places)
    inner = clean.new_empty((len(clean), *(int(p.max()) + 1 - a for p, a in zip(places, first, strict=True))))
    _paste(inner, clean, new, first, corner, () if new is None else tuple(new.shape[1:]), 0.0)
    for axis, (p, a) in enumerate(zip(places, first, strict=True)):
        inner = inner.index_select(axis + 1, p - a)
    one.copy_(inner)


def _narrowed(out: Tensor, skips: Sequence[Corner], size: Sizes) -> Tensor:
    """Of each window's patch the part that is asked for."""
    parts = []
    for one, skip in zip(out, skips, strict=True):
        part = one
        for axis, (first, length) in enumerate(zip(skip, size, strict=True)):
            part = part.narrow(axis + 1, first, length)
        parts.append(part)
    if len(set(skips)) > 1:
        return torch.stack(parts)
    for axis, (first, length) in enumerate(zip(skips[0], size, strict=True)):
        out = out.narrow(axis + 2, first, length)
    return out


def _read(line: Line, length: int) -> int:
    """How many inputs so many outputs need, about."""
    return (
        max(1, -(-(length + line.extent) // line.stride)) if line.up else (length - 1) * line.stride + line.extent + 1
    )
