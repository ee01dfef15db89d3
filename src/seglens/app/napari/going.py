"""From a row of a table to its place in the image: the camera goes there, and a frame marks it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels, Layer, Vectors
from numpy.typing import NDArray

from seglens.app.napari import adapt, colours, results
from seglens.app.napari.inserting import take_out
from seglens.app.napari.viewer_session import MARK, Made, ViewerSession, is_ours, layer_id

Corners = tuple[NDArray[np.float64], NDArray[np.float64]]  # first and last pixel of a box along every axis
NUMBERED = ("unit", "object")
_NUMBER = (int, float, np.integer, np.floating)
SMALL, LARGE = 0.04, 0.9  # parts of the view: a box outside them is zoomed to


def go(session: ViewerSession, made: Made, row: Mapping[str, Any]) -> bool:
    """Show what a row is about; says whether the row has a place."""
    viewer = session.viewer
    found = None if viewer is None else place(session, made, row)
    if viewer is None or found is None:
        return False
    show(viewer, *found)
    return True


def show(viewer: ViewerModel, layer: Layer, corners: Corners, axes: str, name: str = "row of the table") -> None:
    """Go to a box of a layer and frame it.

    Args:
        viewer: where.
        layer: whose pixels.
        corners: first and last pixel of the box along every axis of the layer.
        axes: of the layer.
        name: of the layer with the frame.
    """
    _look_at(viewer, layer, corners, axes)
    _mark(viewer, layer, corners, axes, name)


def place(session: ViewerSession, made: Made, row: Mapping[str, Any]) -> tuple[Layer, Corners, str] | None:
    """The layer, the box in it that a row is about, and the layer's axes; ``None`` if the row has no place."""
    source = session.layer(made.source_id)
    frame = made.frame
    if source is None or frame is None:
        return None
    inside = _box(row, frame.model_axes)
    if inside:
        whole = {a: (0, n) for a, n in zip(frame.axes, frame.shape, strict=True)}
        box, start = whole | inside, np.array(frame.start, float)
        low, high = (start + [box[a][end] for a in frame.axes] for end in (0, 1))
        return source, (low, high - 1), frame.axes
    for name in NUMBERED:
        number = next((v for n, v in row.items() if n.lower() == name and isinstance(v, _NUMBER)), None)
        labels = None if number is None else _numbered(session, made, name, int(number))
        if labels is not None:
            return *labels, frame.axes
    return None


def leave(viewer: ViewerModel) -> None:
    """Take the frame away."""
    for layer in [x for x in viewer.layers if is_ours(x, "row")]:
        take_out(viewer, layer)


def _box(row: Mapping[str, Any], axes: str) -> dict[str, tuple[int, int]]:
    names = {a: (f"{a} start", f"{a} stop") for a in axes}
    told = {a: (row.get(first), row.get(last)) for a, (first, last) in names.items()}
    box = {a: (round(s), round(e)) for a, (s, e) in told.items() if isinstance(s, _NUMBER) and isinstance(e, _NUMBER)}
    return box if {"Y", "X"} <= set(box) else {}


def _numbered(session: ViewerSession, made: Made, name: str, number: int) -> tuple[Layer, Corners] | None:
    layers = [session.layer(key) for key in made.layer_ids]
    for layer in layers:
        if isinstance(layer, Labels) and f"{name}s" in layer.name.lower():
            inside = np.nonzero(np.asarray(layer.data) == number)
            if inside[0].size:
                return layer, (np.array([i.min() for i in inside], float), np.array([i.max() for i in inside], float))
    return None


def _look_at(viewer: ViewerModel, layer: Layer, corners: Corners, axes: str) -> None:
    low, high = corners
    further = viewer.dims.ndim - layer.ndim
    centre = np.asarray(layer.data_to_world(tuple((low + high) / 2)), float)
    for index, axis in enumerate(axes):
        # the person's channel stays
        if axis != "C" and index + further not in viewer.dims.displayed:
            viewer.dims.set_point(index + further, centre[index])
    ends = itertools.product(*zip(low - 0.5, high + 0.5, strict=True))
    world = np.array([layer.data_to_world(end) for end in ends])
    shown = [index - further for index in viewer.dims.displayed if index >= further]
    camera, view = viewer.scene.camera, np.asarray(viewer.canvas.size, float)
    camera.center = (*(0.0,) * (3 - len(shown)), *(float(centre[a]) for a in shown))
    share = float(np.max(np.ptp(world, axis=0)[shown][-2:] * camera.zoom / view))
    if not SMALL <= share <= LARGE:
        camera.zoom *= (0.25 if share < SMALL else 0.6) / share


def _mark(viewer: ViewerModel, layer: Layer, corners: Corners, axes: str, name: str) -> None:
    data = frames(layer, corners, axes)
    pixel = float(np.mean(np.abs(np.asarray(layer.scale, float)[[axes.index("Y"), axes.index("X")]])))
    width = 3.0 / max(1e-9, viewer.scene.camera.zoom * pixel)
    old = next((x for x in viewer.layers if is_ours(x, "row")), None)
    if isinstance(old, Vectors) and old.metadata[MARK].get("of") == layer_id(layer):
        old.data, old.edge_width = data, width
        if old.name.split(" #")[0] != name:
            old.name = results.unique_name(viewer, name)
        return
    leave(viewer)
    marker = Vectors(
        data,
        name=results.unique_name(viewer, name),
        edge_color=colours.TARGET[1],
        edge_width=width,
        vector_style="line",
        metadata={MARK: {"role": "row", "of": layer_id(layer)}},
        **results.placement(layer, (0,) * layer.ndim),
    )
    results.add(viewer, marker)


def frames(layer: Layer, corners: Corners, axes: str) -> NDArray[Any]:
    """The four sides of the box around its pixels, on every slice that it is in and on every channel."""
    low, high = corners
    y, x = axes.index("Y"), axes.index("X")
    further = [i for i in range(layer.ndim) if i not in (y, x)]
    size = adapt.pixels(layer).shape
    ranges = [range(size[i]) if axes[i] == "C" else range(int(low[i]), int(high[i]) + 1) for i in further]
    ends = [(low[y] - 0.5, low[x] - 0.5), (low[y] - 0.5, high[x] + 0.5)]
    ends += [(high[y] + 0.5, high[x] + 0.5), (high[y] + 0.5, low[x] - 0.5)]
    out = []
    for at in itertools.product(*ranges):
        sides = np.zeros((4, 2, layer.ndim))
        sides[:, 0, further] = at
        sides[:, 0, [y, x]] = ends
        sides[:, 1, [y, x]] = np.roll(ends, -1, axis=0) - np.array(ends)
        out.append(sides)
    return np.concatenate(out)
