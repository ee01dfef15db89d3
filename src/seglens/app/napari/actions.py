"""What buttons, shortcuts and commands do: one place, so that all of them do the same."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from napari.layers import Labels, Layer
from qtpy.QtCore import QObject

from seglens.app.napari import asking, jobs, notify, results, settings, words, work
from seglens.app.napari.copying import segment_record
from seglens.app.napari.filling import Filler
from seglens.app.napari.inserting import Inserter
from seglens.app.napari.jobs import Job
from seglens.app.napari.sofar import Partial, SoFar
from seglens.app.napari.strip import Depth, Strip
from seglens.app.napari.viewer_session import Made, State, ViewerSession, layer_id
from seglens.core.errors import SegLensError, UntrustedModel
from seglens.core.explanation import Explanation, Record


class Actions(QObject):
    """Starts jobs for one viewer and brings home what they answer.

    Args:
        session: the viewer's session.
        parent: the dock; its end is the end of every job.
    """

    def __init__(self, session: ViewerSession, parent: QObject | None = None) -> None:
        """Nothing starts by itself."""
        super().__init__(parent)
        self.session = session
        self.job: Job | None = None
        self.lock = session.lock
        self._inserter: Inserter | None = None
        self._loading: Job | None = None
        self._starting: Job | None = None

    # -- engine and model -------------------------------------------------------------------------------------

    def start_engine(self) -> None:
        """Import torch in a worker, so that the first run does not wait for it."""
        if self._starting is None and not self.session.engine.ready:
            device = str(settings.get("compute.device"))
            self._starting = self._job("starting", partial(work.preload, device=device), self._engine_ready)
            self._starting.start()

    def choose_model(self, source: str, *, trusted: bool = False, suggested: bool = False) -> None:
        """Load a model in the background; the one before stays until then."""
        if self._loading is not None:
            self._loading.cancel()
        model = self.session.model
        model.source, model.suggested, model.untrusted = source, suggested, ""
        model.loaded = model.spec = None
        model.loading = True
        if not suggested:
            self.session.say("")
        device = str(settings.get("compute.device"))
        job = self._job(
            f"loading {source}",
            partial(work.load, source=source, trusted=trusted, device=device),
            partial(self._model_ready, source),
            partial(self._model_failed, source),
        )
        self._loading = job
        job.start()

    def trust_model(self) -> None:
        """The person trusts the file that was refused."""
        if self.session.model.untrusted:
            self.choose_model(self.session.model.source, trusted=True)

    # -- runs -------------------------------------------------------------------------------------------------

    def segment(self, scope: str | None = None) -> None:
        """Segment what is chosen, or another scope."""
        why = asking.why_not(self.session, "segment")
        if why:
            self.session.say(why, level="warning", asked=True)
            return
        try:
            plan = asking.plan_segment(self.session, scope)
        except SegLensError as error:
            notify.error(self.session, error, asked=True)
            return
        question, model = self.session.question, self.session.model
        viewer = self.session.viewer
        if viewer is None or model.spec is None:
            return
        filler = Filler(viewer, self, plan, model.spec, question)
        tile = question.tile or int(settings.get("compute.tile")) or None
        record = segment_record(plan.views, model.loaded, tile, question.halo)
        work_of = partial(work.segment, views=plan.views, model=model.loaded, tile=tile, halo=question.halo)
        call = jobs.alone(self.lock, work_of)
        job = self._job("Prediction", call, lambda _: self._finish(job, words.finished("Prediction", job.seconds)))
        made = Made(record, plan.views[0] if len(plan.views) == 1 else None)
        job.produced.connect(lambda item: self._piece(job, filler, made, plan.layer.name, *item))
        self._begin(job, plan.layer, lambda: filler.finish(lambda: self.over(job)))

    def explain(self) -> None:
        """Explain the chosen target with the chosen method."""
        plan = self._plan()
        if plan is not None:
            self._ask(plan, partial(work.explain, bank=plan.bank))

    def compare_fills(self) -> None:
        """Put the question once for every fill."""
        plan = self._plan()
        if plan is not None:
            self._ask(replace(plan, title=words.FILLS_TITLE.format(title=plan.title)), work.compare_fills)

    def explain_layers(self, at: Literal["depths", "all"]) -> None:
        """Put the question at one layer of the network after another."""
        plan, viewer, model = self._plan(), self.session.viewer, self.session.model
        names = model.depths if at == "depths" else model.layers
        if plan is None or viewer is None or not names:
            return
        plan = replace(plan, title=words.STRIP_TITLES[at].format(title=plan.title))
        strip = Strip(viewer, self, plan, names)
        ask = partial(work.explain_layers, names=names, at=at, **asking.asked(plan, model.loaded))
        job = self._job(
            plan.title, jobs.alone(self.lock, ask), lambda told: self._strip_done(job, plan, strip, told),
            lambda error: self._strip_failed(plan, strip, error),
        )  # fmt: skip
        job.produced.connect(lambda depth: self._depth(job, plan, strip, depth))
        job.cancelled.connect(lambda: self._strip_stopped(plan, strip))
        self._begin(job, plan.layer, lambda: strip.finish(lambda: self.over(job)))

    def _plan(self) -> asking.ExplainPlan | None:
        why = asking.why_not(self.session, "explain")
        if why:
            self.session.say(why, level="warning", asked=True)
            return None
        try:
            return asking.plan_explain(self.session)
        except SegLensError as error:
            notify.error(self.session, error, asked=True)
            return None

    def _ask(self, plan: asking.ExplainPlan, ask: Callable[..., Any]) -> None:
        viewer, model = self.session.viewer, self.session.model
        if viewer is None or model.spec is None:
            return
        call = jobs.alone(self.lock, partial(ask, **asking.asked(plan, model.loaded)))
        sofar = SoFar(viewer, self, plan, model.spec)

        def failed(error: BaseException) -> None:
            notify.error(self.session, error, asked=True)
            self._stopped_early(plan, sofar)

        job = self._job(plan.title, call, lambda came: self._explained(job, plan, sofar, came), failed)
        job.produced.connect(lambda so_far: self._so_far(job, plan, sofar, so_far))
        job.cancelled.connect(lambda: self._stopped_early(plan, sofar, say=True))
        self._begin(job, plan.layer, lambda: self._settle(job))

    def cancel(self) -> None:
        """Ask the running job to stop; it does within a tile or batch."""
        if self.job is not None and self.session.status.state is State.RUNNING:
            self.session.status.state = State.CANCELLING
            self.job.cancel()

    def stop_all(self) -> None:
        """The dock goes: stop everything."""
        for job in (self.job, self._loading, self._starting):
            if job is not None:
                job.cancel()

    # -- target -----------------------------------------------------------------------------------------------

    def new_target(self) -> None:
        """A fresh layer to paint a target on, active and with the brush in hand."""
        layer, viewer = self.session.image_layer, self.session.viewer
        if layer is None or viewer is None:
            self.session.say(words.PICK_IMAGE, level="warning")
            return
        try:
            axes = asking.axes_of(self.session, layer)
        except SegLensError as error:
            notify.error(self.session, error)
            return
        target = results.target_layer(viewer, layer, axes)
        results.add(viewer, target)
        viewer.layers.selection.active = target
        target.mode = "paint"
        target.selected_label = 1
        self.session.question.target_id = layer_id(target)
        self.session.question.region = "painted"

    def toggle_sign(self) -> None:
        """Paint for or against."""
        target = self.session.layer(self.session.question.target_id)
        if isinstance(target, Labels):
            target.selected_label = 1 if target.selected_label == 2 else 2
            viewer = self.session.viewer
            if viewer is not None:
                viewer.status = words.SIGN[int(target.selected_label)]
        else:
            self.session.say(words.PAINT_FIRST, level="warning")

    # -- coming home ------------------------------------------------------------------------------------------

    def _job(
        self, title: str, call: Any, done: Callable[[Any], None], failed: Callable[[Any], None] | None = None
    ) -> Job:
        job = Job(title, call)
        job.returned.connect(done)
        job.failed.connect(failed or (lambda error: notify.error(self.session, error, asked=True)))
        return job

    def _begin(self, job: Job, layer: Layer, ended: Callable[[], None]) -> None:
        self.job = job
        status = self.session.status
        self.session.say("")
        status.done = status.total = 0
        status.rate, status.text, status.title = 0.0, "", job.title
        status.state = State.RUNNING
        job.progressed.connect(self.progressed)
        job.noted.connect(lambda sentence: notify.note(self.session, sentence))
        job.cancelled.connect(lambda: self._stopped(job))
        job.ended.connect(ended)
        wanted = layer_id(layer)
        name = layer.name
        gone = partial(self._layer_gone, job, wanted, name)
        viewer = self.session.viewer
        if viewer is not None:
            viewer.layers.events.removed.connect(gone)
            job.ended.connect(lambda: viewer.layers.events.removed.disconnect(gone))
        job.start()

    def progressed(self, done: int, total: int, text: str, rate: float) -> None:
        """Show how far the work is."""
        status = self.session.status
        status.text, status.rate, status.total, status.done = text, rate, total, done

    def _piece(self, job: Job, filler: Filler, made: Made, name: str, number: int, piece: Any) -> None:
        job.applied()
        if job.run.cancelled and not filler.layers:
            return
        if not filler.alive:
            job.cancel()
            return
        fresh = not filler.layers
        filler.add(number, piece)
        if fresh:
            self.session.keep(made, filler.layers)

    def _so_far(self, job: Job, plan: asking.ExplainPlan, sofar: SoFar, so_far: Partial) -> None:
        job.applied()
        if self.session.layer(layer_id(plan.layer)) is not None:
            sofar.show(so_far)

    def _stopped_early(self, plan: asking.ExplainPlan, sofar: SoFar, *, say: bool = False) -> None:
        if self.session.layer(layer_id(plan.layer)) is None:
            sofar.drop()
            return
        name = sofar.keep()
        if name and sofar.layer is not None and sofar.last is not None:
            made = self.made(plan, sofar.last)
            self.session.keep(made, [sofar.layer])
            self.session.show(made)
            if say:
                self.session.say(words.KEPT_EARLY.format(title=plan.title, name=name))

    def _depth(self, job: Job, plan: asking.ExplainPlan, strip: Strip, depth: Depth) -> None:
        job.applied()
        if self.session.layer(layer_id(plan.layer)) is not None:
            strip.add(depth)

    def _strip_done(self, job: Job, plan: asking.ExplainPlan, strip: Strip, record: Record) -> None:
        if self.session.layer(layer_id(plan.layer)) is None:
            strip.drop()
        elif strip.keep() and strip.layer is not None:
            made = self.made(plan, Explanation(record=record))
            self.session.keep(made, [strip.layer])
            self.session.show(made)
            told = words.STRIP_DONE.format(title=plan.title, took=words.took(job.seconds), count=len(strip.layer.data))
            self._finish(job, told)

    def _strip_stopped(self, plan: asking.ExplainPlan, strip: Strip) -> None:
        if self.session.layer(layer_id(plan.layer)) is None:
            strip.drop()
        elif name := strip.keep(stopped=True):
            self.session.say(words.KEPT_EARLY.format(title=plan.title, name=name))

    def _strip_failed(self, plan: asking.ExplainPlan, strip: Strip, error: BaseException) -> None:
        notify.error(self.session, error, asked=True)
        self._strip_stopped(plan, strip)

    def made(self, plan: asking.ExplainPlan, answer: Explanation) -> Made:
        """What is remembered of an answer."""
        return Made(
            answer.record.to_dict() if answer.record is not None else {}, plan.image, plan.target.region,
            plan.annotation, title=plan.title, text=answer.text, tables=answer.tables, figures=answer.figures,
            frame=plan.frame, source_id=layer_id(plan.layer),
        )  # fmt: skip

    def _explained(
        self, job: Job, plan: asking.ExplainPlan, sofar: SoFar, came: tuple[Explanation, list[results.Limits]]
    ) -> None:
        answer, limits = came
        viewer, spec = self.session.viewer, self.session.model.spec
        if viewer is None or spec is None or self.session.layer(layer_id(plan.layer)) is None:
            sofar.drop()
            return
        makers = results.explanation_makers(viewer, plan.layer, plan.frame, answer, limits, spec, plan.title)
        first = next((i for i, x in enumerate(answer.layers) if x.kind in ("heat", "signed")), None)
        grown = []
        if first is not None:
            results.step_back(viewer, but=sofar.layer)
            if sofar.alive:
                grown.append(sofar.become(makers.pop(first)()))
        results.outline(viewer)
        made = self.made(plan, answer)
        inserter = Inserter(viewer, makers[::-1], self, below=next(iter(grown), None))
        inserter.done.connect(lambda: self._kept(made, [*grown, *inserter.layers]))
        inserter.start()
        self._inserter = inserter
        self._finish(job, answer.text or words.finished(plan.title, job.seconds))

    def _kept(self, made: Made, layers: list[Layer]) -> None:
        self.session.keep(made, layers)
        self.session.show(made)

    def _finish(self, job: Job, sentence: str) -> None:
        notes = " ".join(job.run.notes)
        self.session.say(sentence, notes)

    def _stopped(self, job: Job) -> None:
        # the reason why it stopped may already stand there
        if self.session.status.message is None:
            self.session.say(words.stopped(job.title))

    def _settle(self, job: Job) -> None:
        if self._inserter is None:
            self.over(job)
        else:
            self._inserter.done.connect(lambda: self.over(job))
            self._inserter = None

    def over(self, job: Job) -> None:
        """A job has ended, however."""
        if self.job is job:
            self.job = None
            self.session.status.state = State.IDLE
        job.deleteLater()

    def _layer_gone(self, job: Job, wanted: str, name: str, event: Any) -> None:
        if layer_id(event.value) == wanted:
            job.cancel()
            self.session.say(words.LAYER_GONE.format(name=name), level="warning")

    def _engine_ready(self, told: work.Told) -> None:
        engine = self.session.engine
        engine.device, engine.device_name, engine.device_why = told.device, told.label, told.why
        engine.zoo, engine.methods = told.zoo, told.methods
        engine.ready = True
        for sentence in told.broken:
            self.session.say(f"One method cannot be used. {sentence}", level="warning")

    def _model_ready(self, source: str, loaded: work.Loaded) -> None:
        model = self.session.model
        if model.source != source:
            return
        model.layers, model.chosen_layer, model.depths = loaded.layers, loaded.chosen, loaded.depths
        model.spec, model.loaded = loaded.spec, loaded.model
        model.loading = False
        if source not in {entry.name for entry in self.session.engine.zoo}:
            settings.remember_model(source)

    def _model_failed(self, source: str, error: BaseException) -> None:
        model = self.session.model
        if model.source != source:
            return
        model.loading = False
        if isinstance(error, UntrustedModel):
            model.untrusted = error.sha256 or "?"
            self.session.say(error.what, error.fix, "warning", "trust")
        else:
            notify.error(self.session, error)
