"""The two rows above the thumbnails: what is shown, and what can be done with it."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt, QTimer, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QComboBox, QLineEdit, QMenu, QPushButton, QSizePolicy, QToolButton, QWidget

from seglens.app.napari import look
from seglens.app.napari.gallery import texts
from seglens.app.napari.gallery.state import GalleryState
from seglens.app.napari.links import link

TYPING = 200  # milliseconds after the last letter before the search begins


class Lazy(QComboBox):
    """A box whose entries are looked up when it is opened.

    Args:
        fill: sets the entries.
    """

    def __init__(self, fill: Callable[[], None]) -> None:
        """As narrow as the others."""
        super().__init__()
        self._fill = fill
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def showPopup(self) -> None:  # noqa: N802 - Qt's name
        """Look them up, then open."""
        self._fill()
        super().showPopup()


class Filters(QWidget):
    """The menu of galleries, and which items are shown in which order.

    Args:
        state: what is shown.
    """

    chosen = Signal(str)  # an entry of the menu
    left = Signal()  # the keyboard goes back to the thumbnails

    def __init__(self, state: GalleryState) -> None:
        """Follow the state."""
        super().__init__()
        self._state = state
        self.menu_button = _menu_button()
        self.entries = {key: self._entry(key) for key in texts.MENU}
        self.classes = self._box("gallery class", texts.CLASS_HINT, "label")
        self.images = self._box("gallery image", texts.IMAGE_HINT, "image", Lazy(self._list_images))
        self.status = self._box("gallery status", texts.STATUS_HINT, "status")
        self.order = self._box("gallery order", texts.ORDER_HINT, "order")
        self.turn = look.tool("↑", texts.TURN_HINT, "gallery turn")
        self.turn.setCheckable(True)
        self.turn.toggled.connect(self._turned)
        self.search = QLineEdit()
        self.search.setObjectName("gallery search")
        self.search.setPlaceholderText(texts.SEARCH)
        self.search.setToolTip(texts.SEARCH_HINT)
        self.search.setClearButtonEnabled(True)
        self.search.setMinimumWidth(90)
        self.search.installEventFilter(self)
        self.search.returnPressed.connect(self.left)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(TYPING)
        self._timer.timeout.connect(lambda: self._want("text", self.search.text()))
        self.search.textChanged.connect(lambda _: self._timer.start())
        layout = look.column(self)
        boxes = (self.classes, self.images, self.status, self.order)
        layout.addWidget(look.row(self.menu_button, *boxes, self.turn, self.search, gap=4))
        look.calm(self)
        link(self, self.refresh, state.shelf_changed)
        self.refresh()

    def eventFilter(self, thing: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Esc and Down go from the search to the thumbnails."""
        pressed = isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress
        if thing is self.search and pressed and event.key() in (Qt.Key.Key_Down, Qt.Key.Key_Escape):  # type: ignore[union-attr]
            self.left.emit()
            return True
        return bool(super().eventFilter(thing, event))

    def refresh(self, _event: object = None) -> None:
        """Offer what there is; a filter that no longer fits is taken off."""
        shelf, wanted = self._state.shelf, self._state.wanted
        names = list(shelf.classes) if shelf is not None else []
        if wanted.label not in names:
            wanted = replace(wanted, label=None)
        editable = shelf is not None and shelf.editable
        # rows of a bank cannot be dropped, and come in the order in which they were chosen
        wanted = replace(wanted, status="kept", image=None, order="label" if editable else "id", text="")
        self.search.blockSignals(True)
        self.search.setText("")
        self.search.blockSignals(False)
        look.fill(self.classes, [(texts.ALL_CLASSES, None), *((n, n) for n in names)], wanted.label)
        look.fill(self.status, [(told, key) for key, told in texts.STATUSES.items()], wanted.status)
        look.fill(self.order, [(told, key) for key, told in texts.ORDERS.items()], wanted.order)
        self.status.setEnabled(editable)
        self.menu_button.setText(texts.GALLERY if shelf is None else shelf.title)
        for box in (self.classes, self.images, self.order, self.turn, self.search):
            box.setEnabled(shelf is not None)
        for key in ("save", "html", "table", "folder", "relocate", "history", "activity", "network"):
            self.entries[key].setEnabled(editable)
        self.entries["rows"].setEnabled(shelf is not None and not editable)
        self.entries["close"].setEnabled(shelf is not None)
        look.fill(self.images, [(texts.ALL_IMAGES, None)], None)
        self._state.want(wanted)

    def _list_images(self) -> None:
        shelf, wanted = self._state.shelf, self._state.wanted
        found = shelf.images() if shelf is not None else []
        look.fill(self.images, [(texts.ALL_IMAGES, None), *found], wanted.image)

    def _box(self, name: str, hint: str, field: str, box: QComboBox | None = None) -> Any:
        box = look.combo(hint) if box is None else box
        box.setToolTip(hint)
        box.setObjectName(name)
        box.setAccessibleName(hint)
        box.setMinimumContentsLength(5)
        box.setMaximumWidth(120)
        box.activated.connect(lambda index: self._want(field, box.itemData(index)))
        return box

    def _want(self, field: str, value: Any) -> None:
        self._state.want(replace(self._state.wanted, **{field: value}))

    def _turned(self, down: bool) -> None:
        self.turn.setText("↓" if down else "↑")
        self._want("descending", down)

    def _entry(self, key: str) -> Any:
        label, hint = texts.MENU[key]
        menu = self.menu_button.menu()
        action: Any = menu.addAction(label) if menu is not None else None
        action.setToolTip(hint)
        action.triggered.connect(partial(self.chosen.emit, key))
        if menu is not None and key in ("points", "folder", "network"):
            menu.addSeparator()
        return action


