"""The plots dock: tables and figures of the answer that is looked at."""

# mypy: allow-subclassing-any
from __future__ import annotations

from pathlib import Path
from typing import Any

from napari.utils.theme import get_theme
from qtpy.QtCore import QSize
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import (
    QApplication,
    QFileDialog,
    QPushButton,
    QSizePolicy,
    QTabWidget,
    QWidget,
)

from seglens.app.napari import below, drawing, going, look, notify, tables, words
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import Made, ViewerSession
from seglens.core.errors import SegLensError
from seglens.core.explanation import Figure, Table


class TablePage(QWidget):
    """One table; a click on a row goes to its place.

    Args:
        session: whose viewer.
        made: the answer that the table belongs to.
        table: what to show.
    """

    def __init__(self, session: ViewerSession, made: Made, table: Table) -> None:
        """Build the table."""
        super().__init__()
        self._session, self._made = session, made
        self.table = table
        self.view = tables.TableView(table)
        self.view.clicked.connect(lambda index: self.go(index.row()))
        rows = self.view.rows
        self.placed = bool(rows.order) and going.place(session, made, rows.row(0)) is not None
        look.column(self).addWidget(self.view)

    def as_text(self, separator: str) -> str:
        """All rows in the order shown."""
        return self.view.as_text(separator)

    def go(self, row: int) -> None:
        """Go where a shown row is about."""
        told = self.view.rows.row(row)
        self._session.looked_at.emit(told)
        found = going.go(self._session, self._made, told)
        viewer = self._session.viewer
        if self.placed and not found and viewer is not None:
            viewer.status = words.ROW_NOWHERE


class FigurePage(QWidget):
    """One figure; drawn when it is first seen.

    Args:
        session: its viewer's theme gives the colours.
        figure: what to draw.
    """

    placed = False

    def __init__(self, session: ViewerSession, figure: Figure) -> None:
        """Nothing is drawn yet."""
        super().__init__()
        self._session = session
        self.table = tables.as_table(figure)
        self.figure = figure
        self.canvas: Any = None
        self._layout = look.column(self)

    def showEvent(self, event: QShowEvent | None) -> None:  # noqa: N802 - Qt's name
        """Draw it now if it was not yet."""
        super().showEvent(event)
        if self.canvas is None:
            # matplotlib takes a moment to import, so only who looks at a plot waits for it
            from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
            from matplotlib.figure import Figure as Picture

            self.canvas = FigureCanvasQTAgg(Picture(layout="constrained"))
            self.canvas.setMinimumHeight(80)
            self._layout.addWidget(self.canvas)
            self.draw()
            if self.figure.kind == "tree":
                # its words are as large as the room allows
                self.canvas.mpl_connect("resize_event", lambda _event: self.draw())

    def draw(self) -> None:
        """Draw it in the colours of the theme."""
        if self.canvas is not None:
            picture = self.canvas.figure
            picture.clear()
            drawing.draw(self.figure, picture.add_subplot(), ink(self._session))
            self.canvas.draw_idle()

    def as_text(self, separator: str) -> str:
        """The data of the figure."""
        return tables.as_text(self.table, separator)

    def save(self, path: str) -> None:
        """Write the picture.

        Raises:
            OSError: the file cannot be written.
        """
        if self.canvas is not None:
            self.canvas.figure.savefig(path, dpi=200)


