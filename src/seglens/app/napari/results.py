"""From results to napari layers that lie exactly on the image they explain.

Every layer has all axes of its source layer: an axis the model does not see has size 1 at the current
position, and a channel axis repeats the result (a view, no memory), so that the map stays in place on any slice.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image as ImageLayer
from napari.layers import Labels, Layer, Points, Vectors
from napari.utils.colormaps import Colormap, DirectLabelColormap
from napari.utils.transforms import Affine
from numpy.typing import DTypeLike, NDArray

from seglens.app.napari import colours, settings
from seglens.app.napari.viewer_session import MARK, is_ours
from seglens.core.explanation import Explanation
from seglens.core.explanation import Layer as Answer
from seglens.models.spec import ModelSpec

LARGE = 1_000_000_000  # bytes; larger results live in a file that the system pages in and out


@dataclass(frozen=True)
class Frame:
    """Where a result lies in its source layer.

    Args:
        axes: the layer's axes, without the colour axis of an RGB layer.
        model_axes: the axes that the model sees.
        start: first pixel along every axis.
        shape: size along every axis.
        full: size of the layer along every axis.
    """

    axes: str
    model_axes: str
    start: tuple[int, ...]
    shape: tuple[int, ...]
    full: tuple[int, ...]

    @classmethod
    def of(
        cls, layer: Layer, axes: str, model_axes: str, box: Mapping[str, slice], position: Mapping[str, int]
    ) -> Frame:
        """The frame of a box (missing axes: everything) at a position (missing axes: everything)."""
        axes = axes[: layer.ndim]
        data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
        full = tuple(int(n) for n in data.shape[: layer.ndim])
        start, shape = [], []
        for axis, size in zip(axes, full, strict=True):
            if axis in model_axes:
                part = box.get(axis, slice(0, size))
                start.append(int(part.start))
                shape.append(int(part.stop - part.start))
            else:
                start.append(position.get(axis, 0))
                shape.append(1 if axis in position or axis == "C" else size)
        return cls(axes, model_axes, tuple(start), tuple(shape), full)

    def canvas(self, dtype: DTypeLike) -> tuple[NDArray[Any], NDArray[Any]]:
        """An array to fill in, and the same as the layer shows it (repeated along channels)."""
        base = empty(self.shape, dtype)
        return base, self.shown(base)

    def shown(self, base: NDArray[Any]) -> NDArray[Any]:
        """A view that repeats an array along the channel axis."""
        sizes = tuple(f if a == "C" else n for a, n, f in zip(self.axes, base.shape, self.full, strict=True))
        return base if sizes == base.shape else np.broadcast_to(base, sizes)

    def where(self, position: Mapping[str, int], parts: Sequence[slice]) -> tuple[slice, ...]:
        """The place of a piece in the canvas."""
        box = dict(zip(self.model_axes, parts, strict=True))
        return tuple(
            box[a] if a in box else slice(position.get(a, 0), position.get(a, 0) + 1) if a in position else slice(0, 1)
            for a in self.axes
        )

    def fit(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array along the model's axes (further axes behind them stay) in the order of the layer."""
        n = len(self.model_axes)
        inside = [a for a in self.axes if a in self.model_axes]
        order = [self.model_axes.index(a) for a in inside]
        moved = array.transpose(*order, *range(n, array.ndim))
        return moved[tuple(slice(None) if a in self.model_axes else None for a in self.axes)]

    def picture(self, data: NDArray[Any], *, rgb: bool) -> NDArray[Any]:
        """An image along the model's axes, perhaps with channels behind them, in the order of the layer.

        Channels go to the layer's channel axis if it has as many, else their mean is shown.
        """
        if rgb or data.ndim == len(self.model_axes):
            return self.fit(data) if rgb else self.shown(self.fit(data))
        where = self.axes.find("C")
        if where < 0 or self.full[where] != data.shape[-1]:
            return self.shown(self.fit(data.mean(-1)))
        return np.moveaxis(self.fit(data), -1, where)[(slice(None),) * (where + 1) + (0,)]

    def points(self, points: NDArray[Any]) -> NDArray[Any]:
        """Points (N, D) along the model's axes with the position along all others."""
        out = np.tile(
            np.array([0 if a in self.model_axes else s for a, s in zip(self.axes, self.start, strict=True)]),
            (len(points), 1),
        ).astype(float)
        for column, axis in enumerate(self.model_axes):
            out[:, self.axes.index(axis)] = points[:, column]
        return out


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Zeros: in memory, or in a temporary file if they are large."""
    if int(np.prod(shape)) * np.dtype(dtype).itemsize <= LARGE:
        return np.zeros(shape, dtype)
    folder = Path(tempfile.mkdtemp(prefix="seglens-"))
    return np.memmap(folder / "result.dat", dtype=dtype, mode="w+", shape=shape)


def placement(layer: Layer, start: Sequence[float]) -> dict[str, Any]:
    """Arguments that put a new layer where ``layer`` has its pixel ``start``."""
    linear = Affine(scale=layer.scale, rotate=layer.rotate, shear=layer.shear).linear_matrix
    return {
        "scale": layer.scale,
        "rotate": layer.rotate,
        "shear": layer.shear,
        "translate": np.asarray(layer.translate) + linear @ np.asarray(start, float),
        "affine": layer.affine.affine_matrix,
        "units": layer.units,
        "axis_labels": layer.axis_labels,
    }


def without_first(where: Mapping[str, Any]) -> dict[str, Any]:
    """A placement without its first axis."""
    n = len(where["scale"])
    shear = np.asarray(where["shear"])
    return {
        "scale": where["scale"][1:],
        "translate": where["translate"][1:],
        "rotate": np.asarray(where["rotate"])[1:, 1:],
        "shear": shear[1:, 1:] if shear.ndim == 2 else shear[n - 1 :],
        "affine": np.asarray(where["affine"])[1:, 1:],
        "units": where["units"][1:],
        "axis_labels": where["axis_labels"][1:],
    }


def with_first(where: Mapping[str, Any], label: str) -> dict[str, Any]:
    """A placement with one more axis before all others, in steps of 1."""
    n = len(where["scale"])
    rotate, affine = np.eye(n + 1), np.eye(n + 2)
    rotate[1:, 1:], affine[1:, 1:] = np.asarray(where["rotate"]), np.asarray(where["affine"])
    shear = np.asarray(where["shear"])
    if shear.ndim == 2:
        wider = np.eye(n + 1)
        wider[1:, 1:] = shear
    else:
        # the upper triangle row by row: that of the new axis is empty
        wider = np.concatenate([np.zeros(n), shear])
    return {
        "scale": np.append(1.0, where["scale"]),
        "translate": np.append(0.0, where["translate"]),
        "rotate": rotate,
        "shear": wider,
        "affine": affine,
        "units": ("pixel", *where["units"]),
        "axis_labels": (label, *where["axis_labels"]),
    }


def unique_name(viewer: ViewerModel, wanted: str) -> str:
    """``prediction``, then ``prediction #2`` and so on: nothing is overwritten, nothing is called ``[1]``."""
    names = {layer.name for layer in viewer.layers}
    if wanted not in names:
        return wanted
    number = 2
    while f"{wanted} #{number}" in names:
        number += 1
    return f"{wanted} #{number}"


