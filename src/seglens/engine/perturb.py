"""Perturbed copies of an image, made batch by batch: windows, masks, fills."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from seglens.core.explanation import Table

Box = tuple[slice, ...]


class Perturbations(Protocol):
    """Perturbed inputs that are made when they are needed."""

    def __len__(self) -> int:
        """How many there are."""

    def batch(self, start: int, stop: int) -> Tensor:
        """Some of them, (n, C, *space)."""


@dataclass(frozen=True, eq=False)
class Covered:
    """Copies of ``x`` (1, C, *space), each with one window replaced by ``fill`` (1, C, *space).

    Args:
        x: clean input.
        fill: what shows where a window covers.
        windows: one box per copy.
        only: (*space) boolean: cover only these pixels of each window.
    """

    x: Tensor
    fill: Tensor
    windows: Sequence[Box]
    only: Tensor | None = None

    def __len__(self) -> int:
        """One copy per window."""
        return len(self.windows)

    def batch(self, start: int, stop: int) -> Tensor:
        """(n, C, *space)."""
        stop = min(stop, len(self))
        out = self.x.repeat(stop - start, *(1,) * (self.x.ndim - 1))
        for i, window in enumerate(self.windows[start:stop]):
            where = (slice(None), *window)
            patch = self.fill[0][where]
            if self.only is not None:
                patch = torch.where(self.only[window], patch, out[i][where])
            out[i][where] = patch
        return out


def windows(shape: Sequence[int], size: int, stride: int) -> list[Box]:
    """Boxes of side ``size`` every ``stride`` pixels; the last of each row ends at the border."""
    lines = []
    for length in shape:
        side = min(size, length)
        starts = list(range(0, length - side + 1, stride))
        if starts[-1] != length - side:
            starts.append(length - side)
        lines.append([slice(s, s + side) for s in starts])
    return list(product(*lines))


def spread(boxes: Sequence[Box], values: Tensor, shape: Sequence[int]) -> Tensor:
    """Per pixel (*space) the mean of the values of the boxes that cover it; 0 where none does."""
    total = torch.zeros(tuple(shape), dtype=torch.float64)
    count = torch.zeros_like(total)
    for box, value in zip(boxes, values.double().cpu(), strict=True):
        total[box] += value
        count[box] += 1
    return (total / count.clamp(min=1)).float()


def rescaled(values: Tensor, how: str) -> Tensor:
    """A map as it is (``none``), from 0 to 1 (``min-max``), or with mean 0 and deviation 1 (``z-score``)."""
    if how == "min-max" and values.max() > values.min():
        return (values - values.min()) / (values.max() - values.min())
    if how == "z-score" and values.std() > 0:
        return (values - values.mean()) / values.std()
    return values


def box_table(name: str, boxes: Sequence[Box], columns: dict[str, list[float]]) -> Table:
    """A table of boxes, by axis, with further columns."""
    axes = "ZYX"[-len(boxes[0]) :]
    corners: dict[str, list[float]] = {}
    for i, axis in enumerate(axes):
        corners |= {f"{axis} start": [b[i].start for b in boxes], f"{axis} stop": [b[i].stop for b in boxes]}
    return Table(name, corners | columns)


def told(box: Box) -> str:
    """A box in words: ``Y 3-7, X 10-14``."""
    return ", ".join(f"{axis} {s.start}-{s.stop}" for axis, s in zip("ZYX"[-len(box) :], box, strict=True))


def gaussian_blur(x: Tensor, sigma: float) -> Tensor:
    """Blur (N, C, *space) by a Gaussian of ``sigma`` pixels, edges repeated."""
    radius = max(1, round(3 * sigma))
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype) / sigma) ** 2)
    line = line / line.sum()
    conv = F.conv2d if x.ndim == 4 else F.conv3d
    for axis in range(2, x.ndim):
        shape = [1] * x.ndim
        shape[axis] = -1
        kernel = line.reshape(shape).repeat(x.shape[1], *(1,) * (x.ndim - 1))
        margins = [0] * (2 * (x.ndim - 2))
        margins[2 * (x.ndim - 1 - axis)] = margins[2 * (x.ndim - 1 - axis) + 1] = radius
        x = conv(F.pad(x, margins, mode="replicate"), kernel, groups=x.shape[1])
    return x
