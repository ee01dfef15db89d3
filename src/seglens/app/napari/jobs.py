"""Work in another thread: progress and pieces as Qt signals, cancel within a tile or batch."""

# mypy: allow-subclassing-any
from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from napari.qt.threading import FunctionWorker, create_worker
from qtpy.QtCore import QObject, Signal

from seglens.core.errors import Cancelled
from seglens.core.run import Run

Emit = Callable[[Any], None]
Work = Callable[[Run, Emit], Any]
AHEAD = 4  # pieces that may wait for the viewer before the worker waits too
PAUSE = 0.04  # seconds between two progress signals


def alone(lock: threading.Lock, work: Work) -> Work:
    """The same work, but never at the same time as other work with the same lock; waiting can be cancelled."""

    def wait(run: Run, emit: Emit) -> Any:
        while not lock.acquire(timeout=0.1):
            run.check()
        try:
            return work(run, emit)
        finally:
            lock.release()

    return wait


class _Task:
    """What the worker calls; its text is what napari shows when a window is closed meanwhile."""

    def __init__(self, title: str, call: Callable[[], Any]) -> None:
        self._title, self._call = title, call

    def __call__(self) -> Any:
        return self._call()

    def __str__(self) -> str:
        return f"SegLens: {self._title}"


class _Worker(FunctionWorker):
    """A worker that really stops when it is asked to: napari's own lets a function run on."""

    on_quit: Callable[[], None] | None = None

    def quit(self) -> None:
        """Cancel the run; also called by napari when the viewer closes."""
        if self.on_quit is not None:
            self.on_quit()


class Job(QObject):
    """One piece of work in a thread. Signals arrive in the thread of the window.

    Args:
        title: what it does, for people.
        work: called with the run and a function that hands a piece over.
        seed: see :class:`~seglens.core.run.Run`.
    """

    progressed = Signal(int, int, str, float)
    noted = Signal(str)
    produced = Signal(object)
    returned = Signal(object)
    failed = Signal(object)
    cancelled = Signal()
    ended = Signal()

    def __init__(self, title: str, work: Work, *, seed: int = 0) -> None:
        """Make the run; :meth:`start` starts it."""
        super().__init__()
        self.title = title
        self.run = Run(seed=seed, on_progress=self._progress, on_note=self._note)
        self._room = threading.Semaphore(AHEAD)
        self._began = self._told = 0.0
        worker = create_worker(
            _Task(title, lambda: work(self.run, self._emit)),
            _worker_class=_Worker,
            _ignore_errors=True,
            _start_thread=False,
        )
        worker.on_quit = self.run.cancel
        worker.returned.connect(self._returned)
        worker.errored.connect(self._errored)
        worker.finished.connect(self.ended)
        self._worker = worker

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._began

    def start(self) -> None:
        """Begin."""
        self._began = time.monotonic()
        self._worker.start()

    def cancel(self) -> None:
        """Ask to stop."""
        self.run.cancel()

    def applied(self) -> None:
        """A piece has been shown; the worker may hand over another."""
        self._room.release()

    def _emit(self, piece: Any) -> None:
        self.run.check()
        # a worker that outruns the window would fill the memory with pieces
        while not self._room.acquire(timeout=0.1):
            self.run.check()
        self.produced.emit(piece)

    def _progress(self, done: int, total: int, text: str) -> None:
        if self.run.cancelled:
            return
        now = time.monotonic()
        if now - self._told >= PAUSE or done >= total:
            self._told = now
            self.progressed.emit(done, total, text, done / max(1e-3, now - self._began))

    def _note(self, sentence: str) -> None:
        if not self.run.cancelled:
            self.noted.emit(sentence)

    def _returned(self, value: Any) -> None:
        if self.run.cancelled:
            self.cancelled.emit()
        else:
            self.returned.emit(value)

    def _errored(self, error: Exception) -> None:
        if isinstance(error, Cancelled):
            self.cancelled.emit()
        else:
            self.failed.emit(error)
