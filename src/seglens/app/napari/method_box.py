"""How to explain: search, list, what it needs, and its parameters."""

# mypy: allow-subclassing-any
from __future__ import annotations

from functools import partial

from qtpy.QtCore import QEvent, QObject, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QLineEdit, QMenu, QPushButton, QWidget

from seglens.app.napari import look, words
from seglens.app.napari.bank_row import BankRow
from seglens.app.napari.form import Form
from seglens.app.napari.labels_row import LabelsRow
from seglens.app.napari.links import link
from seglens.app.napari.method_list import MethodList, about, first
from seglens.app.napari.viewer_session import State, ViewerSession
from seglens.core.method import Method


class MethodBox(QWidget):
    """Choose a method and set its parameters; below them stands what it will take.

    Args:
        session: what is chosen.
    """

    compare = Signal()
    layers = Signal(str)

    def __init__(self, session: ViewerSession) -> None:
        """Filled when the engine has told what there is."""
        super().__init__()
        self._session = session
        self.search = QLineEdit()
        self.search.setToolTip(words.SEARCH_HINT)
        self.search.setClearButtonEnabled(True)
        self.search.setObjectName("search")
        self.search.installEventFilter(self)
        self.list = MethodList()
        self.empty = look.text(words.NO_MATCH, muted=True)
        self.about = look.text(muted=True)
        self.form: Form | None = None
        self._layout = look.column(self)
        self._layout.addWidget(self.search)
        self.labels = LabelsRow(session)
        self.bank = BankRow(session)
        self.fills = QPushButton(words.COMPARE_FILLS)
        self.fills.setObjectName("compare fills")
        self.fills.setToolTip(words.COMPARE_FILLS_HINT)
        self.fills.clicked.connect(self.compare)
        self.strip = QPushButton(words.ALL_LAYERS)
        self.strip.setObjectName("all layers")
        self.strip.setToolTip(words.ALL_LAYERS_HINT)
        self.strip.setMenu(QMenu(self.strip))
        for widget in (self.list, self.empty, self.about, self.labels, self.bank, self.fills, self.strip):
            self._layout.addWidget(widget)
        self.labels.shown.connect(self._align)
        self.bank.shown.connect(self._align)
        self.search.textChanged.connect(self.refresh)
        self.search.returnPressed.connect(self.list.take_first)
        self.list.chosen.connect(self._chosen)
        link(self, self.refresh, session.engine.events.ready, session.model.events.spec, session.model.events.loaded)
        link(self, self._select, session.question.events.method)
        link(self, self._show_form, session.model.events.loaded, session.question.events.method)
        link(self, self._show_state, session.status.events.state)
        self.refresh()
        self._show_form()

    def refresh(self, _event: object = None) -> None:
        """List the methods that match; those that cannot run on this model are greyed out."""
        engine, model, question = self._session.engine, self._session.model, self._session.question
        if not question.method:
            question.method = first(engine.methods)
        self.search.setPlaceholderText(words.SEARCH.format(count=len(engine.methods)))
        self.list.fill(engine.methods, self.search.text(), question.method, model.spec, model.loaded)
        shown = bool(self.list.shown)
        self.list.setVisible(shown)
        self.empty.setVisible(not shown)
        self.empty.setText(words.NO_MATCH if engine.ready else words.ENGINE_STARTING)

    def eventFilter(self, thing: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Down goes from the search to the list."""
        pressed = isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress
        down = pressed and event.key() == Qt.Key.Key_Down  # type: ignore[union-attr]
        if thing is not self.search or not down or not self.list.shown:
            return bool(super().eventFilter(thing, event))
        self.list.setFocus()
        if self.list.currentItem() is None:
            self.list.take_first()
        return True

    def _select(self, _event: object = None) -> None:
        self.list.select(self._session.question.method)

    def _chosen(self, name: str) -> None:
        self._session.question.method = name

    def _show_form(self, _event: object = None) -> None:
        if self.form is not None:
            self.form.hide()
            self.form.deleteLater()
            self.form = None
        name = self._session.question.method
        kind = next((m for m in self._session.engine.methods if m.name == name), None)
        self.about.setText("" if kind is None else about(kind))
        self.fills.setVisible(kind is not None and any(p.name == "fill" for p in kind.parameters()))
        self.strip.hide()
        if kind is None:
            return
        model = self._session.model
        self._fill_strip(kind)
        classes = [c.name for c in model.spec.classes] if model.spec is not None else []
        choices = {"layers": model.layers, "classes": classes}
        empty = {"layers": f"auto: {model.chosen_layer}" if model.chosen_layer else ""}
        form = Form(kind.parameters(), self._session.values.get(name, {}), choices, empty)
        form.changed.connect(self._edited)
        self.form = form
        self._layout.insertWidget(self._layout.indexOf(self.about) + 1, form)
        self._align()

    def _fill_strip(self, kind: type[Method]) -> None:
        menu, model = self.strip.menu(), self._session.model
        if menu is None:
            return
        menu.clear()
        for key, names in (("depths", model.depths), ("all", model.layers)):
            action = menu.addAction(words.STRIPS[key].format(count=len(names)))
            if action is not None:
                action.triggered.connect(partial(self.layers.emit, key))
        self.strip.setVisible(bool(model.layers) and any(p.param.source == "layers" for p in kind.parameters()))

    def _align(self) -> None:
        rows = [row.form for row in (self.labels, self.bank) if not row.isHidden()]
        if self.form is not None and rows:
            look.align(self.form.rows, *rows)

    def _edited(self) -> None:
        if self.form is not None:
            self._session.values[self._session.question.method] = self.form.changed_values()
            self._session.values_changed.emit()

    def _show_state(self, _event: object = None) -> None:
        for button in (self.fills, self.strip):
            button.setEnabled(self._session.status.state is State.IDLE)
