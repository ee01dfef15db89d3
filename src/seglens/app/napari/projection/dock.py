"""The projection dock: a bank as points, linked with the gallery, the layers and the tables."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QSplitter,
    QStackedWidget,
    QWidget,
)

from seglens.app.napari import below, look, plots, settings, tables
from seglens.app.napari.gallery.docking import gallery_of
from seglens.app.napari.gallery.jumper import Jumper
from seglens.app.napari.gallery.shelves import as_item
from seglens.app.napari.gallery.state import GalleryState, state_of
from seglens.app.napari.jobs import Job
from seglens.app.napari.links import link
from seglens.app.napari.projection import texts, work
from seglens.app.napari.projection.colouring import paint
from seglens.app.napari.projection.following import Follower
from seglens.app.napari.projection.plane import Plane
from seglens.app.napari.viewer_session import ViewerSession, plain, session_of
from seglens.core.explanation import Table

CONCEPT = "concept-vectors"
LEAST = 6  # points that make a concept
HEIGHT = 280


class Controls(QWidget):
    """What is drawn, and how."""

    changed = Signal()  # drawn in another way
    asked = Signal()  # other clusters: the bank has to be read anew

    def __init__(self) -> None:
        """As it is usually looked at."""
        super().__init__()
        self.bank = QPushButton(texts.BANK)
        self.bank.setToolTip(texts.BANK_HINT)
        self.colour = _choice(texts.COLOURS, texts.COLOUR_HINT)
        self.clusters = _choice(texts.CLUSTERS, texts.CLUSTERS_HINT)
        self.k = QSpinBox()
        self.k.setRange(0, 50)
        self.k.setSpecialValueText(texts.K_AUTO)
        self.k.setToolTip(texts.K_HINT)
        pairs = {f"{a + 1}{b + 1}": f"{a + 1} × {b + 1}" for a, b in combinations(range(work.COMPONENTS), 2)}
        self.axes = _choice(pairs, texts.AXES_HINT)
        self.heat = QCheckBox(texts.HEAT)
        self.heat.setToolTip(texts.HEAT_HINT)
        layout = look.column(self)
        layout.addWidget(look.row(self.bank, self.colour, self.clusters, self.k, self.axes, self.heat))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        look.calm(self)
        for box in (self.colour, self.axes):
            box.currentIndexChanged.connect(lambda _index: self.changed.emit())
        self.heat.toggled.connect(lambda _on: self.changed.emit())
        self.clusters.currentIndexChanged.connect(self._other_clusters)
        self.k.editingFinished.connect(self.asked)

    @property
    def components(self) -> tuple[int, int]:
        """Which two are drawn, from 0."""
        pair = str(self.axes.currentData())
        return int(pair[0]) - 1, int(pair[1]) - 1

    def _other_clusters(self, _index: int) -> None:
        self.k.setEnabled(self.clusters.currentData() == "kmeans")
        self.asked.emit()


class ProjectionDock(QWidget):
    """A feature bank as points.

    Args:
        napari_viewer: injected by napari under this name.
    """

    def __init__(self, napari_viewer: Any) -> None:
        """Show the bank that the gallery or the chosen method uses, if there is one."""
        super().__init__()
        self.setObjectName("seglens projection")
        self.session: ViewerSession = session_of(napari_viewer)
        self.state: GalleryState = state_of(napari_viewer)
        self.shown: work.Projected | None = None
        self.rows: tuple[int, ...] = ()
        self.job: Job | None = None
        self._own = GalleryState()  # for going to places: the gallery's own may show something else
        self._own.said.connect(self._said)
        self._jumper = Jumper(self.session, self._own, self)
        self.controls = Controls()
        self.plane = Plane(plots.ink(self.session))
        self.empty = look.text(texts.EMPTY, muted=True)
        self.empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.told = look.text(muted=True)
        self.told.setWordWrap(False)  # a narrow window would make it as high as a page
        self._about = texts.NOTHING
        self.table: tables.TableView | None = None
        self.split = QSplitter()
        self.split.addWidget(self.plane)
        self.stack = QStackedWidget()
        # whatever comes into it, the dock keeps its height
        self.stack.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Ignored)
        self.stack.setMinimumHeight(140)
        self.stack.addWidget(self.empty)
        self.stack.addWidget(self.split)
        self.show_button = _button(texts.SHOW, texts.SHOW_HINT, self.show_in_gallery)
        self.concept = _button(texts.CONCEPT, texts.CONCEPT_HINT, self.use_as_concept)
        self.clear = _button(texts.CLEAR, texts.CLEAR_HINT, lambda: self.select(()))
        self.stop = _button(texts.STOP, texts.STOP_HINT, self._stop)
        self.stop.hide()
        layout = look.column(self, margin=look.MARGIN, gap=4)
        layout.addWidget(self.controls)
        layout.addWidget(self.stack, 1)
        below = look.row(self.told, self.stop, self.show_button, self.concept, self.clear)
        below.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        layout.addWidget(below)
        self.follower = Follower(self)
        self._connect(plain(napari_viewer))
        self._enable()
        link(self, self._offered, self.session.question.events.bank)
        if self.state.bank is not None:
            self.show_bank(self.state.bank)
        else:
            self._offered()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Low and wide, as the other docks below the picture."""
        return QSize(760, HEIGHT)

    # -- what is shown ----------------------------------------------------------------------------------------------

    def ask_bank(self) -> None:
        """Ask for the folder of a bank."""
        start = str(settings.user_folder("banks"))
        folder = QFileDialog.getExistingDirectory(self, texts.BANK_HINT, start)
        if folder:
            self.open_bank(folder)

    def open_bank(self, folder: str | Path) -> None:
        """Open a bank and show it."""
        self._start(partial(work.open_bank, folder=folder), self.show_bank)

    def show_bank(self, bank: Any) -> None:
        """Show a bank."""
        self._own.bank = bank
        self._project()

    def _offered(self, _event: object = None) -> None:
        """Show the bank of the chosen method, as long as nothing else is shown."""
        folder = self.session.question.bank
        if folder and self.shown is None and self.job is None:
            self.open_bank(folder)

    def _project(self) -> None:
        bank = self._own.bank
        if bank is None:
            return
        how, k = self.controls.clusters.currentData(), self.controls.k.value() or None
        self._start(partial(work.project, bank=bank, clusters=how, k=k), self._came)

    def _came(self, shown: work.Projected) -> None:
        self.shown = shown
        found = shown.found
        share = float(np.sum(found.axes.explained[:2]))
        name = shown.bank.folder.name
        about = texts.BANK_ABOUT.format(name=name, shown=len(found.rows), total=found.total, explained=share)
        self._about = f"{about} {texts.NOTHING}"
        self.controls.heat.setEnabled(found.plane is not None)
        self.controls.heat.setToolTip(texts.HEAT_HINT if found.plane is not None else texts.HEAT_NONE)
        self.stack.setCurrentWidget(self.split)
        self.redraw()
        self.select(())

    def redraw(self, _event: object = None) -> None:
        """Draw it in the colours of the theme."""
        if self.shown is None:
            return
        controls = self.controls
        colours = paint(str(controls.colour.currentData()), self.shown.found, self.shown.entries)
        ink = plots.ink(self.session)
        self.plane.draw_points(self.shown, controls.components, colours, heat=controls.heat.isChecked(), ink=ink)
        self.plane.choose(self.shown.places(self.rows))

    # -- selection --------------------------------------------------------------------------------------------------

    def select(self, rows: Sequence[int], *, quietly: bool = False) -> None:
        """Select rows of the bank, everywhere.

        Args:
            rows: numbers of rows.
            quietly: the gallery knows already.
        """
        if self.shown is None:
            return
        self.rows = tuple(int(n) for n in rows)
        places = self.shown.places(self.rows)
        self.plane.choose(places)
        self._tell(places)
        self._list(places)
        self.follower.mark()
        self._enable()
        if not quietly and self.state.gallery is None:
            # a gallery that is being edited stays; the button shows the points there
            title = texts.POINTS_TITLE.format(count=len(self.rows))
            if self.rows:
                self.state.show_rows(self.shown.bank, self.rows, title)

    def show_in_gallery(self) -> None:
        """The selected points as thumbnails."""
        viewer = self.session.viewer
        if self.shown is None or viewer is None or not self.rows:
            return
        gallery_of(viewer)
        self.state.show_rows(self.shown.bank, self.rows, texts.POINTS_TITLE.format(count=len(self.rows)))

    def use_as_concept(self) -> None:
        """Let Concept vectors ask about the selected points."""
        if self.shown is None or len(self.rows) < LEAST:
            self._say(texts.CONCEPT_MORE.format(least=LEAST, count=len(self.rows)))
            return
        values = self.session.values.get(CONCEPT, {})
        self.session.values[CONCEPT] = {**values, "rows": texts.rows_text(list(self.rows))}
        question = self.session.question
        question.bank = str(self.shown.bank.folder)
        if question.method == CONCEPT:
            question.method = ""  # so that the form shows the rows
        question.method = CONCEPT
        self.session.values_changed.emit()
        self._say(texts.CONCEPT_SET.format(count=len(self.rows)))

    def go(self, row: int) -> None:
        """Go to the place of a row."""
        if self.shown is not None and len(self.shown.places([row])):
            self._jumper.go(as_item(row, self.shown.entries[int(self.shown.places([row])[0])]))

    def recolour(self, _event: object = None) -> None:
        """Follow the theme."""
        self.redraw()

    # -- inside -----------------------------------------------------------------------------------------------------

    def _connect(self, viewer: Any) -> None:
        look.Dress(self, viewer)
        link(self, self.recolour, viewer.events.theme)
        self.controls.bank.clicked.connect(self.ask_bank)
        self.controls.changed.connect(self.redraw)
        self.controls.asked.connect(self._project)
        self.plane.lassoed.connect(self._lassoed)
        self.plane.clicked.connect(self._clicked)
        self.destroyed.connect(self._jumper.stop)
        self.destroyed.connect(self.plane.thumbs.stop)

    def _lassoed(self, places: Any) -> None:
        if self.shown is not None:
            self.select(self.shown.found.rows[places].tolist())

    def _clicked(self, place: int | None) -> None:
        if self.shown is None:
            return
        rows = [] if place is None else [int(self.shown.found.rows[place])]
        self.select(rows)
        if rows:
            self.go(rows[0])

    def _tell(self, places: Any) -> None:
        if self.shown is None or not len(places):
            self._say(self._about)
            return
        iou = self.shown.found.iou
        some = iou[places]
        if np.isfinite(some).any():
            mean, every = float(np.nanmean(some)), float(np.nanmean(iou))
            self._say(texts.SELECTED_IOU.format(count=len(self.rows), iou=mean, every=every))
        else:
            self._say(texts.SELECTED.format(count=len(self.rows)))

    def _list(self, places: Any) -> None:
        if self.shown is None:
            return
        if self.table is not None:
            self.table.setParent(None)
            self.table.deleteLater()
        order = places if len(places) else np.arange(len(self.shown.entries))
        self.table = tables.TableView(_objects(self.shown, order))
        self.table.clicked.connect(self._table_clicked)
        self.split.addWidget(self.table)
        self.split.setSizes([600, 320])

    def _table_clicked(self, index: Any) -> None:
        if self.table is not None:
            row = int(self.table.rows.row(index.row())["row"])
            if self.shown is not None:
                self.plane.choose(self.shown.places([row]))
            self.go(row)

    def _enable(self) -> None:
        for button in (self.show_button, self.concept, self.clear):
            button.setEnabled(bool(self.rows))

    def _said(self) -> None:
        message = self._own.message
        if message is not None:
            self._say(f"{message.what} {message.fix}".strip())

    def _say(self, sentence: str) -> None:
        self.told.setText(sentence)
        self.told.setToolTip(sentence)

    def _start(self, call: Any, done: Any) -> None:
        if self.job is not None:
            self.job.cancel()
        job = Job(texts.PROJECTING, call)
        job.returned.connect(lambda value: self._done(job, done, value))
        job.failed.connect(self._own.fail)
        job.ended.connect(lambda: self._over(job))
        job.progressed.connect(lambda _done, _total, text, _rate: self._say(f"{texts.PROJECTING}: {text}…"))
        job.cancelled.connect(lambda: self._cancelled(job))
        self.destroyed.connect(job.cancel)
        self.job = job
        self.stop.show()
        job.start()

    def _done(self, job: Job, done: Any, value: Any) -> None:
        if job is self.job:
            self.job = None
            done(value)

    def _stop(self) -> None:
        if self.job is not None:
            self.job.cancel()

    def _cancelled(self, job: Job) -> None:
        # a job that gave way to another says nothing
        if job is self.job:
            self._say(texts.STOPPED)

    def _over(self, job: Job) -> None:
        if job is self.job:
            self.job = None
        self.stop.setVisible(self.job is not None)
        job.deleteLater()


