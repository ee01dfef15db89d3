"""Tables of an answer: sorted by a click, copied and saved with all their digits."""

# mypy: allow-subclassing-any
from __future__ import annotations

import csv
import io
import math
from numbers import Integral, Real
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from seglens.core.explanation import Figure, Table

_NOWHERE = QModelIndex()


class TableModel(QAbstractTableModel):
    """A table as Qt sees it; sorting changes the order that is shown, never the table.

    Args:
        table: what to show.
    """

    def __init__(self, table: Table) -> None:
        """As it came."""
        super().__init__()
        self.table = table
        self._columns = list(table.columns.values())
        self.order = list(range(len(self._columns[0]) if self._columns else 0))

    def row(self, number: int) -> dict[str, Any]:
        """The values of a shown row by column."""
        at = self.order[number]
        return {name: values[at] for name, values in self.table.columns.items()}

    def rowCount(self, parent: QModelIndex = _NOWHERE) -> int:  # noqa: N802 - Qt's name
        """As Qt asks."""
        return 0 if parent.isValid() else len(self.order)

    def columnCount(self, parent: QModelIndex = _NOWHERE) -> int:  # noqa: N802 - Qt's name
        """As Qt asks."""
        return 0 if parent.isValid() else len(self._columns)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """A value as text; numbers stand at the right."""
        value = self._columns[index.column()][self.order[index.row()]]
        if role == Qt.ItemDataRole.DisplayRole:
            return told(value)
        if role == Qt.ItemDataRole.TextAlignmentRole and isinstance(value, Real):
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None

    def headerData(  # noqa: N802 - Qt's name
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Names of columns."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return list(self.table.columns)[section]
        return None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """By the values themselves, not by their text; gaps come last in either direction."""
        if not 0 <= column < len(self._columns):
            return
        values = self._columns[column]
        here = [n for n in range(len(values)) if not _missing(values[n])]
        here.sort(key=lambda n: _key(values[n]), reverse=order == Qt.SortOrder.DescendingOrder)
        self.layoutAboutToBeChanged.emit()
        self.order = here + [n for n in range(len(values)) if _missing(values[n])]
        self.layoutChanged.emit()


class TableView(QTableView):
    """A table to read and click.

    Args:
        table: what to show.
    """

    def __init__(self, table: Table) -> None:
        """Rows are chosen as a whole, and nothing can be edited."""
        super().__init__()
        self.rows = TableModel(table)
        self.setModel(self.rows)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        head, side = self.horizontalHeader(), self.verticalHeader()
        if head is not None and side is not None:
            # no column is the sorted one before somebody clicks
            head.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
            head.setSectionResizeMode(QHeaderView.ResizeMode.Interactive)
            head.setResizeContentsPrecision(50)
            side.setVisible(False)
            side.setDefaultSectionSize(22)
        self.setSortingEnabled(True)
        self.resizeColumnsToContents()

    def as_text(self, separator: str = "\t") -> str:
        """The whole table in the order shown."""
        return as_text(self.rows.table, separator, self.rows.order)


def as_text(table: Table, separator: str = "\t", order: list[int] | None = None) -> str:
    """A table as text with a header line and all digits."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator="\n")
    writer.writerow(table.columns)
    rows = list(zip(*table.columns.values(), strict=True))
    writer.writerows(rows[n] for n in (range(len(rows)) if order is None else order))
    return out.getvalue()


def as_table(figure: Figure) -> Table:
    """The data of a figure as a table."""
    return Table(figure.name, {figure.x_label or "x": figure.x, **figure.series})


def told(value: Any) -> str:
    """A value as a person reads it."""
    if _missing(value):
        return "–"
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    if isinstance(value, Real) and not isinstance(value, Integral):
        return f"{float(value):.4g}"
    return str(value)


def _missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _key(value: Any) -> tuple[int, float, str]:
    # a column may hold numbers and words; numbers come first
    return (0, float(value), "") if isinstance(value, Real) else (1, 0.0, str(value).lower())
