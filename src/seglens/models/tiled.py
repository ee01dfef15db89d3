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
from seglens.models.tiles import Grid, Tile, ramp

NOTHING = -1e4  # log-probability where no tile answers


class TiledModel(SegmentationModel):
    """The same network, tile by tile; the probabilities of tiles that overlap are blended.

    What :meth:`logits` answers is the logarithm of the blended probabilities: their difference is that of the
    logits of a single tile, and their largest is the class that prediction draws.

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
        """Log-probabilities (N, K, *space) of input (N, C, *space); see :class:`SegmentationModel`."""
        self._check_input(x)
        grid = self.grid(tuple(x.shape[2:]))
        if len(grid) == 1:
            return self.whole.logits(x)
        return self.blended(x, [(t, ramp(t, grid.overlap)) for t in grid])

    def blended(self, x: Tensor, tiles: Sequence[tuple[Tile, object]]) -> Tensor:
        """Tiles one after the other, joined by their weights."""
        over = self.spec.overlapping
        count = 2 * (len(self.spec.classes) - 1) if over else len(self.spec.classes)
        out = x.new_full((len(x), count, *x.shape[2:]), NOTHING)
        for tile, weights in tiles:
            part = shares(self.whole.logits(x[at_box(tile.read)]), over)[at_box(tile.inner)]
            weighted = part + torch.as_tensor(weights).to(x).log()
            where = at_box(tile.core)
            # a copy of what stood there: a gradient may need it after the next tile has written over it
            out[where] = torch.logaddexp(out[where].clone(), weighted)
        return joined(out, over)


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
