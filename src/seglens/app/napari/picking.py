"""A click in the image as a target. While it waits, no brush can paint: a click must never cost a stroke."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from napari.layers import Points
from qtpy.QtCore import QObject, Signal

from seglens.app.napari import adapt, asking, colours, results, words
from seglens.app.napari.inserting import take_out
from seglens.app.napari.viewer_session import MARK, ViewerSession, is_ours, layer_id


class Picker(QObject):
    """Waits for one click.

    Args:
        session: gets the position, in world coordinates of the image layer.
        parent: the panel.
    """

    changed = Signal()
    pointed = Signal(bool)  # whether the button is still down

    def __init__(self, session: ViewerSession, parent: QObject | None = None) -> None:
        """Asleep at first."""
        super().__init__(parent)
        self._session = session
        self._before: tuple[Any, str] | None = None
        self.active = False
        self.stays = False  # clicks go on until somebody leaves
        if parent is not None:
            parent.destroyed.connect(self._leave)

    def set_active(self, active: bool) -> None:
        """Start or stop waiting; the active layer's tool rests meanwhile and comes back."""
        viewer = self._session.viewer
        if viewer is None or active == self.active:
            return
        if active and self._session.image_layer is None:
            self._session.say(words.PICK_IMAGE, level="warning")
            self.changed.emit()
            return
        self.active = active
        if active:
            self._rest()
            viewer.mouse_drag_callbacks.append(self._clicked)
            viewer.status = words.PICKING
        else:
            self._stop()
            viewer.status = words.READY
        self.changed.emit()

    def told(self) -> str:
        """The picked pixel, in words."""
        spot, layer = self._session.question.spot, self._session.image_layer
        pixel = None if spot is None or layer is None else adapt.pixel_at(layer, spot)
        if pixel is None or layer is None:
            return "nothing picked yet"
        axes = asking.axes_of(self._session, layer)
        return ", ".join(f"{a.lower()} {n}" for a, n in zip(axes, pixel, strict=False))

    def _stop(self) -> None:
        viewer = self._session.viewer
        if viewer is not None and self._clicked in viewer.mouse_drag_callbacks:
            viewer.mouse_drag_callbacks.remove(self._clicked)
        self._resume()

    def _leave(self, *_: object) -> None:
        # the panel was closed while it waited for a click
        if self.active:
            self.active = False
            self._stop()

    def _rest(self) -> None:
        viewer = self._session.viewer
        active = None if viewer is None else viewer.layers.selection.active
        if active is not None and hasattr(active, "mode") and str(active.mode) not in ("pan_zoom", "transform"):
            self._before = (active, str(active.mode))
            active.mode = "pan_zoom"

    def _resume(self) -> None:
        if self._before is not None:
            layer, mode = self._before
            self._before = None
            viewer = self._session.viewer
            if viewer is not None and layer in viewer.layers:
                layer.mode = mode

    def _clicked(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        if self.stays:
            if event.button == 1 and not event.modifiers:
                yield from self._dragged(viewer, event)
            return
        dragged = False
        yield
        while event.type == "mouse_move":
            dragged = True
            yield
        # a drag moves the camera; only a click picks
        if not dragged:
            self.take(tuple(float(n) for n in event.position))

    def _dragged(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        camera = viewer.scene.camera
        before, camera.mouse_pan = camera.mouse_pan, False
        inside = False
        try:
            while True:
                held = event.type in ("mouse_press", "mouse_move")
                told = event.type == "mouse_press"
                taken = self.take(tuple(float(n) for n in event.position), told=told)
                inside = inside or taken
                # letting go outside ends what began inside
                if taken or (inside and not held):
                    self.pointed.emit(held)
                if not held:
                    return
                yield
        finally:
            camera.mouse_pan = before

    def take(self, world: tuple[float, ...], *, told: bool = True) -> bool:
        """Use a position; outside the image nothing happens but a hint.

        Args:
            world: the position.
            told: whether the hint is given; a pointer that is dragged out and in again needs none.

        Returns:
            Whether it is inside.
        """
        layer, viewer = self._session.image_layer, self._session.viewer
        if layer is None or viewer is None:
            return False
        if adapt.pixel_at(layer, world) is None:
            if told:
                self._session.say(*words.OUTSIDE, level="warning", asked=True)
            return False
        self._session.asked_anew()
        self._session.question.spot = world
        self._mark(world)
        if not self.stays:
            self.set_active(False)
        return True

    def _mark(self, world: tuple[float, ...]) -> None:
        viewer, layer = self._session.viewer, self._session.image_layer
        if viewer is None or layer is None:
            return
        point = np.asarray([layer.world_to_data(np.asarray(world)[-layer.ndim :])])
        for old in [x for x in viewer.layers if is_ours(x, "spot")]:
            if old.metadata[MARK].get("of") == layer_id(layer):
                # another layer in its place would cost a tenth of a second
                old.data = point
                return
            take_out(viewer, old)
        shape = adapt.pixels(layer).shape[: layer.ndim]
        marker = Points(
            point,
            name="picked",
            symbol="cross",
            face_color=colours.TARGET[1],
            border_color="black",
            size=max(3.0, min(shape[-2:]) / 40),
            metadata={MARK: {"role": "spot", "of": layer_id(layer)}},
            **results.placement(layer, (0,) * layer.ndim),
        )
        results.add(viewer, marker)
