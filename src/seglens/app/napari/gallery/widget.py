"""The prototype gallery as a dock: filters, verbs, thumbnails, coverage, and what made a pixel."""

# mypy: allow-subclassing-any
from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QKeyEvent, QShowEvent
from qtpy.QtWidgets import QLabel, QMenu, QPushButton, QSplitter, QStackedWidget, QWidget

from seglens.app.napari import look
from seglens.app.napari.gallery import docking, texts
from seglens.app.napari.gallery.adder import Adder
from seglens.app.napari.gallery.bars import Coverage, Leak
from seglens.app.napari.gallery.clicks import PixelClicks
from seglens.app.napari.gallery.controls import Filters, Verbs, class_menu
from seglens.app.napari.gallery.editor import Editor
from seglens.app.napari.gallery.files import Files
from seglens.app.napari.gallery.history import History
from seglens.app.napari.gallery.jumper import Jumper
from seglens.app.napari.gallery.looker import Looker
from seglens.app.napari.gallery.painting import Painter, colour_of
from seglens.app.napari.gallery.speaking import Speaker
from seglens.app.napari.gallery.state import state_of
from seglens.app.napari.gallery.thumbs import Thumbs
from seglens.app.napari.gallery.wall import Wall
from seglens.app.napari.gallery.why_panel import WhyPanel
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import plain, session_of


