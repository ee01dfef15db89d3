"""Small building blocks of the panels, so that all of them look alike."""

# mypy: allow-subclassing-any
from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap, QResizeEvent
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QCheckBox,
    QComboBox,
    QFormLayout,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLayout,
    QListWidget,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStyle,
    QStyleOptionButton,
    QStyleOptionComboBox,
    QStylePainter,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from seglens.app.napari import colours
from seglens.app.napari.links import link

MARGIN, GAP = 8, 6
_LEVELS = {"note": colours.GREY, "warning": colours.AMBER, "error": colours.RED}


class NoWheel(QObject):
    """Keeps the wheel for scrolling: a box changes only after it was clicked."""

    def eventFilter(self, thing: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Swallow the wheel over boxes without focus."""
        wheel = event is not None and event.type() == QEvent.Type.Wheel
        if wheel and isinstance(thing, QWidget) and not thing.hasFocus():
            event.ignore()  # type: ignore[union-attr]
            return True
        return False


class Shorten(QObject):
    """Ends the text of boxes with an ellipsis where there is no room for all of it: Qt cuts letters in two."""

    def eventFilter(self, thing: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Paint a box whose text does not fit."""
        painted = event is not None and event.type() == QEvent.Type.Paint
        return painted and isinstance(thing, QComboBox | QCheckBox) and self._paint(thing)

    def _paint(self, box: QComboBox | QCheckBox) -> bool:
        style = box.style()
        if style is None:
            return False
        option: Any
        if isinstance(box, QComboBox):
            option, text = QStyleOptionComboBox(), "currentText"
            box.initStyleOption(option)
            place = QStyle.SubControl.SC_ComboBoxEditField
            room = style.subControlRect(QStyle.ComplexControl.CC_ComboBox, option, place, box).width() - 2
        else:
            option, text = QStyleOptionButton(), "text"
            box.initStyleOption(option)
            room = style.subElementRect(QStyle.SubElement.SE_CheckBoxContents, option, box).width()
        whole = getattr(option, text)
        told = option.fontMetrics.elidedText(whole, Qt.TextElideMode.ElideRight, room)
        if told == whole:
            return False
        setattr(option, text, told)
        painter = QStylePainter(box)
        if isinstance(box, QComboBox):
            painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
            painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)
        else:
            painter.drawControl(QStyle.ControlElement.CE_CheckBox, option)
        return True


def calm(widget: QWidget) -> None:
    """Protect all boxes inside a widget from the wheel, and let them and their texts shrink to the dock."""
    guard = NoWheel(widget)
    for box in [*widget.findChildren(QAbstractSpinBox), *widget.findChildren(QComboBox)]:
        box.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        box.installEventFilter(guard)
    shorten = Shorten(widget)
    for one in [*widget.findChildren(QComboBox), *widget.findChildren(QCheckBox)]:
        one.installEventFilter(shorten)


def combo(tooltip: str = "") -> QComboBox:
    """A combo box that never forces the dock to be wider."""
    box = QComboBox()
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    box.setToolTip(tooltip)
    return box


def text(sentence: str = "", *, muted: bool = False, name: str = "") -> QLabel:
    """A label that wraps."""
    label = QLabel(sentence)
    label.setWordWrap(True)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    label.setObjectName(name)
    if muted:
        tone(label, "muted")
    return label


def tone(label: QLabel, name: str) -> None:
    """Say what a text is (``muted``, ``good``, ``warning`` or nothing); the theme gives the colour."""
    if label.property("tone") == name:
        return
    label.setProperty("tone", name)
    style = label.style()
    if style is not None:
        style.unpolish(label)
        style.polish(label)


class Dress(QObject):
    """Gives texts in a widget, however deep, the colours that can be read on the viewer's theme.

    Args:
        widget: what is dressed; its end is the end of this.
        viewer: whose theme; held weakly, as everything of a viewer is.
    """

    def __init__(self, widget: QWidget, viewer: Any) -> None:
        """Dress it now, and whenever the theme changes."""
        super().__init__(widget)
        self._widget, self._viewer = widget, weakref.ref(viewer)
        link(self, self.dress, viewer.events.theme)
        self.dress()

    def dress(self, _event: object = None) -> None:
        """Put on the colours of the theme that is on."""
        viewer = self._viewer()
        if viewer is not None:
            ground = get_theme(viewer.theme).background.as_rgb_tuple()[:3]
            self._widget.setStyleSheet(sheet("light" if sum(ground) > 3 * 127 else "dark"))


def sheet(ground: str) -> str:
    """The style of texts and badges on a ``dark`` or ``light`` ground."""
    hint = colours.TONES[ground]["muted"]
    return f"QLineEdit {{ placeholder-text-color: {hint}; }}" + "".join(
        f'QLabel[tone="{name}"] {{ color: {colour}; }}'
        f'QLabel[badge="true"][tone="{name}"] {{ border: 1px solid {colour}; border-radius: 8px; padding: 0 7px; }}'
        for name, colour in colours.TONES[ground].items()
    )


def align(*forms: QFormLayout) -> None:
    """Let the fields of several forms begin at one line."""
    role = QFormLayout.ItemRole.LabelRole
    items = [form.itemAt(row, role) for form in forms for row in range(form.rowCount())]
    labels = [label for item in items if item is not None and (label := item.widget()) is not None]
    width = max((label.sizeHint().width() for label in labels), default=0)
    for label in labels:
        label.setMinimumWidth(width)