def class_colours(spec: ModelSpec) -> DirectLabelColormap:
    """The colours of the classes; background is clear."""
    return direct({i: c.color for i, c in enumerate(spec.classes) if i})


def direct(table: Mapping[int | None, str] | Mapping[int, str]) -> DirectLabelColormap:
    """Colours by label; everything else is clear."""
    return DirectLabelColormap(color_dict={None: "transparent", 0: "transparent", **dict(table.items())})


def prediction_layer(shown: NDArray[Any], spec: ModelSpec, **where: Any) -> Labels:
    """The layer of the predicted classes."""
    layer = Labels(shown, colormap=class_colours(spec), opacity=0.6, metadata=_mark("prediction"), **where)
    layer.editable = False
    return layer


def probability_layer(shown: NDArray[Any], colour: str, **where: Any) -> ImageLayer:
    """The layer of one class's probability."""
    return ImageLayer(
        shown,
        colormap=colours.ramp(colour),
        contrast_limits=(0, 1),
        blending="translucent_no_depth",
        visible=False,
        metadata=_mark("probability"),
        **where,
    )


def uncertainty_layer(shown: NDArray[Any], spec: ModelSpec, **where: Any) -> ImageLayer:
    """The layer of predictive entropy; the limit is that of no idea at all."""
    return ImageLayer(
        shown,
        colormap=map_colours("heat"),
        contrast_limits=(0, log(spec.choices)),
        blending="translucent_no_depth",
        visible=False,
        metadata=_mark("uncertainty"),
        **where,
    )


