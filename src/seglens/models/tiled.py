"""A model that looks at an image tile by tile, as prediction does it, behind the face of any other model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from seglens.core.boxes import at_box, moved
from seglens.models.classes import joined, shares
from seglens.models.predict import make_grid
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec
from seglens.models.tiles import Grid, Tile, ramp

NOTHING = -1e4  # log-probability where no tile answers


class TiledModel(SegmentationModel):
    """The same network, tile by tile; the probabilities of tiles that overlap are blended.

    What :meth:`logits` answers are a tile's own logits, and between tiles logits of the blended probabilities, so that
    the largest is the class that prediction draws everywhere.

    Args:
        model: the model.
        tile: side of a tile in pixels; default as in prediction.
        halo: context on each side that is read and thrown away; default as in prediction.
    """

    def __init__(self, model: SegmentationModel, tile: int | None = None, halo: int | None = None) -> None:
        """Nothing is copied; the network stays the same."""
        super().__init__(
            model.module, model.spec, device=model.device, source=model.source, layered=False, options=model.options
        )
        self.whole = model
        self.tile, self.halo = tile, halo

    def fingerprint(self) -> str:
        """The network's."""
        return self.whole.fingerprint()

    @property
    def variant(self) -> str:
        """The tiles."""
        return f"tiles of {self.tile}, halo {self.halo}"

    def grid(self, space: tuple[int, ...]) -> Grid:
        """The tiles of an image."""
        return make_grid(self.whole, space, self.tile, self.halo)

    def within(self, box: Sequence[slice], space: tuple[int, ...]) -> SegmentationModel:
        """The same tiles, only those that are read inside a box."""
        grid = self.grid(space)
        inside = [
            t for t in grid if all(b.start <= r.start and r.stop <= b.stop for r, b in zip(t.read, box, strict=True))
        ]
        corner = [s.start for s in box]
        return _Part(self, [(_shifted(t, corner), ramp(t, grid.overlap)) for t in inside])

    def logits(self, x: Tensor) -> Tensor:
        """Logits (N, K, *space) of input (N, C, *space); see :class:`SegmentationModel`."""
        self._check_input(x)
        grid = self.grid(tuple(x.shape[2:]))
        if len(grid) == 1:
            return self.whole.logits(x)
        return self.blended(x, [(t, ramp(t, grid.overlap)) for t in grid])

    def blended(self, x: Tensor, tiles: Sequence[tuple[Tile, object]]) -> Tensor:
        """Tiles one after the other, joined by their weights."""
        out = Blended(len(x), self.spec, x)
        for tile, weights in tiles:
            out.add(self.whole.logits(x[at_box(tile.read)])[at_box(tile.inner)], tile, torch.as_tensor(weights).to(x))
        return out.logits()


class Blended:
    """Logits of tiles that overlap.

    Where one tile answers alone it is taken as it is. Elsewhere probabilities are blended, as prediction blends them,
    at the level that the tiles' logits have in the mean.

    Args:
        count: images.
        spec: of the model.
        like: gives size of space, device and kind of number.
    """

    def __init__(self, count: int, spec: ModelSpec, like: Tensor) -> None:
        """Nothing answers yet."""
        self._over, classes, space = spec.overlapping, len(spec.classes), like.shape[2:]
        self._alone = torch.zeros(space, dtype=torch.bool, device=like.device)
        self._plain = like.new_zeros(count, classes, *space)
        self._level = like.new_zeros(count, 1, *space)
        self._shares = like.new_full((count, 2 * (classes - 1) if self._over else classes, *space), NOTHING)

    def add(self, logits: Tensor, tile: Tile, weights: Tensor) -> None:
        """A tile's logits (N, K, *core) and their weights (*core)."""
        where, alone = at_box(tile.core), (weights == 1).expand(logits.shape[2:])
        self._alone[tile.core] |= alone
        # copies of what stood there: a gradient may need it after the next tile has written over it
        self._plain[where] = torch.where(alone, logits, self._plain[where].clone())
        if bool(alone.all()):
            return
        self._level[where] = self._level[where].clone() + weights * logits.logsumexp(1, keepdim=True)
        weighted = shares(logits, self._over) + weights.log()
        self._shares[where] = torch.logaddexp(self._shares[where].clone(), weighted)

    def logits(self) -> Tensor:
        """Of all tiles, (N, K, *space)."""
        if bool(self._alone.all()):
            return self._plain
        blended = joined(self._shares, self._over)
        return torch.where(self._alone, self._plain, blended if self._over else blended + self._level)


class _Part(SegmentationModel):
    """Some tiles of a tiled model, on a crop that holds them."""

    def __init__(self, model: TiledModel, tiles: list[tuple[Tile, object]]) -> None:
        super().__init__(
            model.module, model.spec, device=model.device, source=model.source, layered=False, options=model.options
        )
        self._model, self._tiles = model, tiles

    def logits(self, x: Tensor) -> Tensor:
        return self._model.blended(x, self._tiles)


def _shifted(tile: Tile, corner: Sequence[int]) -> Tile:
    return replace(tile, read=moved(tile.read, corner), core=moved(tile.core, corner))
