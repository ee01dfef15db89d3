"""Layers into the viewer, one at a time: napari needs about a tenth of a second for each."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import QObject, QTimer, Signal

from seglens.app.napari import results


class Inserter(QObject):
    """Inserts layers in order, and tells when all are in.

    Args:
        viewer: where they go.
        layers: what makes them, from bottom to top.
        parent: its end is the end of inserting.
        below: the layer that they go under; on top of all without.
    """

    done = Signal()

    def __init__(
        self, viewer: ViewerModel, layers: Sequence[Callable[[], Layer]], parent: QObject, below: Layer | None = None
    ) -> None:
        """Nothing is inserted before :meth:`start`."""
        super().__init__(parent)
        self._viewer, self._below = viewer, below
        self.waiting = list(layers)
        self.layers: list[Layer] = []
        self._later: list[Callable[[], None]] = []
        self._timer = QTimer(self)
        # in between, clicks and the picture have their turn
        self._timer.setInterval(15)
        self._timer.timeout.connect(self._next)

    def start(self) -> None:
        """Begin with the next turn."""
        self._timer.start()

    def stop(self) -> None:
        """Insert no more; :attr:`done` stays silent."""
        self._timer.stop()
        self.deleteLater()

    def _next(self) -> None:
        if self._later:
            self._later.pop(0)()
        elif self.waiting:
            layer = self.waiting.pop(0)()
            self.layers.append(layer)
            self._plain(layer)
            results.add(self._viewer, layer, below=self._below)
        else:
            self._timer.stop()
            self.done.emit()
            self.deleteLater()

    def _plain(self, layer: Layer) -> None:
        """Take off what costs a turn of its own: the colour bar and the first picture come after the layer."""
        bar = getattr(layer, "colorbar", None)
        if bar is not None and bar.visible:
            bar.visible = False
            self._later.append(partial(setattr, bar, "visible", True))
        if layer.visible:
            layer.visible = False
            self._later.append(partial(setattr, layer, "visible", True))


def take_out(viewer: ViewerModel, layer: Layer) -> None:
    """Remove a layer of ours.

    A hidden one is drawn once more before: the drawing library leaves the buffers of what it drew before switched on,
    and reading a deleted one with the next picture ends the program on some drivers.
    """
    layer.locked = False
    if not layer.visible and hasattr(viewer, "window"):
        layer.visible = True
        viewer.screenshot(canvas_only=True, flash=False)
    viewer.layers.remove(layer)
