"""The finished picture: a viewer with image, prediction, target and saliency in place, and the dock beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.layers import Labels, Layer
from numpy.typing import NDArray
from qtpy.QtCore import QEventLoop, QTimer

from seglens.app.napari import colours, commands, results, work
from seglens.app.napari.viewer_session import Made, ViewerSession, layer_id, session_of
from seglens.core.explanation import Explanation
from seglens.core.image import Image
from seglens.core.method import Method
from seglens.models.spec import ModelSpec

SIZE = (1366, 768)
PATIENCE = 30_000  # milliseconds for the engine to load before a picture is taken anyway
ZOOM = 1.6  # how much nearer than the whole image the explained object is shown


def show_demo(
    image: Image, segmentation: Any, explanations: Sequence[Explanation], *, screenshot: Path | None = None
) -> None:
    """Open a viewer on finished results.

    Args:
        image: a 2-D image, grey or RGB; read whole.
        segmentation: has ``labels``, ``entropy`` (*space) and ``objects()``.
        explanations: with records; the first map is shown.
        screenshot: save a picture of the whole window there and close; ``None`` leaves the window to the person.
    """
    viewer = napari.Viewer(title="SegLens", show=True)
    viewer.window.resize(*SIZE)
    try:
        session = _fill(viewer, image, segmentation, explanations)
        if screenshot is None:
            napari.run()
        else:
            _wait(session, PATIENCE)
            viewer.screenshot(str(screenshot), canvas_only=False, flash=False)
    finally:
        if screenshot is not None:
            viewer.close()


def _fill(viewer: Any, image: Image, segmentation: Any, explanations: Sequence[Explanation]) -> ViewerSession:
    space = "".join(a for a in image.kept if a != "C")
    colour = image.size("C") in (3, 4)
    source = viewer.add_image(
        image.read(space + "C" if colour else image.kept), name=image.name, rgb=colour, scale=image.scale(space)
    )
    source.metadata["seglens_source"] = image.source
    session = session_of(viewer)
    dock = commands.dock_of(viewer)
    session.question.layer_id = layer_id(source)
    spec = _spec(explanations)
    frame = results.Frame.of(source, space, space, {}, {})
    _add_prediction(viewer, source, frame, segmentation, spec)
    # the one to look at first goes in last, so that it lies on top
    for answer in reversed(explanations):
        _add_answer(session, viewer, source, frame, answer, spec, first=answer is explanations[0])
    if explanations:
        _ask_again(session, viewer, source, explanations[0], segmentation)
    if dock is not None:
        dock.tabs.setCurrentIndex(1)
    viewer.layers.selection.active = source
    return session


def _add_prediction(viewer: Any, source: Layer, frame: results.Frame, made: Any, spec: ModelSpec) -> None:
    where = results.placement(source, frame.start)
    entropy = results.uncertainty_layer(np.asarray(made.entropy), spec, name="uncertainty", **where)
    results.add(viewer, entropy)
    results.add(viewer, results.prediction_layer(np.asarray(made.labels), spec, name="prediction", **where))
    results.outline(viewer)


def _add_answer(
    session: ViewerSession,
    viewer: Any,
    source: Layer,
    frame: results.Frame,
    answer: Explanation,
    spec: ModelSpec,
    *,
    first: bool,
) -> None:
    record = answer.record
    makers = results.explanation_makers(
        viewer,
        source,
        frame,
        answer,
        results.limits_of(answer),
        spec,
        _title(record.method if record else "explanation"),
    )
    layers = []
    for make in reversed(makers):
        layer = make()
        layer.visible = layer.visible and first
        results.add(viewer, layer)
        layers.append(layer)
    session.keep(Made(record.to_dict() if record is not None else {}, text=answer.text), layers)
    if first:
        session.say(answer.text)


def _ask_again(session: ViewerSession, viewer: Any, source: Layer, answer: Explanation, made: Any) -> None:
    """Set the form to the first question, mark its target and go near it."""
    record = answer.record
    if record is None:
        return
    question, told = session.question, record.target
    question.method = record.method
    session.values[record.method] = {k: v for k, v in record.parameters.items() if v is not None}
    question.of_class = told.get("class")
    region = told["region"]
    at = region.get("at")
    if region["kind"] in ("object", "point") and at is not None:
        world = source.data_to_world(tuple(at))
        question.region, question.spot = region["kind"], tuple(float(n) for n in world)
        _mark(viewer, source, _mask(made, region))
        viewer.fit_to_view()
        camera = viewer.scene.camera
        camera.zoom *= ZOOM
        camera.center = (0, *world[-2:])


def _mask(made: Any, region: dict[str, Any]) -> NDArray[np.uint8]:
    at = tuple(region["at"])
    if region["kind"] == "object":
        objects = np.asarray(made.objects())
        return np.asarray(objects == objects[at], np.uint8)
    mask = np.zeros(np.asarray(made.labels).shape, np.uint8)
    mask[at] = 1
    return mask


def _mark(viewer: Any, source: Layer, mask: NDArray[np.uint8]) -> None:
    target: Labels = results.target_layer(viewer, source, "ZYX"[-source.ndim :])
    target.data[...] = mask
    target.contour = 2
    target.opacity = 1
    target.colormap = results.direct(colours.TARGET)
    results.add(viewer, target)
    target.refresh()


def _title(method: str) -> str:
    from seglens.core.catalogue import METHODS

    kind: type[Method] | None = METHODS.get(method)
    return kind.title if kind is not None else method


def _spec(explanations: Sequence[Explanation]) -> ModelSpec:
    from seglens.models.zoo import zoo

    sources = [e.record.model["source"] for e in explanations if e.record is not None]
    folder = zoo().get(sources[0]) if sources else None
    if folder is not None:
        return work.spec_in(folder)
    plain = {"name": "model", "axes": "YX", "channels": ["grey"], "classes": ["background", "object"]}
    return ModelSpec.from_dict(plain)


def _wait(session: ViewerSession, patience: int) -> None:
    # the picture should show the dock as a person finds it: engine loaded, model chosen
    loop = QEventLoop()
    watch, limit = QTimer(), QTimer()
    limit.setSingleShot(True)
    limit.timeout.connect(loop.quit)
    watch.timeout.connect(lambda: loop.quit() if session.engine.ready and not session.model.loading else None)
    watch.start(100)
    limit.start(patience)
    loop.exec()
    watch.stop()
    QTimer.singleShot(500, loop.quit)
    loop.exec()
