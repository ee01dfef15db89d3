"""Explains where a person clicks, and follows the pointer as long as answers come quickly enough."""

# mypy: allow-subclassing-any
from __future__ import annotations

import time
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Image as ImageLayer
from qtpy.QtCore import QObject, QTimer, Signal

from seglens.app.napari import asking, jobs, notify, results, words, work
from seglens.app.napari.actions import Actions
from seglens.app.napari.jobs import Job
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import MARK, State, ViewerSession, layer_id
from seglens.core.errors import SegLensError
from seglens.core.explanation import Explanation
from seglens.core.method import Method

LIVE = 1.0  # seconds: an answer that takes longer does not follow the pointer
PAUSE = 300  # milliseconds without a change after which another question is made ready for
SHOWN = 700  # milliseconds after which work that goes on is shown, and can be cancelled


class Follower(QObject):
    """Asks about the pixel or object under the pointer. Only the newest request counts; the window never waits.

    Args:
        session: what is chosen; its spot is where the person pointed.
        actions: whose lock keeps it from running beside other work.
        parent: its end is the end of this.
    """

    answered = Signal(float)  # seconds from the request to the picture

    def __init__(self, session: ViewerSession, actions: Actions, parent: QObject) -> None:
        """Nothing is asked before somebody points."""
        super().__init__(parent)
        self._session, self._actions = session, actions
        self._live: work.Live | None = None
        self._job: Job | None = None
        self._waiting = self._held = self._on = self._warming = False
        self._limits = results.Limits()
        self._about: tuple[Any, ...] = ()
        self._spot: tuple[float, ...] | None = None  # that was asked about last
        self._last: tuple[asking.ExplainPlan, Explanation] | None = None
        self.seconds = 0.0  # that the last answer took
        self.layer: ImageLayer | None = None
        self._slow = QTimer(self)
        self._slow.setSingleShot(True)
        self._slow.setInterval(SHOWN)
        self._slow.timeout.connect(self._show_work)
        self._changed = QTimer(self)
        self._changed.setSingleShot(True)
        self._changed.setInterval(PAUSE)
        self._changed.timeout.connect(self._warm_again)
        link(self, self._other_question, session.question.events, session.values_changed, session.model.events.loaded)
        parent.destroyed.connect(self.stop)

    def warm(self) -> None:
        """Send the image through the network before the first click, and again when another question is chosen."""
        self._on = True
        self._look()

    def point(self, *, held: bool) -> None:
        """The person pointed somewhere.

        Args:
            held: the button is still down, so that more will come.
        """
        self._held = held
        # what was to be made ready is asked now; what is being made ready is what the answer begins with
        self._changed.stop()
        same = self._spot == self._session.question.spot and not self._waiting
        if same and not held and (self._job is not None or self._last is not None):
            # the answer is there or on its way; now it is to stay
            self._keep()
        elif self._job is not None:
            self._waiting = True
            if not held and self._session.status.state is State.RUNNING:
                # nobody waits any more for what was asked before
                self._job.cancel()
        elif not held or self.seconds <= LIVE:
            self._ask()

    def stop(self, *_: object) -> None:
        """Ask no more, and keep nothing of the image."""
        self._waiting, self._live, self._spot, self._last = False, None, None, None
        self._on = False
        self._changed.stop()
        if self._job is not None:
            self._job.cancel()

    def _look(self, *, again: bool = False) -> None:
        if self._job is not None or asking.why_not(self._session, "explain") not in ("", words.PICK_SPOT):
            return
        try:
            view, method = asking.explained(self._session), asking.configured(self._session)
        except SegLensError:
            return
        if again and not _is_quick(method):
            return
        call = partial(work.warm, live=self._of(view), method=method)
        self._start(Job(words.WARMING, jobs.alone(self._actions.lock, call)))
        self._warming = True

    def _warm_again(self) -> None:
        if self._job is not None or self._session.status.state is not State.IDLE:
            # an answer goes first
            self._changed.start()
        else:
            self._look(again=True)

    def _ask(self) -> None:
        self._waiting, self._last = False, None
        self._spot = self._session.question.spot
        why = asking.why_not(self._session, "explain")
        if why:
            self._session.say(why, level="warning", asked=True)
            return
        try:
            plan = asking.plan_explain(self._session)
        except SegLensError as error:
            self._session.say(error.what, error.fix, "warning", asked=True)
            return
        live = self._of(asking.View(plan.layer, plan.frame, plan.image))
        call = partial(
            work.ask_live, live=live, method=plan.method, target=plan.target, annotation=plan.annotation, bank=plan.bank
        )
        job = Job(plan.title, jobs.alone(self._actions.lock, call))
        began = time.monotonic()
        job.returned.connect(lambda came: self._came(plan, began, *came))
        self._start(job)

    def _start(self, job: Job) -> None:
        job.failed.connect(self._failed)
        job.ended.connect(lambda: self._over(job))
        self._job = job
        self._slow.start()
        job.start()

    def _of(self, view: asking.View) -> work.Live:
        model = self._session.model.loaded
        if self._live is None or not self._live.holds(view.image, model):
            self._live = work.Live(view.image, model)
        return self._live

    def _came(self, plan: asking.ExplainPlan, began: float, answer: Explanation, limits: list[results.Limits]) -> None:
        if answer.record is not None:
            self.seconds = answer.record.seconds
        if self._session.layer(layer_id(plan.layer)) is None:
            return
        number = next((i for i, x in enumerate(answer.layers) if x.kind in ("heat", "signed")), None)
        if number is not None:
            self._show(plan, answer, number, limits[number])
        self._last = (plan, answer)
        if not self._held and not self._waiting:
            self._keep()
        self.answered.emit(time.monotonic() - began)

    def _keep(self) -> None:
        viewer = self._session.viewer
        if self._last is None or self.layer is None or viewer is None or self.layer not in viewer.layers:
            return
        plan, answer = self._last
        made = self._actions.made(plan, answer)
        self._session.keep(made, [self.layer])
        self._session.show(made)
        self._session.say(answer.text)

    def _show(self, plan: asking.ExplainPlan, answer: Explanation, number: int, limits: results.Limits) -> None:
        viewer, spec, found = self._session.viewer, self._session.model.spec, answer.layers[number]
        if viewer is None or spec is None:
            return
        title = words.FOLLOWING.format(title=plan.title, what=words.REGIONS[self._session.question.region][0].lower())
        about = (layer_id(plan.layer), plan.frame, title, found.kind, found.unit)
        layer = self.layer
        if layer is None or about != self._about or layer not in viewer.layers:
            self._about = about
            self._make(plan, answer, number, limits, title)
            return
        layer.data = plan.frame.shown(plan.frame.fit(np.asarray(found.data)))
        layer.metadata[MARK]["told"] = found.enlarged()
        if not np.allclose(layer.contrast_limits, self._limits.shown, atol=0):
            limits.widen(layer)
        elif limits != self._limits:
            limits.give(layer)
            self._limits = limits

    def _make(
        self, plan: asking.ExplainPlan, answer: Explanation, number: int, limits: results.Limits, title: str
    ) -> None:
        viewer, spec = self._session.viewer, self._session.model.spec
        if viewer is None or spec is None:
            return
        alone = Explanation((answer.layers[number],))
        (make,) = results.explanation_makers(viewer, plan.layer, plan.frame, alone, [limits], spec, title)
        layer = make()
        layer.name = results.unique_name(viewer, title)
        if isinstance(layer, ImageLayer):
            self.layer, self._limits = layer, limits
            results.step_back(viewer)
            results.add(viewer, layer)

    def _failed(self, error: BaseException) -> None:
        if isinstance(error, SegLensError):
            # a click beside every object is no accident
            self._session.say(error.what, error.fix, "warning", asked=True)
        else:
            notify.error(self._session, error)

    def _show_work(self) -> None:
        job, status = self._job, self._session.status
        if job is not None and status.state is State.IDLE:
            status.done = status.total = 0
            status.rate, status.text, status.title = 0.0, "", job.title
            job.progressed.connect(self._actions.progressed)
            self._actions.job = job
            status.state = State.RUNNING

    def _over(self, job: Job) -> None:
        self._slow.stop()
        self._job, self._warming = None, False
        self._actions.over(job)
        if self._waiting and (not self._held or self.seconds <= LIVE):
            self._ask()

    def _other_question(self, event: Any = None) -> None:
        if getattr(getattr(event, "signal", None), "name", "") == "spot":
            return
        # another question may be quick, and the same place is no answer to it
        self.seconds, self._spot, self._last = 0.0, None, None
        if self._on:
            if self._job is not None and self._warming:
                self._job.cancel()
            self._changed.start()


def _is_quick(method: Method) -> bool:
    """Whether one pass more or less is felt: a method that counts its passes takes many."""
    return type(method).passes is Method.passes