@dataclass(frozen=True)
class Limits:
    """Between which values a layer has its colours, and how far a person can move that."""

    shown: tuple[float, float] = (0.0, 1.0)
    whole: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of(cls, answer: Answer) -> Limits:
        """Those of a layer; slow on large maps, so a worker does it."""
        return cls(answer.limits(), answer.span()) if answer.kind in ("heat", "signed", "image") else cls()

    def give(self, layer: ImageLayer) -> None:
        """Show a layer between them."""
        layer.contrast_limits = self.shown
        layer.contrast_limits_range = self.whole

    def widen(self, layer: ImageLayer) -> None:
        """Let the slider of a layer reach every value, and leave where the person set it."""
        ends = (*self.whole, *layer.contrast_limits)
        layer.contrast_limits_range = (min(ends), max(ends))


def limits_of(explanation: Explanation) -> list[Limits]:
    """Display limits of every layer of an answer."""
    return [Limits.of(answer) for answer in explanation.layers]


def explanation_makers(
    viewer: ViewerModel,
    source: Layer,
    frame: Frame,
    explanation: Explanation,
    limits: list[Limits],
    spec: ModelSpec,
    title: str,
) -> list[Callable[[], Layer]]:
    """What makes the layers of an answer, from top to bottom; the first map is visible, the rest waits."""
    maps = [answer for answer in explanation.layers if answer.kind in ("heat", "signed")]
    first = next(iter(maps or explanation.layers), None)

    def make(answer: Answer, limit: Limits) -> Layer:
        same = answer.name.lower() == title.lower()
        name = unique_name(viewer, title if same else f"{title} · {answer.name}")
        layer = _answer_layer(answer, source, frame, spec, name, limit)
        layer.visible = answer is first
        return layer

    return [partial(make, answer, limit) for answer, limit in zip(explanation.layers, limits, strict=True)]


