"""The map of an explanation that is still being made: it appears with the first answer and grows in place."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image as ImageLayer
from qtpy.QtCore import QObject

from seglens.app.napari import results, words
from seglens.app.napari.asking import ExplainPlan
from seglens.app.napari.inserting import Inserter, take_out
from seglens.core.explanation import Explanation
from seglens.models.spec import ModelSpec

PAUSE = 0.4  # seconds between two pictures


@dataclass(frozen=True, eq=False)
class Partial:
    """An answer so far, and the display limits of its first map."""

    answer: Explanation
    limits: results.Limits


class SoFar:
    """One layer, ours alone, so that it may change in place.

    Args:
        viewer: where it goes.
        parent: its end is the end of it.
        plan: what is explained.
        spec: the model's description.
    """

    def __init__(self, viewer: ViewerModel, parent: QObject, plan: ExplainPlan, spec: ModelSpec) -> None:
        """There is no layer before the first answer."""
        self._viewer, self._parent, self._plan, self._spec = viewer, parent, plan, spec
        self._inserter: Inserter | None = None
        self._is_in = False
        self._limits = results.Limits()
        self._waiting: Partial | None = None
        self._next = 0.0
        self.layer: ImageLayer | None = None
        self.last: Explanation | None = None

    @property
    def alive(self) -> bool:
        """Whether there is a layer that nobody deleted."""
        return self.layer is not None and (not self._is_in or self.layer in self._viewer.layers)

    @property
    def _untouched(self) -> bool:
        # limits that the person set stay
        return self.layer is not None and np.allclose(self.layer.contrast_limits, self._limits.shown)

    def show(self, partial: Partial) -> None:
        """Show an answer, at most about twice a second."""
        self.last = partial.answer
        if self.layer is None:
            self._make(partial)
        elif not self.alive:
            return
        elif time.monotonic() < self._next:
            self._waiting = partial
        else:
            self._update(partial)

    def become(self, final: ImageLayer) -> ImageLayer:
        """Turn into the final map: another layer in its place would cost napari a third of a second for removing this.

        Returns:
            The layer, or the final one as it is if there is none to turn.
        """
        layer = self.layer
        if layer is None or not self.alive:
            return final
        layer.data, layer.translate, layer.metadata = final.data, final.translate, final.metadata
        limits = results.Limits(tuple(final.contrast_limits), tuple(final.contrast_limits_range))
        if self._untouched:
            limits.give(layer)
        else:
            limits.widen(layer)
        layer.name = final.name
        return layer

    def drop(self) -> None:
        """Its image is gone: nothing stays."""
        if self._inserter is not None and not self._is_in:
            self._inserter.stop()
        if self.layer is not None and self.layer in self._viewer.layers:
            take_out(self._viewer, self.layer)

    def keep(self) -> str:
        """The work was stopped: the layer stays under a name that says so; empty if there is none."""
        if self.layer is None or not self.alive:
            return ""
        if self._waiting is not None:
            self._update(self._waiting)
        name = results.unique_name(self._viewer, words.STOPPED_EARLY.format(title=self._plan.title))
        self.layer.name = name
        return name

    def _make(self, partial: Partial) -> None:
        title = words.SO_FAR.format(title=self._plan.title)
        one = Explanation((replace(partial.answer.map, name=title),))
        (make,) = results.explanation_makers(
            self._viewer, self._plan.layer, self._plan.frame, one, [partial.limits], self._spec, title
        )
        layer = make()
        if not isinstance(layer, ImageLayer):
            return
        self.layer, self._limits = layer, partial.limits
        self._next = time.monotonic() + PAUSE
        results.step_back(self._viewer)
        self._inserter = Inserter(self._viewer, [lambda: layer], self._parent)
        self._inserter.done.connect(self._inserted)
        self._inserter.start()

    def _update(self, partial: Partial) -> None:
        if self.layer is None:
            return
        found, frame = partial.answer.map, self._plan.frame
        self.layer.data = frame.shown(frame.fit(np.asarray(found.data)))
        if self._untouched:
            partial.limits.give(self.layer)
            self._limits = partial.limits
        else:
            partial.limits.widen(self.layer)
        self._waiting, self._next = None, time.monotonic() + PAUSE

    def _inserted(self) -> None:
        self._is_in = True
