"""Small pictures, made when they are first seen and forgotten when others are seen: never all of them."""

# mypy: allow-subclassing-any
from __future__ import annotations

import time
from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtGui import QImage, QPixmap

from seglens.app.napari.gallery.shelves import Shelf
from seglens.app.napari.jobs import Emit, Job
from seglens.core.errors import SegLensError
from seglens.core.run import Run

SIDE = 80  # pixels of a thumbnail
MOST = 600  # thumbnails that are kept: about 15 MB
TURN = 0.008  # seconds of decoding before clicks and scrolling have their turn


class Thumbs(QObject):
    """The thumbnails of what is shown.

    Args:
        parent: its end is the end of decoding.
    """

    ready = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        """Nothing is decoded before somebody asks."""
        super().__init__(parent)
        self._shelf: Shelf | None = None
        self._kept: OrderedDict[Any, QPixmap | None] = OrderedDict()
        self._asked: list[Any] = []
        self._job: Job | None = None
        self.decoded = 0  # since the last shelf
        self._timer = QTimer(self)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._turn)

    def show(self, shelf: Shelf | None) -> None:
        """Take pictures from somewhere else."""
        self._shelf = shelf
        self._kept.clear()
        self._asked.clear()
        self.decoded = 0
        self.stop()

    def stop(self, *_: object) -> None:
        """Decode no more."""
        self._timer.stop()
        if self._job is not None:
            self._job.cancel()
            self._job = None

    def get(self, key: Any) -> QPixmap | None:
        """A thumbnail; ``None`` while it is being made, and where its image is gone."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        if key in self._asked:
            self._asked.remove(key)
        # what was asked for last is what is seen now
        self._asked.append(key)
        del self._asked[:-MOST]
        if not self._timer.isActive():
            self._timer.start()
        return None

    def gone(self, key: Any) -> bool:
        """Whether a picture was looked for and not found."""
        return key in self._kept and self._kept[key] is None

    def forget(self, key: Any) -> None:
        """Make a picture anew when it is next seen."""
        self._kept.pop(key, None)

    def _turn(self) -> None:
        shelf = self._shelf
        if shelf is None or not self._asked:
            self._timer.stop()
            return
        if getattr(shelf, "slow", False):
            self._timer.stop()
            self._in_thread(shelf)
            return
        end = time.perf_counter() + TURN
        while self._asked and time.perf_counter() < end:
            key = self._asked.pop()
            self._keep(key, shelf.crop(key))
        self.ready.emit()

    def _in_thread(self, shelf: Shelf) -> None:
        if self._job is not None:
            return
        keys = self._asked[::-1]
        self._asked.clear()
        job = Job("thumbnails", partial(_crops, shelf=shelf, keys=keys))
        job.produced.connect(lambda piece: self._came(job, *piece))
        job.ended.connect(lambda: self._over(job))
        self._job = job
        job.start()

    def _came(self, job: Job, key: Any, crop: NDArray[Any] | None) -> None:
        job.applied()
        if job is self._job:
            self._keep(key, crop)
            self.ready.emit()

    def _over(self, job: Job) -> None:
        if job is self._job:
            self._job = None
            if self._asked:
                self._timer.start()
        job.deleteLater()

    def _keep(self, key: Any, crop: NDArray[Any] | None) -> None:
        self.decoded += 1
        self._kept[key] = None if crop is None else pixmap_of(crop)
        while len(self._kept) > MOST:
            self._kept.popitem(last=False)


def pixmap_of(crop: NDArray[Any], side: int = SIDE) -> QPixmap:
    """A crop (h, w) or (h, w, 3), uint8, as a picture that fits a square."""
    picture = np.ascontiguousarray(crop if crop.ndim == 3 else np.repeat(crop[..., None], 3, -1))[..., :3]
    picture = np.ascontiguousarray(picture)
    height, width = picture.shape[:2]
    image = QImage(picture.data, width, height, 3 * width, QImage.Format.Format_RGB888)
    how = Qt.TransformationMode
    # few pixels stay pixels; many become smooth
    mode = how.SmoothTransformation if max(height, width) > side / 2 else how.FastTransformation
    return QPixmap.fromImage(image.scaled(side, side, Qt.AspectRatioMode.KeepAspectRatio, mode))


def _crops(run: Run, emit: Emit, *, shelf: Shelf, keys: list[Any]) -> None:
    for key in keys:
        run.check()
        try:
            crop = shelf.crop(key)
        except (SegLensError, OSError):
            crop = None
        emit((key, crop))
