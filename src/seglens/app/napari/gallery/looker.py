"""The image under the chosen network: looked at once; then edits, clicks and maps take no pass through it."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import QObject, QTimer, Signal

from seglens.app.napari import adapt, asking, jobs
from seglens.app.napari.gallery import layers, texts, work
from seglens.app.napari.gallery.state import GalleryState
from seglens.app.napari.jobs import Job, Work
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import ViewerSession, layer_id
from seglens.core.errors import SegLensError

PATIENCE = 200  # milliseconds after the last change of image, model or slice before the network looks
TURN = 15  # milliseconds
MOST = 4_200_000  # pixels of a slice that is looked at whole; of a larger one, the part that the Model tab says

Wish = Callable[[work.Looked, asking.View], tuple[Work, Callable[[Any], None]] | None]


class Looker(QObject):
    """Answers what needs the network. Only the newest request of each kind counts; the window never waits.

    Args:
        session: image and model.
        state: the gallery.
        parent: its end is the end of this.
    """

    answered = Signal(str)  # a kind of wish
    told_why = Signal(object)

    def __init__(self, session: ViewerSession, state: GalleryState, parent: QObject) -> None:
        """Nothing is looked at before there is a gallery of the chosen network, or somebody asks."""
        super().__init__(parent)
        self._session, self._state = session, state
        self.looked: work.Looked | None = None
        self.change: work.Change | None = None
        self._job: Job | None = None
        self._wishes: dict[str, Wish] = {}
        self._edited = False  # something was edited while this image was looked at
        self._showing = 0
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(PATIENCE)
        self._timer.timeout.connect(self.measure)
        question, model, viewer = session.question, session.model, session.viewer
        link(self, self._later, model.events.loaded, question.events.layer_id, session.axes_changed)
        link(self, self._other, state.shelf_changed)
        link(self, self._after_edit, state.edited)
        if viewer is not None:
            link(self, self._later, viewer.dims.events.point, viewer.layers.events.removed)

    @property
    def busy(self) -> bool:
        """Whether something is on its way."""
        return self._job is not None or bool(self._wishes or self._showing) or self._timer.isActive()

    @property
    def seen(self) -> work.Seen | None:
        """The image as the prototype network of this gallery sees it, if it is known."""
        gallery, looked = self._state.gallery, self.looked
        return looked.seen if looked is not None and gallery is not None and looked.is_of(gallery) else None

    def measure(self) -> None:
        """Find out which item explains how much of the image; the mask is shown once something was edited."""
        if self._state.gallery is None or self._session.model.loaded is None or self._session.image_layer is None:
            self._state.measure(None)
        elif self._view_now() is None or self.looked is None or not self._holds():
            self._state.measure(None)
            self._edited = False
            self._wish("change", self._change)

    def keep_activity(self) -> None:
        """Keep how much each item explains of this image as its activation."""
        if self._state.gallery is None:
            self._state.say(texts.OPEN_FIRST, level="warning")
        elif self._ready():
            self._wish("change", partial(self._change, keep=True))

    def ask_why(self, world: tuple[float, ...]) -> None:
        """Ask what made the pixel under a world position."""
        if self._ready():
            self._wish("why", partial(self._why, world))

    def show_map(self, item: Any) -> None:
        """Show where else an item fires in the image that is looked at."""
        if self._ready():
            self._wish("map", partial(self._map, item))

    def stop(self, *_: object) -> None:
        """Ask no more, and keep nothing of the image."""
        self._timer.stop()
        self._wishes.clear()
        self.looked = None
        if self._job is not None:
            self._job.cancel()

    def need(self, kind: str, wish: Wish) -> None:
        """Do something of others that needs the network, after what is on its way."""
        if self._ready():
            self._wish(kind, wish)

    # -- what is asked --------------------------------------------------------------------------------------------

    def _change(
        self, looked: work.Looked, where: asking.View, keep: bool = False
    ) -> tuple[Work, Callable[[Any], None]] | None:
        gallery = self._state.gallery
        if gallery is None:
            return None
        fits = looked.is_of(gallery)
        whole = place_of(self._session, where).whole
        call = partial(work.measure, looked=looked, whole=whole, gallery=gallery, fits=fits, keep=keep)
        return call, self._state.measure

    def _why(self, world: tuple[float, ...], looked: work.Looked, where: asking.View) -> Any:
        seen, gallery = looked.seen, self._state.gallery
        if seen is None:
            self._state.say(texts.NO_PROTOTYPES.format(model=looked.model.spec.name), level="warning")
            return None
        at = pixel(where, world)
        if at is None:
            return None
        fitting = gallery if gallery is not None and looked.is_of(gallery) else None
        return partial(work.why, seen=seen, gallery=fitting, position=at), self.told_why.emit

    def _map(self, item: Any, looked: work.Looked, where: asking.View) -> Any:
        state = self._state
        title = texts.MAP.format(id=item.id)
        told = texts.MAP_TOLD.format(id=item.id, label=item.label, name=where.layer.name)

        def show(values: Any) -> None:
            viewer = self._session.viewer
            if viewer is not None and self._session.layer(layer_id(where.layer)) is not None:
                layers.show_map(viewer, where, values, title, told)
                state.say(told)

        given = {"looked": looked, "gallery": state.gallery, "bank": state.bank, "key": item.id}
        return partial(work.where, **given), show

    # -- one after another ----------------------------------------------------------------------------------------

    def _wish(self, kind: str, wish: Wish) -> None:
        self._wishes[kind] = wish
        self._next()

    def _next(self) -> None:
        if self._job is not None or not self._wishes:
            return
        where, model = self._view_now(), self._session.model.loaded
        if where is None or model is None:
            self._wishes.clear()
            return
        if not self._holds(where):
            call: Work = partial(work.look, image=where.image, model=model)
            self._start(Job("looking at the image", jobs.alone(self._session.lock, call)), self._came)
            return
        kind = next(iter(self._wishes))
        wish = self._wishes.pop(kind)
        looked = self.looked
        asked = None if looked is None else wish(looked, where)
        if asked is None:
            self._next()
            return
        call, told = asked
        # what was seen once does not touch the network, so nobody has to wait
        job = Job(kind, call if looked is None or looked.seen else jobs.alone(self._session.lock, call))
        job.produced.connect(lambda piece: self._changed(job, where, piece))
        self._start(job, lambda answer: self._answered(kind, told, answer))

    def _start(self, job: Job, done: Callable[[Any], None]) -> None:
        job.returned.connect(done)
        job.failed.connect(self._failed)
        job.ended.connect(lambda: self._over(job))
        self._job = job
        job.start()

    def _came(self, looked: work.Looked) -> None:
        self.looked, self.change = looked, None

    def _changed(self, job: Job, where: asking.View, change: work.Change) -> None:
        job.applied()
        self.change = change
        viewer, spec = self._session.viewer, self._session.model.spec
        gone = self._session.layer(layer_id(where.layer)) is None
        if viewer is None or spec is None or gone or not (self._edited or any(change.counts)):
            return
        layers.show_difference(viewer, where, change)
        # the picture has its turn between two new layers
        QTimer.singleShot(0 if layers.has(viewer, layers.AFTER) else TURN, partial(self._show_after, where, change))
        self._showing += 1
        before = self._state.message.what if self._state.message is not None and self._edited else ""
        told = texts.changed(change.counts, change.seconds)
        self._state.say(before or told, told if before else "")
        self.answered.emit("mask")

    def _show_after(self, where: asking.View, change: work.Change) -> None:
        self._showing -= 1
        viewer, spec = self._session.viewer, self._session.model.spec
        there = self._session.layer(layer_id(where.layer)) is not None and self._state.gallery is not None
        if viewer is not None and spec is not None and there and change is self.change:
            layers.show_after(viewer, where, change, spec)

    def _answered(self, kind: str, told: Callable[[Any], None], answer: Any) -> None:
        told(answer)
        self.answered.emit(kind)

    def _failed(self, error: BaseException) -> None:
        # the network cannot look at this image, so none of the wishes can be fulfilled
        self._wishes.clear()
        self._state.measure(None)
        self._state.fail(error)

    def _over(self, job: Job) -> None:
        self._job = None
        job.deleteLater()
        self._next()

    def _later(self, _event: object = None) -> None:
        if self._state.gallery is not None:
            self._timer.start()

    def _other(self, _event: object = None) -> None:
        """Another gallery: what the last one did to the mask is no longer of interest."""
        viewer = self._session.viewer
        self.change, self._edited = None, False
        self._state.measure(None)
        if viewer is not None:
            layers.forget_changes(viewer)
        if self._state.gallery is not None and self._session.model.loaded is not None:
            self._wish("change", self._change)

    def _after_edit(self, _event: object = None) -> None:
        if self._state.gallery is not None and self._session.model.loaded is not None:
            self._edited = True
            self._wish("change", self._change)

    def _ready(self) -> bool:
        model = self._session.model
        if model.loaded is None:
            self._state.say(texts.LOADING if model.loading else texts.NEEDS_DOCK, level="warning")
        elif self._session.image_layer is None:
            self._state.say(texts.NEEDS_IMAGE, level="warning")
        elif self._view_now(say=True) is not None:
            return True
        return False

    def _holds(self, where: asking.View | None = None) -> bool:
        where = where or self._view_now()
        return (
            where is not None and self.looked is not None and self.looked.holds(where.image, self._session.model.loaded)
        )

    def _view_now(self, *, say: bool = False) -> asking.View | None:
        try:
            return view_of(self._session)
        except SegLensError as error:
            if say:
                self._state.fail(error)
            return None


def view_of(session: ViewerSession) -> asking.View:
    """What the gallery looks at: the whole slice (or volume) while it is small, else what the Model tab says.

    Raises:
        SegLensError: there is no image or no model, or they do not fit.
    """
    whole = asking.explained(session, "slice")
    pixels = 1
    for axis in whole.frame.model_axes:
        pixels *= whole.image.size(axis)
    return whole if pixels <= MOST else asking.explained(session)


def place_of(session: ViewerSession, where: asking.View) -> work.Place:
    """A view as an item will remember it.

    Raises:
        SegLensError: the axes of the layer are not known.
    """
    axes, viewer = asking.axes_of(session, where.layer), session.viewer
    select = {} if viewer is None else adapt.steps(where.layer, viewer, axes, where.frame.model_axes)
    return work.Place(adapt.image_of(where.layer, axes).select(**select), where.image, select)


def pixel(where: asking.View, world: tuple[float, ...]) -> tuple[int, ...] | None:
    """The pixel of a view under a world position, along the model's axes; ``None`` outside."""
    found = adapt.pixel_at(where.layer, world)
    if found is None:
        return None
    frame = where.frame
    at = {a: found[i] - frame.start[i] for i, a in enumerate(frame.axes)}
    position = tuple(at[a] for a in frame.model_axes)
    inside = all(0 <= n < where.image.size(a) for n, a in zip(position, frame.model_axes, strict=True))
    return position if inside else None
