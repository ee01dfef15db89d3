"""The last lines of the gallery: what happened, and what runs."""

# mypy: allow-subclassing-any
from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QLabel, QProgressBar, QPushButton, QSizePolicy, QWidget

from seglens.app.napari import look
from seglens.app.napari.gallery import texts
from seglens.app.napari.gallery.files import Files
from seglens.app.napari.gallery.state import GalleryState
from seglens.app.napari.jobs import Job
from seglens.app.napari.links import link

_TONES = {"note": "", "warning": "warning", "error": "warning"}


class Speaker(QWidget):
    """A sentence, and a bar with a button while something takes longer.

    Args:
        state: what is said.
        files: what runs.
    """

    def __init__(self, state: GalleryState, files: Files) -> None:
        """Silent at first."""
        super().__init__()
        self._state, self._files = state, files
        self.sentence = QLabel()
        self.sentence.setObjectName("gallery says")
        self.sentence.setTextFormat(Qt.TextFormat.PlainText)
        self.sentence.setWordWrap(True)
        self.sentence.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.stop = QPushButton(texts.STOP)
        self.stop.clicked.connect(files.stop)
        self.work = look.row(self.bar, self.stop)
        layout = look.column(self, gap=2)
        layout.addWidget(self.sentence)
        layout.addWidget(self.work)
        files.working.connect(self._working)
        link(self, self.refresh, state.said)
        self._working(None)
        self.refresh()

    def refresh(self, _event: object = None) -> None:
        """Show the last message."""
        message = self._state.message
        self.sentence.setVisible(message is not None)
        if message is not None:
            self.sentence.setText(look.breakable(f"{message.what} {message.fix}".strip()))
            look.tone(self.sentence, _TONES[message.level])

    def _working(self, job: Job | None) -> None:
        self.work.setVisible(job is not None)
        if job is not None:
            self._state.say(f"{job.title}…")
            self.bar.setRange(0, 0)
            job.progressed.connect(self._progressed)

    def _progressed(self, done: int, total: int, text: str, _rate: Any) -> None:
        self.bar.setRange(0, total)
        self.bar.setValue(done)
