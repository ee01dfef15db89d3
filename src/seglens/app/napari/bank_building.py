"""Building a feature bank from the dock: in a thread, with progress and Cancel in the footer."""

# mypy: allow-subclassing-any
from __future__ import annotations

from functools import partial
from typing import Any

from qtpy.QtCore import QObject

from seglens.app.napari import jobs, notify, words
from seglens.app.napari.actions import Actions
from seglens.app.napari.bank_row import BankWish, about
from seglens.app.napari.jobs import Emit, Job
from seglens.app.napari.viewer_session import State, ViewerSession
from seglens.core.run import Run


class BankBuilder(QObject):
    """Builds banks, one at a time, while nothing else runs.

    Args:
        session: model and status.
        actions: what runs, so that the one button cancels it.
        parent: its end is the end of this.
    """

    def __init__(self, session: ViewerSession, actions: Actions, parent: QObject) -> None:
        """Nothing is built yet."""
        super().__init__(parent)
        self._session, self._actions = session, actions

    def build(self, wish: BankWish) -> None:
        """Build a bank; one that was stopped goes on where it was."""
        status, model = self._session.status, self._session.model.loaded
        if status.state is not State.IDLE or model is None:
            self._session.say(words.BUSY if model is not None else words.PICK_MODEL, level="warning")
            return
        call = jobs.alone(self._session.lock, partial(_build, wish=wish, model=model))
        job = Job(words.BANK_BUILDING, call)
        job.progressed.connect(self._actions.progressed)
        job.returned.connect(lambda _: self._built(job, wish))
        job.failed.connect(lambda error: notify.error(self._session, error))
        job.cancelled.connect(lambda: self._session.say(words.stopped(job.title)))
        job.ended.connect(lambda: self._actions.over(job))
        self._session.say("")
        status.done = status.total = 0
        status.rate, status.text, status.title = 0.0, "", job.title
        self._actions.job = job
        status.state = State.RUNNING
        job.start()

    def _built(self, job: Job, wish: BankWish) -> None:
        question = self._session.question
        question.bank = ""  # one of this name may have held less
        question.bank = wish.out
        told = about(wish.out, self._session)
        self._session.say(words.BANK_BUILT.format(name=words.BANK, told=told), " ".join(job.run.notes))


def _build(run: Run, emit: Emit, *, wish: BankWish, model: Any) -> None:
    from seglens.engine.features import build_bank

    kind: Any = wish.kind
    build_bank(
        model, wish.images, wish.out, layer=wish.layer or None, kind=kind, masks=wish.masks or None,
        group=wish.group, run=run,
    ).close()  # fmt: skip