def heading(title: str) -> QLabel:
    """The title of a section."""
    label = QLabel(title)
    label.setStyleSheet("QLabel { font-weight: bold; padding-top: 4px; }")
    return label


def column(parent: QWidget | None = None, *, margin: int = 0, gap: int = GAP) -> QVBoxLayout:
    """A vertical layout."""
    layout = QVBoxLayout(parent)
    layout.setContentsMargins(margin, margin, margin, margin)
    layout.setSpacing(gap)
    return layout


def row(*things: QWidget | None, gap: int = GAP) -> QWidget:
    """Widgets side by side; ``None`` stretches."""
    holder = QWidget()
    # a plain QWidget would paint its own background over a card's or a banner's
    holder.setObjectName("row")
    holder.setStyleSheet("QWidget#row { background: transparent; }")
    layout = QHBoxLayout(holder)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(gap)
    for thing in things:
        if thing is None:
            layout.addStretch(1)
        else:
            layout.addWidget(thing)
    return holder


def tool(label: str, tooltip: str, name: str = "") -> QToolButton:
    """A small square button."""
    button = QToolButton()
    button.setText(label)
    button.setToolTip(tooltip)
    button.setAccessibleName(tooltip)
    button.setObjectName(name)
    button.setAutoRaise(True)
    button.setFixedSize(26, 26)
    return button


def main_button() -> QPushButton:
    """The one button that starts and cancels, called ``run``."""
    button = QPushButton()
    button.setObjectName("run")
    button.setMinimumHeight(32)
    button.setStyleSheet(
        "QPushButton#run:enabled { background: palette(highlight); color: white; font-weight: bold; }"
        "QPushButton#run:enabled:hover { border: 1px solid white; }"
    )
    return button


class Page(QScrollArea):
    """A page that scrolls up and down only: its content is never wider than what is seen."""

    def __init__(self, content: QWidget) -> None:
        """Hold the content."""
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(content)

    def resizeEvent(self, event: QResizeEvent | None) -> None:  # noqa: N802 - Qt's name
        """Keep the content as wide as the page."""
        content, viewport = self.widget(), self.viewport()
        if content is not None and viewport is not None:
            content.setMaximumWidth(viewport.width())
        super().resizeEvent(event)


class Fold(QWidget):
    """A line that opens what is seldom needed."""

    def __init__(self, title: str, body: QWidget) -> None:
        """Closed at first."""
        super().__init__()
        self.body = body
        self.button = QToolButton()
        self.button.setCheckable(True)
        self.button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.button.setArrowType(Qt.ArrowType.RightArrow)
        self.button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.button.setStyleSheet("QToolButton { border: none; background: transparent; text-align: left; }")
        self.button.toggled.connect(self._toggled)
        layout = column(self, gap=4)
        layout.addWidget(self.button)
        layout.addWidget(body)
        body.hide()
        self.set_title(title)

    def set_title(self, title: str) -> None:
        """Say what is folded away."""
        self.button.setText(title)

    def _toggled(self, opened: bool) -> None:
        self.button.setArrowType(Qt.ArrowType.DownArrow if opened else Qt.ArrowType.RightArrow)
        self.body.setVisible(opened)


def dot(colour: str) -> QIcon:
    """A round swatch."""
    return QIcon(dot_map(colour))


def dot_map(colour: str) -> QPixmap:
    """A round swatch as a picture; clear colours become a ring."""
    pixmap = QPixmap(12, 12)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    clear = len(colour) == 9 and colour.endswith("00")
    painter.setPen(QColor(colours.GREY))
    painter.setBrush(QColor(0, 0, 0, 0) if clear else QColor(colour[:7]))
    painter.drawEllipse(1, 1, 10, 10)
    painter.end()
    return pixmap


def pill(label: QLabel, sentence: str, name: str) -> None:
    """A label as a badge in the colour of a tone."""
    label.setText(sentence)
    label.setProperty("badge", "true")
    tone(label, name)


def banner_style(level: str) -> str:
    """The frame of a message of some level."""
    colour = _LEVELS.get(level, colours.GREY)
    return (
        f"QFrame#banner {{ border-left: 3px solid {colour}; background: rgba(128, 128, 128, 40); }}"
        "QFrame#banner > QLabel, QFrame#banner QLabel { background: transparent; }"
    )


def breakable(sentence: str, longest: int = 20) -> str:
    """A sentence whose long words (paths, fingerprints) may be broken at the edge of the dock."""
    pieces = [
        w if len(w) <= longest else "\u200b".join(w[i : i + 8] for i in range(0, len(w), 8))
        for w in sentence.split(" ")
    ]
    return " ".join(pieces)


def fit_rows(box: QListWidget, least: int, most: int) -> None:
    """Make a list as high as its rows, within limits."""
    height = max(16, box.sizeHintForRow(0)) if box.count() else 18
    box.setFixedHeight(min(most, max(least, box.count())) * height + 8)


def clear(layout: QLayout) -> None:
    """Remove everything from a layout."""
    while layout.count():
        item: Any = layout.takeAt(0)
        widget = item.widget()
        if widget is not None:
            widget.setParent(None)
            widget.deleteLater()
        elif item.layout() is not None:
            clear(item.layout())


def fill(box: QComboBox, items: Iterable[tuple[str, Any]], current: Any) -> None:
    """Set the entries of a combo box without telling anybody, and keep the choice if it is still there."""
    blocked = box.blockSignals(True)
    box.clear()
    for label, data in items:
        box.addItem(label, data)
    index = box.findData(current)
    box.setCurrentIndex(max(0, index))
    box.blockSignals(blocked)
