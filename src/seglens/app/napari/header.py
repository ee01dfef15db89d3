"""The top of the dock: which image, what its axes are, where the model runs."""

# mypy: allow-subclassing-any
from __future__ import annotations

import webbrowser
from functools import partial
from typing import Any

from napari.layers import Image as ImageLayer
from napari.layers import Layer
from qtpy.QtGui import QActionGroup
from qtpy.QtWidgets import QLabel, QMenu, QToolButton, QWidget

from seglens.app.napari import adapt, asking, look, words
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import ViewerSession, is_ours, layer_id
from seglens.core.errors import SegLensError


class Header(QWidget):
    """Image layer, axis chips, device badge, help and preferences."""

    def __init__(self, session: ViewerSession) -> None:
        """Follow the viewer's layers."""
        super().__init__()
        self._session = session
        self.layers = look.combo(words.NO_IMAGE_HINT)
        self.layers.setObjectName("image")
        self.layers.activated.connect(self._chosen)
        self.help = look.tool("?", words.HELP_HINT, "help")
        self.help.clicked.connect(partial(webbrowser.open, words.DOCS))
        self.gear = look.tool("⚙", words.GEAR_HINT, "preferences")
        self.gear.clicked.connect(self._preferences)
        self.device = QLabel()
        self.device.setObjectName("device")
        self._chips = look.row(gap=2)
        self._menus: list[QMenu] = []
        layout = look.column(self, margin=look.MARGIN)
        layout.addWidget(look.row(self.layers, self.help, self.gear, gap=2))
        layout.addWidget(look.row(self._chips, None, self.device))
        self._listen()
        self._refresh_layers()
        self._refresh_device()

    @property
    def chips(self) -> list[QToolButton]:
        """The buttons of the axes."""
        return list(self._chips.findChildren(QToolButton))

    def _listen(self) -> None:
        viewer = self._session.viewer
        if viewer is not None:
            events = viewer.layers.events
            link(self, self._refresh_layers, events.inserted, events.removed, events.reordered)
            link(self, self._follow, events.inserted)
            for layer in viewer.layers:
                link(self, self._refresh_layers, layer.events.name)
        session = self._session
        link(self, self._refresh_layers, session.question.events.layer_id)
        link(self, self._refresh_axes, session.axes_changed)
        link(self, self._refresh_device, session.engine.events.ready)

    def _follow(self, event: Any) -> None:
        link(self, self._refresh_layers, event.value.events.name)

    def _refresh_layers(self, _event: object = None) -> None:
        viewer, question = self._session.viewer, self._session.question
        if viewer is None:
            return
        images = [x for x in viewer.layers if isinstance(x, ImageLayer) and not is_ours(x)]
        ids = [layer_id(x) for x in images]
        if question.layer_id not in ids:
            # what the person sees comes first; a sample brings hidden pictures along
            seen = [layer_id(x) for x in images if x.visible]
            question.layer_id = (seen or ids or [""])[-1]
        items = [(x.name, layer_id(x)) for x in images] or [(words.NO_IMAGE, "")]
        look.fill(self.layers, items, question.layer_id)
        self.layers.setEnabled(bool(images))
        self.layers.setToolTip(self.layers.currentText() if images else words.NO_IMAGE_HINT)
        self._refresh_axes()

    def _refresh_axes(self, _event: object = None) -> None:
        layout = self._chips.layout()
        if layout is None:
            return
        look.clear(layout)
        layer = self._session.image_layer
        if layer is None:
            return
        try:
            axes = asking.axes_of(self._session, layer)
        except SegLensError as error:
            layout.addWidget(look.text(error.what, muted=True))
            return
        shape = adapt.pixels(layer).shape
        for index, letter in enumerate(axes):
            layout.addWidget(self._chip(layer, axes, index, letter, int(shape[index])))

    def _chip(self, layer: Layer, axes: str, index: int, letter: str, size: int) -> QToolButton:
        chip = QToolButton()
        chip.setText(f"{letter} {size}")
        chip.setObjectName(f"axis{index}")
        chip.setToolTip(words.AXES_HINT)
        chip.setStyleSheet(_CHIP)
        if letter == "C" and getattr(layer, "rgb", False):
            chip.setToolTip("The colours of an RGB image")
            chip.setEnabled(False)
            return chip
        menu = QMenu(chip)
        group = QActionGroup(menu)
        for other in "TZCYX":
            if other == "C" and getattr(layer, "rgb", False):
                continue
            action = menu.addAction(f"{other}  {_NAMES[other]}")
            if action is not None:
                action.setCheckable(True)
                action.setChecked(other == letter)
                action.triggered.connect(partial(self._rename, layer, axes, index, other))
                group.addAction(action)
        chip.setMenu(menu)
        chip.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        return chip

    def _rename(self, layer: Layer, axes: str, index: int, letter: str, _checked: bool = False) -> None:
        old = axes[index]
        # two axes cannot share a letter: the other one takes the letter that became free
        swapped = [old if a == letter else a for a in axes]
        swapped[index] = letter
        self._session.set_axes(layer, "".join(swapped))

    def _refresh_device(self, _event: object = None) -> None:
        engine = self._session.engine
        if not engine.ready:
            look.pill(self.device, words.STARTING, "muted")
            self.device.setToolTip(words.STARTING_HINT)
            return
        look.pill(self.device, _short(engine.device_name), "warning" if engine.device == "cpu" else "good")
        self.device.setToolTip(f"{engine.device_name}: {engine.device_why}")

    def _chosen(self, index: int) -> None:
        self._session.question.layer_id = str(self.layers.itemData(index) or "")
        layer = self._session.image_layer
        if layer is not None:
            layer.visible = True

    def _preferences(self) -> None:
        from seglens.app.napari.commands import open_preferences

        open_preferences()


_CHIP = (
    "QToolButton { padding: 1px 6px; border: 1px solid rgba(128, 128, 128, 140); border-radius: 8px; }"
    "QToolButton:hover { background: rgba(128, 128, 128, 90); }"
    "QToolButton::menu-indicator { image: none; }"
)
_NAMES = {"T": "time", "Z": "depth", "C": "channel", "Y": "rows", "X": "columns"}


def _short(name: str) -> str:
    return name if len(name) <= 16 else f"{name[:15]}…"
