"""What is taken away as one: cells of a grid, superpixels, objects, a person's labels, channels, slices (card A/K2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.segmentation import slic
from torch import Tensor

from seglens.core.boxes import Box
from seglens.core.errors import MissingNeed, NoSuchRegion
from seglens.core.param import UnitName
from seglens.engine.perturb import Masks
from seglens.engine.target import objects

if TYPE_CHECKING:
    from seglens.engine.case import Case

PLANES = {"slices": ("Z", "slice"), "frames": ("T", "frame")}  # along which axis, and what one is called


@dataclass(frozen=True, eq=False)
class Units:
    """Pixels that belong together.

    Args:
        labels: (1 or C, *space) long: the unit of each pixel, from 0; -1 where nothing is ever taken away.
        names: one per unit, for tables.
        kind: as it was asked for.
    """

    labels: Tensor
    names: tuple[str, ...]
    kind: str

    def __len__(self) -> int:
        """How many there are."""
        return len(self.names)

    @property
    def spatial(self) -> bool:
        """Whether a unit is a place (and not a channel)."""
        return len(self.labels) == 1

    def masks(self, keep: Tensor) -> UnitMasks:
        """Masks of the rows of ``keep`` (N, units): 1 keeps a unit, 0 takes it away, between is a mixture."""
        return UnitMasks(self.labels, keep.float())

    def spread(self, values: Tensor) -> Tensor:
        """Per pixel (*space) the value of its unit; 0 where there is none. Only for places."""
        padded = torch.cat([values.cpu().double(), torch.zeros(1, dtype=torch.float64)])
        return padded[self.labels[0].cpu()].float()


@dataclass(frozen=True, eq=False)
class UnitMasks(Masks):
    """Masks that are constant on each unit.

    Args:
        labels: (1 or C, *space) long, -1 is always kept.
        keep: (N, units).
    """

    labels: Tensor
    keep: Tensor

    def __len__(self) -> int:
        """One per row."""
        return len(self.keep)

    def batch(self, start: int, stop: int) -> Tensor:
        """(n, 1 or C, *space)."""
        rows = self.keep[start:stop].to(self.labels.device)
        padded = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        return padded[:, self.labels.flatten()].reshape(-1, *self.labels.shape)

    def within(self, box: Box) -> UnitMasks:
        """Only the pixels in a box."""
        return UnitMasks(self.labels[(slice(None), *box)], self.keep)

    def parts(self) -> Iterable[Tensor | str]:
        """Labels and rows."""
        return [self.labels, self.keep]


def one_unit(mask: Tensor) -> Units:
    """A single unit where ``mask`` (*space, boolean) is set."""
    return Units(torch.where(mask, 0, -1)[None], ("region",), "region")


def make_units(case: Case, kind: UnitName, count: int) -> Units:
    """Units of a case, only where the target can see them (:attr:`~seglens.engine.case.Case.field`).

    Args:
        case: image, prediction, annotation.
        kind: ``superpixels``, ``grid``, ``objects`` (predicted), ``labels`` (a person's), ``channels``,
            ``slices`` or ``frames``.
        count: about how many superpixels or cells.

    Raises:
        MissingNeed: no labels were given, or the image has no slices, no frames or only one channel.
        NoSuchRegion: there is no unit where the target can see it.
    """
    names: list[str] = []
    if kind == "channels":
        labels, names = _channels(case)
    elif kind in PLANES:
        labels, names = _planes(case, kind)
    else:
        maker = {"grid": _grid, "superpixels": _superpixels, "objects": _objects, "labels": _labels}[kind]
        labels = maker(case, count)[None]
    seen = np.full_like(labels, -1)
    field = (slice(None), *case.field)
    seen[field] = labels[field]
    numbers = np.unique(seen[seen >= 0])
    if not len(numbers):
        raise NoSuchRegion(
            f"There are no {kind} where the target can see them.", fix="Choose other units, for example grid."
        )
    compact = np.where(seen >= 0, np.searchsorted(numbers, seen), -1)
    told = tuple(names[n] if names else str(n + (kind in ("objects", "labels"))) for n in numbers.tolist())
    return Units(torch.from_numpy(compact).to(case.x.device), told, kind)


def _channels(case: Case) -> tuple[NDArray[np.int64], list[str]]:
    names = list(case.model.spec.channels)
    if len(names) < 2:
        raise MissingNeed(
            f"{case.model.spec.name} takes one channel, so channels cannot be compared.",
            fix="Choose other units, for example superpixels.",
        )
    tail = (1,) * len(case.shape)
    labels = np.broadcast_to(np.arange(len(names)).reshape(-1, *tail), (len(names), *case.shape))
    return labels.astype(np.int64), names


def _planes(case: Case, kind: str) -> tuple[NDArray[np.int64], list[str]]:
    axis, one = PLANES[kind]
    if not case.model.spec.axes.startswith(axis):
        raise MissingNeed(
            f"{case.model.spec.name} sees one {one} at a time, so {kind} cannot be compared.",
            fix="Choose other units, for example superpixels.",
        )
    depth = case.shape[0]
    labels = np.broadcast_to(np.arange(depth).reshape(1, -1, 1, 1), (1, *case.shape))
    return labels.astype(np.int64), [f"{one} {p}" for p in range(depth)]


def _grid(case: Case, count: int) -> NDArray[np.int64]:
    """Cells of about equal sides over the field."""
    sizes = [s.stop - s.start for s in case.field]
    side = max(1.0, (np.prod(sizes) / count) ** (1 / len(sizes)))
    labels = np.full(case.shape, -1, np.int64)
    cells = [max(1, round(n / side)) for n in sizes]
    index = [np.arange(n) * c // n for n, c in zip(sizes, cells, strict=True)]
    labels[case.field] = np.ravel_multi_index(np.meshgrid(*index, indexing="ij"), cells)
    return labels


def _superpixels(case: Case, count: int) -> NDArray[np.int64]:
    pixels = case.intensities(case.x)[case.field].astype(np.float64)
    low, high = pixels.min(), pixels.max()
    channel_axis = -1 if pixels.ndim > len(case.shape) else None
    scaled = (pixels - low) / (high - low if high > low else 1)
    labels = np.full(case.shape, -1, np.int64)
    # three channels are not always colours, and in Lab, whose lengths go to 100, space would count for nothing
    labels[case.field] = slic(
        scaled, n_segments=count, compactness=0.1, start_label=0, channel_axis=channel_axis, convert2lab=False
    )
    return labels


def _objects(case: Case, _count: int) -> NDArray[np.int64]:
    return objects(case.labels).astype(np.int64) - 1


def _labels(case: Case, _count: int) -> NDArray[np.int64]:
    if case.annotation is None:
        raise MissingNeed(
            "Units from labels need a labels layer, and none was given.",
            fix="Choose a Labels layer, add --annotation FILE, or choose other units.",
        )
    drawn: NDArray[Any] = np.asarray(case.annotation)
    if drawn.shape != case.shape:
        raise NoSuchRegion(
            f"The labels have shape {drawn.shape}, the image {case.shape}.",
            fix="Draw them on this image, or crop them.",
        )
    return drawn.astype(np.int64) - 1
