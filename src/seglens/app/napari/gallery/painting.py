"""How an item of the gallery looks: picture, colour of its class, name, activation."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from qtpy.QtCore import QModelIndex, QRect, QSize, Qt
from qtpy.QtGui import QColor, QFont, QPainter, QPalette, QPen
from qtpy.QtWidgets import QStyle, QStyledItemDelegate, QStyleOptionViewItem

from seglens.app.napari import colours
from seglens.app.napari.gallery import texts
from seglens.app.napari.gallery.thumbs import SIDE, Thumbs

EDGE = 5
STRIPE = 4
LINE = 15
BAR = 4
CELL = QSize(SIDE + 2 * EDGE, STRIPE + SIDE + LINE + BAR + 2 * EDGE + 2)
PALETTE = ("#4fc3f7", "#ffb74d", "#81c784", "#e57373", "#ba68c8", "#fff176", "#a1887f", "#f06292", "#90a4ae", "#4db6ac")
FAINT = 0.35
CHOSEN = "#448aff"


class Painter(QStyledItemDelegate):
    """Paints one item; asks for its thumbnail and paints again when it is there.

    Args:
        thumbs: the pictures.
        colour_of: the colour of a class.
        missing: sources of images that are not where they were.
        parent: the list.
    """

    def __init__(
        self,
        thumbs: Thumbs,
        colour_of: Callable[[str], str],
        missing: Callable[[], Collection[str]] = tuple,
        parent: Any = None,
    ) -> None:
        """Paints nothing by itself."""
        super().__init__(parent)
        self._thumbs, self._colour_of, self._missing = thumbs, colour_of, missing
        self.most = 1.0

    def sizeHint(self, _option: QStyleOptionViewItem, _index: QModelIndex) -> QSize:  # noqa: N802 - Qt's name
        """All items are of one size."""
        return CELL

    def paint(self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex) -> None:
        """Paint an item."""
        item = index.data(Qt.ItemDataRole.UserRole)
        if painter is None or item is None:
            return
        painter.save()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        rect, palette = option.rect, option.palette
        chosen = bool(option.state & QStyle.StateFlag.State_Selected)
        if chosen:
            self._frame(painter, rect)
        inner = rect.adjusted(EDGE, EDGE, -EDGE, -EDGE)
        gone = item.status != "kept"
        painter.setOpacity(FAINT if gone else 1.0)
        painter.fillRect(QRect(inner.left(), inner.top(), inner.width(), STRIPE), QColor(self._colour_of(item.label)))
        self._picture(painter, QRect(inner.left(), inner.top() + STRIPE, SIDE, SIDE), item, palette)
        painter.setOpacity(0.6 if gone else 1.0)
        line = QRect(inner.left(), inner.top() + STRIPE + SIDE + 1, inner.width(), LINE)
        self._words(painter, line, texts.caption(item), palette)
        self._bar(painter, QRect(inner.left(), line.bottom() + 1, inner.width(), BAR), item, palette)
        painter.setOpacity(1.0)
        if item.source and item.source in self._missing():
            self._badge(painter, QRect(inner.left(), inner.top() + STRIPE, SIDE, LINE))
        if option.state & QStyle.StateFlag.State_HasFocus:
            painter.setPen(QPen(palette.color(QPalette.ColorRole.Text), 1, Qt.PenStyle.DotLine))
            painter.drawRect(rect.adjusted(1, 1, -2, -2))
        painter.restore()

    def _frame(self, painter: QPainter, rect: QRect) -> None:
        ground = QColor(CHOSEN)
        ground.setAlpha(90)
        painter.fillRect(rect, ground)
        painter.setPen(QPen(QColor(CHOSEN), 2))
        painter.drawRect(rect.adjusted(1, 1, -1, -1))

    def _badge(self, painter: QPainter, place: QRect) -> None:
        """The image is not where it was; the picture is still here."""
        painter.fillRect(place, QColor(0, 0, 0, 150))
        painter.setPen(QColor(colours.AMBER))
        painter.drawText(place, int(Qt.AlignmentFlag.AlignCenter), texts.IMAGE_GONE)

    def _picture(self, painter: QPainter, place: QRect, item: Any, palette: QPalette) -> None:
        picture = self._thumbs.get(item.id)
        if picture is None:
            ink = palette.color(QPalette.ColorRole.Text)
            ink.setAlpha(28)
            painter.fillRect(place, ink)
            if self._thumbs.gone(item.id):
                self._words(painter, place, texts.NO_PICTURE, palette, middle=True)
            return
        left = place.left() + (place.width() - picture.width()) // 2
        painter.drawPixmap(left, place.top() + (place.height() - picture.height()) // 2, picture)

    def _words(
        self,
        painter: QPainter,
        place: QRect,
        told: str,
        palette: QPalette,
        *,
        middle: bool = False,
    ) -> None:
        font = QFont(painter.font())
        font.setPointSizeF(max(6.5, font.pointSizeF() * 0.85))
        painter.setFont(font)
        painter.setPen(palette.color(QPalette.ColorRole.Text))
        short = painter.fontMetrics().elidedText(told, Qt.TextElideMode.ElideMiddle, place.width())
        where = Qt.AlignmentFlag.AlignCenter if middle else Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        painter.drawText(place, int(where), short)

    def _bar(self, painter: QPainter, place: QRect, item: Any, palette: QPalette) -> None:
        if item.activity is None:
            return
        ground = palette.color(QPalette.ColorRole.Text)
        ground.setAlpha(40)
        painter.fillRect(place, ground)
        share = min(1.0, max(0.0, float(item.activity) / self.most)) if self.most > 0 else 0.0
        full = QRect(place.left(), place.top(), round(share * place.width()), place.height())
        painter.fillRect(full, QColor(colours.GREEN))


def colour_of(label: str, classes: list[str], known: dict[str, str]) -> str:
    """The colour of a class: the model's, else one of ten by its place."""
    told = known.get(label, "")
    # the colour of a background is often clear, and a clear stripe tells nothing
    if told and not (len(told) == 9 and told.endswith("00")):
        return told
    if told:
        return colours.GREY
    return PALETTE[classes.index(label) % len(PALETTE)] if label in classes else colours.GREY