class Verbs(QWidget):
    """The buttons; each prints its key, which works while the thumbnails have the keyboard.

    Args:
        state: what can be undone stands on its gallery.
    """

    asked = Signal(str)

    def __init__(self, state: GalleryState) -> None:
        """Follow gallery and selection."""
        super().__init__()
        self._state = state
        self.buttons = {verb: self._button(verb) for verb in texts.VERBS}
        self.buttons["why"].setCheckable(True)
        layout = look.column(self)
        layout.addWidget(
            look.row(*(b for v, b in self.buttons.items() if v != "why"), None, self.buttons["why"], gap=2)
        )
        link(self, self.refresh, state.shelf_changed, state.edited, state.selection_changed)
        self.refresh()

    def refresh(self, _event: object = None) -> None:
        """Grey out what cannot be done, and say what would be undone."""
        gallery, chosen = self._state.gallery, len(self._state.selected)
        for verb in ("keep", "drop", "relabel"):
            self.buttons[verb].setEnabled(gallery is not None and chosen > 0)
        self.buttons["merge"].setEnabled(gallery is not None and chosen > 1)
        self.buttons["add"].setEnabled(gallery is not None)
        told = {
            "undo": "" if gallery is None else gallery.undoable,
            "redo": "" if gallery is None else gallery.redoable,
        }
        for verb, what in told.items():
            self.buttons[verb].setEnabled(bool(what))
            hint = texts.VERBS[verb][2].format(what=what) if what else texts.NOTHING_TO[verb]
            self.buttons[verb].setToolTip(hint)

    def _button(self, verb: str) -> QPushButton:
        button = QPushButton(texts.with_key(verb))
        button.setStyleSheet("QPushButton { padding: 3px 5px; }")
        button.setToolTip(texts.VERBS[verb][2])
        button.setAccessibleName(texts.VERBS[verb][0])
        button.setObjectName(f"gallery {verb}")
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        button.setSizePolicy(QSizePolicy.Policy.Minimum, QSizePolicy.Policy.Fixed)
        button.clicked.connect(lambda: self.asked.emit(verb))
        return button


def class_menu(parent: QWidget, names: list[str], colour_of: Callable[[str], str], act: Callable[[str], None]) -> QMenu:
    """Classes to choose from, with a number as key for the first nine."""
    menu = QMenu(parent)
    for number, name in enumerate(names, start=1):
        label = name.replace("&", "&&")
        action: Any = menu.addAction(look.dot(colour_of(name)), f"&{number}  {label}" if number < 10 else label)
        action.triggered.connect(partial(act, name))
    menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    return menu


def _menu_button() -> QToolButton:
    button = QToolButton()
    button.setObjectName("gallery menu")
    button.setToolTip(texts.GALLERY_HINT)
    button.setText(texts.GALLERY)
    button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
    button.setMinimumWidth(84)
    button.setMaximumWidth(190)
    menu = QMenu(button)
    menu.setToolTipsVisible(True)
    button.setMenu(menu)
    return button
