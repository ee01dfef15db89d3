"""Perturbed copies of an image, made batch by batch: windows, masks, fills."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from seglens.core.boxes import Box, at_box
from seglens.core.explanation import Table


class Batches(ABC):
    """Tensors, one per copy, that are made when they are needed."""

    @abstractmethod
    def __len__(self) -> int:
        """How many there are."""

    @abstractmethod
    def batch(self, start: int, stop: int) -> Tensor:
        """Some of them, (n, C, *space)."""

    def parts(self) -> Iterable[Tensor | str] | None:
        """What tells these from others, for the cache of scores; ``None``: never cache."""
        return None


class Perturbations(Batches):
    """Perturbed inputs (n, C, *space).

    A subclass has ``__len__`` and :meth:`batch`; the rest lets the engine save work where it can.
    """

    def within(self, box: Box) -> Perturbations:
        """The same copies, only their pixels in a box; a subclass makes no more than these."""
        return _Part(self, box)

    @property
    def boxes(self) -> Sequence[Box] | None:
        """Per copy the box in which alone it differs from the image; ``None`` if nothing is known."""
        return None

    def together(self, members: Sequence[int]) -> Tensor:
        """Several changes in one copy (1, C, *space); what has :attr:`boxes` has this, too."""
        raise TypeError(f"{type(self).__name__} has boxes and no together()")


@dataclass(frozen=True, eq=False)
class _Cut:
    """Made whole, then cut out."""

    whole: Any
    box: Box

    def __len__(self) -> int:
        return len(self.whole)

    def batch(self, start: int, stop: int) -> Tensor:
        part: Tensor = self.whole.batch(start, stop)[at_box(self.box)]
        return part


class _Part(_Cut, Perturbations):
    def together(self, members: Sequence[int]) -> Tensor:
        part: Tensor = self.whole.together(members)[at_box(self.box)]
        return part


@dataclass(frozen=True, eq=False)
class Covered(Perturbations):
    """Copies of ``x`` (1, C, *space), each with one window replaced by ``fill``.

    Args:
        x: clean input.
        fill: what shows where a window covers: (1, C, *space), or a function from a box to (C, *box).
        windows: one box per copy.
        only: (*space) boolean: cover only these pixels of each window.
        corner: where ``x`` starts in the image whose boxes the ``windows`` are.
    """

    x: Tensor
    fill: Tensor | Callable[[Box], Tensor]
    windows: Sequence[Box]
    only: Tensor | None = None
    corner: tuple[int, ...] = ()

    def __len__(self) -> int:
        """One copy per window."""
        return len(self.windows)

    @property
    def boxes(self) -> Sequence[Box]:
        """The windows."""
        return self.windows

    def batch(self, start: int, stop: int) -> Tensor:
        """(n, C, *space)."""
        stop = min(stop, len(self))
        out = self.x.repeat(stop - start, *(1,) * (self.x.ndim - 1))
        for one, window in zip(out, self.windows[start:stop], strict=True):
            self._cover(one, window)
        return out

    def together(self, members: Sequence[int]) -> Tensor:
        """(1, C, *space) with all these windows covered."""
        out = self.x.clone()
        for member in members:
            self._cover(out[0], self.windows[member])
        return out

    def within(self, box: Box) -> Covered:
        """The copies inside a box; windows keep the image's coordinates."""
        at = at_box(box)
        fill = self.fill if callable(self.fill) else self.fill[at]
        only = None if self.only is None else self.only[box]
        return replace(self, x=self.x[at], fill=fill, only=only, corner=tuple(s.start for s in box))

    def parts(self) -> Iterable[Tensor | str]:
        """Image, fill, windows."""
        yield from (self.x, str(self.windows), str(self.corner))
        yield self.fill(self.windows[0]) if callable(self.fill) else self.fill
        if self.only is not None:
            yield self.only

    def _cover(self, one: Tensor, window: Box) -> None:
        corner = self.corner or (0,) * len(window)
        inside = tuple(
            slice(max(0, s.start - c), min(n, s.stop - c))
            for s, c, n in zip(window, corner, one.shape[1:], strict=True)
        )
        if any(s.start >= s.stop for s in inside):
            return
        where = (slice(None), *inside)
        if callable(self.fill):
            patch = self.fill(window)
            cut = (s.start + c - w.start for s, c, w in zip(inside, corner, window, strict=True))
            patch = patch[(slice(None), *(slice(a, a + s.stop - s.start) for a, s in zip(cut, inside, strict=True)))]
        else:
            patch = self.fill[0][where]
        one[where] = patch if self.only is None else torch.where(self.only[inside], patch, one[where])


