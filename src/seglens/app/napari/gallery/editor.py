"""Edits of a gallery, one after another in a thread: another program may hold the file, and the window never waits."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from qtpy.QtCore import QObject, QTimer

from seglens.app.napari.gallery import texts
from seglens.app.napari.gallery.state import GalleryState
from seglens.app.napari.jobs import Emit, Job
from seglens.app.napari.links import link
from seglens.core.errors import SegLensError
from seglens.core.run import Run

WATCH = 700  # milliseconds between two looks for edits of others

Edit = Callable[[Any], Any]
Told = Callable[[Any], str]


class Editor(QObject):
    """Does what buttons and keys say, and notices what others did.

    Args:
        state: whose gallery.
        parent: its end is the end of watching.
    """

    def __init__(self, state: GalleryState, parent: QObject | None = None) -> None:
        """Watch from the start; it costs next to nothing."""
        super().__init__(parent)
        self._state = state
        self._waiting: deque[tuple[Any, Edit, Told]] = deque()
        self._job: Job | None = None
        self._search: Job | None = None
        self._token: Any = None
        self._retired: list[Any] = []
        self.quiet: Callable[[], bool] = lambda: True  # whether nobody else is reading
        self._timer = QTimer(self)
        self._timer.setInterval(WATCH)
        self._timer.timeout.connect(self.watch)
        self._timer.start()
        link(self, self.opened, state.shelf_changed, state.edited)
        link(self, self._measured, state.measured)
        link(self, self.look_for_images, state.shelf_changed, state.edited)

    @property
    def busy(self) -> bool:
        """Whether edits are on their way."""
        return self._job is not None or bool(self._waiting) or self._search is not None

    def keep(self) -> None:
        """Let the selected items count again."""
        self._each("keep", lambda gallery, ids: gallery.keep(ids))

    def drop(self) -> None:
        """Let the selected items count no more."""
        self._each("drop", lambda gallery, ids: gallery.drop(ids))

    def merge(self, into: int) -> None:
        """Let the selected items be parts of one of them."""
        ids = [n for n in self._state.selected if n != into]
        if not ids or self._gallery() is None:
            self._state.say(texts.SELECT_TWO if self._gallery() is not None else self._no_gallery(), level="warning")
            return
        told = texts.DONE["merge"].format(what=f"{texts.several(ids)} into item {into}")
        self.do(lambda gallery: gallery.merge(ids, into), lambda _: told)

    def relabel(self, label: str) -> None:
        """Let the selected items stand for another class."""
        self._each("relabel", lambda gallery, ids: gallery.relabel(ids, label), label=label)

    def undo(self) -> None:
        """Take the last edit back, whoever made it."""
        self._back("undo", texts.UNDONE)

    def redo(self) -> None:
        """Do again what was taken back last."""
        self._back("redo", texts.REDONE)

    def do(self, edit: Edit, told: Told) -> None:
        """Do an edit after those that wait.

        Args:
            edit: called with the gallery, in a thread.
            told: what to tell of its answer.
        """
        gallery = self._gallery()
        if gallery is None:
            self._state.say(self._no_gallery(), level="warning")
            return
        self._waiting.append((gallery, edit, told))
        self._next()

    def opened(self, _event: object = None) -> None:
        """Another gallery is open, or it was edited here: what it holds now is known."""
        gallery = self._gallery()
        self._token = None if gallery is None else gallery.token()

    def _measured(self, _event: object = None) -> None:
        known = self._state.measured_now
        if known is not None and known.kept:
            self.opened()

    def retire(self, gallery: Any) -> None:
        """Close a gallery once nothing uses it any more."""
        self._retired.append(gallery)

    def watch(self) -> None:
        """Look whether somebody else has edited: another viewer, another program, or the command line."""
        gallery = self._gallery()
        if self.busy or not self.quiet():
            return
        if self._retired:
            self._retired.pop().close()
        if gallery is None:
            return
        try:
            token = gallery.token()
            latest = gallery.history(1) if token != self._token else []
        except (SegLensError, OSError) as error:
            self._lost(gallery, error)
            return
        if token != self._token:
            if latest and latest[0].kind != "measure":
                self._state.say(texts.ELSEWHERE.format(what=latest[0].what, person=latest[0].person))
            self._state.edited.emit()

    def look_for_images(self, _event: object = None) -> None:
        """Find out which images are not where they were, in a thread: a drive may be slow or away."""
        gallery = self._gallery()
        if gallery is None:
            self._state.miss(frozenset())
        elif self._search is None:
            job = Job("looking for images", partial(_missing, gallery=gallery))
            job.returned.connect(lambda found: self._state.miss(found) if gallery is self._gallery() else None)
            job.ended.connect(lambda: self._searched(job))
            self._search = job
            job.start()

    def stop(self, *_: object) -> None:
        """The gallery goes; edits that wait are still made, since somebody asked for them."""
        self._timer.stop()

    def _lost(self, gallery: Any, error: Exception) -> None:
        what = error.what if isinstance(error, SegLensError) else str(error)
        self._state.show(None)
        self._state.say(texts.GONE.format(name=gallery.info.title, what=what), texts.OPEN_FIRST, "error")

    def _each(self, verb: str, edit: Callable[[Any, list[int]], Any], label: str = "") -> None:
        ids = list(self._state.selected)
        if self._gallery() is None or not ids:
            self._state.say(texts.SELECT_FIRST if self._gallery() is not None else self._no_gallery(), level="warning")
            return
        what = texts.several(ids)
        told = texts.DONE[verb].format(what=what, label=label)
        same = texts.NOTHING_CHANGED.format(what=what)
        self.do(lambda gallery: edit(gallery, ids), lambda count: told[:1].upper() + told[1:] if count else same)

    def _back(self, verb: str, sentence: str) -> None:
        def told(what: str | None) -> str:
            return texts.NOTHING_TO[verb] if what is None else sentence.format(what=what)

        self.do(lambda gallery: getattr(gallery, verb)(), told)

    def _next(self) -> None:
        if self._job is not None or not self._waiting:
            return
        gallery, edit, told = self._waiting.popleft()
        job = Job("editing the gallery", partial(_edit, gallery=gallery, edit=edit))
        job.returned.connect(lambda answer: self._done(gallery, told(answer)))
        job.failed.connect(self._state.fail)
        job.ended.connect(lambda: self._over(job))
        self._job = job
        job.start()

    def _done(self, gallery: Any, sentence: str) -> None:
        if gallery is self._gallery():
            self._state.say(sentence)
            self._state.edited.emit()

    def _over(self, job: Job) -> None:
        self._job = None
        job.deleteLater()
        self._next()

    def _searched(self, job: Job) -> None:
        self._search = None
        job.deleteLater()

    def _gallery(self) -> Any:
        return self._state.gallery

    def _no_gallery(self) -> str:
        return texts.BANK_ONLY if self._state.bank is not None else texts.OPEN_FIRST


def _missing(run: Run, emit: Emit, *, gallery: Any) -> frozenset[str]:
    return frozenset(item.source for item in gallery.missing())


def _edit(run: Run, emit: Emit, *, gallery: Any, edit: Edit) -> Any:
    return edit(gallery)
