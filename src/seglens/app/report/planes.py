"""From images, stacks and maps to flat pictures: which slice, which colours, which part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seglens.core.explanation import Explanation, Layer
from seglens.core.image import Image

Picture = NDArray[Any]
Window = tuple[slice, slice]

# Colours of channels that are not red, green and blue.
_CHANNELS = np.array([[0.85, 0.85, 0.85], [0.1, 0.9, 0.95], [1.0, 0.2, 0.8], [1.0, 0.85, 0.1], [0.3, 1.0, 0.3]])
_SMALL = 0.06
_LEAST = 96


@dataclass(frozen=True)
class Plane:
    """How a stack is looked at: the axes of the maps, and the slice if there are three."""

    axes: str
    z: int | None = None

    def flat(self, array: Any, axes: str | None = None) -> Picture:
        """The Y-X plane of an array (*space, …); further axes of a segmentation are seen in their middle."""
        axes = axes or self.axes
        index: list[Any] = []
        for axis, size in zip(axes, array.shape, strict=False):
            if axis in "YX":
                index.append(slice(None))
            else:
                index.append(self.z if axis == self.axes[0] and self.z is not None else size // 2)
        return np.asarray(array[tuple(index)])


def choose_plane(image: Image, axes: str, explanations: tuple[Explanation, ...]) -> Plane:
    """The slice with most evidence in the first map; the middle one where there is no map."""
    if axes == "YX":
        return Plane(axes)
    found = [full_map(layer, image.space(axes)) for layer in maps(explanations)]
    evidence = np.nansum(np.abs(found[0]), axis=(1, 2)) if found else np.zeros(1)
    return Plane(axes, int(evidence.argmax()) if evidence.any() else image.size(axes[0]) // 2)


def maps(explanations: tuple[Explanation, ...]) -> list[Layer]:
    """The saliency map of each explanation that has one."""
    return [layer for e in explanations if (layer := main_map(e)) is not None]


def main_map(explanation: Explanation) -> Layer | None:
    """The first heat or signed layer, if any."""
    return next((layer for layer in explanation.layers if layer.kind in ("heat", "signed")), None)


def full_map(layer: Layer, space: tuple[int, ...]) -> Picture:
    """A map at its place in the whole image; NaN where it says nothing."""
    data = np.asarray(layer.data, np.float32)
    if data.shape == space:
        return data
    full = np.full(space, np.nan, np.float32)
    start = layer.offset or (0,) * len(space)
    full[tuple(slice(s, s + n) for s, n in zip(start, data.shape, strict=True))] = data
    return full


def colours(image: Image, plane: Plane) -> Picture:
    """The image as (Y, X, 3) between 0 and 1: RGB as it is, grey stretched, channels in colours."""
    for axis in image.kept:
        if axis not in plane.axes and axis != "C":
            image = image.select(**{axis: image.size(axis) // 2})
    if plane.z is not None:
        image = image.select(Z=plane.z)
    pixels = image.read("YXC").astype(np.float32)
    if pixels.shape[-1] == 3 and image.dtype == np.uint8:
        return pixels / 255
    low, high = np.percentile(pixels, (0.5, 99.8), axis=(0, 1))
    pixels = np.clip((pixels - low) / np.maximum(high - low, 1e-9), 0, 1)
    if pixels.shape[-1] == 1:
        return np.repeat(pixels, 3, axis=-1)
    tints = _CHANNELS[1 + np.arange(pixels.shape[-1]) % (len(_CHANNELS) - 1)]
    mixed: Picture = np.clip(pixels @ tints, 0, 1)
    return mixed


def greyed(picture: Picture) -> Picture:
    """A picture without colour and with little contrast, for what is laid over it."""
    grey = picture @ np.array([0.30, 0.59, 0.11])
    low, high = np.percentile(grey, (0.5, 99.5))
    stretched = np.clip((grey - low) / max(high - low, 1e-9), 0, 1)
    return np.repeat((0.16 + 0.62 * stretched)[..., None], 3, axis=-1)


def zoom(region: Picture | None, shape: tuple[int, int], evidence: Picture | None = None) -> Window:
    """The part to look at: all of it, or the surroundings of a small region, wide enough for the evidence."""
    whole = (slice(0, shape[0]), slice(0, shape[1]))
    if region is None or not region.any() or region.mean() > _SMALL:
        return whole
    y, x = ndimage.find_objects(region.astype(np.uint8))[0]
    if max(y.stop - y.start, x.stop - x.start) > 0.5 * min(shape):
        return whole
    side = max(_LEAST, 4 * max(y.stop - y.start, x.stop - x.start))
    if evidence is not None:
        side = max(side, _reach_of(evidence, (y, x)))
    if side > 0.7 * min(shape):
        return whole
    # The same proportions as the image, so that all panels stand in one line.
    tall, wide = (round(side * n / min(shape)) for n in shape)
    return _around(y, tall, shape[0]), _around(x, wide, shape[1])


def _reach_of(evidence: Picture, box: Window) -> int:
    """Side of the square around the box that holds 90 % of the evidence."""
    size = np.nan_to_num(np.abs(evidence))
    middle = [(part.start + part.stop) // 2 for part in box]
    y, x = np.ogrid[: size.shape[0], : size.shape[1]]
    away = np.maximum(abs(y - middle[0]), abs(x - middle[1]))
    inside = np.cumsum(np.bincount(away.ravel(), weights=size.ravel()))
    return 0 if inside[-1] == 0 else 2 * int(np.searchsorted(inside, 0.9 * inside[-1])) + 1


def _around(part: slice, side: int, size: int) -> slice:
    start = (part.start + part.stop) // 2 - side // 2
    start = max(0, min(start, size - side))
    return slice(start, start + side)
