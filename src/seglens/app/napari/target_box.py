"""What to explain: which class, which pixels, read how."""

# mypy: allow-subclassing-any
from __future__ import annotations

from functools import partial
from typing import Any

from napari.layers import Labels
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QFormLayout, QPushButton, QSpinBox, QWidget

from seglens.app.napari import look, words
from seglens.app.napari.links import link
from seglens.app.napari.picking import Picker
from seglens.app.napari.viewer_session import ViewerSession, is_ours, layer_id


class TargetBox(QWidget):
    """Region, class, and what the chosen kind of region needs.

    Args:
        session: what is chosen.
    """

    new_target = Signal()
    toggle_sign = Signal()
    followed = Signal(bool)

    def __init__(self, session: ViewerSession) -> None:
        """Build the rows."""
        super().__init__()
        self._session = session
        self.picker = Picker(session, self)
        self.region = look.combo()
        self.region.setObjectName("region")
        for key, (label, hint) in words.REGIONS.items():
            self.region.addItem(label, key)
            self.region.setItemData(self.region.count() - 1, hint, 3)
        self.classes = look.combo("Which class the question is about")
        self.classes.setObjectName("class")
        self.hint = look.text(muted=True)
        self.border = self._border()
        self.paint = self._paint()
        self.pick = self._pick()
        self._form = QFormLayout()
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setVerticalSpacing(look.GAP)
        self._form.addRow("Region", self.region)
        self._form.addRow(self.hint)  # across: beside the labels it would take twice the lines
        self._form.addRow("Border of", self.border)
        self._form.addRow("Painted on", self.paint)
        self._form.addRow("Spot", self.pick)
        self._form.addRow("Class", self.classes)
        layout = look.column(self)
        layout.addLayout(self._form)
        layout.addWidget(self._more())
        self._connect()

    def refresh(self, _event: object = None) -> None:
        """Show what is chosen, and only the rows that matter."""
        question = self._session.question
        self.region.setCurrentIndex(max(0, self.region.findData(question.region)))
        self.hint.setText(words.REGIONS[question.region][1])
        inner = question.border_of if question.region == "border" else question.region
        self._form.setRowVisible(self.border, question.region == "border")
        self._form.setRowVisible(self.paint, inner == "painted")
        self._form.setRowVisible(self.pick, inner in ("object", "point"))
        if inner not in ("object", "point"):
            self.follow.setChecked(False)
        self._refresh_spot()

    def refresh_classes(self, _event: object = None) -> None:
        """List the classes of the model."""
        spec = self._session.model.spec
        question = self._session.question
        names = [c.name for c in spec.classes] if spec is not None else []
        if spec is not None and question.of_class not in names:
            question.of_class = None
        whole = question.region == "predicted" or (question.region == "border" and question.border_of == "predicted")
        any_class = words.ANY_CLASS_WHOLE if whole else words.ANY_CLASS
        look.fill(self.classes, [(any_class, None), *((n, n) for n in names)], question.of_class)
        for index, kind in enumerate(spec.classes if spec is not None else ()):
            self.classes.setItemIcon(index + 1, look.dot(kind.color))

    def refresh_targets(self, _event: object = None) -> None:
        """List the layers that can be taken as a painted region."""
        viewer, question = self._session.viewer, self._session.question
        if viewer is None:
            return
        layers = [x for x in viewer.layers if isinstance(x, Labels)]
        ids = [layer_id(x) for x in layers]
        if question.target_id not in ids:
            ours = [layer_id(x) for x in layers if is_ours(x, "target")]
            question.target_id = ours[-1] if ours else ""
        items = [(x.name, layer_id(x)) for x in layers]
        look.fill(self.targets, [("none yet", ""), *items], question.target_id)

    def _connect(self) -> None:
        session, question = self._session, self._session.question
        self.region.activated.connect(lambda i: setattr(question, "region", self.region.itemData(i)))
        self.classes.activated.connect(lambda i: setattr(question, "of_class", self.classes.itemData(i)))
        self.targets.activated.connect(lambda i: setattr(question, "target_id", self.targets.itemData(i)))
        events = question.events
        link(self, self.refresh, events.region, events.border_of, events.spot)
        link(self, self.refresh_classes, session.model.events.spec, events.region, events.border_of)
        link(self, self.refresh_targets, events.target_id)
        viewer = session.viewer
        if viewer is not None:
            link(self, self.refresh_targets, viewer.layers.events.inserted, viewer.layers.events.removed)
        self.picker.changed.connect(self._refresh_spot)
        self.refresh()
        self.refresh_classes()
        self.refresh_targets()

    def _border(self) -> QWidget:
        question = self._session.question
        self.border_of = look.combo("Whose border")
        for key in ("predicted", "object", "painted"):
            self.border_of.addItem(words.REGIONS[key][0], key)
        self.border_of.activated.connect(lambda i: setattr(question, "border_of", self.border_of.itemData(i)))
        width = QSpinBox()
        width.setRange(1, 50)
        width.setValue(question.border_width)
        width.setSuffix(" px")
        width.setToolTip("Width of the inner rim (counts for) and of the outer rim (counts against)")
        width.valueChanged.connect(partial(setattr, question, "border_width"))
        holder = QWidget()
        layout = look.column(holder, gap=4)
        layout.addWidget(self.border_of)
        layout.addWidget(width)
        return holder

    def _paint(self) -> QWidget:
        self.targets = look.combo("The layer with the painted region")
        self.targets.setObjectName("target layer")
        self.new = QPushButton("New target layer")
        self.new.setObjectName("new target")
        self.new.setToolTip("A fresh layer on the image's grid, with the brush in hand: paint 1 for and 2 against.")
        self.new.clicked.connect(self.new_target)
        self.sign = QPushButton(words.with_key("for ⇄ against", "toggle_sign"))
        self.sign.setToolTip("Paint for (1) or against (2)")
        self.sign.clicked.connect(self.toggle_sign)
        holder = QWidget()
        layout = look.column(holder, gap=4)
        layout.addWidget(self.targets)
        layout.addWidget(self.new)
        layout.addWidget(self.sign)
        return holder

    def _pick(self) -> QWidget:
        self.pick_button = QPushButton("Pick")
        self.pick_button.setObjectName("pick")
        self.pick_button.setCheckable(True)
        self.pick_button.setToolTip("Then click in the image; painting tools rest meanwhile, and Esc leaves.")
        self.pick_button.toggled.connect(self.picker.set_active)
        self.picked = look.text(muted=True)
        self.follow = QCheckBox(words.FOLLOW)
        self.follow.setObjectName("follow")
        self.follow.setToolTip(words.FOLLOW_HINT)
        self.follow.toggled.connect(self._follow)
        holder = QWidget()
        layout = look.column(holder, gap=4)
        layout.addWidget(look.row(self.pick_button, self.picked))
        layout.addWidget(self.follow)
        return holder

    def _follow(self, on: bool) -> None:
        self.picker.set_active(False)
        self.picker.stays = on
        self.picker.set_active(on)
        self.pick_button.setEnabled(not on)
        self.followed.emit(on)

    def _refresh_spot(self) -> None:
        if self.picker.stays and not self.picker.active:
            # somebody left
            self.follow.setChecked(False)
        blocked = self.pick_button.blockSignals(True)
        self.pick_button.setChecked(self.picker.active)
        self.pick_button.blockSignals(blocked)
        self.picked.setText(words.PICKING_SHORT if self.picker.active else self.picker.told())

    def _more(self) -> look.Fold:
        question = self._session.question
        body = QWidget()
        box = look.Fold("Read as: score before softmax, mean", body)
        form = QFormLayout(body)
        form.setContentsMargins(0, 0, 0, 0)
        value, reduction = look.combo("What is read at every pixel"), look.combo("How pixels become one number")
        for key, label in words.VALUES.items():
            value.addItem(label, key)
        for key in ("mean", "sum"):
            reduction.addItem(key, key)

        def changed(_index: Any = 0) -> None:
            question.value, question.reduction = value.currentData(), reduction.currentData()
            box.set_title(f"Read as: {value.currentText()}, {reduction.currentText()}")

        value.activated.connect(changed)
        reduction.activated.connect(changed)
        form.addRow("Value", value)
        form.addRow("Over pixels", reduction)
        return box