class Masks(Batches):
    """Soft masks (n, 1 or C, *space), one per copy: 1 keeps a pixel, 0 takes it away."""

    def within(self, box: Box) -> Masks:
        """The same masks, only their pixels in a box."""
        return _MaskPart(self, box)


class _MaskPart(_Cut, Masks):
    pass


M_co = TypeVar("M_co", bound=Masks, covariant=True)


@dataclass(frozen=True, eq=False)
class Mixed(Perturbations, Generic[M_co]):
    """Copies that keep ``x`` where a mask is 1 and show ``fill`` where it is 0.

    Args:
        x, fill: (1, C, *space).
        masks: one per copy.
    """

    x: Tensor
    fill: Tensor
    masks: M_co

    def __len__(self) -> int:
        """One copy per mask."""
        return len(self.masks)

    def batch(self, start: int, stop: int) -> Tensor:
        """(n, C, *space)."""
        m = self.masks.batch(start, min(stop, len(self))).to(self.x)
        # where nothing is taken away the pixel stays as it is to the last bit
        return torch.where(m == 1, self.x, m * self.x + (1 - m) * self.fill)

    def within(self, box: Box) -> Mixed[Masks]:
        """The copies inside a box."""
        at = at_box(box)
        return Mixed(self.x[at], self.fill[at], self.masks.within(box))

    def parts(self) -> Iterable[Tensor | str] | None:
        """Image, fill, masks."""
        masks = self.masks.parts()
        return None if masks is None else [self.x, self.fill, *masks]


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
    dims, told = len(shape), values.detach().cpu().double().numpy()
    # each box adds its value at its corners, with alternating sign; sums along the axes fill it
    edges = np.array([[(s.start, s.stop) for s in box] for box in boxes]).reshape(-1, dims, 2)
    corners = np.zeros((2, *(n + 1 for n in shape)))
    for ends in product((0, 1), repeat=dims):
        at = tuple(edges[:, axis, end] for axis, end in enumerate(ends))
        sign = (-1.0) ** sum(ends)
        np.add.at(corners[0], at, sign * told)
        np.add.at(corners[1], at, sign)
    for axis in range(1, dims + 1):
        corners = corners.cumsum(axis)
    total, count = corners[(slice(None), *(slice(0, n) for n in shape))]
    count = count.round()
    # what sums of what cancels leave behind
    total[np.abs(total) < 1e-12 * np.abs(told).max(initial=0)] = 0
    return torch.from_numpy(np.where(count > 0, total / np.maximum(count, 1), 0).astype(np.float32))


def rescaled(values: Tensor, how: str) -> Tensor:
    """A map as it is (``none``), from 0 to 1 (``min-max``), or with mean 0 and deviation 1 (``z-score``)."""
    if how == "min-max" and values.max() > values.min():
        return (values - values.min()) / (values.max() - values.min())
    if how == "z-score" and values.std() > 0:
        return (values - values.mean()) / values.std()
    return values


def box_table(name: str, axes: str, boxes: Sequence[Box], columns: dict[str, list[float]]) -> Table:
    """A table of boxes, by axis (one letter each), with further columns."""
    corners: dict[str, list[float]] = {}
    for i, axis in enumerate(axes):
        corners |= {f"{axis} start": [b[i].start for b in boxes], f"{axis} stop": [b[i].stop for b in boxes]}
    return Table(name, corners | columns)


def told(box: Box, axes: str) -> str:
    """A box in words: ``Y 3-7, X 10-14``."""
    return ", ".join(f"{axis} {s.start}-{s.stop}" for axis, s in zip(axes, box, strict=True))


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
