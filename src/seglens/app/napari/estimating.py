"""What an explanation will take, worked out before somebody presses the button."""

# mypy: allow-subclassing-any
from __future__ import annotations

import threading
from functools import partial
from typing import Any

from qtpy.QtCore import QObject, QTimer

from seglens.app.napari import asking, words, work
from seglens.app.napari.jobs import Job, alone
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import State, ViewerSession
from seglens.core.errors import SegLensError

WAIT = 500  # milliseconds after the last change


class Estimator(QObject):
    """Writes ``session.status.estimate`` while it is active; never beside other work.

    Args:
        session: what is chosen.
        lock: of the model; see :func:`~seglens.app.napari.jobs.alone`.
        parent: its end is the end of estimating.
    """

    def __init__(self, session: ViewerSession, lock: threading.Lock, parent: QObject) -> None:
        """Nothing is estimated before it is active."""
        super().__init__(parent)
        self._session, self._lock = session, lock
        self._active = self._ended = False
        self._dirty = True
        self._job: Job | None = None
        self._painted: list[Any] = []
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(WAIT)
        self._timer.timeout.connect(self._begin)
        link(self, self.changed, session.question.events, session.values_changed, session.axes_changed)
        link(self, self.changed, session.model.events.loaded, session.engine.events.ready)
        link(self, self._follow, session.question.events.target_id, session.question.events.annotation_id)
        link(self, self._state, session.status.events.state)

    def set_active(self, active: bool) -> None:
        """Work only while somebody looks."""
        self._active = active
        self._wait()

    def stop(self, *_: object) -> None:
        """The dock goes."""
        self._ended = True
        if self._job is not None:
            self._job.cancel()

    def changed(self, _event: object = None) -> None:
        """What was said no longer holds."""
        self._dirty = True
        self._session.status.estimate = ""
        if self._job is not None:
            self._job.cancel()
        self._wait()

    def _state(self, _event: object = None) -> None:
        # a run goes first
        if self._session.status.state is not State.IDLE and self._job is not None:
            self._dirty = True
            self._job.cancel()
        self._wait()

    def _wait(self) -> None:
        idle = self._session.status.state is State.IDLE
        if self._active and self._dirty and idle and not self._ended:
            self._timer.start()
        else:
            self._timer.stop()

    def _begin(self) -> None:
        if self._job is not None or asking.why_not(self._session, "explain"):
            return
        self._dirty = False
        try:
            plan = asking.plan_explain(self._session)
        except SegLensError:
            return
        call = partial(work.estimate, **asking.asked(plan, self._session.model.loaded))
        job = Job("estimate", alone(self._lock, call))
        job.returned.connect(self._told)
        # what is wrong is said when somebody presses the button
        job.failed.connect(lambda _error: self._told(""))
        job.ended.connect(lambda: self._over(job))
        self._job = job
        self._session.status.estimate = words.ESTIMATING
        job.start()

    def _told(self, sentence: str) -> None:
        if not self._dirty:
            self._session.status.estimate = sentence

    def _over(self, job: Job) -> None:
        self._job = None
        job.deleteLater()
        if self._dirty:
            self._session.status.estimate = ""
        if not self._ended:
            self._wait()

    def _follow(self, _event: object = None) -> None:
        for signal in self._painted:
            signal.disconnect(self.changed)
        question = self._session.question
        layers = [self._session.layer(key) for key in (question.target_id, question.annotation_id)]
        self._painted = [layer.events.paint for layer in layers if layer is not None and hasattr(layer.events, "paint")]
        for signal in self._painted:
            signal.connect(self.changed)
