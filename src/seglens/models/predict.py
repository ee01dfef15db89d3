"""Prediction tile by tile, as a generator: cancel between tiles, show what is there, survive small memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seglens.core.errors import OutOfMemory
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.models.blame import blaming
from seglens.models.classes import entropy, probabilities
from seglens.models.device import free_cache, is_out_of_memory
from seglens.models.intake import Intake, check_fits, fit_intake, read_plain
from seglens.models.segmentation import SegmentationModel, quiet
from seglens.models.tiles import Blend, Grid, Tile, ramp

SMALLEST = 32


@dataclass(frozen=True, eq=False)
class Piece:
    """What one tile brought.

    Args:
        position: position along axes that the model does not see (time, slices of a stack).
        where: box in the image's space axes.
        labels: class per pixel (*box), uint8.
        probabilities: (K, *box), float32.
        entropy: predictive entropy in nats (*box), float32; 0 is certain, the log of
            :attr:`~seglens.models.spec.ModelSpec.choices` is no idea.
        done, total: tiles so far and in all.
    """

    position: dict[str, int]
    where: tuple[slice, ...]
    labels: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    entropy: NDArray[np.float32]
    done: int
    total: int


@dataclass
class Ladder:
    """How much fits into memory, as found so far: first the batch is halved, then the tile.

    Args:
        batch: tiles at a time.
        splits: how often a tile is cut in two before it goes through the model.
        smallest: tiles are not cut below this side, in pixels.
    """

    batch: int = 1
    splits: int = 0
    smallest: int = SMALLEST
    said: list[str] = field(default_factory=list)

    def step_down(self, size: int) -> bool:
        """Take the next smaller way; ``False`` if there is none."""
        if self.batch > 1:
            self.batch //= 2
            self.said.append(f"batch {self.batch}")
            return True
        if size // 2 ** (self.splits + 1) >= self.smallest:
            self.splits += 1
            self.said.append(f"tile {size // 2**self.splits} px")
            return True
        return False


def predict(
    model: SegmentationModel,
    image: Image,
    run: Run,
    *,
    tile: int | None = None,
    halo: int | None = None,
) -> Iterator[Piece]:
    """Segment an image of any size; further axes (T, or Z for a 2-D model) are walked through.

    Args:
        model: the model; left as it was.
        image: read tile by tile, never whole.
        run: progress, cancel, notes.
        tile: side of a tile in pixels; default from the model, else 512 (2-D) or 64 (3-D).
        halo: context on each side that is read and thrown away; default from the model. Tiled equals
            untiled when it covers the model's reach.

    Yields:
        Pieces; later ones overwrite the overlap of earlier ones.

    Raises:
        ImageMismatch: the image does not fit the model.
        OutOfMemory: not even one small tile fits.
        Cancelled: within one tile of the request.
    """
    check_fits(image, model.spec, stack=True)
    intake = fit_intake(image, model.spec)
    grid = make_grid(model, image.space(model.spec.axes), tile, halo)
    further = [a for a in image.kept if a not in model.spec.axes and a != "C"]
    positions = list(product(*(range(image.size(a)) for a in further)))
    total = len(grid) * len(positions)
    ladder = Ladder(batch=run.batch or (1 if model.device.type == "cpu" else 4))
    done, over = 0, model.spec.overlapping
    for spot in positions:
        position = dict(zip(further, spot, strict=True))
        view = image.select(**position) if position else image
        for where, maps in _sweep(model, view, intake, grid, ladder, run):
            done += 1
            labels, unsure = labels_of(maps, over), entropy(torch.from_numpy(maps)[None], over)[0].numpy()
            yield Piece(position, where, labels, maps, unsure, done, total)
            run.progress(done, total, "tiles")


def make_grid(model: SegmentationModel, shape: tuple[int, ...], tile: int | None, halo: int | None) -> Grid:
    """The tiles for a shape: from the arguments, else from the model, else by rule."""
    spec = model.spec
    if tile is None:
        sides = spec.size or spec.tile or ((512,) * 2 if spec.ndim == 2 else (64,) * 3)
    else:
        sides = (tile,) * spec.ndim
    if halo is None:
        margins = spec.halo or tuple(min(spec.reach or side // 8, side // 4) for side in sides)
    else:
        margins = (halo,) * spec.ndim
    if spec.size is not None:
        sides = tuple(min(a, b) for a, b in zip(sides, spec.size, strict=True))
    overlap = tuple(min(16, side // 8) for side in sides)
    if spec.size is None:
        # a tile that is nearly all halo would do the same work over and over
        sides = tuple(
            max(side, 2 * margin + lap + max(margin, spec.divisor))
            for side, margin, lap in zip(sides, margins, overlap, strict=True)
        )
    return Grid(shape, sides, margins, overlap, spec.divisor)


def _sweep(
    model: SegmentationModel, image: Image, intake: Intake, grid: Grid, ladder: Ladder, run: Run
) -> Iterator[tuple[tuple[slice, ...], NDArray[np.float32]]]:
    spec = model.spec
    blend = Blend(len(spec.classes), grid.shape)
    for batch in _batches(iter(grid), ladder):
        run.check()
        boxes = [dict(zip(spec.axes, t.read, strict=True)) for t in batch]
        x = np.stack([intake.to_input(read_plain(image, spec, **box)) for box in boxes])
        maps = class_maps(model, torch.from_numpy(x), ladder, run, grid.halo)
        for t, one in zip(batch, maps, strict=True):
            inner = one[(slice(None), *t.inner)].numpy()
            yield t.core, blend.add(t, inner, ramp(t, grid.overlap))


def _batches(tiles: Iterator[Tile], ladder: Ladder) -> Iterator[list[Tile]]:
    batch: list[Tile] = []
    for t in tiles:
        if batch and (len(batch) >= ladder.batch or _sizes(t) != _sizes(batch[0])):
            yield batch
            batch = []
        batch.append(t)
    if batch:
        yield batch


def _sizes(tile: Tile) -> tuple[int, ...]:
    return tuple(r.stop - r.start for r in tile.read)


def class_maps(model: SegmentationModel, x: Tensor, ladder: Ladder, run: Run, halo: tuple[int, ...]) -> Tensor:
    """Class probabilities (N, K, *space) of input (N, C, *space), on the CPU, within the memory there is.

    Raises:
        OutOfMemory: the ladder has no further step.
    """
    while True:
        try:
            parts = [
                _forward(model, x[i : i + ladder.batch], ladder.splits, halo, run)
                for i in range(0, len(x), ladder.batch)
            ]
            return torch.cat(parts)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failed = error
        free_cache()
        if not ladder.step_down(max(x.shape[2:])):
            raise _no_memory(model, ladder) from failed
        run.note(f"Memory ran out; went on with {ladder.said[-1]}.")


def _forward(model: SegmentationModel, x: Tensor, splits: int, halo: tuple[int, ...], run: Run) -> Tensor:
    run.check()
    axis = int(np.argmax(x.shape[2:]))
    size = x.shape[2 + axis]
    if splits == 0 or size < 2 * model.spec.divisor:
        with blaming(model), torch.inference_mode(), quiet(model.module):
            out = probabilities(model.logits(x.to(model.device)), model.spec.overlapping)
        run.cost.forwards += len(x)
        return out.float().cpu()
    d = model.spec.divisor
    middle = max(d, size // 2 // d * d)
    margin = -(-halo[axis] // d) * d
    halves = []
    for start, stop in ((0, middle), (middle, size)):
        low, high = max(0, start - margin), min(size, stop + margin)
        part = _forward(model, x.narrow(2 + axis, low, high - low), splits - 1, halo, run)
        halves.append(part.narrow(2 + axis, start - low, stop - start))
    return torch.cat(halves, 2 + axis)


def _no_memory(model: SegmentationModel, ladder: Ladder) -> OutOfMemory:
    tried = ", ".join(ladder.said) or "nothing smaller"
    where = "the GPU" if model.device.type != "cpu" else "this computer"
    fix = (
        "Run it on the CPU with --device cpu." if model.device.type != "cpu" else "Close other programs and try again."
    )
    return OutOfMemory(f"{where[0].upper()}{where[1:]} ran out of memory; tried {tried}.", fix=fix)


def labels_of(maps: NDArray[Any], overlapping: bool) -> NDArray[np.uint8]:
    """Class per pixel of probabilities (K, *space); of classes that lie over each other, the most probable."""
    if not overlapping:
        return np.asarray(maps.argmax(0), np.uint8)
    return np.asarray(np.where(maps[1:].max(0) > 0.5, maps[1:].argmax(0) + 1, 0), np.uint8)
