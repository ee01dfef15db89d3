"""The rectangles of several windows at once, from the input through every operation to the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from seglens.engine import fast
from seglens.engine.dirty_program import Along, Program, Sizes
from seglens.engine.dirty_rules import Rule, Span
from seglens.engine.dirty_trace import Step

Corner = tuple[int, ...]
Cut = tuple[slice, ...]
Layout = tuple[tuple[Span, ...], Corner]

SMALL = 2**14  # numbers of a patch below which it is copied as a whole
ALL = slice(None)


def run(
    program: Program, fresh: Tensor, clean: dict[int, Tensor], along: Sequence[Along], windows: Sequence[Corner]
) -> Tensor | None:
    """What has changed in the answer (n, K, *lengths); ``None`` if nothing can have.

    Args:
        program: the network.
        fresh: the input where it is changed (n, C, *lengths).
        clean: what :meth:`Program.clean` kept.
        along: where changes go, per axis.
        windows: per copy its number along every axis.
    """
    with torch._C.DisableTorchFunction():  # what somebody does to the network's calls has been written down
        return _Patches(program, fresh, clean, along, windows).run()


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
        self._layout = fast.layout(fresh.device, fresh.ndim)
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
                    patches = [self._patch(v, starts, size) for v in step.inputs]
                    here = rule.here if rule.here is not None and self._is_ours(step.inputs[0], place) else rule.run
                    self._data[step.out] = here(*patches)
            for v in {leaf for i in step.inputs for leaf in program.leaves(i)}:
                if program.is_last(v, place):
                    self._data.pop(v, None)
        out = program.trace.out
        size = self._size(out)
        return self._patch(out, self._starts(out), size) if all(size) else None

    def _is_ours(self, value: int, place: int) -> bool:
        """Whether a value may be overwritten: nobody asks for it later, nor for what shares its memory."""
        if not value or not self._program.is_last(value, place):
            return False
        memory = [t.untyped_storage().data_ptr() for t in self._data.values()]
        return value not in self._data or memory.count(self._data[value].untyped_storage().data_ptr()) == 1

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
        like = self._clean[leaves[0]]
        out = torch.empty(
            (len(starts), sum(channels), *size), dtype=like.dtype, device=like.device, memory_format=self._layout
        )
        first = 0
        for leaf, count in zip(leaves, channels, strict=True):
            self._write(out[:, first : first + count], leaf, starts, rule or Rule())
            first += count
        return out

    def _write(self, out: Tensor, value: int, starts: Sequence[Corner], rule: Rule) -> None:
        clean, new = self._clean[value][0], self._data.get(value)
        corners = starts if new is None else self._starts(value)
        if rule.edge:
            # one after the other, as some may stick out
            for n, (start, corner) in enumerate(zip(starts, corners, strict=True)):
                _mirrored(out[n : n + 1], clean, None if new is None else new[n : n + 1], start, corner, rule.edge)
            return
        layouts: dict[Layout, list[int]] = {}
        size, sizes = tuple(out.shape[2:]), tuple(clean.shape[1:])
        for n, (start, corner) in enumerate(zip(starts, corners, strict=True)):
            inside = tuple((max(-a, 0), min(k, m - a)) for a, k, m in zip(start, size, sizes, strict=True))
            offset = tuple(c - a for a, c in zip(start, corner, strict=True))
            layouts.setdefault((inside, offset), []).append(n)
        for layout, members in layouts.items():
            for at in [ALL] if len(layouts) == 1 else [slice(n, n + 1) for n in members]:
                _paste(out[at], clean, None if new is None else new[at], starts[at], layout, rule.fill)


def _paste(
    out: Tensor, clean: Tensor, new: Tensor | None, starts: Sequence[Corner], layout: Layout, fill: float
) -> None:
    """The clean image (C, *space) from each start on, and over it what is new.

    Args:
        layout: of the patches what lies in the image, and where what is new begins.
        fill: what lies outside the image.
    """
    inside, offset = layout
    if any(low >= high for low, high in inside):
        out.fill_(fill)
        return
    for strip in _frame([(0, n) for n in out.shape[2:]], inside):
        out[(ALL, ALL, *_cut(strip))].fill_(fill)
    strips, changed = [inside], None
    if new is not None:
        spans = zip(inside, offset, new.shape[2:], strict=True)
        changed = tuple((max(low, c), min(high, c + k)) for (low, high), c, k in spans)
        if any(low >= high for low, high in changed):
            changed = None
        elif changed == inside or out[0].numel() >= SMALL:
            # the frame alone: many numbers are spared for a few calls
            strips = _frame(inside, changed)
    for strip in strips:
        to = (ALL, *_cut(strip))
        for one, start in zip(out, starts, strict=True):
            one[to] = clean[(ALL, *_cut(strip, start))]
    if changed is not None and new is not None:
        out[(ALL, ALL, *_cut(changed))] = new[(ALL, ALL, *_cut(changed, [-c for c in offset]))]


def _cut(spans: Sequence[Span], shift: Sequence[int] = (0, 0, 0)) -> Iterator[slice]:
    return (slice(a + c, b + c) for (a, b), c in zip(spans, shift, strict=False))


def _frame(outer: Sequence[Span], inner: Sequence[Span]) -> list[tuple[Span, ...]]:
    """Boxes that make up what is between two, one around the other."""
    now, strips = list(outer), []
    for axis, ((a, b), (c, d)) in enumerate(zip(outer, inner, strict=True)):
        for span in ((a, c), (d, b)):
            if span[0] < span[1]:
                strips.append((*now[:axis], span, *now[axis + 1 :]))
        now[axis] = (c, d)
    return strips


def _mirrored(out: Tensor, clean: Tensor, new: Tensor | None, start: Corner, corner: Corner, edge: str) -> None:
    """One patch (1, C, *size) where the image goes on beyond its border as ``edge`` says."""
    places = []
    for a, n, m in zip(start, out.shape[2:], clean.shape[1:], strict=True):
        at = torch.arange(a, a + n, device=clean.device)
        if edge == "reflect":
            at = (m - 1) - ((m - 1) - at.abs()).abs()
        places.append(at.clamp(0, m - 1))
    first = tuple(int(p.min()) for p in places)
    inner = out.new_empty((1, len(clean), *(int(p.max()) + 1 - a for p, a in zip(places, first, strict=True))))
    inside = tuple((0, n) for n in inner.shape[2:])
    _paste(inner, clean, new, [first], (inside, tuple(c - a for a, c in zip(first, corner, strict=True))), 0.0)
    for axis, (p, a) in enumerate(zip(places, first, strict=True)):
        inner = inner.index_select(axis + 2, p - a)
    out.copy_(inner)


def _narrowed(out: Tensor, skips: Sequence[Corner], size: Sizes) -> Tensor:
    """Of each window's patch the part that is asked for."""
    parts = []
    for at in [ALL] if len(set(skips)) == 1 else [slice(n, n + 1) for n in range(len(out))]:
        part = out[at]
        for axis, (first, length) in enumerate(zip(skips[at][0], size, strict=True)):
            part = part.narrow(axis + 2, first, length)
        parts.append(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts)
