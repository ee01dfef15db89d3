"""One method at every depth, as one layer: a slider goes from encoder to decoder, and words say where one is."""

# mypy: allow-subclassing-any
from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.components.overlays import TextOverlay
from napari.layers import Image as ImageLayer
from qtpy.QtCore import QObject

from seglens.app.napari import results, settings, words
from seglens.app.napari.asking import ExplainPlan
from seglens.app.napari.inserting import Inserter, take_out
from seglens.app.napari.links import link
from seglens.app.napari.viewer_session import MARK
from seglens.core.explanation import Layer

OVERLAY = "seglens"  # the words on the canvas


@dataclass(frozen=True, eq=False)
class Depth:
    """The map at one layer of the network, and its display limits."""

    name: str
    map: Layer
    limits: results.Limits


class Strip:
    """Fills the layer as maps come; it appears with the first.

    Args:
        viewer: where it goes.
        parent: its end is the end of filling.
        plan: what is explained.
        names: the network's layers, from input to output.
    """

    def __init__(self, viewer: ViewerModel, parent: QObject, plan: ExplainPlan, names: tuple[str, ...]) -> None:
        """Nothing is made yet."""
        self._viewer, self._parent, self._plan, self._names = viewer, parent, plan, names
        self._base = np.zeros(0, np.float32)
        self._inserter: Inserter | None = None
        self._is_in = self._gone = False
        self._last = 0
        self.layer: ImageLayer | None = None
        parent.destroyed.connect(self._leave)

    @property
    def alive(self) -> bool:
        """Whether there is a layer that nobody deleted."""
        return self.layer is not None and (not self._is_in or self.layer in self._viewer.layers)

    def add(self, depth: Depth) -> None:
        """Take a map in, and show it if the person is still at the one before."""
        layer = self.layer or self._make(depth)
        if not self.alive:
            return
        at = self._names.index(depth.name)
        self._base[at] = self._plan.frame.fit(np.asarray(depth.map.data, np.float32))
        told = {"layer": depth.name, "told": depth.map.enlarged(), "limits": depth.limits}
        layer.metadata[MARK]["depths"][at] = told
        if self._is_in and position(self._viewer, layer) == self._last:
            self._viewer.dims.set_current_step(self._viewer.dims.ndim - layer.ndim, at)
        layer.refresh(extent=False)
        self._last = at

    def keep(self, *, stopped: bool = False) -> str:
        """Leave out what was not reached; the name of the layer, empty if there is none."""
        layer = self.layer
        if layer is None or not self.alive:
            return ""
        depths = layer.metadata[MARK]["depths"]
        done = [n for n, one in enumerate(depths) if one is not None]
        if len(done) < len(depths):
            layer.metadata[MARK]["depths"] = [depths[n] for n in done]
            layer.data = layer.data[done]
        if stopped:
            layer.name = results.unique_name(self._viewer, words.STOPPED_EARLY.format(title=self._plan.title))
        return str(layer.name)

    def finish(self, then: Callable[[], None]) -> None:
        """Call ``then`` when the layer is in, or now if there is none to wait for."""
        if self._gone:
            return
        if self._inserter is None or self._is_in or self.layer is None:
            then()
        else:
            self._inserter.done.connect(then)

    def drop(self) -> None:
        """Its image is gone: nothing stays."""
        if self._inserter is not None and not self._is_in:
            self._inserter.stop()
        if self.layer is not None and self.layer in self._viewer.layers:
            take_out(self._viewer, self.layer)
        self.layer = None

    def _make(self, depth: Depth) -> ImageLayer:
        frame, name = self._plan.frame, results.unique_name(self._viewer, self._plan.title)
        self._base = results.empty((len(self._names), *frame.shape), np.float32)
        shown = frame.shown(np.broadcast_to(np.float32(0), frame.shape)).shape
        data = self._base if shown == frame.shape else np.broadcast_to(self._base, (len(self._names), *shown))
        mark = {"role": "heat", "unit": depth.map.unit, "kind": depth.map.kind, "depths": [None] * len(self._names)}
        layer = ImageLayer(
            data,
            name=name,
            contrast_limits=depth.limits.shown,
            colormap=results.map_colours(depth.map.kind),
            blending="translucent_no_depth",
            opacity=float(settings.get("interface.opacity")),
            metadata={MARK: mark},
            **results.with_first(results.placement(self._plan.layer, frame.start), "layer"),
        )
        layer.contrast_limits_range = depth.limits.whole
        layer.colorbar.visible = True
        layer.colorbar.size = (14, 110)
        self.layer = layer
        results.step_back(self._viewer)
        self._inserter = Inserter(self._viewer, [lambda: layer], self._parent)
        self._inserter.done.connect(self._inserted)
        self._inserter.start()
        return layer

    def _leave(self, *_: object) -> None:
        self._gone = True

    def _inserted(self) -> None:
        self._is_in = True
        if self.layer is not None and self.layer in self._viewer.layers:
            self._viewer.dims.set_current_step(self._viewer.dims.ndim - self.layer.ndim, self._last)


