"""From napari layers to SegLens: axes, pixels, the current slice, the visible box, shapes, clicks, paint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image as ImageLayer
from napari.layers import Labels, Layer, Shapes
from numpy.typing import NDArray
from scipy import ndimage

from seglens.core.errors import ImageMismatch, NoSuchRegion
from seglens.core.image import Image, guess_axes

Box = dict[str, slice]
_WORDS = {"time": "T", "channel": "C", "depth": "Z", "plane": "Z", "row": "Y", "column": "X"}


def guess(layer: Layer) -> str:
    """Axes of a layer: from its axis labels if they tell, else by the usual order; colour comes last.

    Raises:
        ImageMismatch: too few or too many axes.
    """
    rgb = bool(getattr(layer, "rgb", False))
    told = [_WORDS.get(str(label).lower(), str(label).upper()) for label in layer.axis_labels]
    allowed = set("TZYX") if rgb else set("TCZYX")
    if len(set(told)) == len(told) and set(told) <= allowed and {"Y", "X"} <= set(told):
        axes = "".join(told)
    elif layer.ndim == 5 and not rgb:
        axes = "TCZYX"
    else:
        axes = guess_axes(tuple(pixels(layer).shape[: layer.ndim]), rgb=False)
    return axes + ("C" if rgb else "")


def pixels(layer: Layer) -> Any:
    """The array of a layer at full resolution: numpy, dask or zarr, as it is."""
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def image_of(layer: Layer, axes: str) -> Image:
    """The whole layer as an image; nothing is read.

    Raises:
        ImageMismatch: axes that do not fit, or a type of data that holds no intensities.
    """
    if not isinstance(layer, ImageLayer):
        raise ImageMismatch(
            f"{layer.name} is a {type(layer).__name__} layer.", fix="Choose an image layer at the top of SegLens."
        )
    scale = dict(zip(axes, np.asarray(layer.scale, float), strict=False))
    unit = str(layer.units[-1]) if layer.units else "pixel"
    sizes = {a: float(scale[a]) for a in "ZYX" if a in scale}
    return Image(pixels(layer), axes, sizes, unit, layer.name, source_of(layer))


def source_of(layer: Layer) -> str:
    """Where a layer can be opened from again: a path, ``sample:NAME``, or nothing."""
    told = layer.metadata.get("seglens_source")
    if isinstance(told, str):
        return told
    if layer.source.sample and layer.source.sample[0] == "seglens":
        return f"sample:{layer.source.sample[1]}"
    # a reader may have split or changed the file, so only the plain case counts
    return str(layer.source.path) if layer.source.path and layer.source.reader_plugin in ("napari", "builtins") else ""


def steps(layer: Layer, viewer: ViewerModel, axes: str, model_axes: str) -> dict[str, int]:
    """The current position along the axes that a model does not see."""
    point = np.asarray(layer.world_to_data(np.asarray(viewer.dims.point, float)[-layer.ndim :]))
    shape = pixels(layer).shape
    return {
        axis: int(np.clip(np.round(point[i]), 0, shape[i] - 1))
        for i, axis in enumerate(axes[: layer.ndim])
        if axis not in model_axes and axis != "C"
    }


def view_box(layer: Layer, viewer: ViewerModel, axes: str, model_axes: str) -> Box:
    """The visible part along the axes of a model; in the 3-D view everything.

    Raises:
        ImageMismatch: the camera looks elsewhere.
    """
    if viewer.dims.ndisplay == 3:
        return {}
    factors = np.ones(layer.ndim)
    if getattr(layer, "multiscale", False):
        factors = np.asarray(layer.downsample_factors[layer.data_level], float)
    low, high = (np.asarray(c, float) * factors for c in layer.corner_pixels)
    displayed = {i - (viewer.dims.ndim - layer.ndim) for i in viewer.dims.displayed}
    box: Box = {}
    for i, axis in enumerate(axes[: layer.ndim]):
        if axis in model_axes and i in displayed:
            size = pixels(layer).shape[i]
            start, stop = int(np.floor(low[i])), int(np.ceil(high[i] + factors[i]))
            box[axis] = slice(max(0, start), min(size, stop))
            if box[axis].stop - box[axis].start < min(2, size):
                raise ImageMismatch(
                    f"Nothing of {layer.name} is in view.", fix="Press Home to see all of it, or run on the slice."
                )
    return box


def shape_boxes(shapes: Shapes, layer: Layer, axes: str, model_axes: str) -> list[Box]:
    """The boxes of the selected shapes (of all, if none is selected), in pixels of an image layer.

    Raises:
        NoSuchRegion: there is no shape, or none touches the image.
    """
    chosen = sorted(shapes.selected_data) or range(len(shapes.data))
    sizes = dict(zip(axes, pixels(layer).shape, strict=False))
    boxes = []
    for index in chosen:
        corners = np.array([_transfer(shapes, layer, v) for v in np.asarray(shapes.data[index], float)])
        box: Box = {}
        for i, axis in enumerate(axes[: layer.ndim]):
            low, high = corners[:, i].min(), corners[:, i].max()
            # a flat shape says nothing about depth
            if axis in model_axes and np.isfinite(low) and high - low > 1e-6:
                start, stop = round(low), round(high) + 1
                box[axis] = slice(max(0, int(start)), min(sizes[axis], int(stop)))
        if box and all(part.stop - part.start >= 2 for part in box.values()):
            boxes.append(box)
    if not boxes:
        raise NoSuchRegion(
            f"No shape of {shapes.name} lies on {layer.name}.", fix="Draw a rectangle on the image, then run again."
        )
    return boxes


def pixel_at(layer: Layer, world: Sequence[float]) -> tuple[int, ...] | None:
    """The pixel of a layer under a world position; ``None`` outside."""
    point = np.asarray(layer.world_to_data(np.asarray(world, float)[-layer.ndim :]), float)
    at = tuple(int(n) for n in np.round(point))
    shape = pixels(layer).shape
    return at if all(0 <= n < shape[i] for i, n in enumerate(at)) else None


def sampled(labels: Labels, layer: Layer, axes: str, image: Image, model_axes: str) -> NDArray[Any]:
    """The numbers of a Labels layer on the grid of an image (a crop of ``layer``); 0 where the layer does not reach.

    A copy, so that later strokes do not reach into a run; read only where the image is.
    """
    start = np.array(image.offset(axes[: layer.ndim]), float)
    sizes = [image.size(a) if a in model_axes else 1 for a in axes[: layer.ndim]]
    channel = axes[: layer.ndim].find("C")
    if channel >= 0:
        point = np.asarray(labels.data.shape[-layer.ndim :]) if labels.ndim == layer.ndim else None
        start[channel] = 0 if point is None else min(start[channel], point[channel] - 1)
    linear, offset = _map(layer, labels)
    numbers = _sample(labels, linear, linear @ start + offset, sizes)
    order = [axes.index(a) for a in model_axes]
    keep = tuple(slice(None) if i in order else 0 for i in range(layer.ndim))
    return numbers[keep].transpose(np.argsort(np.argsort(order)))


def painted(target: Labels, layer: Layer, axes: str, image: Image, model_axes: str) -> NDArray[np.int8]:
    """What was painted, on the grid of an image (a crop of ``layer``): 1 for, -1 against, 0 elsewhere.

    Raises:
        NoSuchRegion: nothing is painted there.
    """
    mask = sampled(target, layer, axes, image, model_axes)
    # only our own target layers give 2 the meaning "against"
    ours = target.metadata.get("seglens", {}).get("role") == "target"
    signed = np.where(mask == 2, -1, mask == 1) if ours else mask > 0
    if not signed.any():
        raise NoSuchRegion(
            f"Nothing is painted on {target.name} in the part that is explained.",
            fix="Paint over what you want explained, or choose a wider part in the Model tab.",
        )
    return signed.astype(np.int8)


def same_shape(labels: Labels, layer: Layer, axes: str) -> bool:
    """Whether a Labels layer has the shape of an image: all its axes, all but the channels, or the last of those."""
    full = tuple(int(n) for n in pixels(layer).shape[: layer.ndim])
    space = tuple(n for n, a in zip(full, axes, strict=False) if a != "C")
    have = tuple(int(n) for n in pixels(labels).shape)
    return have == full or (len(have) >= 2 and have == space[-len(have) :])


def _transfer(source: Layer, layer: Layer, point: NDArray[Any]) -> NDArray[Any]:
    world = np.asarray(source.data_to_world(tuple(point)), float)
    full = np.full(layer.ndim, np.nan)
    n = min(layer.ndim, world.size)
    full[-n:] = world[-n:]
    centre = np.asarray(layer.data_to_world((0,) * layer.ndim), float)
    data = np.asarray(layer.world_to_data(np.where(np.isnan(full), centre, full)), float)
    return np.where(np.isnan(full), np.nan, data)


def _map(layer: Layer, other: Layer) -> tuple[NDArray[Any], NDArray[Any]]:
    # both transforms are affine, so the unit vectors tell all
    n, m = layer.ndim, other.ndim
    zero = _move(layer, other, np.zeros(n))
    columns = [_move(layer, other, np.eye(n)[i]) - zero for i in range(n)]
    return np.stack(columns, 1).reshape(m, n), zero


def _move(layer: Layer, other: Layer, point: NDArray[Any]) -> NDArray[Any]:
    world = np.asarray(layer.data_to_world(tuple(point)), float)
    full = np.zeros(other.ndim)
    k = min(other.ndim, world.size)
    full[-k:] = world[-k:]
    return np.asarray(other.world_to_data(full), float)


def _sample(target: Labels, linear: NDArray[Any], start: NDArray[Any], sizes: list[int]) -> NDArray[Any]:
    data = pixels(target)
    same = linear.shape[0] == linear.shape[1] and np.allclose(linear, np.eye(len(linear)), atol=1e-6)
    if same and np.allclose(start, np.round(start), atol=1e-3):
        return _cut(data, np.round(start).astype(int), sizes)
    # another grid: nearest pixel, from the part of the target that the image covers
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in sizes], indexing="ij")).reshape(len(sizes), -1)
    there = linear @ corners + start[:, None]
    low = np.clip(np.floor(there.min(1)).astype(int) - 1, 0, np.array(data.shape))
    high = np.clip(np.ceil(there.max(1)).astype(int) + 2, low, np.array(data.shape))
    if (high <= low).any():
        return np.zeros(sizes, int)
    part = np.asarray(data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))])
    if linear.shape[0] == linear.shape[1]:
        return np.asarray(ndimage.affine_transform(part, linear, start - low, tuple(sizes), order=0))
    grid = np.indices(sizes).reshape(len(sizes), -1)
    there = linear @ grid + (start - low)[:, None]
    return np.asarray(ndimage.map_coordinates(part, there, order=0)).reshape(sizes)


def _cut(data: Any, start: NDArray[Any], sizes: list[int]) -> NDArray[Any]:
    out = np.zeros(sizes, int)
    stop = start + sizes
    low, high = np.clip(start, 0, data.shape), np.clip(stop, 0, data.shape)
    if (high > low).all():
        here = tuple(slice(int(a - s), int(b - s)) for a, b, s in zip(low, high, start, strict=True))
        out[here] = np.asarray(data[tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))])
    return out
