"""The SegLens dock: header, two tabs, footer."""

# mypy: allow-subclassing-any
from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeyEvent, QShowEvent
from qtpy.QtWidgets import QApplication, QTabWidget, QWidget

from seglens.app.napari import commands, copying, links, look, notify, plots, words
from seglens.app.napari.actions import Actions
from seglens.app.napari.bank_building import BankBuilder
from seglens.app.napari.estimating import Estimator
from seglens.app.napari.explain_tab import ExplainTab
from seglens.app.napari.following import Follower
from seglens.app.napari.footer import Footer
from seglens.app.napari.header import Header
from seglens.app.napari.model_tab import ModelTab
from seglens.app.napari.strip import Captions
from seglens.app.napari.viewer_session import Made, State, layer_id, plain, session_of
from seglens.core.errors import SegLensError

JOBS = ("segment", "explain")


class SegLensDock(QWidget):
    """Made by napari when the widget is opened; one per viewer.

    Args:
        napari_viewer: injected by napari under this name.
    """

    def __init__(self, napari_viewer: Any) -> None:
        """Assemble the parts and start loading the engine in the background."""
        super().__init__()
        self.setObjectName("seglens")
        self.setMinimumWidth(300)
        self.session = session_of(napari_viewer)
        self.jobs: Actions = Actions(self.session, self)
        self.estimator = Estimator(self.session, self.jobs.lock, self)
        self.follower = Follower(self.session, self.jobs, self)
        self.banks = BankBuilder(self.session, self.jobs, self)
        self.header = Header(self.session)
        self.model = ModelTab(self.session)
        self.explain = ExplainTab(self.session)
        self.footer = Footer(self.session)
        self.tabs = QTabWidget()
        self.tabs.addTab(look.Page(self.model), "Model")
        self.tabs.addTab(look.Page(self.explain), "Explain")
        layout = look.column(self, gap=0)
        layout.addWidget(self.header)
        layout.addWidget(self.tabs, 1)
        layout.addWidget(self.footer)
        look.Dress(self, plain(napari_viewer))
        Captions(plain(napari_viewer), self)
        self._connect()
        commands.register(self.session, self)
        self.jobs.start_engine()

    def copied(self, kind: str) -> str:
        """Put the run that made the current map or layer on the clipboard, and give it back."""
        made = self._made()
        if made is None:
            self.session.say(words.NOTHING_TO_COPY, level="warning")
            return ""
        try:
            told = copying.as_text(made, kind)
        except (SegLensError, OSError) as error:
            notify.error(self.session, error)
            return ""
        clipboard = QApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(told)
        self.session.say(words.COPIED.format(where="terminal" if kind == "cli" else "Python session"))
        return told

    def copy(self, kind: str) -> None:
        """As :meth:`copied`, for buttons and commands."""
        self.copied(kind)

    def open_plots(self) -> plots.Plots | None:
        """Open the dock with plots and tables, or bring it to the front."""
        return plots.open_in(self.session)

    def run(self) -> None:
        """Do what the button says."""
        if self.footer.job == "explain":
            self.jobs.explain()
        else:
            self.jobs.segment()

    def _made(self) -> Made | None:
        viewer = self.session.viewer
        selected = list(viewer.layers.selection) if viewer is not None else []
        for layer in [*selected, self.explain.result.current]:
            made = None if layer is None else self.session.made.get(layer_id(layer))
            # what was stopped early has no record
            if made is not None and made.record:
                return made
        return None

    def _connect(self) -> None:
        actions, target = self.jobs, self.explain.target
        self.tabs.currentChanged.connect(self._turned)
        self.footer.run.connect(self.run)
        self.footer.cancel.connect(actions.cancel)
        self.footer.banner.acted.connect(self._acted)
        self.model.wanted.connect(lambda source, suggested: actions.choose_model(source, suggested=suggested))
        target.new_target.connect(actions.new_target)
        target.toggle_sign.connect(actions.toggle_sign)
        target.followed.connect(self._follow)
        target.picker.pointed.connect(lambda held: self.follower.point(held=held))
        self.explain.method.compare.connect(actions.compare_fills)
        self.explain.method.layers.connect(actions.explain_layers)
        self.explain.method.bank.wanted.connect(self.banks.build)
        self.explain.result.copy.connect(self.copy)
        self.explain.result.plots.connect(self.open_plots)
        self.destroyed.connect(actions.stop_all)
        self.destroyed.connect(self.estimator.stop)

    def _turned(self, tab: int) -> None:
        self.footer.set_job(JOBS[tab])
        self._rest_estimator()

    def _follow(self, on: bool) -> None:
        # what a click takes is seen, and estimating would get in its way
        self._rest_estimator()
        self.footer.set_clicks(on)
        if on:
            self.follower.warm()
        else:
            self.follower.stop()

    def _rest_estimator(self) -> None:
        self.estimator.set_active(self.footer.job == "explain" and not self.explain.target.picker.stays)

    def _acted(self, action: str) -> None:
        if action == "trust":
            self.jobs.trust_model()
        else:
            self.session.say("")

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """From now on the dock around it is known."""
        super().showEvent(event)
        links.end_with_dock(self)

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 - Qt's name
        """Esc leaves the pick or cancels the run; every other key, and Esc elsewhere, belongs to napari."""
        picker = self.explain.target.picker
        busy = self.session.status.state is State.RUNNING
        if event is None or event.key() != Qt.Key.Key_Escape or not (picker.active or busy):
            super().keyPressEvent(event)
        elif picker.active:
            picker.set_active(False)
        else:
            self.jobs.cancel()
