"""The training dock: recipe, data, folder, length, seed; one button; and the model that comes out."""

# mypy: allow-subclassing-any
from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QWidget,
)

from seglens.app.napari import commands, links, look, notify, settings, words
from seglens.app.napari.footer import Banner
from seglens.app.napari.jobs import Job
from seglens.app.napari.training import texts, work
from seglens.app.napari.viewer_session import ViewerSession, plain, session_of
from seglens.core.errors import SegLensError

AREA = "right"
RESUMABLE = "checkpoint"


class FolderLine(QWidget):
    """A path that is typed or chosen."""

    changed = Signal(str)

    def __init__(self, hint: str, question: str, name: str) -> None:
        """Empty at first."""
        super().__init__()
        self._question = question
        self.line = QLineEdit()
        self.line.setObjectName(name)
        self.line.setToolTip(hint)
        self.line.setMinimumWidth(60)
        self.line.textChanged.connect(self.changed)
        self.button = look.tool("…", texts.CHOOSE)
        self.button.clicked.connect(self._choose)
        look.column(self).addWidget(look.row(self.line, self.button, gap=2))

    @property
    def path(self) -> Path | None:
        """The folder, if one is named."""
        text = self.line.text().strip()
        return Path(text).expanduser() if text else None

    def _choose(self) -> None:
        start = str(self.path or "")
        folder = QFileDialog.getExistingDirectory(self, self._question, start)
        if folder:
            self.line.setText(folder)


