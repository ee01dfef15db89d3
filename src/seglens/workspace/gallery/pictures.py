"""Crops: a small uint8 picture of a place in an image, and its PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import BadParameter
from seglens.core.image import Image

MARGIN = 8
SIDE = 512  # pixels: what is larger is made smaller, a gallery is looked at in thumbnails
STRIP = 2**22  # pixels of a large box that are read at once
Contrast = tuple[tuple[float, float], ...] | None


def contrast_of(image: Image, select: Mapping[str, int] | None = None) -> Contrast:
    """What is black and what is white in an image, per channel: percentiles 0.5 and 99.8 of sampled pixels.

    Args:
        image: any; read in part.
        select: positions along further axes, which are looked at alone.

    Returns:
        (low, high) per channel; ``None`` for 8-bit colour, which stays as it is.
    """
    view = image.select(**(select or {}))
    if _is_colour(view):
        return None
    pixels = view.sample("C" + "".join(a for a in view.kept if a != "C")).astype(np.float64)
    limits = []
    for channel in pixels:
        values = channel[np.isfinite(channel)]
        low, high = np.percentile(values, (0.5, 99.8)) if values.size else (0.0, 1.0)
        if high <= low:  # few bright pixels on nothing: then the brightest is white
            high = float(values.max()) if values.size else 1.0
        limits.append((float(low), float(high)))
    return tuple(limits)


def crop_of(
    image: Image,
    box: Sequence[tuple[int, int]],
    margin: int = MARGIN,
    *,
    axes: str | None = None,
    position: Sequence[int] | None = None,
    select: Mapping[str, int] | None = None,
    contrast: Contrast = (),
    side: int = SIDE,
) -> NDArray[np.uint8]:
    """A picture of a box in an image, with something around it.

    Of a volume it is the slice at ``position``. Intensities get the contrast of the whole image, not of the crop, so
    that dark items look dark; 8-bit colour stays. Two channels become green and magenta, of more the first three show.

    Args:
        image: where it is; only the box is read, and a sample for the contrast.
        box: half open, per axis of ``axes``.
        margin: pixels around, as far as the image goes.
        axes: of box and position; by default the last ones of the image's axes without channels.
        position: pixel along ``axes``; by default the centre of the box.
        select: positions along the image's further axes.
        contrast: of :func:`contrast_of`, to look only once at an image with many items.
        side: a larger picture is made smaller.

    Returns:
        (h, w) for one channel, else (h, w, 3).

    Raises:
        BadParameter: the box lies outside the image, or has other axes.
        ImageMismatch: no such axis or position.
    """
    view = image.select(**(select or {}))
    plain = "".join(a for a in view.kept if a != "C")
    axes = axes or plain[-len(box) :]
    if len(axes) != len(box) or not {"Y", "X"} <= set(axes):
        raise BadParameter(
            f"A box of {len(box)} axes does not fit the axes {axes}.", fix="Give start and stop per axis."
        )
    limits = contrast_of(view) if contrast == () else contrast
    at = position if position is not None else [(a + b) // 2 for a, b in box]
    spans = dict(zip(axes, box, strict=True))
    view = view.select(**{a: int(p) for a, p in zip(axes, at, strict=True) if a not in "YX"})
    parts = {}
    for axis in "YX":
        start, stop = max(0, spans[axis][0] - margin), min(view.size(axis), spans[axis][1] + margin)
        if not 0 <= spans[axis][0] < spans[axis][1] or start >= stop:
            raise BadParameter(
                f"The box {_told(box)} lies outside {image.name} ({', '.join(map(str, view.space('YX')))} pixels).",
                fix="Give a box inside the image, start before stop.",
            )
        parts[axis] = slice(start, stop)
    return shrunk(_read(view, parts, limits, side), side)


def _read(view: Image, parts: Mapping[str, slice], limits: Contrast, side: int) -> NDArray[np.uint8]:
    """The picture of a box; a very large one is read and made smaller strip by strip."""
    (top, bottom), (left, right) = ((parts[axis].start, parts[axis].stop) for axis in "YX")
    step = max(bottom - top, right - left) // (2 * side)
    if step < 2:
        return _shown(view.read("CYX", **parts), limits)
    rows, strips = step * max(1, STRIP // (step * (right - left))), []
    for start in range(top, bottom, rows):
        strip = _shown(view.read("CYX", Y=slice(start, min(start + rows, bottom)), X=parts["X"]), limits)
        strips.append(_resized(strip, -(-strip.shape[0] // step), -(-strip.shape[1] // step)))
    return np.concatenate(strips)


def shrunk(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The same picture, no side longer than this; pixels are averaged."""
    longest = max(picture.shape[:2])
    if longest <= side:
        return picture
    height, width = (max(1, round(n * side / longest)) for n in picture.shape[:2])
    return _resized(picture, height, width)


def _resized(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    from PIL import Image as Pillow

    return np.asarray(Pillow.fromarray(picture).resize((width, height), Pillow.Resampling.BOX))


def to_png(picture: NDArray[Any]) -> bytes:
    """A uint8 picture, (h, w) or (h, w, 3), as PNG.

    Raises:
        BadParameter: another type or shape.
    """
    from PIL import Image as Pillow

    array = np.ascontiguousarray(picture)
    if (
        array.dtype != np.uint8
        or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3))
        or 0 in array.shape
    ):
        raise BadParameter(
            f"A crop of shape {array.shape} and type {array.dtype} is no picture.",
            fix="Give uint8 of shape (h, w) or (h, w, 3), as crop_of makes it.",
        )
    file = io.BytesIO()
    Pillow.fromarray(array).save(file, "PNG")
    return file.getvalue()


def from_png(data: bytes) -> NDArray[np.uint8]:
    """The picture of a PNG: (h, w), or (h, w, 3) for colour.

    Raises:
        OSError: it is none.
    """
    from PIL import Image as Pillow

    with Pillow.open(io.BytesIO(data), formats=["PNG"]) as opened:
        return np.asarray(opened.convert("L" if opened.mode in ("1", "L", "LA") else "RGB"))


def _is_colour(view: Image) -> bool:
    return view.dtype == np.uint8 and view.size("C") in (3, 4)


def _shown(pixels: NDArray[Any], limits: Contrast) -> NDArray[np.uint8]:
    """(C, h, w) as (h, w) or (h, w, 3)."""
    if limits is None:
        return np.ascontiguousarray(np.moveaxis(pixels[:3], 0, -1))
    shown = [_stretched(one, *span) for one, span in zip(pixels[:3], limits[:3], strict=True)]
    if len(shown) == 1:
        return shown[0]
    if len(shown) == 2:
        shown = [shown[1], shown[0], shown[1]]
    return np.stack(shown, -1)


def _stretched(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    span = np.float32(high - low if high > low else 1)
    share = np.nan_to_num((pixels.astype(np.float32) - np.float32(low)) / span, nan=0.0, posinf=1.0, neginf=0.0)
    return np.asarray(np.round(np.clip(share, 0, 1) * 255), np.uint8)


def _told(box: Sequence[tuple[int, int]]) -> str:
    return ", ".join(f"{a}:{b}" for a, b in box)
