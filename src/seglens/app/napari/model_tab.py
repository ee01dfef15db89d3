"""The Model tab: which model, does it fit this image, on what part, and what comes out."""

# mypy: allow-subclassing-any
from __future__ import annotations

from functools import partial

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QRadioButton,
    QSpinBox,
    QWidget,
)

from seglens.app.napari import adapt, asking, look, words
from seglens.app.napari.links import link
from seglens.app.napari.model_card import ModelCard
from seglens.app.napari.model_source import ModelSource
from seglens.app.napari.viewer_session import ViewerSession, layer_id
from seglens.core.errors import SegLensError


class ModelTab(QWidget):
    """Source, card, channels, part, outputs, tiling.

    Args:
        session: what is chosen.
    """

    wanted = Signal(str, bool)

    def __init__(self, session: ViewerSession) -> None:
        """Build the sections."""
        super().__init__()
        self._session = session
        self.source = ModelSource(session)
        self.source.wanted.connect(self.wanted)
        self.card = ModelCard(session)
        self.channels = ChannelMap(session)
        self.scope = ScopeBox(session)
        self.outputs = OutputBox(session)
        self.tiling = TilingBox(session)
        layout = look.column(self, margin=look.MARGIN)
        layout.addWidget(look.heading("Model"))
        for widget in (self.source, self.card, self.channels):
            layout.addWidget(widget)
        layout.addWidget(look.heading("Where"))
        layout.addWidget(self.scope)
        layout.addWidget(look.heading("What comes out"))
        layout.addWidget(self.outputs)
        layout.addWidget(self.tiling)
        layout.addStretch(1)
        look.calm(self)


class ChannelMap(QWidget):
    """One row per channel of the model; only there when it has to be."""

    def __init__(self, session: ViewerSession) -> None:
        """Follow image, axes and model."""
        super().__init__()
        self._session = session
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self.boxes: list[QComboBox] = []
        link(self, self.refresh, session.model.events.loaded, session.question.events.layer_id, session.axes_changed)
        self.refresh()

    def refresh(self, _event: object = None) -> None:
        """Show the mapping if image and model differ in channels."""
        while self._form.rowCount():
            self._form.removeRow(0)
        self.boxes = []
        layer, spec = self._session.image_layer, self._session.model.spec
        self.hide()
        if layer is None or spec is None:
            return
        try:
            axes = asking.axes_of(self._session, layer)
        except SegLensError:
            return
        have = int(adapt.pixels(layer).shape[axes.index("C")]) if "C" in axes else 1
        if have == len(spec.channels) and layer_id(layer) not in self._session.channels:
            return
        chosen = asking.channels_of(self._session, layer, axes, spec) or tuple(range(have))
        for name, channel in zip(spec.channels, chosen, strict=True):
            box = look.combo("Which channel of the image the model reads here")
            entries = [(f"channel {i}" if have > 1 else "the grey channel", i) for i in range(have)]
            look.fill(box, entries, channel)
            box.currentIndexChanged.connect(self._changed)
            self._form.addRow(f"{name} ←", box)
            self.boxes.append(box)
        look.calm(self)
        self.show()

    def _changed(self, _index: int) -> None:
        layer = self._session.image_layer
        if layer is not None:
            self._session.channels[layer_id(layer)] = tuple(int(box.currentData()) for box in self.boxes)


class ScopeBox(QWidget):
    """View, regions, slice or all."""

    def __init__(self, session: ViewerSession) -> None:
        """Four radio buttons in a row."""
        super().__init__()
        self._session = session
        self._group = QButtonGroup(self)
        self.buttons: dict[str, QRadioButton] = {}
        row = look.row(gap=4)
        for key, (label, hint) in words.SCOPES.items():
            button = QRadioButton(label)
            button.setToolTip(hint)
            button.toggled.connect(partial(self._toggled, key))
            self._group.addButton(button)
            self.buttons[key] = button
            layout = row.layout()
            if layout is not None:
                layout.addWidget(button)
        self.hint = look.text(muted=True)
        layout = look.column(self, gap=2)
        layout.addWidget(row)
        layout.addWidget(self.hint)
        link(self, self.refresh, session.question.events.scope)
        self.refresh()

    def refresh(self, _event: object = None) -> None:
        """Show what is chosen."""
        scope = self._session.question.scope
        self.buttons[scope].setChecked(True)
        self.hint.setText(words.SCOPES[scope][1])

    def _toggled(self, key: str, checked: bool) -> None:
        if checked:
            self._session.question.scope = key  # type: ignore[assignment]


class OutputBox(QWidget):
    """Labels, probabilities, uncertainty."""

    def __init__(self, session: ViewerSession) -> None:
        """Three boxes to tick."""
        super().__init__()
        self._session = session
        self.boxes: dict[str, QCheckBox] = {}
        layout = look.column(self, gap=2)
        for key, (label, hint) in words.OUTPUTS.items():
            box = QCheckBox(label)
            box.setToolTip(hint)
            box.setChecked(bool(getattr(session.question, key)))
            box.toggled.connect(partial(setattr, session.question, key))
            layout.addWidget(box)
            self.boxes[key] = box


class TilingBox(look.Fold):
    """Tile and halo; automatic unless a person knows better."""

    def __init__(self, session: ViewerSession) -> None:
        """Collapsed at first."""
        body = QWidget()
        super().__init__("Tiling: automatic", body)
        self._session = session
        form = QFormLayout(body)
        form.setContentsMargins(0, 0, 0, 0)
        self.tile = self._spin(32, 8192, 32, "Side of a tile. Larger is faster and needs more memory.")
        self.halo = self._spin(
            0, 1024, 8, "Context read around a tile and thrown away. Too little shows seams between tiles."
        )
        form.addRow("Tile", self.tile)
        form.addRow("Halo", self.halo)
        self.tile.valueChanged.connect(self._changed)
        self.halo.valueChanged.connect(self._changed)

    def _spin(self, low: int, high: int, step: int, hint: str) -> QSpinBox:
        box = QSpinBox()
        # one step below the smallest stands for automatic
        box.setRange(low - step, high)
        box.setSingleStep(step)
        box.setSpecialValueText("automatic")
        box.setSuffix(" px")
        box.setValue(low - step)
        box.setToolTip(hint)
        return box

    def _changed(self, _value: int) -> None:
        question = self._session.question
        question.tile = None if self.tile.value() == self.tile.minimum() else self.tile.value()
        question.halo = None if self.halo.value() == self.halo.minimum() else self.halo.value()
        parts = [f"{question.tile} px" if question.tile else "", f"halo {question.halo}" if question.halo else ""]
        self.set_title("Tiling: " + (", ".join(p for p in parts if p) or "automatic"))
