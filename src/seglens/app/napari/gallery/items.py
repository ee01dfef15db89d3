"""What is shown as a list that Qt can scroll: rows are counted, and only the pages that are seen are read."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections import OrderedDict
from typing import Any

from qtpy.QtCore import QAbstractListModel, QModelIndex, QObject, Qt

from seglens.app.napari.gallery import texts
from seglens.app.napari.gallery.state import GalleryState

PAGE = 200  # items that are read at once
PAGES = 24  # pages that are kept
_NOWHERE = QModelIndex()


class Items(QAbstractListModel):
    """The items of a shelf under the present filter and order.

    Args:
        state: what is shown.
        parent: the list.
    """

    def __init__(self, state: GalleryState, parent: QObject | None = None) -> None:
        """Counted at once, read when seen."""
        super().__init__(parent)
        self._state = state
        self._count = 0
        self._pages: OrderedDict[int, list[Any]] = OrderedDict()

    def refresh(self) -> None:
        """Count and read anew."""
        self.beginResetModel()
        self._pages.clear()
        shelf = self._state.shelf
        self._count = 0 if shelf is None else shelf.count(self._state.wanted)
        self.endResetModel()

    def item(self, row: int) -> Any:
        """The item of a row; ``None`` if there is none."""
        shelf = self._state.shelf
        if shelf is None or not 0 <= row < self._count:
            return None
        number, place = divmod(row, PAGE)
        if number not in self._pages:
            self._pages[number] = shelf.page(self._state.wanted, number * PAGE, PAGE)
            while len(self._pages) > PAGES:
                self._pages.popitem(last=False)
        page = self._pages[number]
        # another process may have dropped some since they were counted
        return page[place] if place < len(page) else None

    @property
    def read(self) -> int:
        """How many items are in memory."""
        return sum(map(len, self._pages.values()))

    def rows_of(self, keys: set[int]) -> list[int]:
        """The rows of some items; reads on only until all are found."""
        found: list[int] = []
        for row in range(self._count):
            if len(found) == len(keys):
                break
            item = self.item(row)
            if item is not None and item.id in keys:
                found.append(row)
        return found

    def rowCount(self, parent: QModelIndex = _NOWHERE) -> int:  # noqa: N802 - Qt's name
        """As Qt asks."""
        return 0 if parent.isValid() else self._count

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """The item itself for the painter; words for tooltips and screen readers."""
        if role == Qt.ItemDataRole.UserRole:
            return self.item(index.row())
        if role in (Qt.ItemDataRole.ToolTipRole, Qt.ItemDataRole.AccessibleTextRole):
            item = self.item(index.row())
            return "" if item is None else texts.about(item)
        return None
