"""Connections that end with the widget they serve, so that a closed dock never hears another word."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from qtpy.QtCore import QObject


def link(owner: QObject, slot: Callable[..., Any], *signals: Any) -> None:
    """Connect psygnal or napari signals to a slot of a widget until the widget is destroyed."""
    for signal in signals:
        signal.connect(slot)
        owner.destroyed.connect(_Cut(signal, slot))


class _Cut:
    """Disconnects once; an object of its own, because a loop's lambda would see only the last signal."""

    def __init__(self, signal: Any, slot: Callable[..., Any]) -> None:
        self._signal, self._slot = signal, slot

    def __call__(self, *_: object) -> None:
        # either side may be gone already
        with suppress(ValueError, TypeError, RuntimeError, KeyError):
            self._signal.disconnect(self._slot)
