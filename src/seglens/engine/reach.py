"""Reach: how far one input pixel can influence the output, measured exactly by sending NaN through the model.

NaN times any weight is NaN, so what comes out as NaN is what the structure of the network connects, whatever the
weights. From it follow the crop (nothing outside the reach of a target can change it) and the packing (changes
that cannot meet share a forward pass).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from seglens.core.boxes import Box, around, common
from seglens.core.places import recall, remember
from seglens.core.run import Run
from seglens.engine import fast
from seglens.models.device import direct
from seglens.models.segmentation import SegmentationModel, quiet
from seglens.models.tiled import TiledModel

SHELF = "reach"
LONGEST = 512  # pixels of the strip that is sent through; a reach that does not fit saves hardly anything
NARROW = 16  # pixels across the strip at least
STEPS = 7  # periods that are tried: the divisor, twice as much, …
ALIKE = 1e-5  # of the largest logit

Spans = list[tuple[int, int]]  # per alignment: how far before and after

_KNOWN: dict[str, Reach | None] = {}


@dataclass(frozen=True)
class Reach:
    """How far an input pixel reaches, along each axis and for each alignment with the network's strides.

    Args:
        before, after: per axis, per alignment: the output pixels ``p - before`` to ``p + after`` may depend on
            input pixel ``p``, whose alignment is ``p % period``.
    """

    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]

    @property
    def period(self) -> int:
        """The network answers alike to images that are shifted by this many pixels."""
        return len(self.before[0])

    @cached_property
    def widest(self) -> int:
        """The largest distance, along any axis."""
        return max(max(map(max, self.before)), max(map(max, self.after)))

    def influenced(self, box: Box, shape: tuple[int, ...]) -> Box:
        """The output pixels that may depend on any input pixel of a box, of an image of ``shape``."""
        return tuple(
            slice(
                max(0, min(p - b[p % self.period] for p in self._first(s, n))),
                min(n, max(p + a[p % self.period] for p in self._last(s, n)) + 1),
            )
            for s, n, b, a in zip(box, shape, self.before, self.after, strict=True)
        )

    def needed(self, box: Box, shape: tuple[int, ...]) -> Box:
        """The input pixels on which any output pixel of a box may depend."""
        spans = []
        for s, n, b, a in zip(box, shape, self.before, self.after, strict=True):
            low = next(p for p in range(max(0, s.start - max(a)), n) if p + a[p % self.period] >= s.start)
            top = min(n - 1, s.stop - 1 + max(b))
            high = next(p for p in range(top, -1, -1) if p - b[p % self.period] <= s.stop - 1)
            # a padded image repeats its last pixel beyond its end
            spans.append(slice(low, n if high >= n - self.period else high + 1))
        return tuple(spans)

    def aligned(self, box: Box, shape: tuple[int, ...], multiple: int = 1) -> Box:
        """The box grown so that its corner and its size keep the network's alignment."""
        step = max(self.period, multiple)
        spans = []
        for s, n in zip(box, shape, strict=True):
            low = s.start // step * step
            high = low + -(-(s.stop - low) // step) * step
            spans.append(slice(low, min(n, high)))
        return tuple(spans)

    def _first(self, span: slice, size: int) -> range:
        return range(span.start, min(self._stop(span, size), span.start + self.period))

    def _last(self, span: slice, size: int) -> range:
        stop = self._stop(span, size)
        return range(max(span.start, stop - self.period), stop)

    def _stop(self, span: slice, size: int) -> int:
        # an image that is padded repeats its last pixel, at further alignments
        stop = int(span.stop)
        return stop + self.period if stop >= size else stop


@dataclass(frozen=True, eq=False)
class TileReach:
    """How far an input pixel reaches through tiles: no further than the tiles that read it.

    Args:
        model: the tiled model.
        inner: the network's own reach, if it is known and not global.
    """

    model: TiledModel
    inner: Reach | None

    @property
    def widest(self) -> int:
        """The largest distance, along any axis."""
        longest = max(self.model.grid((2**20,) * self.model.spec.ndim).tile)
        return longest if self.inner is None else min(longest, self.inner.widest)

    def influenced(self, box: Box, shape: tuple[int, ...]) -> Box:
        """The output pixels that may depend on any input pixel of a box."""
        seen = around([t.core for t in self.model.grid(shape) if common(t.read, box)])
        # the pixel itself is in both
        return seen if self.inner is None else common(seen, self.inner.influenced(box, shape)) or seen

    def needed(self, box: Box, shape: tuple[int, ...]) -> Box:
        """What the tiles read that answer for a box."""
        return around([t.read for t in self.model.grid(shape) if common(t.core, box)])

    def aligned(self, box: Box, shape: tuple[int, ...], multiple: int = 1) -> Box:
        """The box itself: it is made of tiles."""
        return box


def find_reach(model: SegmentationModel, run: Run | None = None) -> Reach | TileReach | None:
    """The reach of a model, measured once and remembered by its fingerprint; ``None`` if it is global.

    In tiles it is never global: the tile bounds it.

    Global means that a pixel may influence all others (instance norm, attention, global pooling, dense layers),
    or that the network does not answer alike to a shifted image.

    Raises:
        Cancelled: within one forward pass of the request.
    """
    if isinstance(model, TiledModel):
        inner = find_reach(model.whole, run)
        return TileReach(model, inner if isinstance(inner, Reach) else None)
    key = f"{model.fingerprint()}-{model.spec.ndim}"
    if key not in _KNOWN:
        try:
            told = recall(SHELF, key)
            _KNOWN[key] = None if told is None else Reach(*(tuple(map(tuple, told[k])) for k in ("before", "after")))
        except (KeyError, TypeError):
            _KNOWN[key] = known = measure_reach(model, run)
            remember(SHELF, key, None if known is None else {"before": known.before, "after": known.after})
    return _KNOWN[key]


def is_known(model: SegmentationModel) -> bool:
    """Whether the reach of a model has been measured, here or earlier."""
    key = f"{model.fingerprint()}-{model.spec.ndim}"
    if key in _KNOWN:
        return True
    try:
        recall(SHELF, key)
    except KeyError:
        return False
    return True


def measure_reach(model: SegmentationModel, run: Run | None = None) -> Reach | None:
    """Send a line of NaN through the model at every alignment with its strides, along each axis, on a narrow strip.

    How far it comes along an axis does not depend on how wide the strip is, since NaN times any weight is NaN.

    Returns:
        ``None`` if the reach is global, or larger than is worth knowing.
    """
    if model.spec.size is not None:
        return None  # an exported graph of one size cannot be asked about a crop
    half = 2 * max(model.spec.divisor, 8, -(-model.spec.min_size // 2))
    with quiet(model.module), fast.kept_memory(model), direct(), torch.inference_mode():
        while 2 * half <= LONGEST:
            strips = [_Strip(model, axis, half, run) for axis in range(model.spec.ndim)]
            spans = _at_all_alignments(strips, run)
            if spans is not None:
                reach = _reach(spans)
                return None if any(s.wraps(reach) for s in strips) else reach
            half *= 2
    return None


def _at_all_alignments(strips: list[_Strip], run: Run | None) -> list[Spans] | None:
    """Per axis and alignment the distances before and after; ``None`` if these strips are too short to tell."""
    half = strips[0].half
    if any(s.span(half) is None for s in strips):
        return None
    periods = [s.period() for s in strips]
    period = max(p or 0 for p in periods)
    if None in periods or any(period % p for p in periods if p):
        return None
    start = half // period * period
    found: list[Spans] = []
    for axis, strip in enumerate(strips):
        along: Spans = []
        for shift in range(period):
            if run is not None:
                done = axis * period + shift
                run.progress(done, period * len(strips), "measuring how far a pixel reaches, once for this model")
            one = strip.span(start + shift)
            if one is None:
                return None
            along.append(one)
        found.append(along)
    return found


def _reach(spans: list[Spans]) -> Reach:
    before, after = ([tuple(one[side] for one in along) for along in spans] for side in (0, 1))
    return Reach(tuple(before), tuple(after))


@dataclass(frozen=True)
class _Strip:
    """A picture that is long along one axis, ``2 * half`` pixels, and narrow along the others."""

    model: SegmentationModel
    axis: int
    half: int
    run: Run | None

    def span(self, place: int) -> tuple[int, int] | None:
        """How far before and after one place is felt; ``None`` if up to an end of the strip."""
        hit = self._hit(place)
        if not hit:
            return 0, 0
        low, high = min(hit), max(hit)
        return None if low <= 0 or high >= 2 * self.half - 1 else (place - low, high - place)

    def wraps(self, reach: Reach) -> bool:
        """Whether an end influences what is further away than the reach: circular padding, sizes in the arithmetic."""
        far = reach.widest + reach.period
        return any(abs(p - end) > far for end in (0, 2 * self.half - 1) for p in self._hit(end))

    def period(self) -> int | None:
        """The smallest shift that changes nothing; ``None`` if there is none."""
        multiple = self.model.spec.divisor if self.model.spec.divisor > 1 else self._stride()
        if multiple is None:
            return None
        tried: list[int] = [multiple * 2**i for i in range(STEPS) if multiple * 2**i <= self.half // 2]
        if not tried:
            return None
        side, half = 2 * self.half, self.half
        wide = self._picture(side + tried[-1])
        base = self._answer(self._cut(wide, 0, side))
        scale = float(base.abs().max()) or 1.0
        for period in tried:
            moved = self._answer(self._cut(wide, period, side + period))
            # every alignment around the middle, where the ends are felt least
            start = half - period
            there, here = self._cut(base, start + period, half + period), self._cut(moved, start, half)
            if float((here - there).abs().max()) <= ALIKE * scale:
                return period
        return None

    def _stride(self) -> int | None:
        """The stride of a network that takes any size, as it shows in how far its pixels reach."""
        longest = min(16, self.half // 2)
        row = [self.span(self.half - longest + i) for i in range(2 * longest)]
        if None in row:
            return None
        tried = [2**i for i in range(STEPS) if 2**i <= longest]
        alike = (p for p in tried if all(a == b for a, b in zip(row, row[p:], strict=False)))
        return next(alike, 2 * longest)

    def _hit(self, place: int) -> list[int]:
        """Where along the axis the output is NaN when the input is at one place: all of the line across the strip."""
        x = self._picture(2 * self.half)
        # strides may skip a pixel, never a line
        x.select(2 + self.axis, place).fill_(torch.nan)
        lost = torch.isnan(self._answer(x))[0].any(0).movedim(self.axis, 0).flatten(1).any(1)
        return [int(p) for p in lost.nonzero()]

    def _picture(self, length: int) -> Tensor:
        spec = self.model.spec
        sides = [max(2 * spec.divisor, spec.min_size, NARROW)] * spec.ndim
        sides[self.axis] = length
        generator = torch.Generator().manual_seed(0)
        return fast.arranged(torch.randn(1, len(spec.channels), *sides, generator=generator).to(self.model.device))

    def _cut(self, x: Tensor, start: int, stop: int) -> Tensor:
        return x.narrow(2 + self.axis, start, stop - start)

    def _answer(self, x: Tensor) -> Tensor:
        if self.run is not None:
            self.run.check()
        return self.model.logits(x)
