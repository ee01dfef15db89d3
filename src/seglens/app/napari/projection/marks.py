"""Frames around the places of selected points in the image that is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer, Vectors

from seglens.app.napari import colours, going, results
from seglens.app.napari.gallery.jumper import corners
from seglens.app.napari.inserting import take_out
from seglens.app.napari.projection import texts
from seglens.app.napari.viewer_session import MARK, is_ours, layer_id

ROLE = "projection"
MOST = 500


def show(viewer: ViewerModel, layer: Layer, axes: str, items: Sequence[Any], known: str) -> None:
    """Frame the boxes of some items in their image; the frames of others go.

    Args:
        viewer: where.
        layer: the image.
        axes: of the layer.
        items: with ``box`` and ``select``.
        known: axes of the boxes.
    """
    if not items:
        leave(viewer)
        return
    sides = [going.frames(layer, corners(item, layer, axes, known), axes) for item in items[:MOST]]
    data = np.concatenate(sides)
    old = next((x for x in viewer.layers if is_ours(x, ROLE)), None)
    if isinstance(old, Vectors) and old.metadata[MARK].get("of") == layer_id(layer):
        old.data = data
        return
    leave(viewer)
    pixel = float(np.mean(np.abs(np.asarray(layer.scale, float)[[axes.index("Y"), axes.index("X")]])))
    frames = Vectors(
        data,
        name=results.unique_name(viewer, texts.MARKS),
        edge_color=colours.TARGET[2],
        edge_width=2.0 / max(1e-9, viewer.scene.camera.zoom * pixel),
        vector_style="line",
        metadata={MARK: {"role": ROLE, "of": layer_id(layer)}},
        **results.placement(layer, (0,) * layer.ndim),
    )
    results.add(viewer, frames)


def leave(viewer: ViewerModel) -> None:
    """Take the frames away."""
    for layer in [x for x in viewer.layers if is_ours(x, ROLE)]:
        take_out(viewer, layer)
