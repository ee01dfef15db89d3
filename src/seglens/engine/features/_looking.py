"""Looking at one plane of an image: what the model draws, and a layer's map, whole or tile by tile."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from seglens.core.errors import ImageMismatch, OutOfMemory
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.engine.features.regions import sums_over
from seglens.engine.gradients import layer_activation
from seglens.models.intake import Intake, read_plain
from seglens.models.predict import make_grid, predict
from seglens.models.segmentation import SegmentationModel
from seglens.models.tiles import Grid, Tile

WHOLE = 2**22  # values of an image that is looked at in one piece
LARGEST = 2**27  # pixels of a plane: what the model draws on it is held in memory


class _Heard(SegmentationModel):
    """The same model, which remembers what it answered last."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__(model.module, model.spec, device=model.device, source=model.source, options=model.options)
        self._model = model
        self.heard: Tensor

    def logits(self, x: Tensor) -> Tensor:
        self.heard = self._model.logits(x)
        return self.heard


@dataclass(frozen=True, eq=False)
class Looking:
    """How planes of one image are looked at.

    Args:
        model: the model.
        module: the layer.
        intake: the frozen normalisation.
        tile: side of tiles; 0 looks at the whole where it is small enough.
        run: progress, cancel.
    """

    model: SegmentationModel
    module: nn.Module
    intake: Intake
    tile: int
    run: Run

    def grid(self, view: Image) -> Grid | None:
        """The tiles of a plane, each answering for its own part; ``None`` if it is looked at in one piece.

        Raises:
            ImageMismatch: it is too large.
        """
        spec = self.model.spec
        space = view.space(spec.axes)
        if prod(space) > LARGEST:
            middle = ",".join(f"{a}={n // 2 - 2048}:{n // 2 + 2048}" for a, n in zip("YX", space[-2:], strict=True))
            raise ImageMismatch(
                f"{view.name} has {'×'.join(map(str, space))} pixels in one plane; a bank takes {LARGEST}.",
                fix=f"Take parts of it: --crop {middle}.",
            )
        if not self.tile and spec.size is None and prod(space) * len(spec.channels) <= WHOLE:
            return None
        grid = make_grid(self.model, space, self.tile or None, None)
        # tiles that do not overlap: each pixel is looked at once
        grid = replace(grid, overlap=(0,) * len(space))
        return grid if len(grid) > 1 else None

    def labels(self, view: Image, grid: Grid | None) -> tuple[NDArray[np.uint8], Tensor | None]:
        """What the model draws (*space), as ``seglens segment`` does it; and the layer's map, if it was one piece.

        Raises:
            OutOfMemory: the plane does not fit in one piece.
        """
        if grid is not None:
            labels = np.zeros(grid.shape, np.uint8)
            # its own progress would start the bar again with every plane
            for piece in predict(self.model, view, replace(self.run, on_progress=None), tile=self.tile or None):
                labels[piece.where] = piece.labels
            return labels, None
        both = _Heard(self.model)
        try:
            # by the same way as a case asks for it, so that both have the very same numbers
            activation = layer_activation(both, self.module, self._input(view), self.run)
        except OutOfMemory as error:
            raise OutOfMemory(error.what, fix="Look at it in tiles: --tile 512.") from error
        return both.heard[0].argmax(0).cpu().numpy().astype(np.uint8), activation

    def sums(
        self, view: Image, grid: Grid | None, numbers: NDArray[Any], count: int, whole: Tensor | None
    ) -> NDArray[np.float64]:
        """The sum of the layer's map over each region (count, D).

        Args:
            view, grid: as in :meth:`labels`.
            numbers: of the regions (*space), from 1.
            count: how many.
            whole: the layer's map where it is known.
        """
        if whole is not None:
            return sums_over(whole, numbers, count, self.model.padded(numbers.shape))
        total: NDArray[np.float64] = np.zeros((count, 0))
        for done, tile in enumerate(grid or ()):
            self.run.progress(done, len(grid or ()), f"tiles of {view.name}")
            here, small = np.unique(numbers[tile.core], return_inverse=True)
            small = small.reshape(numbers[tile.core].shape) + (0 if here[0] == 0 else 1)
            here = here[here > 0]
            if len(here):
                part = self._part(view, tile, small, len(here))
                total = total if total.size else np.zeros((count, part.shape[1]))
                total[here - 1] += part
        return total

    def _part(self, view: Image, tile: Tile, small: NDArray[Any], count: int) -> NDArray[np.float64]:
        x = self._input(view, **dict(zip(self.model.spec.axes, tile.read, strict=True)))
        activation = layer_activation(self.model, self.module, x, self.run)
        space = tuple(x.shape[2:])
        numbers = np.zeros(space, np.int64)
        numbers[tile.inner] = small
        return sums_over(activation, numbers, count, self.model.padded(space))

    def _input(self, view: Image, **box: slice) -> Tensor:
        self.run.check()
        pixels = self.intake.to_input(read_plain(view, self.model.spec, **box))
        return torch.from_numpy(pixels).unsqueeze(0).to(self.model.device)
