"""The thumbnails: a list that scrolls through ten thousand, with the keyboard or the mouse."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QItemSelection, QItemSelectionModel, QModelIndex, QPoint, Qt, QTimer, Signal
from qtpy.QtGui import QKeyEvent, QMouseEvent
from qtpy.QtWidgets import QAbstractItemView, QApplication, QFrame, QListView, QWidget

from seglens.app.napari.gallery.items import PAGE, Items
from seglens.app.napari.gallery.painting import CELL, Painter
from seglens.app.napari.gallery.state import GalleryState
from seglens.app.napari.gallery.thumbs import Thumbs
from seglens.app.napari.links import link

_KEYS = {
    Qt.Key.Key_K: "keep",
    Qt.Key.Key_Delete: "drop",
    Qt.Key.Key_Backspace: "drop",
    Qt.Key.Key_D: "drop",
    Qt.Key.Key_M: "merge",
    Qt.Key.Key_L: "relabel",
    Qt.Key.Key_A: "add",
    Qt.Key.Key_W: "why",
    Qt.Key.Key_Return: "jump",
    Qt.Key.Key_Enter: "jump",
    Qt.Key.Key_Space: "map",
    Qt.Key.Key_Slash: "search",
}
_SHIFTED = {Qt.Key.Key_Z: "undo", Qt.Key.Key_Y: "redo"}


class Wall(QListView):
    """The items as thumbnails.

    Args:
        state: what is shown; follows its selection, and tells it.
        thumbs: the pictures.
        painter: how an item looks.
    """

    asked = Signal(str)  # a verb, by its key
    jumped = Signal(object)  # one click on an item
    fired = Signal(object)  # a double click

    def __init__(self, state: GalleryState, thumbs: Thumbs, painter: Painter, parent: QWidget | None = None) -> None:
        """One size for all items, so that none has to be read to lay them out."""
        super().__init__(parent)
        self.setObjectName("gallery")
        self._state = state
        self.items = Items(state, self)
        self.setModel(self.items)
        self.setItemDelegate(painter)
        painter.setParent(self)
        self.setViewMode(QListView.ViewMode.IconMode)
        self.setMovement(QListView.Movement.Static)
        self.setResizeMode(QListView.ResizeMode.Adjust)
        self.setUniformItemSizes(True)
        self.setGridSize(CELL)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumHeight(CELL.height() + 4)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        bar = self.verticalScrollBar()
        if bar is not None:
            bar.setSingleStep(CELL.height() // 3)
        self.near: Callable[[Any], bool] = lambda item: False  # whether an item is in the image that is looked at
        self._quiet = False
        self._waiting: Any = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._jump)
        thumbs.ready.connect(self._pictures_came)
        self.doubleClicked.connect(self._double)
        chooser = self.selectionModel()
        if chooser is not None:
            chooser.selectionChanged.connect(self._selected)
        link(self, self._follow, state.selection_changed)

    @property
    def current(self) -> Any:
        """The item with the keyboard's frame: what was clicked last."""
        return self.items.item(self.currentIndex().row())

    @property
    def chosen(self) -> list[Any]:
        """The selected items from top to bottom."""
        chooser = self.selectionModel()
        rows = sorted(index.row() for index in chooser.selectedIndexes()) if chooser is not None else []
        return [item for row in rows if (item := self.items.item(row)) is not None]

    def refresh(self) -> None:
        """Read anew; what was selected stays selected if it is still near, and the place in the list stays."""
        keys, row = {item.id for item in self.chosen}, self.currentIndex().row()
        key = getattr(self.current, "id", None)
        bar = self.verticalScrollBar()
        at = bar.value() if bar is not None else 0
        self._quiet = True
        self.items.refresh()
        count = self.items.rowCount()
        around = max(row, 0)
        near = range(max(0, around - PAGE), min(count, around + PAGE)) if keys or row >= 0 else range(0)
        here = {item.id: n for n in near if (item := self.items.item(n)) is not None}
        self._choose([here[k] for k in keys if k in here])
        if row >= 0 and count:
            index = self.items.index(here.get(key, min(row, count - 1)), 0)
            chooser = self.selectionModel()
            if chooser is not None:
                chooser.setCurrentIndex(index, QItemSelectionModel.SelectionFlag.NoUpdate)
        self._quiet = False
        self.doItemsLayout()
        if bar is not None:
            bar.setValue(at)
        self._tell()

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 - Qt's name
        """Keys of the gallery; arrows, pages, Home, End and Ctrl+A are Qt's; other letters belong to napari."""
        if event is None:
            return
        held = event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        key = Qt.Key(event.key())
        if held == Qt.KeyboardModifier.NoModifier and key in _KEYS:
            verb = _KEYS[key]
        elif held == Qt.KeyboardModifier.ShiftModifier and key in _SHIFTED:
            verb = _SHIFTED[key]
        elif key == Qt.Key.Key_Escape and self._state_selected():
            self.clearSelection()
            return
        elif event.text().isalnum() and held in (Qt.KeyboardModifier.NoModifier, Qt.KeyboardModifier.ShiftModifier):
            event.ignore()
            return
        else:
            super().keyPressEvent(event)
            return
        current = self.current
        if verb in ("jump", "map"):
            if current is not None:
                (self.jumped if verb == "jump" else self.fired).emit(current)
        else:
            self.asked.emit(verb)

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 - Qt's name
        """A plain click goes to the item's place; with Shift or Ctrl it only selects."""
        super().mouseReleaseEvent(event)
        if event is None or event.button() != Qt.MouseButton.LeftButton or event.modifiers():
            return
        item = self._item_at(event.position().toPoint())
        chooser = self.selectionModel()
        if item is None or chooser is None or len(chooser.selectedIndexes()) != 1 or self._waiting is Ellipsis:
            self._waiting = None
            return
        self._waiting = item
        self._timer.start(self.patience(item))

    def patience(self, item: Any) -> int:
        """Milliseconds until a click counts as one, so that a double click does not open an image first."""
        return 0 if self.near(item) else int(QApplication.doubleClickInterval())

    def _item_at(self, point: QPoint) -> Any:
        index = self.indexAt(point)
        return self.items.item(index.row()) if index.isValid() else None

    def _jump(self) -> None:
        item, self._waiting = self._waiting, None
        if item is not None and item is not Ellipsis:
            self.jumped.emit(item)

    def _double(self, index: QModelIndex) -> None:
        self._timer.stop()
        # the release that follows is part of the double click
        self._waiting = Ellipsis
        item = self.items.item(index.row())
        if item is not None:
            self.fired.emit(item)

    def _state_selected(self) -> bool:
        return bool(self._state.selected or self._state.selected_rows)

    def _selected(self, *_: object) -> None:
        if not self._quiet:
            self._tell()

    def _tell(self) -> None:
        self._quiet = True
        self._state.select([item.id for item in self.chosen])
        self._quiet = False

    def _follow(self) -> None:
        """Somebody else selected: show it."""
        if self._quiet:
            return
        state = self._state
        keys = set(state.selected if state.gallery is not None else state.selected_rows)
        if keys == {item.id for item in self.chosen}:
            return
        self._quiet = True
        rows = self.items.rows_of(keys)
        self._choose(rows)
        if rows:
            self.scrollTo(self.items.index(rows[0], 0))
        self._quiet = False

    def _choose(self, rows: list[int]) -> None:
        chooser = self.selectionModel()
        if chooser is None:
            return
        marked = QItemSelection()
        for row in rows:
            index = self.items.index(row, 0)
            marked.select(index, index)
        chooser.select(marked, QItemSelectionModel.SelectionFlag.ClearAndSelect)

    def _pictures_came(self) -> None:
        viewport = self.viewport()
        if viewport is not None:
            viewport.update()
