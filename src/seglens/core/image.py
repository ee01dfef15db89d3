"""An image as SegLens sees it: any array, named axes, pixel size; read in pieces, never whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import ImageMismatch
from seglens.core.plural import plural

SPACE = "ZYX"
Index = int | slice


@dataclass(frozen=True, eq=False)
class Image:
    """A view on an array with named axes.

    Args:
        data: numpy, dask, zarr or anything sliced like them; pixels are read only by :meth:`read`.
        axes: one letter per axis of ``data``, from ``TCZYX``.
        pixel_size: size of a pixel along space axes, in ``unit``; missing axes are 1.
        unit: unit of the pixel size.
        name: shown to people.
        source: path or ``sample:NAME`` from which the image can be opened again; may be empty.
        channels: the channels to use, in order (one may repeat); ``None`` for all.
        index: per axis of ``data`` a position (the axis is gone) or a slice.

    Raises:
        ImageMismatch: axes do not fit, or the data type holds no numbers.
    """

    data: Any
    axes: str
    pixel_size: Mapping[str, float] = field(default_factory=dict)
    unit: str = "pixel"
    name: str = "image"
    source: str = ""
    channels: tuple[int, ...] | None = None
    index: tuple[Index, ...] = ()

    def __post_init__(self) -> None:
        """Check axes against the array."""
        shape, axes = tuple(self.data.shape), self.axes
        if len(axes) != len(shape) or len(set(axes)) != len(axes) or not set(axes) <= set("TCZYX"):
            raise ImageMismatch(
                f"The axes {axes!r} do not fit an image of shape {shape}.",
                fix="Give one letter of TCZYX for each axis, for example --axes ZYX.",
            )
        if np.dtype(self.data.dtype).kind not in "buif":
            raise ImageMismatch(
                f"{self.name} holds values of type {self.data.dtype}, which are not intensities.",
                fix="Convert the image to 8-bit, 16-bit or 32-bit numbers.",
            )
        if 0 in shape:
            raise ImageMismatch(f"{self.name} is empty: its shape is {shape}.", fix="Choose a file that holds pixels.")
        if not self.index:
            object.__setattr__(self, "index", tuple(slice(0, n) for n in shape))

    @property
    def kept(self) -> str:
        """The axes that are left, in the order of the data."""
        return "".join(a for a, i in zip(self.axes, self.index, strict=True) if isinstance(i, slice))

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes that are left."""
        return tuple(self.size(a) for a in self.kept)

    def size(self, axis: str) -> int:
        """Size of an axis; 1 if there is none of that name."""
        if axis == "C" and self.channels is not None:
            return len(self.channels)
        if axis not in self.kept:
            return 1
        part = self._of(axis)
        return int(part.stop - part.start) if isinstance(part, slice) else 1

    def space(self, axes: str) -> tuple[int, ...]:
        """Sizes along some axes."""
        return tuple(self.size(a) for a in axes)

    def scale(self, axes: str) -> tuple[float, ...]:
        """Pixel sizes along some axes."""
        return tuple(float(self.pixel_size.get(a, 1.0)) for a in axes)

    def offset(self, axes: str) -> tuple[int, ...]:
        """Where this view starts in the data, in pixels, along some axes."""
        parts = (self._of(a) if a in self.axes else 0 for a in axes)
        return tuple(p.start if isinstance(p, slice) else p for p in parts)

    def select(self, **positions: int) -> Image:
        """The view at one position of some axes, ``select(T=3, Z=5)``.

        Raises:
            ImageMismatch: no such axis or position.
        """
        image = self
        for axis, position in positions.items():
            if axis not in image.kept:
                raise ImageMismatch(
                    f"{self.name} has no {axis} axis to choose from; its axes are {self.kept}.",
                    fix=f"Leave {axis} out.",
                )
            size = image.size(axis)
            if not -size <= position < size:
                raise ImageMismatch(
                    f"{self.name} has {plural(size, 'position')} along {axis}; {position} is not one of them.",
                    fix=f"Choose {axis} from 0 to {size - 1}.",
                )
            start = image._of(axis)
            base = start.start if isinstance(start, slice) else 0
            image = image._with(axis, base + position % size)
        return image

    def crop(self, **parts: slice) -> Image:
        """The view of a box, in pixels of this view; clipped to the image."""
        image = self
        for axis, part in parts.items():
            if axis not in image.kept:
                continue
            start, stop, _ = part.indices(image.size(axis))
            base = image._of(axis)
            first = base.start if isinstance(base, slice) else 0
            image = image._with(axis, slice(first + start, first + max(stop, start + 1)))
        return image

    def with_channels(self, channels: tuple[int, ...]) -> Image:
        """The view with other channels, in a given order; a grey image may be repeated with ``(0, 0, 0)``.

        Raises:
            ImageMismatch: no such channel.
        """
        have = self.data.shape[self.axes.index("C")] if "C" in self.axes else 1
        wrong = [c for c in channels if not 0 <= c < have]
        if wrong:
            raise ImageMismatch(
                f"{self.name} has {plural(have, 'channel')}; {wrong[0]} is not one of them.",
                fix=f"Choose channels from 0 to {have - 1}.",
            )
        return replace(self, channels=channels)

    def read(self, order: str, **parts: slice) -> NDArray[Any]:
        """Pixels of this view (or of a box in it) as an array with axes ``order``; missing axes get size 1.

        Raises:
            ImageMismatch: an axis would be lost.
        """
        view = self.crop(**parts) if parts else self
        lost = set(view.kept) - set(order)
        if lost:
            raise ImageMismatch(
                f"{self.name} has axes {view.kept}, and {order} was asked for.",
                fix=f"Choose a position along {', '.join(sorted(lost))}.",
            )
        array = np.asarray(self.data[view.index])
        axes = view.kept
        if self.channels is not None:
            if "C" not in axes:
                array, axes = array[None], "C" + axes
            array = np.take(array, self.channels, axis=axes.index("C"))
        for axis in order:
            if axis not in axes:
                array, axes = array[None], axis + axes
        return array.transpose([axes.index(a) for a in order])

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the pixels."""
        dtype: np.dtype[Any] = np.dtype(self.data.dtype)
        return dtype

    def sample(self, order: str, *, most: int = 2_000_000) -> NDArray[Any]:
        """Pixels for statistics: everything if small, else a regular grid of blocks."""
        if np.prod(self.shape) <= most:
            return self.read(order)
        space = [a for a in SPACE if a in self.kept]
        blocks = 4
        side = int((most / blocks ** len(space) / max(1, self.size("C"))) ** (1 / len(space)))
        corners = {a: np.linspace(0, max(0, self.size(a) - side), blocks).astype(int) for a in space}
        grid = np.stack(np.meshgrid(*corners.values(), indexing="ij"), -1).reshape(-1, len(space))
        pieces = [
            self.read(order, **{a: slice(int(s), int(s) + side) for a, s in zip(space, spot, strict=True)})
            for spot in grid
        ]
        return np.concatenate(pieces, axis=order.index(space[-1]))

    def fingerprint(self) -> str:
        """A sha256 of shape, type, selection and sampled pixels; cheap on images of any size."""
        digest = hashlib.sha256(f"{self.shape}{self.dtype}{self.kept}{self.offset(self.axes)}".encode())
        whole = "".join(a for a in "TCZYX" if a in self.kept or (a == "C" and self.channels is not None))
        views = [self]
        if "T" in self.kept:
            last = self.size("T") - 1
            views = [self.select(T=at) for at in sorted({0, last // 2, last})]
        for view in views:
            digest.update(np.ascontiguousarray(view.sample(whole.replace("T", ""))).tobytes())
        return digest.hexdigest()

    def _of(self, axis: str) -> Index:
        return self.index[self.axes.index(axis)]

    def _with(self, axis: str, part: Index) -> Image:
        where = self.axes.index(axis)
        return replace(self, index=(*self.index[:where], part, *self.index[where + 1 :]))


def guess_axes(shape: tuple[int, ...], *, rgb: bool | None = None) -> str:
    """Axes of an array that does not tell: a last axis of 3 or 4 is colour, then space, then time.

    Raises:
        ImageMismatch: fewer than two axes, or too many to guess.
    """
    if rgb is None:
        rgb = len(shape) >= 3 and shape[-1] in (3, 4) and min(shape[-3:-1]) > 4
    space = shape[:-1] if rgb else shape
    plain = {2: "YX", 3: "ZYX", 4: "TZYX"}
    if len(space) not in plain:
        raise ImageMismatch(
            f"An image of shape {shape} has axes that cannot be guessed.",
            fix="Name them, for example --axes TCZYX.",
        )
    return plain[len(space)] + ("C" if rgb else "")