class Captions(QObject):
    """Says on the canvas at which depth one looks, and gives every depth its own display limits.

    Args:
        viewer: whose strips; held weakly.
        parent: its end is the end of this.
    """

    def __init__(self, viewer: ViewerModel, parent: QObject) -> None:
        """Follow slider and layers."""
        super().__init__(parent)
        self._viewer = weakref.ref(viewer)
        self._given: dict[Any, tuple[float, ...]] = {}
        link(self, self.follow, viewer.dims.events.current_step, viewer.layers.events.removed)
        link(self, self._watch, viewer.layers.events.inserted)

    def follow(self, _event: object = None) -> None:
        """Show where one is."""
        viewer = self._viewer()
        if viewer is None:
            return
        strip = next((x for x in reversed(viewer.layers) if x.visible and here(viewer, x)), None)
        overlays = viewer.canvas.overlays
        if strip is None:
            if OVERLAY in overlays:
                overlays[OVERLAY].visible = False
            return
        depth = here(viewer, strip) or {}
        before = self._given.get(strip.unique_id, strip.contrast_limits)
        # limits that the person set stay
        if not np.allclose(strip.contrast_limits, before, atol=0):
            depth["limits"].widen(strip)
        else:
            if not np.allclose(before, depth["limits"].shown, atol=0):
                depth["limits"].give(strip)
            self._given[strip.unique_id] = tuple(strip.contrast_limits)
        if OVERLAY not in overlays:
            overlays[OVERLAY] = TextOverlay(position="top_left")
        overlays[OVERLAY].text, overlays[OVERLAY].visible = caption(viewer, strip), True

    def _watch(self, event: Any) -> None:
        layer = event.value
        if depths_of(layer):
            link(self, self.follow, layer.events.visible, layer.events.set_data)
            self.follow()


def depths_of(layer: Any) -> list[dict[str, Any] | None]:
    """What is known of the depths of a strip, in order; empty for any other layer."""
    found = layer.metadata.get(MARK, {})
    return list(found.get("depths", ())) if isinstance(found, dict) else []


def position(viewer: ViewerModel, layer: Any) -> int:
    """At which of its depths a strip is looked at."""
    return int(viewer.dims.current_step[viewer.dims.ndim - layer.ndim])


def here(viewer: ViewerModel, layer: Any) -> dict[str, Any] | None:
    """What is known of the depth at which a strip is looked at; ``None`` if there is nothing (yet), or no strip."""
    depths = depths_of(layer)
    at = position(viewer, layer) if depths else 0
    return depths[at] if 0 <= at < len(depths) else None


def caption(viewer: ViewerModel, layer: Any) -> str:
    """The name of the network's layer that one looks at, its place, and how fine its map really is."""
    depth = here(viewer, layer)
    if depth is None:
        return ""
    place = words.DEPTH.format(name=depth["layer"], at=position(viewer, layer) + 1, count=len(depths_of(layer)))
    return f"{place}: {depth['told']}" if depth["told"] else place