def _answer_layer(answer: Answer, source: Layer, frame: Frame, spec: ModelSpec, name: str, limits: Limits) -> Layer:
    offset = dict(zip(frame.model_axes, answer.offset or (0,) * len(frame.model_axes), strict=True))
    start = [s + offset.get(a, 0) for a, s in zip(frame.axes, frame.start, strict=True)]
    unit = {"unit": answer.unit, "name": answer.name, "kind": answer.kind, "told": answer.enlarged()}
    where = {"name": name, **placement(source, start)}
    data = np.asarray(answer.data)
    match answer.kind:
        case "heat" | "signed":
            layer: Layer = ImageLayer(
                frame.shown(frame.fit(data)),
                contrast_limits=limits.shown,
                colormap=map_colours(answer.kind),
                blending="translucent_no_depth",
                opacity=float(settings.get("interface.opacity")),
                metadata=_mark("heat", **unit),
                **where,
            )
            layer.contrast_limits_range = limits.whole
            layer.colorbar.visible = True
            layer.colorbar.size = (14, 110)
        case "labels":
            layer = Labels(
                frame.shown(frame.fit(data.astype(np.int32))), opacity=0.5, metadata=_mark("labels", **unit), **where
            )
            if data.size and data.min() >= 0 and data.max() < len(spec.classes):
                layer.colormap = class_colours(spec)
            layer.editable = False
        case "image":
            more = {} if answer.rgb else {"contrast_limits": limits.shown}
            layer = ImageLayer(
                frame.picture(data, rgb=answer.rgb), rgb=answer.rgb, metadata=_mark("image", **unit), **more, **where
            )
        case "points":
            layer = Points(frame.points(data), size=6, metadata=_mark("points", **unit), **where)
        case "vectors":
            ends = np.stack([frame.points(data[:, 0]), _directions(frame, data[:, 1])], 1)
            layer = Vectors(ends, metadata=_mark("vectors", **unit), **where)
    return layer


def step_back(viewer: ViewerModel, *, but: Layer | None = None) -> None:
    """Make room for a new map: older ones are hidden, and predictions become lines."""
    for layer in viewer.layers:
        if is_map(layer) and layer is not but:
            layer.visible = False
    outline(viewer)


def outline(viewer: ViewerModel) -> None:
    """Show predictions by their lines, so that a map over them can be read; a person's own choice stays."""
    for layer in viewer.layers:
        if is_ours(layer, "prediction") and isinstance(layer, Labels) and layer.contour == 0:
            layer.contour = 1


def is_map(layer: Layer) -> bool:
    """Whether a layer is a saliency map that SegLens made."""
    return is_ours(layer, "heat")


def map_colours(kind: str) -> Colormap:
    """The colour map of the preferences for ``heat`` or ``signed``."""
    if kind == "signed":
        return colours.signed(str(settings.get("interface.signed_colours")))
    return colours.heat(str(settings.get("interface.heat_colours")))


def target_layer(viewer: ViewerModel, source: Layer, axes: str) -> Labels:
    """An empty layer to paint a target on: 1 counts for, 2 against; same grid as the image."""
    frame = Frame.of(source, axes, axes.replace("C", ""), {}, {})
    where, shape = placement(source, frame.start), frame.shape
    if frame.axes.startswith("C") and source.ndim > 2:
        # a stroke cannot land on a repeated view, and without its first axis the layer shows on every channel
        where, shape = without_first(where), shape[1:]
    layer = Labels(
        empty(shape, np.uint8),
        name=unique_name(viewer, "target"),
        colormap=direct(colours.TARGET),
        opacity=0.7,
        metadata=_mark("target"),
        **where,
    )
    layer.brush_size = max(4, round(min(frame.full[-2:]) / 40))
    return layer


def add(viewer: ViewerModel, layer: Layer, *, locked: bool = True, below: Layer | None = None) -> None:
    """Put a layer into the viewer without taking the person's active layer or tool away."""
    selection = viewer.layers.selection
    place = viewer.layers.index(below) if below in viewer.layers else len(viewer.layers)
    before, active = set(selection), selection.active
    if active is None:
        viewer.layers.insert(place, layer)
    else:
        # what is selected is the same before and after, so nobody needs to hear of it; telling all of napari
        # twice costs more than the layer itself
        with selection.events.blocker_all():
            viewer.layers.insert(place, layer)
            selection.active = active
            selection.update(before)
    layer.locked = locked


def _directions(frame: Frame, ends: NDArray[Any]) -> NDArray[Any]:
    out = np.zeros((len(ends), len(frame.axes)))
    for column, axis in enumerate(frame.model_axes):
        out[:, frame.axes.index(axis)] = ends[:, column]
    return out


def _mark(role: str, **more: Any) -> dict[str, Any]:
    return {MARK: {"role": role, **more}}