def _objects(shown: work.Projected, places: Any) -> Table:
    """The points as a table, a row each."""
    entries = [shown.entries[i] for i in places]
    columns: dict[str, list[Any]] = {
        "row": shown.found.rows[places].tolist(),
        "class": [e.predicted for e in entries],
        "truth": [e.truth for e in entries],
        "IoU": [e.iou for e in entries],
        "cluster": [n + 1 if n >= 0 else None for n in shown.found.labels[places].tolist()],
        "image": [e.name for e in entries],
        "group": [e.group for e in entries],
    }
    return Table(texts.TABLE_ALL, columns)


def _choice(entries: dict[str, str], tooltip: str) -> Any:
    box = look.combo(tooltip)
    for key, label in entries.items():
        box.addItem(label, key)
    return box


def _button(label: str, tooltip: str, act: Any) -> QPushButton:
    button = QPushButton(label)
    button.setToolTip(tooltip)
    button.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
    button.clicked.connect(lambda _checked=False: act())
    return button


def open_in(viewer: Any) -> ProjectionDock | None:
    """The projection of a viewer, opened or brought to the front; ``None`` without a window."""
    there: Any = below.open_below(viewer, texts.TITLE, lambda: ProjectionDock(viewer), HEIGHT)
    return there if isinstance(there, ProjectionDock) else None
