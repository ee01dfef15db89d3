"""Taking a region apart: each part is asked on the crop that it can see, and their gradients add up.

What a target is, is a sum over pixels. Parts that lie apart need less of the image than the box around them, and a
large region is cut where memory is short.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod

from torch import Tensor
from torch.nn import functional as F

from seglens.core.boxes import Box, whole
from seglens.engine.plan import WORTH
from seglens.engine.reach import Reach, TileReach
from seglens.engine.target import FrozenTarget

CELL = {1: 64, 2: 64, 3: 16}  # pixels: hardly any network sees less far around


@dataclass(frozen=True)
class Piece:
    """A part of the region that is asked on its own.

    Args:
        part: box that holds it.
        crop: what goes through the model for it.
    """

    part: Box
    crop: Box

    @property
    def pixels(self) -> int:
        """Of the crop."""
        return prod(s.stop - s.start for s in self.crop)


@dataclass(frozen=True, eq=False)
class Pieces:
    """How a target's region is taken apart.

    Args:
        target: whose region; one whose number is no sum over pixels stays in one piece.
        shape: of the image.
        reach: of the model; ``None`` leaves the image whole.
        divisor: to which crops are aligned.
    """

    target: FrozenTarget
    shape: tuple[int, ...]
    reach: Reach | TileReach | None
    divisor: int = 1

    @property
    def alone(self) -> Piece:
        """All of the region, on all of the image."""
        return Piece(self.target.box, whole(self.shape))

    def fitting(self, most: float) -> list[Piece]:
        """Pieces with crops of at most so many pixels where that can be had; otherwise as few pixels as can be.

        Args:
            most: pixels of a crop.
        """
        pixels = prod(self.shape)
        if self.reach is None:
            return [self.alone]
        first = self._piece(self.target.box)
        adds_up = not self.target.live and self.target.value != "dice"
        pieces = self._split(first, most) if adds_up else [first]
        if sum(p.pixels for p in pieces) > WORTH * pixels and pixels <= most:
            return [self.alone]
        return pieces

    def _split(self, piece: Piece, most: float) -> list[Piece]:
        """The piece, or those into which it is cut, where that saves pixels or is needed to fit."""
        cuts = list(self._cuts(piece.part))
        if not cuts:
            return [piece]
        best = min(cuts, key=_cost)
        if _cost(best) >= WORTH * piece.pixels:
            if piece.pixels <= most:
                return [piece]
            best = min(cuts, key=lambda cut: (max(p.pixels for p in cut), _cost(cut)))
            if max(p.pixels for p in best) >= WORTH * piece.pixels:
                return [piece]
        return [p for half in best for p in self._split(half, most)]

    def _cuts(self, part: Box) -> Iterator[tuple[Piece, Piece]]:
        """Two parts each: along every axis, cut behind the longest gap and in the middle."""
        for axis, span in enumerate(part):
            seen = self._line(part, axis).nonzero().flatten().tolist()
            if len(seen) < 2:
                continue
            gap, behind = max((b - a, b) for a, b in pairwise(seen))
            for at in {seen[len(seen) // 2]} | ({behind} if gap > 1 else set()):
                halves = (slice(span.start, span.start + at), slice(span.start + at, span.stop))
                one, two = (self._shrunk((*part[:axis], half, *part[axis + 1 :])) for half in halves)
                yield self._piece(one), self._piece(two)

    @cached_property
    def _mask(self) -> Tensor:
        return (self.target.weights != 0).cpu()

    def _line(self, part: Box, axis: int) -> Tensor:
        """Where along an axis anything counts (n,)."""
        inside = self._mask[part]
        return inside.any(tuple(a for a in range(inside.ndim) if a != axis))

    def _shrunk(self, part: Box) -> Box:
        """Without what does not count around it."""
        spans = []
        for axis, span in enumerate(part):
            seen = self._line(part, axis).nonzero().flatten()
            spans.append(slice(span.start + int(seen[0]), span.start + int(seen[-1]) + 1))
        return tuple(spans)

    def _piece(self, part: Box) -> Piece:
        if self.reach is None:
            return Piece(part, whole(self.shape))
        return Piece(part, self.reach.aligned(self.reach.needed(part, self.shape), self.shape, self.divisor))


def spread(target: FrozenTarget) -> float:
    """The share of the image near its region: in cells that hold some of it. Crops can save no more than the rest."""
    counts = (target.weights != 0)[None, None].float()
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[counts.ndim - 2]
    side = CELL[counts.ndim - 2]
    return float(pool(counts, [min(side, n) for n in counts.shape[2:]], ceil_mode=True).mean())


def _cost(pieces: tuple[Piece, ...]) -> int:
    return sum(p.pixels for p in pieces)
