"""Clicks on pixels of the mask while *Why this pixel* is on; holding the button follows the pointer."""

# mypy: allow-subclassing-any
from __future__ import annotations

from qtpy.QtCore import QObject, Signal

from seglens.app.napari.gallery.looker import Looker
from seglens.app.napari.picking import Picker
from seglens.app.napari.viewer_session import ViewerSession


class PixelClicks(QObject):
    """Asks about each pixel that is clicked, until somebody leaves.

    Args:
        session: image and model.
        looker: who knows.
        parent: its end is the end of this.
    """

    changed = Signal()

    def __init__(self, session: ViewerSession, looker: Looker, parent: QObject) -> None:
        """Off at first."""
        super().__init__(parent)
        self._session, self._looker = session, looker
        self.picker = Picker(session, self)
        self.picker.stays = True
        self.picker.changed.connect(self.changed)
        self.picker.pointed.connect(self._pointed)

    @property
    def active(self) -> bool:
        """Whether clicks ask."""
        return self.picker.active

    def set_active(self, active: bool) -> None:
        """Let clicks ask, or no longer."""
        self.picker.set_active(active)

    def _pointed(self, _held: bool) -> None:
        spot = self._session.question.spot
        if spot is not None:
            self._looker.ask_why(spot)
