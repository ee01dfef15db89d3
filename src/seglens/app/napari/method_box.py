"""How to explain: search, family, list, what it needs, and its parameters."""

# mypy: allow-subclassing-any
from __future__ import annotations

import inspect

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QLineEdit, QListWidget, QListWidgetItem, QPushButton, QWidget

from seglens.app.napari import look, words
from seglens.app.napari.form import Form
from seglens.app.napari.labels_row import LabelsRow
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import State, ViewerSession
from seglens.core.method import Method
from seglens.models.spec import ModelSpec

_COST = {"gradient": "seconds", "perturbation": "many forward passes", "counterfactual": "some forward passes"}


class MethodBox(QWidget):
    """Choose a method and set its parameters; below them stands what it will take.

    Args:
        session: what is chosen.
    """

    compare = Signal()

    def __init__(self, session: ViewerSession) -> None:
        """Filled when the engine has told what there is."""
        super().__init__()
        self._session = session
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search methods")
        self.search.setClearButtonEnabled(True)
        self.search.setObjectName("search")
        self.family = look.combo("Show one family of methods")
        self.family.setObjectName("family")
        self.list = QListWidget()
        self.list.setObjectName("methods")
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.empty = look.text(words.NO_MATCH, muted=True)
        self.about = look.text(muted=True)
        self.form: Form | None = None
        self._layout = look.column(self)
        self._layout.addWidget(look.row(self.search, self.family))
        self.labels = LabelsRow(session)
        self.fills = QPushButton(words.COMPARE_FILLS)
        self.fills.setObjectName("compare fills")
        self.fills.setToolTip(words.COMPARE_FILLS_HINT)
        self.fills.clicked.connect(self.compare)
        for widget in (self.list, self.empty, self.about, self.labels, self.fills):
            self._layout.addWidget(widget)
        self.labels.shown.connect(self._align)
        self.search.textChanged.connect(self.refresh)
        self.family.activated.connect(self.refresh)
        self.list.currentItemChanged.connect(self._chosen)
        link(self, self._fill_families, session.engine.events.ready)
        link(self, self.refresh, session.engine.events.ready, session.model.events.spec)
        link(self, self._select, session.question.events.method)
        link(self, self._show_form, session.model.events.loaded, session.question.events.method)
        link(self, self._show_state, session.status.events.state)
        self._fill_families()
        self.refresh()
        self._show_form()

    def refresh(self, _event: object = None) -> None:
        """List the methods that match; those that cannot run on this model are greyed out."""
        words_wanted = self.search.text().lower().replace("-", " ").split()
        family = self.family.currentData()
        blocked = self.list.blockSignals(True)
        self.list.clear()
        for kind in self._session.engine.methods:
            told = f"{kind.name} {kind.title} {kind.family} {about(kind)}".lower().replace("-", " ")
            if (not family or kind.family == family) and all(w in told for w in words_wanted):
                self.list.addItem(self._item(kind))
        self.list.blockSignals(blocked)
        self._select()
        shown = self.list.count()
        self.list.setVisible(bool(shown))
        look.fit_rows(self.list, 3, 7)
        self.empty.setVisible(not shown)
        self.empty.setText(words.NO_MATCH if self._session.engine.ready else words.ENGINE_STARTING)
        self._pick_first()

    def _select(self, _event: object = None) -> None:
        chosen = self._session.question.method
        blocked = self.list.blockSignals(True)
        for index in range(self.list.count()):
            item = self.list.item(index)
            if item is not None and item.data(Qt.ItemDataRole.UserRole) == chosen:
                self.list.setCurrentItem(item)
        self.list.blockSignals(blocked)

    def _pick_first(self) -> None:
        if not self._session.question.method and self._session.engine.methods:
            self._session.question.method = self._session.engine.methods[0].name
            self.refresh()

    def _item(self, kind: type[Method]) -> QListWidgetItem:
        item = QListWidgetItem(kind.title)
        item.setData(Qt.ItemDataRole.UserRole, kind.name)
        why = unfit(kind, self._session.model.spec, self._session.model.loaded)
        item.setToolTip(why or f"{about(kind)}\n{kind.family}: {_COST.get(kind.family, '')}".strip())
        if why:
            item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEnabled)
        return item

    def _fill_families(self, _event: object = None) -> None:
        families = dict.fromkeys(kind.family for kind in self._session.engine.methods)
        items = [(words.ALL_FAMILIES, ""), *((f, f) for f in families)]
        look.fill(self.family, items, self.family.currentData())

    def _chosen(self, item: QListWidgetItem | None, _before: object = None) -> None:
        if item is not None:
            self._session.question.method = str(item.data(Qt.ItemDataRole.UserRole))

    def _show_form(self, _event: object = None) -> None:
        if self.form is not None:
            self.form.hide()
            self.form.deleteLater()
            self.form = None
        name = self._session.question.method
        kind = next((m for m in self._session.engine.methods if m.name == name), None)
        self.about.setText("" if kind is None else about(kind))
        self.fills.setVisible(kind is not None and any(p.name == "fill" for p in kind.parameters()))
        if kind is None:
            return
        model = self._session.model
        classes = [c.name for c in model.spec.classes] if model.spec is not None else []
        choices = {"layers": model.layers, "classes": classes}
        empty = {"layers": f"auto: {model.chosen_layer}" if model.chosen_layer else ""}
        form = Form(kind.parameters(), self._session.values.get(name, {}), choices, empty)
        form.changed.connect(self._edited)
        self.form = form
        self._layout.insertWidget(self._layout.indexOf(self.about) + 1, form)
        self._align()

    def _align(self) -> None:
        if self.form is not None and not self.labels.isHidden():
            look.align(self.form.rows, self.labels.form)

    def _edited(self) -> None:
        if self.form is not None:
            self._session.values[self._session.question.method] = self.form.changed_values()
            self._session.values_changed.emit()

    def _show_state(self, _event: object = None) -> None:
        self.fills.setEnabled(self._session.status.state is State.IDLE)


def about(kind: type[Method]) -> str:
    """What a method does, in its first line, and how near it is to its paper."""
    line = (inspect.getdoc(inspect.getmodule(kind)) or inspect.getdoc(kind) or "").split("\n")[0]
    line = line.removeprefix(f"{kind.title}: ")
    note = words.FIDELITY.get(str(kind.fidelity), "").format(kind.cite)
    return f"{line[:1].upper()}{line[1:]} {note}".strip()


def unfit(kind: type[Method], spec: ModelSpec | None, loaded: object) -> str:
    """Why a method cannot run on the chosen model; empty if it can, or if there is no model yet."""
    why = None if spec is None else kind.unfit(spec, getattr(loaded, "layered", True))
    return f"{why[0][0].upper()}{why[0][1:]}." if why else ""
