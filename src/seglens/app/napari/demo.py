"""The finished picture: a viewer with image, prediction, target and saliency in place, and the dock beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Labels, Layer
from qtpy.QtCore import QEventLoop, QTimer

from seglens.app.napari import commands, results
from seglens.app.napari.viewer_session import Made, layer_id, session_of
from seglens.core.explanation import Explanation
from seglens.core.image import Image
from seglens.models.spec import ModelSpec, read_spec

SIZE = (1366, 768)
PATIENCE = 30_000  # milliseconds for the engine to load before a picture is taken anyway


def show_demo(
    image: Image, segmentation: Any, explanations: Sequence[Explanation], *, screenshot: Path | None = None
) -> None:
    """Open a viewer on finished results.

    Args:
        image: the image; read whole.
        segmentation: has ``labels`` and ``entropy`` (*space).
        explanations: with records; the first map is shown.
        screenshot: save a picture of the whole window there and close; ``None`` leaves the window to the person.
    """
    viewer = napari.Viewer(title="SegLens", show=True)
    viewer.window.resize(*SIZE)
    try:
        _fill(viewer, image, segmentation, explanations)
        if screenshot is None:
            napari.run()
        else:
            _settle(viewer, PATIENCE)
            viewer.screenshot(str(screenshot), canvas_only=False, flash=False)
    finally:
        if screenshot is not None:
            viewer.close()


def _fill(viewer: Any, image: Image, segmentation: Any, explanations: Sequence[Explanation]) -> None:
    space = "".join(a for a in image.kept if a != "C")
    colour = "C" in image.kept and image.size("C") in (3, 4)
    pixels = image.read(space + "C" if colour else image.kept)
    source = viewer.add_image(pixels, name=image.name, rgb=colour, scale=image.scale(space))
    source.metadata["seglens_source"] = image.source
    dock = commands.dock_of(viewer)
    session = session_of(viewer)
    spec = _spec(explanations)
    frame = results.Frame.of(source, space, space, {}, {})
    where = results.placement(source, frame.start)
    uncertainty = results.uncertainty_layer(
        np.asarray(segmentation.entropy), len(spec.classes), name="uncertainty", **where
    )
    results.add(viewer, uncertainty)
    results.add(viewer, results.prediction_layer(np.asarray(segmentation.labels), spec, name="prediction", **where))
    for number, answer in enumerate(explanations):
        _show(session, viewer, source, frame, answer, spec, first=number == 0)
    if dock is not None:
        dock.tabs.setCurrentIndex(1)
    viewer.layers.selection.active = source
    viewer.fit_to_view()


def _show(
    session: Any, viewer: Any, source: Layer, frame: results.Frame, answer: Explanation, spec: ModelSpec, *, first: bool
) -> None:
    record = answer.record
    title = record.method if record is not None else "explanation"
    limits = results.limits_of(answer)
    makers = results.explanation_makers(viewer, source, frame, answer, limits, spec, title)
    layers = [make() for make in makers]
    for layer in reversed(layers):
        layer.visible = layer.visible and first
        if isinstance(layer, Labels):
            layer.visible = False
        results.add(viewer, layer)
    session.keep(Made(record.to_dict() if record is not None else {}, text=answer.text), layers)
    results.outline(viewer)
    if first:
        session.question.layer_id = layer_id(source)
        session.say(answer.text)


def _spec(explanations: Sequence[Explanation]) -> ModelSpec:
    from seglens.models.zoo import zoo

    names = [e.record.model["source"] for e in explanations if e.record is not None]
    folder = zoo().get(names[0]) if names else None
    if folder is None:
        return ModelSpec.from_dict(
            {"name": "model", "axes": "YX", "channels": ["grey"], "classes": ["background", "object"]}
        )
    return ModelSpec.from_dict(read_spec(folder / "model.json"))


def _settle(viewer: Any, patience: int) -> None:
    # the picture should show the dock as a person finds it: engine loaded, model chosen
    session = session_of(viewer)
    loop = QEventLoop()
    watch, limit = QTimer(), QTimer()
    limit.setSingleShot(True)
    limit.timeout.connect(loop.quit)
    watch.timeout.connect(lambda: loop.quit() if session.engine.ready and not session.model.loading else None)
    watch.start(100)
    limit.start(patience)
    loop.exec()
    watch.stop()
    QTimer.singleShot(300, loop.quit)
    loop.exec()