class PrototypeGallery(QWidget):
    """Made by napari when the widget is opened; one per viewer.

    Args:
        napari_viewer: injected by napari under this name.
    """

    HEIGHT = 330

    def __init__(self, napari_viewer: Any) -> None:
        """Assemble the parts; what was open in this viewer is shown again."""
        super().__init__()
        self.setObjectName("seglens gallery")
        self.session, self.state = session_of(napari_viewer), state_of(napari_viewer)
        session, state = self.session, self.state
        self.editor = Editor(state, self)
        self.files = Files(session, state, self.editor.retire, self)
        self.looker = Looker(session, state, self)
        self.jumper = Jumper(session, state, self)
        self.adder = Adder(session, state, self.looker, self)
        self.clicks = PixelClicks(session, self.looker, self)
        self.editor.quiet = lambda: not self.looker.busy
        self.thumbs = Thumbs(self)
        self.painter = Painter(self.thumbs, self.colour, lambda: state.missing)
        self.wall = Wall(state, self.thumbs, self.painter)
        self.filters, self.verbs = Filters(state), Verbs(state)
        self.coverage, self.leak = Coverage(self.colour), Leak()
        self.load = QPushButton()
        self.load.setToolTip(texts.CHOOSE_MODEL_HINT)
        self.load.hide()
        self.speaker = Speaker(state, self.files)
        self.why, self.history = WhyPanel(), History(state)
        self.empty = look.text(texts.EMPTY, muted=True, name="gallery empty")
        self.empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._lay_out()
        self._connect()
        look.Dress(self, plain(napari_viewer))
        docking.register(session, self)
        if state.bank is not None and state.shelf is None:
            self.files.show_rows()
        self._other_shelf()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Low and wide: the picture stays what is looked at."""
        return QSize(700, self.HEIGHT)

    def colour(self, label: str) -> str:
        """The colour of a class: the chosen model's if it knows the class."""
        spec, shelf = self.session.model.spec, self.state.shelf
        known = {c.name: c.color for c in spec.classes} if spec is not None else {}
        return colour_of(label, list(shelf.classes) if shelf is not None else [], known)

    def act(self, verb: str) -> None:
        """Do what a button or key says."""
        editor = self.editor
        simple = {
            "keep": editor.keep, "drop": editor.drop, "undo": editor.undo, "redo": editor.redo, "merge": self.merge,
            "relabel": self.choose_class, "add": self.choose_what_to_add, "search": self.filters.search.setFocus,
            "why": lambda: self.clicks.set_active(not self.clicks.active),
        }  # fmt: skip
        simple[verb]()

    def merge(self) -> None:
        """Merge the selected items into the one with the keyboard's frame, or the first of them."""
        chosen, current = self.wall.chosen, self.wall.current
        if len({item.label for item in chosen}) > 1:
            self.state.say(texts.MERGE_CLASSES, level="warning")
            return
        ids = [item.id for item in chosen]
        self.editor.merge(current.id if current is not None and current.id in ids else next(iter(ids), -1))

    def choose_class(self) -> None:
        """Offer the classes for the selected items."""
        shelf = self.state.shelf
        if shelf is None or not self.state.selected:
            self.state.say(texts.SELECT_FIRST if shelf is not None else texts.OPEN_FIRST, level="warning")
            return
        menu = class_menu(self, list(shelf.classes), self.colour, self.editor.relabel)
        self._pop_up(menu, "relabel")

    def choose_what_to_add(self) -> None:
        """Offer the painted region and an object to click."""
        if self.state.gallery is None:
            self.adder.click()
            return
        menu = QMenu(self)
        for label, act in ((texts.ADD_PAINTED, self.adder.painted), (texts.ADD_OBJECT, self.adder.click)):
            action: Any = menu.addAction(label)
            action.triggered.connect(act)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self._pop_up(menu, "add")

    def keyPressEvent(self, event: QKeyEvent | None) -> None:  # noqa: N802 - Qt's name
        """Esc leaves what waits for a click."""
        waiting = self.adder.picker.active or self.clicks.active
        if event is None or event.key() != Qt.Key.Key_Escape or not waiting:
            super().keyPressEvent(event)
            return
        self.adder.leave()
        self.clicks.set_active(False)

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """The first time, go below the picture."""
        super().showEvent(event)
        QTimer.singleShot(0, self._below)

    def stop(self, *_: object) -> None:
        """The dock goes: stop everything."""
        for part in (self.editor, self.files, self.looker, self.jumper, self.thumbs):
            part.stop()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self.stack = QStackedWidget()
        self.stack.addWidget(self.empty)
        self.stack.addWidget(self.wall)
        self.split = QSplitter(Qt.Orientation.Horizontal)
        for part in (self.stack, self.why, self.history):
            self.split.addWidget(part)
        self.split.setStretchFactor(0, 1)
        self.split.setChildrenCollapsible(False)
        self.why.hide()
        self.history.hide()
        layout = look.column(self, margin=look.MARGIN, gap=4)
        layout.addWidget(self.filters)
        layout.addWidget(self.verbs)
        layout.addWidget(self.split, 1)
        self.covered = QLabel(texts.COVERAGE)
        self.covered.setToolTip(texts.COVERAGE_HINT)
        look.tone(self.covered, "muted")
        layout.addWidget(look.row(self.covered, self.coverage, self.load, self.leak))
        layout.addWidget(self.speaker)

    def _connect(self) -> None:
        session, state, wall = self.session, self.state, self.wall
        self.filters.chosen.connect(self._menu)
        self.filters.left.connect(wall.setFocus)
        self.verbs.asked.connect(self.act)
        wall.asked.connect(self.act)
        wall.jumped.connect(self.jumper.go)
        wall.near = lambda item: (layer := self.jumper.here(item)) is not None and layer is session.image_layer
        wall.fired.connect(self.looker.show_map)
        self.coverage.clicked.connect(lambda key: state.select([key]))
        self.load.clicked.connect(self._load)
        self.why.chosen.connect(lambda key: state.select([key]))
        self.why.closed.connect(lambda: self.clicks.set_active(False))
        self.history.closed.connect(self.history.hide)
        self.clicks.changed.connect(self._why_turned)
        self.adder.changed.connect(self._adding)
        self.looker.told_why.connect(self.why.show_why)
        link(self, self._other_shelf, state.shelf_changed)
        link(self, self._refresh, state.edited, state.wanted_changed)
        link(self, self.files.show_rows, state.rows_wanted)
        link(self, self._measured, state.measured)
        link(self, self._measured, session.model.events.loaded, session.model.events.loading)
        link(self, self._repaint, session.model.events.spec, state.missing_changed)
        self.destroyed.connect(self.stop)

    def _other_shelf(self, _event: object = None) -> None:
        self.thumbs.show(self.state.shelf)
        self._refresh()
        self._measured()

    def _refresh(self, _event: object = None) -> None:
        self.wall.refresh()
        shelf, wanted = self.state.shelf, self.state.wanted
        shown = self.wall.items.rowCount()
        if shelf is None:
            told = texts.EMPTY
        elif shown:
            told = ""
        else:
            every = shelf.count(type(wanted)(status=None))
            told = texts.NO_MATCH.format(count=every) if every else texts.NO_ITEMS
        self.empty.setText(told)
        self.stack.setCurrentWidget(self.wall if not told else self.empty)
        self._scale()

    def _scale(self) -> None:
        """Bars are as long as the largest activation of the page that is seen first."""
        items = [self.wall.items.item(n) for n in range(min(200, self.wall.items.rowCount()))]
        known = [item.activity for item in items if item is not None and item.activity is not None]
        self.painter.most = max(known, default=1.0) or 1.0

    def _measured(self, _event: object = None) -> None:
        state, model = self.state, self.session.model
        known, layer = state.measured_now, self.session.image_layer
        if known is not None and known.kept:
            self.wall.refresh()
            self._scale()
        name = layer.name if layer is not None else ""
        self.coverage.show_parts(known.parts if known is not None else (), name, self._why_not_covered())
        self.leak.show_count(len(known.leaks) if known is not None else None)
        info = None if state.gallery is None else state.gallery.info
        other = info is not None and info.model_source and not model.loading and model.source != info.model_source
        self.load.setVisible(bool(other) and (known is None or not known.parts))
        if info is not None:
            self.load.setText(texts.CHOOSE_MODEL.format(model=info.model))

    def _why_not_covered(self) -> str:
        known, gallery = self.state.measured_now, self.state.gallery
        if known is None or gallery is None:
            return ""
        if known.other:
            return texts.OTHER_MODEL.format(wanted=gallery.info.model, have=known.other)
        return "" if known.parts else texts.COVERAGE_NOTHING

    def _load(self) -> None:
        gallery = self.state.gallery
        if gallery is not None and not docking.choose_model(self.session, gallery.info.model_source):
            self.state.say(texts.NEEDS_DOCK, level="warning")

    def _why_turned(self) -> None:
        on = self.clicks.active
        self.verbs.buttons["why"].setChecked(on)
        self.why.setVisible(on)
        if on:
            self.adder.leave()
            self.history.hide()
            self.why.show_why(None)

    def _adding(self) -> None:
        # one click cannot mean two things
        if self.adder.picker.active:
            self.clicks.set_active(False)

    def _menu(self, key: str) -> None:
        files = self.files
        acts = {
            "model": files.ask_new, "blank": files.ask_blank, "bank": files.ask_bank, "rows": files.ask_keep_rows,
            "open": files.ask_open, "save": files.ask_save, "import": files.ask_import,
            "relocate": files.ask_relocate, "close": files.close, "history": self._show_history,
            "activity": self.looker.keep_activity, "network": files.ask_network, "points": self._show_points,
        }  # fmt: skip
        if key in acts:
            acts[key]()
        else:
            files.ask_export(key)

    def _show_points(self) -> None:
        # matplotlib takes a moment to import
        from seglens.app.napari.projection.dock import open_in

        points = open_in(self.session.viewer)
        if points is not None and points.shown is None and self.state.bank is not None:
            points.show_bank(self.state.bank)

    def _show_history(self) -> None:
        self.clicks.set_active(False)
        self.history.show()
        self.history.refresh()

    def _pop_up(self, menu: QMenu, verb: str) -> None:
        button = self.verbs.buttons[verb]
        menu.popup(button.mapToGlobal(button.rect().bottomLeft()))
        first = next(iter(menu.actions()), None)
        menu.setActiveAction(first)

    def _repaint(self, _event: object = None) -> None:
        viewport = self.wall.viewport()
        if viewport is not None:
            viewport.update()
        self._measured()

    def _below(self) -> None:
        docking.go_below(self)
