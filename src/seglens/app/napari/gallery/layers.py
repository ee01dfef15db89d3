"""The layers that the gallery makes: where an item fires, the mask after an edit, and where it differs.

Each is made once and changes in place; nobody can draw on them, and what a person deletes is made anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image as ImageLayer
from napari.layers import Labels, Layer
from numpy.typing import NDArray

from seglens.app.napari import results
from seglens.app.napari.asking import View
from seglens.app.napari.gallery import texts
from seglens.app.napari.gallery.work import Change
from seglens.app.napari.viewer_session import MARK, layer_id
from seglens.models.spec import ModelSpec

MAP, AFTER, DIFFERENCE = "prototype map", "mask after edit", "difference"
COLOURS: dict[int | None, str] = {1: "#00e676", 2: "#ff4081", 3: "#ffd740"}


def show_difference(viewer: ViewerModel, where: View, change: Change) -> None:
    """Show what an edit changed, as filled areas."""
    _labels(viewer, where, DIFFERENCE, change.difference, results.direct(COLOURS), 0.6)


def show_after(viewer: ViewerModel, where: View, change: Change, spec: ModelSpec) -> None:
    """Show the mask after an edit, by its lines."""
    after = _labels(viewer, where, AFTER, change.labels, results.class_colours(spec), 1.0)
    if after is not None:
        after.contour = 2
        results.outline(viewer)


def has(viewer: ViewerModel, role: str) -> bool:
    """Whether a layer of the gallery is there; the first time, napari takes a third of a second for each."""
    return any(_role(x) == role for x in viewer.layers)


def show_map(viewer: ViewerModel, where: View, values: NDArray[np.float32], title: str, told: str) -> Layer:
    """Show how alike every pixel is to an item."""
    frame = where.frame
    low, high = float(values.min()), float(values.max())
    limits = (min(low, 0.0), high if high > min(low, 0.0) else min(low, 0.0) + 1)
    shown = frame.shown(frame.fit(values))
    layer = _found(viewer, where, MAP)
    if layer is None:
        results.step_back(viewer)
        layer = ImageLayer(
            shown, name=results.unique_name(viewer, MAP), contrast_limits=limits, colormap=results.map_colours("heat"),
            blending="translucent_no_depth", opacity=0.75, metadata=_mark(MAP, where), **_place(where),
        )  # fmt: skip
        layer.colorbar.visible = True
        results.add(viewer, layer)
    else:
        layer.data = shown
        layer.contrast_limits_range = layer.contrast_limits = limits
        layer.visible = True
    layer.metadata[MARK]["told"] = told
    layer.metadata[MARK]["title"] = title
    return layer


def forget_changes(viewer: ViewerModel) -> None:
    """Empty and hide the mask after an edit and its difference: they are of another gallery.

    They are used again instead of being removed: removing Labels layers one after another has crashed drivers.
    """
    for layer in [x for x in viewer.layers if _role(x) in (AFTER, DIFFERENCE)]:
        layer.data = np.zeros_like(layer.data)
        layer.visible = False
        layer.metadata[MARK]["rests"] = True


def _labels(
    viewer: ViewerModel, where: View, role: str, data: NDArray[np.uint8], colormap: Any, opacity: float
) -> Labels | None:
    """The layer, where it was made now; one that is there changes in place, and goes to another image."""
    shown = where.frame.shown(where.frame.fit(data))
    layer = next((x for x in viewer.layers if _role(x) == role and x.ndim == shown.ndim), None)
    if layer is not None:
        _use(viewer, layer, where, shown, colormap)
        return None
    name = texts.AFTER if role == AFTER else texts.DIFFERENCE
    layer = Labels(
        shown,
        name=results.unique_name(viewer, name),
        colormap=colormap,
        opacity=opacity,
        metadata=_mark(role, where),
        **_place(where),
    )
    layer.editable = False
    results.add(viewer, layer)
    return layer


def _use(viewer: ViewerModel, layer: Labels, where: View, shown: NDArray[Any], colormap: Any) -> None:
    layer.data = shown
    mark = layer.metadata[MARK]
    if mark["of"] != _of(where) or mark.get("rests"):
        for name, value in _place(where).items():
            setattr(layer, name, value)
        layer.colormap = colormap
        mark["of"] = _of(where)
        order = viewer.layers
        if order.index(layer) < order.index(where.layer):
            order.move(order.index(layer), len(order))
    # what a person hid stays hidden
    if mark.pop("rests", False):
        layer.visible = True


def _found(viewer: ViewerModel, where: View, role: str) -> Any:
    return next((x for x in viewer.layers if _role(x) == role and x.metadata[MARK]["of"] == _of(where)), None)


def _role(layer: Layer) -> str:
    mark = layer.metadata.get(MARK)
    return str(mark.get("gallery", "")) if isinstance(mark, dict) else ""


def _of(where: View) -> tuple[Any, ...]:
    return (layer_id(where.layer), where.frame)


def _mark(role: str, where: View) -> dict[str, Any]:
    plain = "heat" if role == MAP else "gallery"
    return {MARK: {"role": plain, "gallery": role, "of": _of(where), "unit": "similarity", "kind": "heat"}}


def _place(where: View) -> dict[str, Any]:
    return results.placement(where.layer, where.frame.start)
