"""From an image to model input: axes, channels and normalisation, fitted once on the clean image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seglens.core.errors import ImageMismatch
from seglens.core.image import Image
from seglens.core.plural import plural
from seglens.models.segmentation import channel_hint
from seglens.models.spec import ModelSpec

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Intake:
    """An affine map per channel from intensities to model input, frozen on the clean image.

    Freezing it matters: a window that is covered must not change how the rest of the image is normalised.

    Args:
        scale, offset: per channel (C,); input = (intensity - offset) / scale.
        low, high: range of intensities, for black, grey and white.
    """

    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    low: float
    high: float

    def to_input(self, intensities: Array) -> NDArray[np.float32]:
        """(C, *space) intensities to model input of the same shape."""
        out = np.empty(intensities.shape, np.float32)
        for channel, (offset, scale) in enumerate(zip(self.offset[:, None], self.scale[:, None], strict=True)):
            # in double precision, and one channel at a time: that much less memory
            np.divide(intensities[channel] - offset, scale, out=out[channel], casting="same_kind")
        return out

    def to_intensity(self, x: Array) -> NDArray[np.float32]:
        """(C, *space) model input back to intensities."""
        tail = (1,) * (x.ndim - 1)
        return np.asarray(x * self.scale.reshape(-1, *tail) + self.offset.reshape(-1, *tail), dtype=np.float32)


def check_fits(image: Image, spec: ModelSpec, *, stack: bool = False) -> None:
    """Check axes and channels of an image against a model.

    Args:
        image: the image.
        spec: the model's description.
        stack: whether further axes (time, slices for a 2-D model) are welcome.

    Raises:
        ImageMismatch: what is expected, what it is, and how to choose.
    """
    missing = [a for a in spec.axes if a not in image.kept]
    if missing:
        raise ImageMismatch(
            f"{spec.name} expects axes {spec.axes}; {image.name} has {image.kept}.",
            fix=f"Name the axes of the image with --axes, or choose a model for {image.kept} images.",
        )
    further = [a for a in image.kept if a not in spec.axes and a != "C"]
    if further and not stack:
        chosen = ",".join(f"{a}={image.size(a) // 2}" for a in further)
        raise ImageMismatch(
            f"{image.name} has axes {image.kept}, and {spec.name} explains {spec.axes} at a time.",
            fix=f"Choose one position, for example --select {chosen}.",
        )
    expected, have = len(spec.channels), image.size("C")
    if have != expected:
        raise ImageMismatch(
            f"{spec.name} expects {plural(expected, 'channel')} ({', '.join(spec.channels)}); {image.name} has {have}.",
            fix=channel_hint(have, expected),
        )
    if any(image.size(a) < 2 for a in spec.axes):
        raise ImageMismatch(
            f"{image.name} has {'×'.join(map(str, image.space(spec.axes)))} pixels.",
            fix="Choose an image of at least 2 pixels along each axis.",
        )


def read_plain(image: Image, spec: ModelSpec, **parts: slice) -> Array:
    """Pixels (C, *space) of an image (or a box in it), without alpha.

    Raises:
        ImageMismatch: not-a-number or infinite values.
    """
    pixels = image.read("C" + spec.axes, **parts)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        bad = int(np.size(pixels) - np.isfinite(pixels).sum())
        raise ImageMismatch(
            f"{image.name} has {plural(bad, 'value that is not a number', 'values that are not numbers')} (NaN or "
            "infinite).",
            fix="Replace them first, for example with numpy.nan_to_num.",
        )
    return pixels.astype(np.float32) if pixels.dtype.kind in "bui" else pixels


def fit_intake(image: Image, spec: ModelSpec) -> Intake:
    """Fit the normalisation on an image; large ones are sampled.

    Raises:
        ImageMismatch: the image is constant, or holds values that are not numbers.
    """
    for single in _positions(image, spec):
        pixels = single.sample("C" + spec.axes)
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            read_plain(single, spec)
        low, high = float(pixels.min()), float(pixels.max())
        if low < high:
            break
    if low == high:
        raise ImageMismatch(
            f"{image.name} is constant: every pixel is {low:g}.",
            fix="Check the channel and the slice; there is nothing to segment here.",
        )
    scale, offset = _affine(pixels, image.dtype, spec)
    low, high = _range(image.dtype, low, high)
    return Intake(scale, offset, low, high)


def _positions(image: Image, spec: ModelSpec) -> Iterator[Image]:
    """The middle of a stack, then up to eight more positions: a slice may be empty while the stack is not."""
    further = [a for a in image.kept if a not in spec.axes and a != "C"]
    for share in (0.5, 0.25, 0.75, 0.0, 0.99, 0.4, 0.6, 0.1, 0.9):
        yield image.select(**{a: int(image.size(a) * share) for a in further}) if further else image
        if not further:
            return


def _affine(pixels: Array, dtype: np.dtype[Any], spec: ModelSpec) -> tuple[Array, Array]:
    norm, channels = spec.normalisation, len(pixels)
    # only these read pixels
    flat = pixels.astype(np.float64 if norm.kind in ("percentile", "zscore") else pixels.dtype).reshape(channels, -1)
    if not norm.per_channel:
        flat = np.broadcast_to(pixels.reshape(1, -1), (channels, pixels.size))
    offset, scale = np.zeros(channels), np.ones(channels)
    if norm.kind == "dtype" and dtype.kind in "ui":
        scale[:] = np.iinfo(dtype).max
    elif norm.kind == "percentile":
        offset = np.percentile(flat, norm.low, axis=1)
        scale = np.percentile(flat, norm.high, axis=1) - offset
    elif norm.kind == "zscore":
        offset, scale = flat.mean(1), flat.std(1)
    elif norm.kind == "fixed":
        offset = np.broadcast_to(np.asarray(norm.mean, float), (channels,)).copy()
        scale = np.broadcast_to(np.asarray(norm.std, float), (channels,)).copy()
    # one channel may be empty (an unused stain) while the image is not
    scale = np.where(np.abs(scale) > 1e-12, scale, 1.0)
    return scale * norm.then_std, offset + norm.then_mean * scale


def _range(dtype: np.dtype[Any], low: float, high: float) -> tuple[float, float]:
    return (0.0, 255.0) if dtype == np.uint8 else (min(0.0, low), high)
