"""The bottom of the dock, always in sight: what happened, what can happen, and the one button."""

# mypy: allow-subclassing-any
from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFrame, QLabel, QProgressBar, QPushButton, QSizePolicy, QWidget

from seglens.app.napari import asking, look, words
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import State, ViewerSession


class Banner(QFrame):
    """A sentence or two that stay until they are dismissed or outdated."""

    acted = Signal(str)

    def __init__(self) -> None:
        """Hidden until there is something to say."""
        super().__init__()
        self.setObjectName("banner")
        self.sentence = look.text(name="what")
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.fix = look.text(muted=True, name="fix")
        self.button = QPushButton(words.TRUST_BUTTON)
        self.button.setObjectName("trust")
        self.button.setToolTip(words.TRUST_HINT)
        self.button.clicked.connect(lambda: self.acted.emit("trust"))
        self.dismiss = look.tool("✕", "Dismiss")
        self.dismiss.clicked.connect(lambda: self.acted.emit("dismiss"))
        top = look.row(self.sentence, self.dismiss, gap=2)
        layout = top.layout()
        if layout is not None:
            layout.setAlignment(self.dismiss, Qt.AlignmentFlag.AlignTop)
        column = look.column(self, margin=6, gap=2)
        column.addWidget(top)
        column.addWidget(self.fix)
        column.addWidget(self.button)
        self.hide()

    def tell(self, what: str, fix: str, level: str, action: str) -> None:
        """Show a message; empty hides."""
        self.sentence.setText(look.breakable(what))
        self.fix.setText(look.breakable(fix))
        self.fix.setVisible(bool(fix))
        self.button.setVisible(action == "trust")
        self.setStyleSheet(look.banner_style(level))
        self.setVisible(bool(what))


class Footer(QWidget):
    """Message, state line, progress, and Run → Cancel → Cancelling.

    Args:
        session: what to show.
    """

    run = Signal()
    cancel = Signal()

    def __init__(self, session: ViewerSession) -> None:
        """Follow the session."""
        super().__init__()
        self._session = session
        self._job = "segment"
        self._clicks = False
        self.banner = Banner()
        self.state = QLabel()
        self.state.setObjectName("state")
        self.state.setWordWrap(True)
        self.state.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.cost = look.text(muted=True, name="cost")
        self.button = look.main_button()
        self.button.clicked.connect(self._pressed)
        layout = look.column(self, margin=look.MARGIN)
        for widget in (self.banner, self.state, self.bar, self.cost, self.button):
            layout.addWidget(widget)
        status, model, engine = session.status.events, session.model.events, session.engine.events
        link(self, self.refresh, status.state, status.done, status.total, status.message, status.estimate)
        link(self, self.refresh, model.loaded, model.loading, model.untrusted, model.spec, engine.ready)
        link(self, self.refresh, session.question.events, session.axes_changed, session.values_changed)
        viewer = session.viewer
        if viewer is not None:
            link(self, self.refresh, viewer.layers.events.inserted, viewer.layers.events.removed)
            link(self, self.refresh, viewer.layers.selection.events.active)
        self.refresh()

    @property
    def job(self) -> str:
        """What the button starts: ``segment`` or ``explain``."""
        return self._job

    def set_job(self, job: str) -> None:
        """The tab decides what the button starts."""
        self._job = job
        self.refresh()

    def set_clicks(self, on: bool) -> None:
        """Say whether clicks in the image ask by themselves."""
        self._clicks = on
        self.refresh()

    def refresh(self, _event: object = None) -> None:
        """Show the state of things."""
        status = self._session.status
        message = status.message
        if message is None:
            self.banner.tell("", "", "note", "")
        else:
            self.banner.tell(message.what, message.fix, message.level, message.action)
        if status.state is State.IDLE:
            self._show_idle()
        else:
            self._show_busy()

    def _show_idle(self) -> None:
        why = asking.why_not(self._session, self._job)
        if why == words.PICK_SPOT and self._clicks:
            why = words.CLICK_SPOT
        self.state.setText(why or words.READY)
        self.state.setProperty("ready", not why)
        look.tone(self.state, "muted" if why else "good")
        self.bar.hide()
        told = self._session.status.estimate if self._job == "explain" and not why else ""
        self.cost.setText(told)
        self.cost.setVisible(bool(told))
        self.button.setText(self._wish())
        self.button.setEnabled(not why)
        self.button.setToolTip(why or words.SCOPES[self._session.question.scope][1])

    def _show_busy(self) -> None:
        status = self._session.status
        stopping = status.state is State.CANCELLING
        look.tone(self.state, "")
        told = words.progress(status.text, status.done, status.total, status.rate) if status.total else "starting…"
        self.state.setText(words.CANCELLING if stopping else f"{status.title}: {told}")
        self.bar.show()
        self.cost.hide()
        self.bar.setRange(0, status.total)
        self.bar.setValue(status.done)
        self.button.setText("Cancelling…" if stopping else "Cancel")
        self.button.setEnabled(not stopping)
        self.button.setToolTip("Stops after the tile or batch that runs now; what is finished is kept.")

    def _wish(self) -> str:
        scope = words.SCOPES[self._session.question.scope][0].lower()
        if self._job == "explain":
            return words.with_key("Explain", "explain_target")
        key = "segment_all" if scope == "all" else "segment_view" if scope in ("view", "slice") else ""
        return words.with_key(f"Segment {'everything' if scope == 'all' else scope}", key)

    def _pressed(self) -> None:
        if self._session.status.state is State.IDLE:
            self.run.emit()
        else:
            self.cancel.emit()
