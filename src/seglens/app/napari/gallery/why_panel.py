"""What made a pixel of its class, as a table that adds up: picture, similarity, weight, product, and their sum."""

# mypy: allow-subclassing-any
from __future__ import annotations

from qtpy.QtCore import QModelIndex, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from seglens.app.napari import colours, look
from seglens.app.napari.gallery import texts
from seglens.app.napari.gallery.thumbs import pixmap_of
from seglens.app.napari.gallery.work import Why, WhyRow

PICTURE = 30
MOST = 12  # rows; what the others bring stands together in one
FOR, AGAINST = colours.GREEN, colours.RED


class WhyPanel(QWidget):
    """The ranked shares of the prototypes at one pixel."""

    closed = Signal()
    chosen = Signal(int)  # an item

    def __init__(self) -> None:
        """Empty until a pixel is clicked."""
        super().__init__()
        self.setObjectName("why")
        self.setMinimumWidth(380)
        self.title = look.heading("")
        self.close_button = look.tool("✕", texts.CLOSE_PANEL, "close why")
        self.close_button.clicked.connect(self.closed)
        self.hint = look.text(texts.CLICK_PIXEL, muted=True)
        self.table = _table()
        self.table.itemSelectionChanged.connect(self._selected)
        self.why: Why | None = None
        self._items: list[int | None] = []
        layout = look.column(self, gap=2)
        layout.addWidget(look.row(self.title, None, self.close_button))
        layout.addWidget(self.hint)
        layout.addWidget(self.table, 1)
        self.show_why(None)

    def show_why(self, why: Why | None) -> None:
        """Show what made a pixel; ``None`` asks for a click."""
        self.why = why
        self.table.setVisible(why is not None)
        self.title.setText(
            "" if why is None else texts.WHY_TITLE.format(label=why.label, where=_at(why.position), total=why.total)
        )
        self.hint.setVisible(why is None)
        self.title.setToolTip("" if why is None else texts.WHY_TOLD.format(label=why.label))
        self.table.setToolTip(self.title.toolTip())
        if why is None:
            return
        shown, rest = why.rows[:MOST], why.rows[MOST:]
        most = max((abs(row.product) for row in why.rows), default=1.0) or 1.0
        blocked = self.table.blockSignals(True)
        self.table.clearSpans()
        self.table.setRowCount(len(shown) + bool(rest) + 1)
        self._items = [row.item for row in shown]
        for number, row in enumerate(shown):
            self._fill(number, row, most)
        if rest:
            self._plain(len(shown), texts.WHY_MORE.format(count=len(rest)), sum(row.product for row in rest), most)
        self._plain(self.table.rowCount() - 1, texts.WHY_SUM.format(label=why.label), why.total, None)
        self.table.clearSelection()
        self.table.scrollToTop()
        self.table.blockSignals(blocked)

    def _fill(self, at: int, row: WhyRow, most: float) -> None:
        name = QTableWidgetItem(f"P{row.number}")
        if row.crop is not None and row.crop.size:
            name.setIcon(QIcon(_square(pixmap_of(row.crop, PICTURE))))
        self.table.setItem(at, 0, name)
        self.table.setItem(at, 1, QTableWidgetItem(row.label))
        for column, value in enumerate((row.similarity, row.weight), start=2):
            self.table.setItem(at, column, _number(value))
        self._product(at, row.product, most)

    def _plain(self, at: int, told: str, product: float, most: float | None) -> None:
        for column in range(4):
            item = QTableWidgetItem(told if column == 0 else "")
            font = item.font()
            font.setBold(most is None)
            item.setFont(font)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled)
            self.table.setItem(at, column, item)
        self.table.setSpan(at, 0, 1, 4)
        self._product(at, product, most)

    def _product(self, at: int, product: float, most: float | None) -> None:
        item = _number(product, sign=True)
        if most is None:
            font = item.font()
            font.setBold(True)
            item.setFont(font)
        else:
            item.setData(Qt.ItemDataRole.UserRole, product / most)
        self.table.setItem(at, 4, item)

    def _selected(self) -> None:
        rows = {index.row() for index in self.table.selectedIndexes()}
        for row in rows:
            item = self._items[row] if row < len(self._items) else None
            if item is not None:
                self.chosen.emit(item)


class _Bar(QStyledItemDelegate):
    """A bar behind a number, as long as its share of the largest: green speaks for the class, red against."""

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Paint the bar, then the number."""
        share = index.data(Qt.ItemDataRole.UserRole)
        if painter is not None and share is not None:
            colour = QColor(FOR if share >= 0 else AGAINST)
            colour.setAlphaF(0.55)
            place = QRectF(option.rect).adjusted(1, 3, -1, -3)
            place.setWidth(min(1.0, abs(float(share))) * place.width())
            painter.fillRect(place, colour)
        super().paint(painter, option, index)


def _table() -> QTableWidget:
    table = QTableWidget(0, len(texts.WHY_COLUMNS))
    table.setObjectName("why table")
    table.setHorizontalHeaderLabels(list(texts.WHY_COLUMNS))
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setIconSize(QSize(PICTURE, PICTURE))
    table.setShowGrid(False)
    head, side = table.horizontalHeader(), table.verticalHeader()
    if head is not None and side is not None:
        head.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        head.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        side.setVisible(False)
        side.setDefaultSectionSize(PICTURE + 4)
    table.setItemDelegateForColumn(4, _Bar(table))
    return table


def _square(picture: QPixmap) -> QPixmap:
    """In the middle of a square, so that all names begin at one line."""
    square = QPixmap(PICTURE, PICTURE)
    square.fill(Qt.GlobalColor.transparent)
    painter = QPainter(square)
    painter.drawPixmap((PICTURE - picture.width()) // 2, (PICTURE - picture.height()) // 2, picture)
    painter.end()
    return square


def _number(value: float, *, sign: bool = False) -> QTableWidgetItem:
    item = QTableWidgetItem(f"{value:+.2f}" if sign else f"{value:.2f}")
    item.setTextAlignment(int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter))
    return item


def _title(why: Why) -> str:
    return texts.WHY_TITLE.format(label=why.label, where=_at(why.position), total=why.total)


def _at(position: tuple[int, ...]) -> str:
    names = "zyx"[-len(position) :]
    return ", ".join(f"{name} {n}" for name, n in zip(names, position, strict=True))
