"""The plane: points that can be lassoed and clicked, the IoU beneath, a picture of the point under the pointer."""

# mypy: allow-subclassing-any
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
from matplotlib.figure import Figure
from matplotlib.path import Path as Outline
from matplotlib.widgets import LassoSelector
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import QLabel

from seglens.app.napari.drawing import Ink
from seglens.app.napari.gallery.thumbs import Thumbs
from seglens.app.napari.projection import texts
from seglens.app.napari.projection.colouring import MAP, Paint
from seglens.app.napari.projection.work import Projected

CLICK = 4  # corners of a lasso that is a click
NEAR = 14  # pixels on the screen within which a point is meant
SIZE, CHOSEN = 14, 46
CROWD = 40  # chosen points


class Plane(FigureCanvasQTAgg):
    """Draws a projection.

    Args:
        ink: colours of the theme.
    """

    lassoed = Signal(object)  # places (n,) of points
    clicked = Signal(object)  # the place of a point, or None

    def __init__(self, ink: Ink) -> None:
        """Empty."""
        super().__init__(Figure(layout="constrained"))
        self.setMinimumHeight(120)
        self._ink = ink
        self._shown: Projected | None = None
        self._points: NDArray[Any] = np.zeros((0, 2))
        self._chosen: Any = None
        self._lasso: LassoSelector | None = None
        self._place: int | None = None
        self.thumbs = Thumbs(self)
        self.thumbs.ready.connect(self._tell)
        self.tip = QLabel(self)
        self.tip.setTextFormat(Qt.TextFormat.RichText)
        self.tip.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.tip.setStyleSheet("QLabel { background: #20262b; color: #f0f4f6; padding: 4px; border-radius: 4px; }")
        self.tip.hide()
        self._picture = QLabel(self)
        self._picture.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self._picture.hide()
        self.mpl_connect("motion_notify_event", self._moved)
        self.mpl_connect("axes_leave_event", lambda _event: self._hover(None))

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Low: the picture stays what is looked at. Matplotlib would ask for 480 pixels."""
        return QSize(400, 180)

    def draw_points(
        self, shown: Projected, components: tuple[int, int], colours: Paint, *, heat: bool, ink: Ink
    ) -> None:
        """Draw everything anew."""
        if self._shown is not shown:
            self.thumbs.show(shown.shelf)
        self._shown, self._ink = shown, ink
        self._points = np.asarray(shown.found.points[:, list(components)])
        self.figure.clear()
        axes = self.figure.add_subplot()
        self.figure.set_facecolor(ink.background)
        axes.set_facecolor(ink.background)
        plane = shown.found.plane
        if heat and plane is not None and components == (0, 1):
            axes.pcolormesh(plane.x, plane.y, plane.smooth, cmap=MAP, vmin=0, vmax=1, alpha=0.45, zorder=0)
        axes.scatter(*self._points.T, s=SIZE, c=colours.colours, linewidths=0, alpha=0.85, zorder=2)
        self._chosen = axes.scatter(
            [], [], s=CHOSEN, facecolors="none", edgecolors=ink.highlight, linewidths=1.4, zorder=3
        )
        for name, set_label in (("x", axes.set_xlabel), ("y", axes.set_ylabel)):
            number = components[0 if name == "x" else 1]
            share = float(shown.found.axes.explained[number])
            set_label(texts.AXIS.format(number=number + 1, share=share), color=ink.text, fontsize=8)
        axes.tick_params(colors=ink.text, labelsize=7)
        for spine in axes.spines.values():
            spine.set_color(ink.line)
        self._explain(axes, colours)
        self._lasso = LassoSelector(axes, self._drawn, useblit=True, props={"color": ink.highlight, "linewidth": 1.5})
        self.draw_idle()

    def choose(self, places: Sequence[int] | NDArray[Any]) -> None:
        """Put rings around points."""
        if self._chosen is not None:
            some = self._points[np.asarray(places, int)] if len(places) else np.zeros((0, 2))
            self._chosen.set_offsets(some)
            # many rings would hide what they stand around
            many = len(some) > CROWD
            self._chosen.set_sizes([SIZE + 8 if many else CHOSEN])
            self._chosen.set_linewidths([0.6 if many else 1.4])
            self.draw_idle()

    def inside(self, outline: Sequence[tuple[float, float]]) -> NDArray[np.int64]:
        """Places of the points within an outline."""
        if len(outline) < 3 or not len(self._points):
            return np.zeros(0, np.int64)
        return np.flatnonzero(Outline(outline).contains_points(self._points)).astype(np.int64)

    def near(self, x: float, y: float) -> int | None:
        """The place of the point at a pixel of the canvas; ``None`` if there is none."""
        if not len(self._points) or not self.figure.axes:
            return None
        away = np.linalg.norm(self.figure.axes[0].transData.transform(self._points) - (x, y), axis=1)
        best = int(away.argmin())
        return best if away[best] <= NEAR else None

    def _explain(self, axes: Any, colours: Paint) -> None:
        if colours.scale:
            from matplotlib.cm import ScalarMappable
            from matplotlib.colors import Normalize

            bar = self.figure.colorbar(ScalarMappable(Normalize(0, 1), MAP), ax=axes, label="IoU", pad=0.01)
            bar.ax.tick_params(colors=self._ink.text, labelsize=7)
            bar.ax.yaxis.label.set_color(self._ink.text)
            return
        for name, colour in colours.names:
            axes.scatter([], [], s=SIZE, color=colour, label=name)
        if colours.names:
            axes.legend(
                frameon=False, labelcolor=self._ink.text, fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5)
            )  # fmt: skip

    def _drawn(self, outline: Any) -> None:
        corners = [(float(x), float(y)) for x, y in outline]
        flat = np.asarray(corners)
        if len(corners) < CLICK or float(np.ptp(self.figure.axes[0].transData.transform(flat), axis=0).max()) < CLICK:
            x, y = self.figure.axes[0].transData.transform(flat[-1]) if len(flat) else (-1e9, -1e9)
            self.clicked.emit(self.near(float(x), float(y)))
        else:
            self.lassoed.emit(self.inside(corners))

    def _moved(self, event: Any) -> None:
        self._hover(None if event.button else self.near(event.x, event.y))

    def _hover(self, place: int | None) -> None:
        if place != self._place:
            self._place = place
            self._tell()

    def _tell(self) -> None:
        if self._place is None or self._shown is None:
            self.tip.hide()
            self._picture.hide()
            return
        row, entry = int(self._shown.found.rows[self._place]), self._shown.entries[self._place]
        self.tip.setText(told(row, entry).replace("\n", "<br>"))
        self.tip.adjustSize()
        x, y = self.figure.axes[0].transData.transform(self._points[self._place]) / self.device_pixel_ratio
        picture = self.thumbs.get(row)
        wide = 0 if picture is None else picture.width() + 4
        left = int(min(max(0, x + 12), max(0, self.width() - self.tip.width() - wide)))
        top = int(min(max(0, self.height() - y - self.tip.height() - 8), max(0, self.height() - 84)))
        if picture is not None:
            self._picture.setPixmap(picture)
            self._picture.adjustSize()
            self._picture.move(left, top)
        self._picture.setVisible(picture is not None)
        self.tip.move(left + wide, top)
        self.tip.show()
        self.tip.raise_()


def told(row: int, entry: Any) -> str:
    """What a point is."""
    truth = "" if entry.truth in (None, entry.predicted) else texts.TRUTH.format(truth=entry.truth)
    iou = "" if entry.iou is None else texts.IOU.format(iou=entry.iou)
    return texts.POINT.format(row=row, label=entry.predicted, truth=truth, name=entry.name, iou=iou)
