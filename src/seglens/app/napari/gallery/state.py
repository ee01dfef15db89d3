"""What the gallery of one viewer shows and what is selected in it; panels and other docks listen here.

``state_of(viewer)`` gives it, whether or not the gallery is open::

    state = state_of(viewer)
    state.selection_changed.connect(follow)    # follow reads state.selected and state.selected_rows
    state.show_rows(bank, rows, "near the cell")
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.components import ViewerModel
from psygnal import Signal

from seglens.app.napari import words
from seglens.app.napari.gallery.shelves import Shelf, Wanted
from seglens.app.napari.gallery.work import Measured
from seglens.app.napari.viewer_session import Level, Message, plain
from seglens.core.errors import Cancelled, SegLensError

if TYPE_CHECKING:
    from seglens.engine.features import FeatureBank
    from seglens.workspace.gallery import Gallery

log = logging.getLogger("seglens")


class GalleryState:
    """One per viewer; see :func:`state_of`.

    Attributes:
        gallery: the gallery that is open; ``None`` while none is, or while rows of a bank are shown.
        bank: the feature bank whose rows are shown, if any are.
        rows: those rows, in the order in which they are shown before anybody sorts.
        selected: ids of the selected items of the gallery.
        selected_rows: rows of ``bank`` that are selected.
        measured_now: who explains how much of the image that is looked at, and which items come from it; ``None``
            while that is not known.
        wanted: filter and order.
        missing: sources of images that are not where they were.
    """

    shelf_changed = Signal()  # something else is shown
    edited = Signal()  # what is shown was edited, here or elsewhere
    selection_changed = Signal()
    wanted_changed = Signal()
    said = Signal()  # there is something to tell
    missing_changed = Signal()
    measured = Signal()  # who explains how much of the image is known, or no longer
    rows_wanted = Signal()  # somebody asks for bank rows; the widget opens itself and shows them

    def __init__(self) -> None:
        """Nothing is open."""
        self.gallery: Gallery | None = None
        self.bank: FeatureBank | None = None
        self.rows: tuple[int, ...] = ()
        self.rows_title = ""
        self.shelf: Shelf | None = None
        self.wanted = Wanted()
        self.selected: tuple[int, ...] = ()
        self.selected_rows: tuple[int, ...] = ()
        self.message: Message | None = None
        self.missing: frozenset[str] = frozenset()
        self.measured_now: Measured | None = None

    @property
    def folder(self) -> Path | None:
        """The folder of the open gallery."""
        return None if self.gallery is None else Path(self.gallery.folder)

    def show_rows(self, bank: FeatureBank, rows: Sequence[int], title: str = "") -> None:
        """Fill the gallery with rows of a feature bank, in this order; the gallery that was open stays as it is.

        Args:
            bank: where the rows are.
            rows: row numbers.
            title: what they are, for people ("12 selected points").
        """
        self.bank, self.rows, self.rows_title = bank, tuple(int(n) for n in rows), title
        self.selected = self.selected_rows = ()
        self.rows_wanted.emit()
        self.selection_changed.emit()

    def show(self, shelf: Shelf | None, gallery: Gallery | None = None) -> None:
        """Show something else; the selection goes."""
        self.shelf, self.gallery = shelf, gallery
        if gallery is not None:
            self.bank, self.rows, self.rows_title = None, (), ""
        self.selected = self.selected_rows = ()
        self.shelf_changed.emit()
        self.selection_changed.emit()

    def measure(self, measured: Measured | None) -> None:
        """Who explains how much of the image that is looked at; ``None`` while that is not known."""
        if measured is not self.measured_now:
            self.measured_now = measured
            self.measured.emit()

    def miss(self, sources: frozenset[str]) -> None:
        """These images are not where they were."""
        if sources != self.missing:
            self.missing = sources
            self.missing_changed.emit()

    def say(self, what: str, fix: str = "", level: Level = "note") -> None:
        """Tell a sentence or two below the thumbnails; an empty one takes the last away."""
        self.message = Message(what, fix, level) if what else None
        self.said.emit()

    def fail(self, error: BaseException) -> None:
        """Tell what went wrong; the trace of what nobody foresaw goes to the log."""
        if isinstance(error, SegLensError):
            self.say(error.what, "" if isinstance(error, Cancelled) else error.fix, "error")
        else:
            log.error("unexpected error in the gallery", exc_info=error)
            self.say(*words.unexpected(error), "error")

    def want(self, wanted: Wanted) -> None:
        """Filter or sort in another way."""
        if wanted != self.wanted:
            self.wanted = wanted
            self.wanted_changed.emit()

    def select(self, keys: Sequence[int]) -> None:
        """Select items of what is shown: ids of a gallery, or row numbers of a bank."""
        chosen = tuple(int(n) for n in keys)
        if self.gallery is None and self.bank is not None:
            before, self.selected_rows = self.selected_rows, chosen
        else:
            before, self.selected = self.selected, chosen
        if chosen != before:
            self.selection_changed.emit()


_STATES: weakref.WeakKeyDictionary[ViewerModel, GalleryState] = weakref.WeakKeyDictionary()


def state_of(viewer: Any) -> GalleryState:
    """The one gallery state of a viewer."""
    real = plain(viewer)
    if real not in _STATES:
        _STATES[real] = GalleryState()
    return _STATES[real]
