"""Says on the canvas what a map holds under the pointer: the raw value, whichever layer is active."""

# mypy: allow-subclassing-any
from __future__ import annotations

import weakref
from contextlib import suppress
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.components.overlays import TextOverlay
from qtpy.QtCore import QObject

from seglens.app.napari import results
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import MARK

OVERLAY = "seglens value"


class Reading(QObject):
    """Follows the pointer. napari's own line tells the active layer alone, and that stays the person's image.

    Args:
        viewer: whose maps; held weakly.
        parent: its end is the end of this.
    """

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        """Nothing is shown before the pointer moves."""
        super().__init__(parent)
        self._viewer = weakref.ref(viewer)
        self._callbacks = viewer.mouse_move_callbacks
        self._callbacks.append(self._read)
        link(self, self._gone, viewer.layers.events.removed)
        parent.destroyed.connect(self._leave)

    def _read(self, _viewer: object, event: Any) -> None:
        viewer = self._viewer()
        if viewer is not None:
            self._say(viewer, told(viewer, event.position))

    def _gone(self, _event: object = None) -> None:
        viewer = self._viewer()
        if viewer is not None and looked_at(viewer) is None:
            self._say(viewer, "")

    def _say(self, viewer: ViewerModel, text: str) -> None:
        overlays = viewer.canvas.overlays
        if OVERLAY not in overlays:
            if not text:
                return
            overlays[OVERLAY] = TextOverlay(position="bottom_left")
        # each change draws the canvas again
        if overlays[OVERLAY].text != text:
            overlays[OVERLAY].text = text
        if overlays[OVERLAY].visible != bool(text):
            overlays[OVERLAY].visible = bool(text)

    def _leave(self, *_: object) -> None:
        with suppress(ValueError):
            self._callbacks.remove(self._read)


def looked_at(viewer: ViewerModel) -> Any:
    """The uppermost map that is visible; ``None`` if there is none."""
    return next((x for x in reversed(viewer.layers) if x.visible and results.is_map(x)), None)


def told(viewer: ViewerModel, position: Any) -> str:
    """Name, value and unit of the map at a position in world coordinates; empty beside it, and in 3-D views."""
    layer = looked_at(viewer)
    if layer is None or viewer.dims.ndisplay != 2:
        return ""
    value = layer.get_value(position, world=True)
    if value is None or np.ndim(value) or not np.isfinite(value):
        return ""
    unit = layer.metadata.get(MARK, {}).get("unit", "")
    return f"{layer.name}: {float(value):.4g} {unit}".rstrip()