class Plots(QWidget):
    """Follows the answer that is looked at.

    Args:
        session: whose answers.
    """

    HEIGHT = 240

    def __init__(self, session: ViewerSession) -> None:
        """Show what there is now."""
        super().__init__()
        self.setObjectName("seglens plots")
        self._session = session
        self._made: Made | None = None
        self.empty = look.text(words.PLOTS_EMPTY, muted=True)
        self.title = look.heading("")
        self.hint = look.text(muted=True)
        self.copy = self._button(words.COPY_TABLE, words.COPY_TABLE_HINT, self.copy_table)
        self.save = self._button(words.SAVE_TABLE, words.SAVE_TABLE_HINT, self.save_table)
        self.picture = self._button(words.SAVE_PICTURE, words.SAVE_PICTURE_HINT, self.save_picture)
        self.tabs = QTabWidget()
        self.tabs.currentChanged.connect(self._turned)
        self.hint.setWordWrap(False)
        self.top = look.row(self.title, self.hint, self.copy, self.save, self.picture)
        layout = look.column(self, margin=look.MARGIN, gap=4)
        layout.addWidget(self.top)
        layout.addWidget(self.empty)
        layout.addWidget(self.tabs, 1)
        link(self, self.refresh, session.shown_changed)
        viewer = session.viewer
        if viewer is not None:
            look.Dress(self, viewer)
            link(self, self.recolour, viewer.events.theme)
        self.refresh()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Low and wide: the picture stays what is looked at."""
        return QSize(700, self.HEIGHT)

    @property
    def page(self) -> TablePage | FigurePage | None:
        """The table or figure that is looked at."""
        page = self.tabs.currentWidget()
        return page if isinstance(page, TablePage | FigurePage) else None

    def refresh(self, _event: object = None) -> None:
        """Show the tables and figures of the answer that is looked at."""
        made, viewer = self._session.shown, self._session.viewer
        if viewer is not None and self._made is not None:
            going.leave(viewer)
        self._made = made
        while self.tabs.count():
            page = self.tabs.widget(0)
            self.tabs.removeTab(0)
            if page is not None:
                page.deleteLater()
        if made is not None:
            self._fill(made)
        full = bool(self.tabs.count())
        self.title.setText(made.title if made is not None else "")
        self.top.setVisible(full)
        self.tabs.setVisible(full)
        self.empty.setText(words.PLOTS_EMPTY if made is None else words.PLOTS_NONE.format(title=made.title))
        self.empty.setVisible(not full)

    def _fill(self, made: Made) -> None:
        names = {figure.name for figure in made.figures}
        for figure in made.figures:
            self.tabs.addTab(FigurePage(self._session, figure), _tab(figure.name))
        for table in made.tables:
            name = words.TABLE_TAB.format(name=table.name) if table.name in names else table.name
            self.tabs.addTab(TablePage(self._session, made, table), _tab(name))

    def recolour(self, _event: object = None) -> None:
        """Follow the theme."""
        for index in range(self.tabs.count()):
            page = self.tabs.widget(index)
            if isinstance(page, FigurePage):
                page.draw()

    def copy_table(self) -> None:
        """Put the table, or the data of the figure, on the clipboard."""
        page, clipboard = self.page, QApplication.clipboard()
        if page is not None and clipboard is not None:
            told = page.as_text("\t")
            clipboard.setText(told)
            self._session.say(words.TABLE_COPIED.format(rows=told.count("\n") - 1))

    def save_table(self) -> None:
        """Write the table, or the data of the figure, where the person says."""
        page = self.page
        if page is not None:
            self._ask(page, "CSV (*.csv)", ".csv", lambda path: _write(path, page.as_text(",")))

    def save_picture(self) -> None:
        """Write the plot where the person says."""
        page = self.page
        if isinstance(page, FigurePage):
            self._ask(page, "PNG (*.png);;SVG (*.svg);;PDF (*.pdf)", ".png", page.save)

    def _ask(self, page: TablePage | FigurePage, kinds: str, ending: str, write: Any) -> None:
        path, chosen = QFileDialog.getSaveFileName(self, words.TITLE, f"{page.table.name}{ending}", kinds)
        if not path:
            return
        if not Path(path).suffix:
            path += chosen[chosen.find("*") + 1 : chosen.find(")")] or ending
        try:
            write(path)
        except OSError as error:
            what, fix = words.not_saved(path, error)
            notify.error(self._session, SegLensError(what, fix=fix))
        else:
            self._session.say(words.SAVED.format(path=path))

    def _turned(self, _index: int) -> None:
        page = self.page
        self.picture.setVisible(isinstance(page, FigurePage))
        self.hint.setText(words.TABLE_HINT if page is not None and page.placed else "")

    def _button(self, label: str, tooltip: str, act: Any) -> QPushButton:
        button = QPushButton(label)
        button.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        button.setToolTip(tooltip)
        button.clicked.connect(act)
        return button


def open_in(session: ViewerSession) -> Plots | None:
    """The plots of a viewer, opened or brought to the front; ``None`` without a window."""
    there = below.open_below(session.viewer, words.PLOTS_TITLE, lambda: Plots(session), Plots.HEIGHT)
    return there if isinstance(there, Plots) else None


def ink(session: ViewerSession) -> drawing.Ink:
    """The colours of a viewer's theme."""
    theme = get_theme(session.viewer.theme if session.viewer is not None else "dark")
    colour = {name: getattr(theme, name).as_hex() for name in ("background", "text", "secondary", "current")}
    return drawing.Ink(colour["background"], colour["text"], colour["secondary"], colour["current"])


def _write(path: str, text: str) -> None:
    Path(path).write_text(text, encoding="utf-8", newline="")


def _tab(name: str) -> str:
    # an ampersand would become a shortcut
    return (name[:1].upper() + name[1:]).replace("&", "&&")
