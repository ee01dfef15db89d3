"""Connections that end with the widget they serve, so that a closed dock never hears another word."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from qtpy.QtCore import QObject
from qtpy.QtWidgets import QDockWidget, QWidget

_ENDS = "seglens ends"  # a property of docks whose content ends with them


def link(owner: QObject, slot: Callable[..., Any], *signals: Any) -> None:
    """Connect psygnal or napari signals to a slot of a widget until the widget is destroyed."""
    for signal in signals:
        signal.connect(slot)
        owner.destroyed.connect(_Cut(signal, slot))


def end_with_dock(widget: QWidget) -> None:
    """Let what is in a dock end with it: napari takes the content out of a closed dock, and leaves it to us."""
    holder = dock_around(widget)
    if holder is not None and not holder.property(_ENDS):
        holder.setProperty(_ENDS, True)
        holder.destroyed.connect(widget.deleteLater)


def dock_around(widget: QWidget) -> QDockWidget | None:
    """The dock that a widget is in."""
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent


class _Cut:
    """Disconnects once; an object of its own, because a loop's lambda would see only the last signal."""

    def __init__(self, signal: Any, slot: Callable[..., Any]) -> None:
        self._signal, self._slot = signal, slot

    def __call__(self, *_: object) -> None:
        # either side may be gone already
        with suppress(ValueError, TypeError, RuntimeError, KeyError):
            self._signal.disconnect(self._slot)
