"""What came out: the maps of this viewer, colours, the grid, and the run as text."""

# mypy: allow-subclassing-any
from __future__ import annotations

from functools import partial

from napari.layers import Image as ImageLayer
from napari.layers import Layer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem, QPushButton, QSlider, QWidget

from seglens.app import maps
from seglens.app.napari import colours, look, results, strip, words
from seglens.app.napari.compare import Grid
from seglens.app.napari.links import link
from seglens.app.napari.reading import Reading
from seglens.app.napari.viewer_session import ViewerSession, layer_id


class ResultBox(QWidget):
    """A list of maps to tick, one to look at.

    Args:
        session: whose maps.
    """

    copy = Signal(str)
    plots = Signal()

    def __init__(self, session: ViewerSession) -> None:
        """Build list and buttons."""
        super().__init__()
        self._session = session
        self.grid = Grid(session)
        self.empty = look.text(words.RESULT_EMPTY, muted=True)
        self.list = QListWidget()
        self.list.setObjectName("maps")
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.currentItemChanged.connect(self._looked_at)
        self.list.itemChanged.connect(self._ticked)
        self.compare = QPushButton(words.COMPARE)
        self.compare.setObjectName("compare")
        self.compare.setToolTip("The ticked maps side by side, each over the image")
        self.compare.clicked.connect(self._compare)
        self.colours = look.combo("Colours of this map")
        self.colours.activated.connect(self._recolour)
        self.opacity = QSlider(Qt.Orientation.Horizontal)
        self.opacity.setRange(0, 100)
        self.opacity.setToolTip("How strongly this map covers the image")
        self.opacity.valueChanged.connect(self._set_opacity)
        cli, python = QPushButton("Copy as CLI"), QPushButton("Copy as Python")
        cli.setToolTip("The command that makes this map again")
        python.setToolTip("The script that makes this map again")
        cli.clicked.connect(partial(self.copy.emit, "cli"))
        python.clicked.connect(partial(self.copy.emit, "python"))
        self.plot = QPushButton(words.PLOTS)
        self.plot.setObjectName("plots")
        self.plot.setToolTip(words.PLOTS_HINT)
        self.plot.clicked.connect(self.plots)
        self.unit = look.text(muted=True)
        self.controls = QWidget()
        inner = look.column(self.controls)
        inner.addWidget(self.unit)
        inner.addWidget(look.row(self.colours, self.opacity))
        inner.addWidget(self.compare)
        inner.addWidget(look.row(cli, python))
        layout = look.column(self)
        for widget in (self.empty, self.list, self.plot, self.controls):
            layout.addWidget(widget)
        look.calm(self)
        self._connect()

    @property
    def current(self) -> ImageLayer | None:
        """The map that is looked at."""
        item = self.list.currentItem()
        layer = self._session.layer(str(item.data(Qt.ItemDataRole.UserRole))) if item is not None else None
        return layer if isinstance(layer, ImageLayer) else None

    @property
    def ticked(self) -> list[Layer]:
        """The maps to compare, in the order of the list."""
        items = [self.list.item(i) for i in range(self.list.count())]
        chosen = [i for i in items if i is not None and i.checkState() == Qt.CheckState.Checked]
        layers = [self._session.layer(str(i.data(Qt.ItemDataRole.UserRole))) for i in chosen]
        return [layer for layer in layers if layer is not None]

    def refresh(self, _event: object = None) -> None:
        """List the maps that are in the viewer."""
        viewer = self._session.viewer
        if viewer is None:
            return
        maps = [x for x in viewer.layers if results.is_map(x)]
        ticked = {layer_id(x) for x in self.ticked}
        known = {str(i.data(Qt.ItemDataRole.UserRole)) for i in self._items()}
        current = self.current
        blocked = self.list.blockSignals(True)
        self.list.clear()
        for layer in reversed(maps):
            item = QListWidgetItem(layer.name)
            key = layer_id(layer)
            item.setData(Qt.ItemDataRole.UserRole, key)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            fresh = key not in known
            item.setCheckState(Qt.CheckState.Checked if key in ticked or fresh else Qt.CheckState.Unchecked)
            self.list.addItem(item)
            # a new map on top is the one to look at; one that came below it is not
            if layer is (maps[-1] if layer_id(maps[-1]) not in known else current):
                self.list.setCurrentItem(item)
        self.list.blockSignals(blocked)
        if self.list.currentItem() is None and self.list.count():
            self.list.setCurrentRow(0)
        look.fit_rows(self.list, 1, 5)
        for widget in (self.list, self.controls):
            widget.setVisible(bool(maps))
        self.empty.setVisible(not maps)
        self._show_current()
        self._ticked()

    def _items(self) -> list[QListWidgetItem]:
        return [item for i in range(self.list.count()) if (item := self.list.item(i)) is not None]

    def _connect(self) -> None:
        viewer = self._session.viewer
        link(self, self._show_plots, self._session.shown_changed)
        self._show_plots()
        if viewer is not None:
            Reading(viewer, self)
            events = viewer.layers.events
            link(self, self.refresh, events.inserted, events.removed)
            link(self, self._follow, events.inserted)
            link(self, self._show_current, viewer.dims.events.current_step)
            for layer in viewer.layers:
                link(self, self.refresh, layer.events.name)
        self.refresh()

    def _follow(self, event: object) -> None:
        events = event.value.events  # type: ignore[attr-defined]
        link(self, self.refresh, events.name)
        if hasattr(events, "contrast_limits"):
            link(self, self._show_current, events.contrast_limits)

    def _looked_at(self, _item: object = None, _before: object = None) -> None:
        layer, viewer = self.current, self._session.viewer
        if layer is None or viewer is None or self.grid.on:
            return
        for other in viewer.layers:
            if results.is_map(other):
                other.visible = other is layer
        self._show_current()
        made = self._session.made.get(layer_id(layer))
        if made is not None:
            self._session.show(made)

    def _show_plots(self, _event: object = None) -> None:
        shown = self._session.shown
        self.plot.setVisible(shown is not None and bool(shown.tables or shown.figures))

    def _show_current(self, _event: object = None) -> None:
        layer = self.current
        if layer is None:
            return
        if self._session.shown is None:
            self._session.show(self._session.made.get(layer_id(layer)))
        mark = layer.metadata.get("seglens", {})
        kind, unit = mark.get("kind", "heat"), mark.get("unit", "")
        names = colours.SIGNED if kind == "signed" else colours.HEAT
        now = str(layer.colormap.name).removeprefix("seglens ")
        look.fill(self.colours, [(n, n) for n in names], now)
        low, high = layer.contrast_limits
        above, below = maps.sides(unit, str(mark.get("name", "")))
        meaning = f"positive {above}, negative {below}" if kind == "signed" else "bright counts more"
        viewer = self._session.viewer
        own = strip.caption(viewer, layer) if viewer is not None and strip.depths_of(layer) else mark.get("told", "")
        self.unit.setText(
            f"{own}{chr(10) if own else ''}{unit + ': ' if unit else ''}{meaning}; shown from {low:.3g} to {high:.3g}"
        )
        blocked = self.opacity.blockSignals(True)
        self.opacity.setValue(round(layer.opacity * 100))
        self.opacity.blockSignals(blocked)

    def _recolour(self, index: int) -> None:
        layer = self.current
        if layer is not None:
            kind = layer.metadata.get("seglens", {}).get("kind", "heat")
            name = str(self.colours.itemData(index))
            layer.colormap = colours.signed(name) if kind == "signed" else colours.heat(name)

    def _set_opacity(self, value: int) -> None:
        layer = self.current
        if layer is not None:
            layer.opacity = value / 100

    def _ticked(self, _item: object = None) -> None:
        self.compare.setText(words.COMPARE_STOP if self.grid.on else words.COMPARE)
        self.compare.setEnabled(self.grid.on or len(self.ticked) >= 2)

    def _compare(self) -> None:
        if self.grid.on:
            self.grid.leave()
        else:
            self.grid.enter(self.ticked)
        self._ticked()
