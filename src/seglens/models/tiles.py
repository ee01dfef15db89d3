"""Cutting space into tiles that overlap, and blending them back without seams."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tile:
    """One tile: what is read, and which part of it counts.

    Args:
        read: box in the image that goes through the model.
        core: box in the image that this tile answers for, blended with its neighbours where they overlap.
        first, last: per axis, whether the tile touches the image's start or end (no blending there).
    """

    read: tuple[slice, ...]
    core: tuple[slice, ...]
    first: tuple[bool, ...]
    last: tuple[bool, ...]

    @property
    def inner(self) -> tuple[slice, ...]:
        """The core, counted from the start of what is read."""
        return tuple(slice(c.start - r.start, c.stop - r.start) for c, r in zip(self.core, self.read, strict=True))


@dataclass(frozen=True)
class Grid:
    """A cover of ``shape`` by tiles.

    Args:
        shape: size of the image, per axis.
        tile: largest size that is read at a time, per axis; grown to hold the halo twice.
        halo: context that is read and thrown away on each side.
        overlap: width in which neighbours are blended.
        divisor: tiles start at multiples of it, so that pooling falls as in the whole image.
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    halo: tuple[int, ...]
    overlap: tuple[int, ...]
    divisor: int = 1

    def __len__(self) -> int:
        """Number of tiles."""
        return int(np.prod([len(self._line(axis)) for axis in range(len(self.shape))]))

    def __iter__(self) -> Iterator[Tile]:
        """Tiles in raster order."""
        for parts in product(*(self._line(axis) for axis in range(len(self.shape)))):
            read, core, first, last = zip(*parts, strict=True)
            yield Tile(read, core, first, last)

    def _line(self, axis: int) -> list[tuple[slice, slice, bool, bool]]:
        size, halo, overlap, d = self.shape[axis], self.halo[axis], self.overlap[axis], self.divisor
        if size <= self.tile[axis]:
            whole = slice(0, size)
            return [(whole, whole, True, True)]
        halo = -(-halo // d) * d
        step = max(d, (self.tile[axis] - 2 * halo - overlap) // d * d)
        parts, start = [], 0
        while True:
            stop = min(size, start + step + overlap)
            last = stop == size or size - stop < d
            stop = size if last else stop
            read = slice(max(0, start - halo), min(size, stop + halo))
            parts.append((read, slice(start, stop), start == 0, last))
            if last:
                return parts
            start += step


def ramp(tile: Tile, overlap: tuple[int, ...]) -> NDArray[np.float32]:
    """Weights (*core) that fall linearly in the overlaps, so that all tiles together weigh 1 everywhere."""
    weights = np.ones((1,) * len(tile.core), np.float32)
    for axis, (core, width) in enumerate(zip(tile.core, overlap, strict=True)):
        line = np.ones(core.stop - core.start, np.float32)
        slope = (np.arange(width, dtype=np.float32) + 1) / (width + 1)
        if width and not tile.first[axis]:
            line[:width] = slope[: len(line)]
        if width and not tile.last[axis]:
            line[-width:] *= slope[::-1]
        weights = weights * line.reshape([-1 if a == axis else 1 for a in range(len(tile.core))])
    return weights


class Blend:
    """Sums weighted tiles; holds only the band of rows that later tiles can still touch.

    Args:
        channels: number of maps.
        shape: size of the image.
    """

    def __init__(self, channels: int, shape: tuple[int, ...]) -> None:
        """Start with an empty band."""
        self._shape = shape
        self._start = 0
        self._band = np.zeros((channels, 0, *shape[1:]), np.float32)
        self._weight = np.zeros((0, *shape[1:]), np.float32)

    def add(self, tile: Tile, maps: NDArray[Any], weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Add a tile's maps (K, *core); returns the blended maps of its core as they stand now."""
        self._move(tile.core[0])
        rows = slice(tile.core[0].start - self._start, tile.core[0].stop - self._start)
        where = (rows, *tile.core[1:])
        self._band[(slice(None), *where)] += maps * weights
        self._weight[where] += weights
        out: NDArray[np.float32] = self._band[(slice(None), *where)] / self._weight[where]
        return out

    def _move(self, rows: slice) -> None:
        keep = max(0, self._start + self._band.shape[1] - rows.start) if rows.start >= self._start else 0
        height = max(rows.stop - rows.start, keep)
        if rows.start == self._start and self._band.shape[1] >= height:
            return
        band = np.zeros((len(self._band), height, *self._shape[1:]), np.float32)
        weight = np.zeros((height, *self._shape[1:]), np.float32)
        if keep:
            band[:, :keep] = self._band[:, -keep:]
            weight[:keep] = self._weight[-keep:]
        self._band, self._weight, self._start = band, weight, rows.start
