"""Prediction layers that fill in tile by tile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer
from numpy.typing import NDArray
from qtpy.QtCore import QObject

from seglens.app.napari import results
from seglens.app.napari.asking import SegmentPlan
from seglens.app.napari.inserting import Inserter
from seglens.app.napari.viewer_session import Question
from seglens.models.spec import ModelSpec

SHARE = 0.15  # of the time that redrawing may take


class Filler:
    """Layers of one segmentation; they appear with the first piece, so that a failed start leaves nothing.

    Args:
        viewer: where the layers go.
        parent: its end is the end of filling.
        plan: what is segmented.
        spec: the model's description.
        question: which outputs are wanted.
    """

    def __init__(
        self, viewer: ViewerModel, parent: QObject, plan: SegmentPlan, spec: ModelSpec, question: Question
    ) -> None:
        """Remember what is wanted; nothing is made yet."""
        self._viewer, self._parent, self._plan, self._spec = viewer, parent, plan, spec
        self._wanted = (question.labels, question.probabilities, question.uncertainty)
        self._bases: dict[str, NDArray[Any]] = {}
        self.layers: list[Layer] = []
        self._inserter: Inserter | None = None
        self._next_draw = 0.0
        self._is_in = self._gone = False
        parent.destroyed.connect(self._leave)

    @property
    def alive(self) -> bool:
        """Whether source and at least one result are still in the viewer."""
        kept = self._viewer.layers
        if self._plan.layer not in kept:
            return False
        waiting = self._inserter is None or not self._is_in
        return waiting or any(layer in kept for layer in self.layers)

    def add(self, number: int, piece: Any) -> None:
        """Write one piece of view ``number`` and redraw if it is time."""
        if not self.layers:
            self._make()
        corner = self._plan.corners[number]
        parts = [
            slice(p.start + corner[a], p.stop + corner[a]) for a, p in zip(self._spec.axes, piece.where, strict=True)
        ]
        where = self._plan.frame.where(self._relative(piece.position), parts)
        for name, base in self._bases.items():
            values = piece.labels if name == "labels" else piece.entropy if name == "entropy" else None
            if values is None:
                values = piece.probabilities[int(name)]
            base[where] = self._plan.frame.fit(np.asarray(values))
        self._draw(last=piece.done >= piece.total)

    def finish(self, then: Callable[[], None]) -> None:
        """Draw what is there; ``then`` is called when all layers are in."""
        if self._gone:
            return
        self._draw(last=True)
        if self._inserter is None or self._is_in:
            then()
        else:
            self._inserter.done.connect(then)

    def _inserted(self) -> None:
        self._is_in = True

    def _leave(self, *_: object) -> None:
        self._gone = True

    def _relative(self, position: Mapping[str, int]) -> Mapping[str, int]:
        # the frame starts at 0 along the axes that are walked through
        return {a: p for a, p in position.items() if a in self._plan.frame.axes}

    def _draw(self, *, last: bool) -> None:
        now = time.monotonic()
        if not last and now < self._next_draw:
            return
        for layer in self.layers:
            if layer in self._viewer.layers and layer.visible:
                layer.refresh(extent=False)
        spent = time.monotonic() - now
        self._next_draw = time.monotonic() + max(0.1, spent / SHARE)

    def _make(self) -> None:
        frame, spec = self._plan.frame, self._spec
        labels, probabilities, uncertainty = self._wanted
        where = results.placement(self._plan.layer, frame.start)
        if probabilities:
            for index, kind in enumerate(spec.classes):
                if index:
                    self._put(str(index), np.float32, f"probability of {kind.name}", where, colour=kind.color)
        if uncertainty:
            self._put("entropy", np.float32, "uncertainty", where)
        if labels:
            self._put("labels", np.uint8, "prediction", where)
        if not labels:
            self.layers[-1].visible = True
        self._inserter = Inserter(self._viewer, [partial(_same, layer) for layer in self.layers], self._parent)
        self._inserter.done.connect(self._inserted)
        self._inserter.start()

    def _put(self, key: str, dtype: Any, name: str, where: Mapping[str, Any], *, colour: str = "") -> None:
        base, shown = self._plan.frame.canvas(dtype)
        given = {**where, "name": results.unique_name(self._viewer, name)}
        if key == "labels":
            layer: Layer = results.prediction_layer(shown, self._spec, **given)
        elif key == "entropy":
            layer = results.uncertainty_layer(shown, self._spec, **given)
        else:
            layer = results.probability_layer(shown, colour, **given)
        self._bases[key] = base
        self.layers.append(layer)


def _same(layer: Layer) -> Layer:
    return layer