class TrainingDock(QWidget):
    """Trains one model at a time, beside everything else.

    Args:
        napari_viewer: injected by napari under this name.
    """

    def __init__(self, napari_viewer: Any) -> None:
        """List the recipes; nothing starts by itself."""
        super().__init__()
        self.setObjectName("seglens training")
        self.setMinimumWidth(280)
        self.session: ViewerSession = session_of(napari_viewer)
        self.job: Job | None = None
        self.trained: Path | None = None
        self._named = ""  # the folder that was proposed, as long as nobody changed it
        self._problem = texts.PICK_DATA
        self._pace: tuple[int, float] | None = None
        self._told = work.about(work.recipe_names()[0])
        self.recipe = look.combo(texts.RECIPE_HINT)
        self.about = look.text(muted=True, name="about")
        self.data = FolderLine(texts.DATA_HINT, texts.DATA_ASK, "data")
        self.found = look.text(muted=True, name="found")
        self.out = FolderLine(texts.OUT_HINT, texts.OUT_ASK, "out")
        self.epochs = _number(texts.EPOCHS_HINT, 100_000)
        self.seed = _number(texts.SEED_HINT, 2**31 - 1)
        self.banner = Banner()
        self.use = QPushButton(texts.USE)
        self.use.setToolTip(texts.USE_HINT)
        self.use.hide()
        self.state = look.text(name="state")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.bar.hide()
        self.button = look.main_button()
        self._lay_out()
        look.Dress(self, plain(napari_viewer))
        self._connect()
        self._fill()

    # -- what is asked for --------------------------------------------------------------------------------------

    def _fill(self, chosen: str = "") -> None:
        names = [*work.recipe_names(), *([chosen] if chosen.endswith(".json") else [])]
        items = [(Path(name).name, name) for name in names] + [(texts.RECIPE_FILE, "file")]
        look.fill(self.recipe, items, chosen or names[0])
        self._recipe_changed()

    def _recipe_chosen(self, _index: int) -> None:
        if self.recipe.currentData() != "file":
            self._recipe_changed()
            return
        file, _ = QFileDialog.getOpenFileName(self, texts.RECIPE_FILE, "", texts.RECIPE_FILTER)
        self._fill(file)

    def _recipe_changed(self) -> None:
        try:
            told = work.about(str(self.recipe.currentData()))
        except SegLensError as error:
            self._tell_error(error)
            self._fill()
            return
        self._told = told
        self.about.setText(texts.about(told.description, told.network, told.phases))
        self.epochs.setSpecialValueText(texts.EPOCHS_OWN.format(count=told.epochs))
        self.data.setEnabled(not told.synthetic)
        if self.out.line.text() == self._named:
            self._named = str(_free(settings.user_folder("models") / told.name))
            self.out.line.setText(self._named)
        self._data_changed()

    def _data_changed(self, _text: str = "") -> None:
        self._problem = ""
        told = texts.DATA_NONE if self._told.synthetic else ""
        if not self._told.synthetic:
            if self.data.path is None:
                self._problem = texts.PICK_DATA
            else:
                try:
                    told = texts.counted(work.shares(self.data.path))
                except SegLensError as error:
                    self._problem = told = str(error.what)
        self.found.setText(look.breakable(told))
        self.refresh()

    def _out_changed(self, _text: str = "") -> None:
        # only the same training can go on: take its length and seed
        left = work.left(self.out.path) if self.out.path is not None and self.resumes else None
        if left is not None:
            self.epochs.setValue(left[0])
            self.seed.setValue(left[1])
        self.refresh()

    def why_not(self) -> str:
        """Why the training cannot start; empty if it can."""
        out = self.out.path
        if self._problem:
            return self._problem
        if out is None:
            return texts.NAME_OUT
        if not self.resumes and out.exists() and (not out.is_dir() or any(out.iterdir())):
            return texts.OUT_TAKEN.format(name=out.name)
        return ""

    @property
    def resumes(self) -> bool:
        """Whether the folder holds a training that was stopped."""
        return self.out.path is not None and (self.out.path / RESUMABLE).is_dir()

    # -- the job ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Train, or go on."""
        out = self.out.path
        if self.job is not None or out is None or self.why_not():
            return
        self._tell("", "")
        self.use.hide()
        call = partial(
            work.train,
            recipe=str(self.recipe.currentData()),
            data=None if self._told.synthetic else self.data.path,
            out=out,
            epochs=self.epochs.value() or None,
            resume=self.resumes,
        )
        job = Job(f"{texts.TITLE}: {self._told.name}", call, seed=self.seed.value())
        job.progressed.connect(self._progressed)
        job.noted.connect(lambda sentence: self._tell(sentence, ""))
        job.returned.connect(self._trained)
        job.failed.connect(self._failed)
        job.cancelled.connect(self._stopped)
        job.ended.connect(self._ended)
        self.job, self._pace = job, None
        self.bar.setRange(0, 0)
        self.state.setText(texts.STARTING)
        self.refresh()
        job.start()

    def cancel(self) -> None:
        """Ask the training to stop."""
        if self.job is not None:
            self.job.cancel()
            self.state.setText(texts.STOPPING)
            self.refresh()

    def _pressed(self) -> None:
        if self.job is None:
            self.start()
        else:
            self.cancel()

    def _progressed(self, done: int, total: int, text: str, rate: float) -> None:
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        # reading the data, or what was done before a stop, tells nothing of the pace
        began, at = self._pace = self._pace or (done, time.monotonic())
        pace = (time.monotonic() - at) / (done - began) if done > began else 0.0
        self.state.setText(texts.progress(text, done, total, pace))

    def _trained(self, result: work.Trained) -> None:
        self.trained = result.folder
        seconds = 0.0 if self.job is None else self.job.seconds
        self._tell(*texts.done(result.folder.name, result.dice, result.images, seconds))
        self.use.show()
        self._named = self.out.line.text()

    def _failed(self, error: Exception) -> None:
        if isinstance(error, SegLensError):
            self._tell_error(error)
        else:
            notify.error(self.session, error)
            self._tell(*words.unexpected(error), "error")

    def _stopped(self) -> None:
        if self.resumes:
            self._tell(texts.STOPPED, texts.STOPPED_FIX)
        else:
            self._tell(texts.STOPPED_EARLY, "")

    def _ended(self) -> None:
        self.job = None
        if self.trained is not None and self.out.path == self.trained:
            # the next one goes beside it
            self._named = str(_free(self.trained))
            self.out.line.setText(self._named)
        self.refresh()

    def _use(self) -> None:
        viewer = self.session.viewer
        dock = None if viewer is None else commands.dock_of(viewer)
        if self.trained is None or dock is None:
            return
        settings.remember_model(str(self.trained))
        dock.jobs.choose_model(str(self.trained))
        dock.tabs.setCurrentIndex(0)
        _bring_up(dock)

    # -- looks --------------------------------------------------------------------------------------------------

    def refresh(self, _event: object = None) -> None:
        """Show what can be pressed, and why not."""
        busy = self.job is not None
        stopping = self.job is not None and self.job.run.cancelled
        for widget in (self.recipe, self.out, self.epochs, self.seed):
            widget.setEnabled(not busy)
        self.data.setEnabled(not busy and not self._told.synthetic)
        self.bar.setVisible(busy)
        why = "" if busy else self.why_not()
        if not busy:
            self.state.setText(look.breakable(why) or (texts.READY_RESUME if self.resumes else texts.READY))
        look.tone(self.state, "" if busy else "muted" if why else "good")
        wish = texts.RESUME if self.resumes else texts.START
        self.button.setText(texts.CANCELLING if stopping else texts.CANCEL if busy else wish)
        self.button.setEnabled(not stopping and not why)
        self.button.setToolTip(texts.CANCEL_HINT if busy else why)

    def _tell(self, what: str, fix: str, level: str = "note") -> None:
        self.banner.tell(what, fix, level, "")

    def _tell_error(self, error: SegLensError) -> None:
        self._tell(error.what, error.fix, "error")

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setSpacing(look.GAP)
        form.addRow(texts.RECIPE, self.recipe)
        form.addRow("", self.about)
        form.addRow(texts.DATA, self.data)
        form.addRow("", self.found)
        form.addRow(texts.OUT, self.out)
        form.addRow(texts.EPOCHS, self.epochs)
        form.addRow(texts.SEED, self.seed)
        page = QWidget()
        inside = look.column(page, margin=look.MARGIN)
        inside.addLayout(form)
        inside.addStretch(1)
        layout = look.column(self, gap=0)
        layout.addWidget(look.Page(page), 1)
        footer = QWidget()
        below = look.column(footer, margin=look.MARGIN)
        for widget in (self.banner, self.use, self.state, self.bar, self.button):
            below.addWidget(widget)
        layout.addWidget(footer)
        look.calm(self)

    def _connect(self) -> None:
        self.recipe.activated.connect(self._recipe_chosen)
        self.data.changed.connect(self._data_changed)
        self.out.changed.connect(self._out_changed)
        self.button.clicked.connect(self._pressed)
        self.use.clicked.connect(self._use)
        self.banner.acted.connect(lambda _action: self._tell("", ""))
        self.destroyed.connect(partial(_stop, self))


def _stop(dock: TrainingDock, *_: object) -> None:
    if dock.job is not None:
        dock.job.cancel()


def _number(hint: str, most: int) -> QSpinBox:
    box = QSpinBox()
    box.setRange(0, most)
    box.setToolTip(hint)
    return box


def _free(folder: Path) -> Path:
    """A folder that is not there yet, named after this one."""
    number = 2
    free = folder
    while free.exists():
        free = folder.with_name(f"{folder.name}-{number}")
        number += 1
    return free


def open_in(viewer: Any) -> TrainingDock | None:
    """The training dock of a viewer, opened or brought to the front; ``None`` without a window."""
    window = getattr(plain(viewer), "window", None)
    if window is None:
        return None
    there = window.dock_widgets.get(texts.TITLE)
    if not isinstance(there, TrainingDock):
        there = TrainingDock(viewer)
        window.add_dock_widget(there, name=texts.TITLE, area=AREA, tabify=True)
        links.end_with_dock(there)
    _bring_up(there)
    return there


def _bring_up(widget: QWidget) -> None:
    """Bring the dock of a widget to the front."""
    holder = links.dock_around(widget)
    if holder is not None:
        holder.show()
        holder.raise_()
