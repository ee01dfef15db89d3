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
from seglens.models.segmentation import SegmentationModel, quiet
from seglens.models.tiled import TiledModel

SHELF = "reach"
LARGEST = 2**18  # pixels of the picture that is sent through; a reach that does not fit saves hardly anything
STEPS = 7  # periods that are tried: the divisor, twice as much, …
ALIKE = 1e-5  # of the largest logit

Spans = list[tuple[int, int]]  # per axis: how far before and after

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
    """Send one NaN through the model at every alignment with its strides.

    Returns:
        ``None`` if the reach is global, or larger than is worth knowing.
    """
    if model.spec.size is not None:
        return None  # an exported graph of one size cannot be asked about a crop
    half = 2 * max(model.spec.divisor, 8, -(-model.spec.min_size // 2))
    with quiet(model.module), torch.inference_mode():
        while (2 * half) ** model.spec.ndim <= LARGEST:
            spans = _at_all_alignments(model, half, run)
            if spans is not None:
                reach = _reach(spans)
                return None if _wraps(model, reach, half, run) else reach
            half *= 2
    return None


def _at_all_alignments(model: SegmentationModel, half: int, run: Run | None) -> list[Spans] | None:
    """Per alignment and axis the distances before and after; ``None`` if this picture is too small to tell."""
    if _spans(model, half, half, run) is None:
        return None
    multiple = model.spec.divisor if model.spec.divisor > 1 else _stride(model, half, run)
    period = None if multiple is None else _period(model, half, multiple, run)
    if period is None:
        return None
    start = half // period * period
    found: list[Spans] = []
    for shift in range(period):
        if run is not None:
            run.progress(shift, period, "measuring how far a pixel reaches, once for this model")
        one = _spans(model, half, start + shift, run)
        if one is None:
            return None
        found.append(one)
    return found


def _stride(model: SegmentationModel, half: int, run: Run | None) -> int | None:
    """The strides of a network that takes any size, as they show in how far its pixels reach."""
    longest = min(16, half // 2)
    row = [_spans(model, half, half - longest + i, run) for i in range(2 * longest)]
    if None in row:
        return None
    tried = [2**i for i in range(STEPS) if 2**i <= longest]
    alike = (p for p in tried if all(a == b for a, b in zip(row, row[p:], strict=False)))
    return next(alike, 2 * longest)


def _reach(spans: list[Spans]) -> Reach:
    before, after = ([tuple(one[axis][side] for one in spans) for axis in range(len(spans[0]))] for side in (0, 1))
    return Reach(tuple(before), tuple(after))


def _spans(model: SegmentationModel, half: int, place: int, run: Run | None) -> Spans | None:
    """Per axis the distances before and after; ``None`` if they touch the border of the picture."""
    hit = _hit(model, 2 * half, place, run)
    if not len(hit):
        return [(0, 0)] * model.spec.ndim
    low, high = hit.amin(0).tolist(), hit.amax(0).tolist()
    if min(low) <= 0 or max(high) >= 2 * half - 1:
        return None
    return [(place - a, b - place) for a, b in zip(low, high, strict=True)]


def _hit(model: SegmentationModel, side: int, place: int, run: Run | None) -> Tensor:
    """Output pixels (n, D) that are NaN when the input is at one place of the diagonal, in any channel."""
    dims = model.spec.ndim
    x = _picture(model, side)
    where: tuple[slice | int, ...] = (slice(None), slice(None), *[place] * dims)
    x[where] = torch.nan
    return torch.isnan(_answer(model, x, run)).any(1)[0].nonzero()


def _wraps(model: SegmentationModel, reach: Reach, half: int, run: Run | None) -> bool:
    """Whether a corner influences what is further away than the reach: circular padding, sizes in the arithmetic."""
    for corner in (0, 2 * half - 1):
        hit = _hit(model, 2 * half, corner, run)
        if len(hit) and int((hit - corner).abs().max()) > reach.widest + reach.period:
            return True
    return False


def _period(model: SegmentationModel, half: int, multiple: int, run: Run | None) -> int | None:
    """The smallest multiple by which a shift changes nothing; ``None`` if there is none."""
    tried: list[int] = [multiple * 2**i for i in range(STEPS) if multiple * 2**i <= half // 2]
    if not tried:
        return None
    side = 2 * half
    wide = _picture(model, side + tried[-1])
    base = _answer(model, _cut(wide, 0, side), run)
    scale = float(base.abs().max()) or 1.0
    for period in tried:
        moved = _answer(model, _cut(wide, period, side + period), run)
        # every alignment around the middle, where borders are felt least
        start = half - period
        there, here = _cut(base, start + period, half + period), _cut(moved, start, half)
        if float((here - there).abs().max()) <= ALIKE * scale:
            return period
    return None


def _cut(x: Tensor, start: int, stop: int) -> Tensor:
    """The same span of every space axis."""
    for axis in range(2, x.ndim):
        x = x.narrow(axis, start, stop - start)
    return x


def _picture(model: SegmentationModel, side: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (1, len(model.spec.channels), *(side,) * model.spec.ndim)
    return torch.randn(shape, generator=generator).to(model.device)


def _answer(model: SegmentationModel, x: Tensor, run: Run | None) -> Tensor:
    if run is not None:
        run.check()
    return model.logits(x)
