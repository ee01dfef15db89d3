"""Where wide docks lie: below the picture, between the docks at its sides, as tabs of one place."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from seglens.app.napari.links import end_with_dock

_BELOW = "seglens below"  # a property of docks that are ours and lie there
_BEFORE = "seglens corners"  # a property of the window: whose its corners were
_CORNERS = {
    Qt.Corner.BottomLeftCorner: Qt.DockWidgetArea.LeftDockWidgetArea,
    Qt.Corner.BottomRightCorner: Qt.DockWidgetArea.RightDockWidgetArea,
}


def open_below(viewer: Any, title: str, make: Callable[[], QWidget], height: int) -> QWidget | None:
    """A dock below the picture, made or brought to the front; ``None`` without a window."""
    window = getattr(viewer, "window", None)
    if window is None:
        return None
    there = window.dock_widgets.get(title)
    if isinstance(there, QWidget):
        holder: Any = there.parent()
    else:
        there = make()
        holder = window.add_dock_widget(there, name=title, area="bottom", add_vertical_stretch=False)
        end_with_dock(there)
        settle(holder, height)
    holder.show()
    holder.raise_()
    return there


def settle(holder: QDockWidget, height: int) -> None:
    """Give a dock its place: a tab beside our other docks there; across the whole window it would squeeze the sides."""
    main = holder.window()
    if not isinstance(main, QMainWindow):
        return
    others = [dock for dock in _ours(main) if dock is not holder]
    if main.property(_BEFORE) is None:
        main.setProperty(_BEFORE, tuple(main.corner(corner) for corner in _CORNERS))
    for corner, area in _CORNERS.items():
        main.setCorner(corner, area)
    holder.destroyed.connect(partial(_give_back, weakref.ref(main)))
    main.addDockWidget(Qt.DockWidgetArea.BottomDockWidgetArea, holder)
    holder.setProperty(_BELOW, True)
    if others:
        main.tabifyDockWidget(others[0], holder)
    else:
        main.resizeDocks([holder], [height], Qt.Orientation.Vertical)


def lies_there(holder: QDockWidget) -> bool:
    """Whether a dock lies below the picture."""
    main = holder.window()
    below = Qt.DockWidgetArea.BottomDockWidgetArea
    return isinstance(main, QMainWindow) and main.dockWidgetArea(holder) == below


def _ours(main: QMainWindow) -> list[QDockWidget]:
    """Our docks that are seen below the picture."""
    area = Qt.DockWidgetArea.BottomDockWidgetArea
    return [
        dock for dock in main.findChildren(QDockWidget)
        if dock.property(_BELOW) and main.dockWidgetArea(dock) == area
        and not dock.isHidden() and not dock.isFloating()
    ]  # fmt: skip


def _give_back(window: weakref.ref[QMainWindow], *_: object) -> None:
    """The corners go back to whom they belonged to when the last of our docks has gone."""
    main = window()
    # the window may be gone before its docks
    with suppress(RuntimeError):
        before = None if main is None else main.property(_BEFORE)
        if main is not None and before is not None and not _ours(main):
            for corner, area in zip(_CORNERS, before, strict=True):
                main.setCorner(corner, area)
            main.setProperty(_BEFORE, None)
