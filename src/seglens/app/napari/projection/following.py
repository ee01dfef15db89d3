"""Keeps the projection in step: with the gallery, with tables, with the place that is picked, with the image."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtCore import QObject

from seglens.app.napari import adapt, asking
from seglens.app.napari.jobs import Job
from seglens.app.napari.links import link
from seglens.app.napari.projection import marks, work
from seglens.app.napari.viewer_session import layer_id
from seglens.core.errors import SegLensError

if TYPE_CHECKING:
    from seglens.app.napari.projection.dock import ProjectionDock


class Follower(QObject):
    """Listens for the projection.

    Args:
        dock: whose points.
    """

    def __init__(self, dock: ProjectionDock) -> None:
        """Connect; everything ends with the dock."""
        super().__init__(dock)
        self._dock = dock
        self._known: dict[str, str] = {}  # layer to the fingerprint of its image
        self._job: Job | None = None
        session, state = dock.session, dock.state
        link(self, self._gallery, state.selection_changed)
        link(self, self._table, session.looked_at)
        link(self, self._picked, session.question.events.spot)
        link(self, self.mark, session.question.events.layer_id)
        dock.destroyed.connect(self._leave)

    def mark(self, _event: object = None) -> None:
        """Frame the selected points that lie in the image that is looked at."""
        viewer, layer, shown = self._dock.session.viewer, self._dock.session.image_layer, self._dock.shown
        if viewer is None:
            return
        if layer is None or shown is None or not self._dock.rows:
            marks.leave(viewer)
            return
        source = adapt.source_of(layer)
        inside = shown.of_image(self._known.get(layer_id(layer), ""), source, self._dock.rows)
        if not inside and layer_id(layer) not in self._known:
            self._find(layer, self.mark)
        try:
            axes = asking.axes_of(self._dock.session, layer)[: layer.ndim]
        except SegLensError:
            return
        marks.show(viewer, layer, axes, inside, shown.bank.info.axes)

    def _gallery(self) -> None:
        dock, state = self._dock, self._dock.state
        if dock.shown is None:
            return
        if state.bank is not None and state.bank.folder == dock.shown.bank.folder:
            if state.selected_rows and tuple(state.selected_rows) != dock.rows:
                dock.plane.choose(dock.shown.places(state.selected_rows))
        elif state.gallery is not None and state.selected:
            rows: list[int] = []
            for key in state.selected:
                item = state.gallery.item(key)
                rows += dock.shown.seen_at(item.image, item.source, item.position)[:1]
            dock.select(rows, quietly=True)

    def _table(self, row: Mapping[str, Any]) -> None:
        number, shown = row.get("row"), self._dock.shown
        if shown is not None and isinstance(number, int) and len(shown.places([number])):
            self._dock.select([number], quietly=True)

    def _picked(self, _event: object = None) -> None:
        session, shown = self._dock.session, self._dock.shown
        layer, spot = session.image_layer, session.question.spot
        if shown is None or layer is None or spot is None:
            return
        if layer_id(layer) not in self._known:
            self._find(layer, self._picked)
            return
        pixel = adapt.pixel_at(layer, spot)
        try:
            axes = asking.axes_of(session, layer)
        except SegLensError:
            return
        if pixel is None:
            return
        place = dict(zip(axes, pixel, strict=False))
        at = [place.get(a, 0) for a in shown.bank.info.axes]
        rows = shown.seen_at(self._known[layer_id(layer)], adapt.source_of(layer), at)
        if rows:
            self._dock.select(rows[:1], quietly=True)

    def _find(self, layer: Layer, then: Any) -> None:
        """Find out which image a layer is, without the window waiting for it."""
        if self._job is not None:
            return
        try:
            image = adapt.image_of(layer, asking.axes_of(self._dock.session, layer))
        except SegLensError:
            return
        key = layer_id(layer)
        job = Job("image", partial(work.fingerprint, image=image))

        def came(found: str) -> None:
            self._known[key] = found
            then()

        job.returned.connect(came)
        job.failed.connect(lambda _error: self._known.setdefault(key, ""))
        job.ended.connect(lambda: self._over(job))
        self._dock.destroyed.connect(job.cancel)
        self._job = job
        job.start()

    def _over(self, job: Job) -> None:
        self._job = None
        job.deleteLater()

    def _leave(self, *_: object) -> None:
        viewer = self._dock.session.viewer
        if viewer is not None:
            marks.leave(viewer)
