"""Who did what to a gallery, and when."""

# mypy: allow-subclassing-any
from __future__ import annotations

import datetime

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QListWidget, QWidget

from seglens.app.napari import look
from seglens.app.napari.gallery import texts
from seglens.app.napari.gallery.state import GalleryState
from seglens.app.napari.links import link
from seglens.core.errors import SegLensError

MOST = 500


class History(QWidget):
    """The log of the open gallery, the latest first; filled while it is seen.

    Args:
        state: whose gallery.
    """

    closed = Signal()

    def __init__(self, state: GalleryState) -> None:
        """Follow the gallery."""
        super().__init__()
        self.setObjectName("history")
        self.setMinimumWidth(280)
        self._state = state
        self.list = QListWidget()
        self.list.setWordWrap(True)
        close = look.tool("✕", texts.CLOSE_PANEL, "close history")
        close.clicked.connect(self.closed)
        layout = look.column(self, gap=2)
        layout.addWidget(look.row(look.heading(texts.MENU["history"][0]), None, close))
        layout.addWidget(self.list, 1)
        link(self, self.refresh, state.edited, state.shelf_changed)

    def refresh(self, _event: object = None) -> None:
        """Read the log, if anybody looks."""
        if self.isHidden():
            return
        self.list.clear()
        gallery = self._state.gallery
        try:
            edits = [] if gallery is None else gallery.history(MOST)
        except SegLensError as error:
            self._state.fail(error)
            return
        for edit in edits:
            self.list.addItem(texts.LOGGED.format(what=edit.what, person=edit.person, time=_when(edit.time)))


def _when(time: str) -> str:
    try:
        return datetime.datetime.fromisoformat(time).astimezone().strftime("%d %b %Y %H:%M")
    except ValueError:
        return time
