"""New items: what is painted, or an object of the mask, under the cursor or clicked."""

# mypy: allow-subclassing-any
from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, Signal

from seglens.app.napari import adapt, asking
from seglens.app.napari.gallery import texts, work
from seglens.app.napari.gallery.looker import Looker, pixel, place_of
from seglens.app.napari.gallery.state import GalleryState
from seglens.app.napari.picking import Picker
from seglens.app.napari.viewer_session import ViewerSession
from seglens.core.errors import NoSuchRegion, SegLensError
from seglens.core.target import Object, Painted, Region


class Adder(QObject):
    """Adds regions of the image that is looked at to the open gallery.

    Args:
        session: image, model, and the layer that is painted on.
        state: the gallery.
        looker: knows how the network sees the image.
        parent: its end is the end of this.
    """

    changed = Signal()  # a click is waited for, or no longer

    def __init__(self, session: ViewerSession, state: GalleryState, looker: Looker, parent: QObject) -> None:
        """Waits for nothing at first."""
        super().__init__(parent)
        self._session, self._state, self._looker = session, state, looker
        self.picker = Picker(session, self)
        self.picker.stays = True
        self.picker.changed.connect(self.changed)
        self.picker.pointed.connect(self._pointed)

    def painted(self) -> None:
        """Add what is painted on the target layer, in the present slice."""
        if self._may():
            self._looker.need("add", self._painted)

    def click(self) -> None:
        """Wait for a click on an object."""
        if self._may():
            self.picker.set_active(not self.picker.active)
            if self.picker.active:
                self._state.say(texts.CLICK_OBJECT)

    def under(self, world: tuple[float, ...]) -> None:
        """Add what is under a world position: the painted region if paint lies there, else the object."""
        if self._may():
            on_paint = self._paint_at(world)
            self._looker.need("add", self._painted if on_paint else partial(self._object, world))

    def best(self) -> None:
        """Add what is painted; without paint, wait for a click on an object."""
        target = self._target()
        if target is not None and np.any(adapt.pixels(target)):
            self.painted()
        else:
            self.click()

    def leave(self) -> None:
        """Wait no longer."""
        self.picker.set_active(False)

    def _may(self) -> bool:
        state = self._state
        if state.gallery is None:
            state.say(texts.BANK_ONLY if state.bank is not None else texts.OPEN_FIRST, level="warning")
        return state.gallery is not None

    def _pointed(self, held: bool) -> None:
        spot = self._session.question.spot
        if not held and spot is not None:
            self.picker.set_active(False)
            self._looker.need("add", partial(self._object, spot))

    def _target(self) -> Labels | None:
        target = self._session.layer(self._session.question.target_id)
        return target if isinstance(target, Labels) else None

    def _paint_at(self, world: tuple[float, ...]) -> bool:
        target = self._target()
        if target is None:
            return False
        at = adapt.pixel_at(target, world)
        return at is not None and bool(np.asarray(target.data[at]) > 0)

    def _painted(self, looked: work.Looked, where: asking.View) -> Any:
        target, session = self._target(), self._session
        try:
            if target is None:
                raise NoSuchRegion(texts.NOTHING_PAINTED, fix=texts.PAINT_FIRST)
            axes = asking.axes_of(session, where.layer)
            mask = adapt.painted(target, where.layer, axes, where.image, where.frame.model_axes)
        except SegLensError as error:
            self._state.fail(error)
            return None
        return self._take(looked, where, Painted(mask > 0))

    def _object(self, world: tuple[float, ...], looked: work.Looked, where: asking.View) -> Any:
        at = pixel(where, world)
        if at is None:
            self._state.say(texts.OUTSIDE, level="warning")
            return None
        return self._take(looked, where, Object(at=at))

    def _take(self, looked: work.Looked, where: asking.View, region: Region) -> Any:
        session, gallery = self._session, self._state.gallery
        if gallery is None or session.viewer is None:
            return None
        seen = self._looker.seen
        call = partial(
            work.take, place=place_of(session, where), model=looked.model, seen=seen, gallery=gallery,
            region=region, of_class=session.question.of_class if isinstance(region, Painted) else None,
        )  # fmt: skip
        return call, self._added

    def _added(self, number: int) -> None:
        gallery = self._state.gallery
        if gallery is not None:
            item = gallery.item(number)
            self._state.say(texts.ADDED.format(id=number, label=item.label))
            self._state.edited.emit()
            self._state.select([number])
