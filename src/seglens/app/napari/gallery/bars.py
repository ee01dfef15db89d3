"""Who explains how much of the image, as a bar, and whether items come from that very image, as a badge."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Callable, Sequence

from qtpy.QtCore import QEvent, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QHelpEvent, QMouseEvent, QPainter, QPaintEvent, QPalette
from qtpy.QtWidgets import QLabel, QSizePolicy, QToolTip, QWidget

from seglens.app.napari import colours, look
from seglens.app.napari.gallery import texts
from seglens.app.napari.gallery.work import Part

LEAST = 0.004  # smaller shares are put together


class Coverage(QWidget):
    """A bar of the shares; a click on one selects its item.

    Args:
        colour_of: the colour of a class.
    """

    clicked = Signal(int)

    def __init__(self, colour_of: Callable[[str], str]) -> None:
        """Empty at first."""
        super().__init__()
        self.setObjectName("coverage")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMouseTracking(True)
        self._colour_of = colour_of
        self.parts: list[tuple[float, str, str, int | None]] = []  # share, colour, what to tell, item
        self.why_empty = texts.COVERAGE_EMPTY

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """A slim line."""
        return QSize(200, 16)

    def show_parts(self, parts: Sequence[Part], image: str, why_empty: str = "") -> None:
        """Show shares.

        Args:
            parts: largest first, nobody's last.
            image: its name.
            why_empty: why there are none.
        """
        self.parts = told(parts, image, self._colour_of)
        self.why_empty = why_empty or texts.COVERAGE_EMPTY
        self.setAccessibleName("\n".join(words for _, _, words, _ in self.parts) or self.why_empty)
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:  # noqa: N802 - Qt's name
        """Paint the bar, or say why there is none."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().color(QPalette.ColorRole.Text)
        if not self.parts:
            ink.setAlpha(160)
            painter.setPen(ink)
            short = painter.fontMetrics().elidedText(self.why_empty, Qt.TextElideMode.ElideRight, self.width())
            painter.drawText(self.rect(), int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft), short)
            return
        left = 0.0
        for share, colour, _, _ in self.parts:
            width = share * self.width()
            painter.fillRect(QRectF(left, 2, max(1.0, width - 1), self.height() - 4), QColor(colour))
            left += width

    def event(self, event: QEvent | None) -> bool:
        """The share under the pointer as a tooltip."""
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            part = self._part(event.pos().x())
            QToolTip.showText(event.globalPos(), self.why_empty if part is None else part[2], self)
            return True
        return bool(super().event(event))

    def mousePressEvent(self, event: QMouseEvent | None) -> None:  # noqa: N802 - Qt's name
        """Select the item of a share."""
        part = None if event is None else self._part(event.position().toPoint().x())
        if part is not None and part[3] is not None:
            self.clicked.emit(part[3])

    def _part(self, x: int) -> tuple[float, str, str, int | None] | None:
        left = 0.0
        for part in self.parts:
            left += part[0] * self.width()
            if x < left:
                return part
        return None


def told(
    parts: Sequence[Part], image: str, colour_of: Callable[[str], str]
) -> list[tuple[float, str, str, int | None]]:
    """Shares as what is painted and told: each class in its colour, neighbours of one class in turn lighter."""
    out: list[tuple[float, str, str, int | None]] = []
    small = [part for part in parts if part.item is not None and part.share < LEAST]
    for number, part in enumerate(x for x in parts if x.item is not None and x.share >= LEAST):
        colour = QColor(colour_of(part.label)).lighter(100 + 18 * (number % 3)).name()
        words = texts.COVERAGE_PART.format(share=100 * part.share, image=image, item=part.item, label=part.label)
        out.append((part.share, colour, words, part.item))
    if small:
        share = sum(part.share for part in small)
        out.append((share, colours.GREY, texts.COVERAGE_REST.format(share=100 * share, count=len(small)), None))
    rest = sum(part.share for part in parts if part.item is None)
    if rest:
        out.append((rest, "#455a64", texts.COVERAGE_NONE.format(share=100 * rest), None))
    return out


class Leak(QLabel):
    """A badge: whether items come from the image that is looked at."""

    def __init__(self) -> None:
        """Hidden until something is known."""
        super().__init__()
        self.setObjectName("leak")
        self.hide()

    def show_count(self, count: int | None) -> None:
        """Say how many items leak; ``None`` hides."""
        self.setVisible(count is not None)
        if count is not None:
            look.pill(self, texts.LEAK.format(count=count) if count else texts.NO_LEAK, "warning" if count else "good")
            self.setToolTip(texts.LEAK_HINT.format(count=count) if count else texts.NO_LEAK_HINT)
