"""From what was chosen to what the engine is asked; whatever cannot be asked is said before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Labels, Layer, Shapes
from numpy.typing import NDArray

from seglens.app.napari import adapt, words
from seglens.app.napari.results import Frame
from seglens.app.napari.viewer_session import State, ViewerSession, is_ours, layer_id
from seglens.core.errors import ImageMismatch, MissingNeed, NoSuchRegion, SegLensError
from seglens.core.image import Image
from seglens.core.method import Method, Need
from seglens.core.target import Border, Object, Painted, Point, Predicted, Region, Target
from seglens.models.spec import ModelSpec

UNITS, LABELS = "units", "labels"  # a parameter and its choice: a Labels layer says what is taken away as one


@dataclass(frozen=True, eq=False)
class SegmentPlan:
    """What to segment: one frame around all views, and where each view lies in it."""

    layer: Layer
    frame: Frame
    views: list[Image]
    corners: list[dict[str, int]]
    scope: str


@dataclass(frozen=True, eq=False)
class ExplainPlan:
    """What to explain, and where the answer goes."""

    layer: Layer
    frame: Frame
    image: Image
    target: Target
    method: Method
    title: str
    annotation: NDArray[Any] | None = None
    bank: str = ""


@dataclass(frozen=True, eq=False)
class View:
    """What is looked at by an explanation, whatever its target: a part of a layer."""

    layer: Layer
    frame: Frame
    image: Image


def axes_of(session: ViewerSession, layer: Layer) -> str:
    """The axes of a layer: as the person named them, else guessed.

    Raises:
        ImageMismatch: they cannot be guessed.
    """
    named = session.axes.get(layer_id(layer))
    return named if named is not None else adapt.guess(layer)


def channels_of(session: ViewerSession, layer: Layer, axes: str, spec: ModelSpec) -> tuple[int, ...] | None:
    """The channels to use: as mapped by the person, else the obvious ones; ``None`` for all as they are."""
    have = int(adapt.pixels(layer).shape[axes.index("C")]) if "C" in axes else 1
    want = len(spec.channels)
    mapped = session.channels.get(layer_id(layer))
    if mapped is not None and len(mapped) == want and max(mapped) < have:
        return mapped
    return None if have == want else tuple(min(i, have - 1) for i in range(want))


def why_not(session: ViewerSession, job: str) -> str:
    """Why ``segment`` or ``explain`` cannot start now; empty if it can."""
    question, layer, model = session.question, session.image_layer, session.model
    if session.status.state is not State.IDLE:
        return words.BUSY
    if layer is None:
        return words.PICK_IMAGE
    if model.loading:
        return words.MODEL_LOADING
    if model.untrusted:
        return words.MODEL_UNTRUSTED
    if model.loaded is None or model.spec is None:
        return words.PICK_MODEL if session.engine.ready else words.ENGINE_STARTING
    try:
        axes = axes_of(session, layer)
    except SegLensError as error:
        return error.what
    if not set(model.spec.axes) <= set(axes):
        return words.axes_problem(axes, model.spec.axes, model.spec.name)
    if question.scope == "regions" and shapes_layer(session) is None:
        return words.NO_SHAPES
    if job == "segment":
        return "" if question.labels or question.probabilities or question.uncertainty else words.PICK_OUTPUT
    return _why_not_explain(session)


def _why_not_explain(session: ViewerSession) -> str:
    question = session.question
    if not question.method:
        return words.PICK_METHOD
    lacking = _lacks(session)
    if lacking:
        return lacking
    region = question.border_of if question.region == "border" else question.region
    if region in ("object", "point") and question.spot is None:
        return words.PICK_SPOT
    if region == "painted" and session.layer(question.target_id) is None:
        return words.PAINT_FIRST
    if needs_labels(session) and not isinstance(session.layer(question.annotation_id), Labels):
        return words.PICK_LABELS
    return words.PICK_BANK if needs_bank(session) and not question.bank else ""


def _lacks(session: ViewerSession) -> str:
    """What the chosen method asks for that this model does not have, or that cannot be given here."""
    kind, model = _kind(session), session.model
    if kind is None or model.spec is None:
        return ""
    unfit = kind.unfit(model.spec, getattr(model.loaded, "layered", True))
    if unfit is not None:
        return f"{kind.title} {unfit[0]}."
    return next((words.NEEDS[str(n)] for n in (Need.REFERENCE, Need.SECOND_MODEL) if n in kind.needs), "")


def needs_labels(session: ViewerSession) -> bool:
    """Whether the chosen method, as it is set, asks for a Labels layer of the person."""
    kind = _kind(session)
    if kind is None or Need.ANNOTATION in kind.needs:
        return kind is not None
    units = next((p for p in kind.parameters() if p.name == UNITS and LABELS in p.choices), None)
    values = session.values.get(session.question.method, {})
    return units is not None and values.get(UNITS, units.default) == LABELS


def needs_bank(session: ViewerSession) -> bool:
    """Whether the chosen method looks examples up in a feature bank."""
    kind = _kind(session)
    return kind is not None and Need.BANK in kind.needs


def labels_layers(session: ViewerSession) -> list[Labels]:
    """The Labels layers that have the shape of the image, the person's own first."""
    viewer, layer = session.viewer, session.image_layer
    if viewer is None or layer is None:
        return []
    try:
        axes = axes_of(session, layer)
    except SegLensError:
        return []
    found = [x for x in viewer.layers if isinstance(x, Labels) and adapt.same_shape(x, layer, axes)]
    return sorted(found, key=is_ours)


def plan_segment(session: ViewerSession, scope: str | None = None) -> SegmentPlan:
    """What to segment.

    Raises:
        SegLensError: nothing in view, no shape on the image, axes that do not fit.
    """
    layer, axes, spec = _ready(session)
    scope = scope or session.question.scope
    position = {} if scope == "all" else adapt.steps(layer, _viewer(session), axes, spec.axes)
    boxes = _boxes(session, layer, axes, spec.axes, scope)
    whole = _around(boxes)
    views = [_view(session, layer, axes, spec, box, position) for box in boxes]
    corners = [{a: box[a].start - whole[a].start if a in box else 0 for a in spec.axes} for box in boxes]
    return SegmentPlan(layer, Frame.of(layer, axes, spec.axes, whole, position), views, corners, scope)


def plan_explain(session: ViewerSession) -> ExplainPlan:
    """What to explain: always at the current position, inside the chosen part.

    Raises:
        SegLensError: no such region, a parameter out of range, axes that do not fit.
    """
    layer, axes, spec = _ready(session)
    question = session.question
    method = configured(session)
    view = explained(session)
    region = _region(session, question.region, layer, axes, view.image, spec)
    target = Target(question.of_class, region, question.value, question.reduction)  # type: ignore[arg-type]
    annotation = _annotation(session, layer, axes, view.image, spec) if needs_labels(session) else None
    bank = question.bank if needs_bank(session) else ""
    return ExplainPlan(layer, view.frame, view.image, target, method, method.title, annotation, bank)


def explained(session: ViewerSession, scope: str | None = None) -> View:
    """The part of the image that explanations look at: at the current position, inside the chosen part.

    Args:
        session: what is chosen.
        scope: another part than the chosen one.

    Raises:
        SegLensError: nothing in view, no shape on the image, axes that do not fit.
    """
    layer, axes, spec = _ready(session)
    position = adapt.steps(layer, _viewer(session), axes, spec.axes)
    box = _around(_boxes(session, layer, axes, spec.axes, scope or session.question.scope))
    image = _view(session, layer, axes, spec, box, position)
    return View(layer, Frame.of(layer, axes, spec.axes, box, position), image)


def asked(plan: ExplainPlan, model: Any) -> dict[str, Any]:
    """What a plan is asked with."""
    return {
        "method": plan.method, "image": plan.image, "model": model, "target": plan.target,
        "annotation": plan.annotation,
    }  # fmt: skip


def configured(session: ViewerSession) -> Method:
    """The chosen method with the values of the form.

    Raises:
        BadParameter: a value is outside its limits.
        SegLensError: no method is chosen.
    """
    kind = _kind(session)
    if kind is None:
        raise SegLensError("No method is chosen.", fix=words.PICK_METHOD)
    return kind.from_values(session.values.get(kind.name, {}))


def _kind(session: ViewerSession) -> type[Method] | None:
    return next((m for m in session.engine.methods if m.name == session.question.method), None)


def shapes_layer(session: ViewerSession) -> Shapes | None:
    """The Shapes layer that regions come from: the active one, else the topmost that holds shapes."""
    viewer = session.viewer
    if viewer is None:
        return None
    active = viewer.layers.selection.active
    if isinstance(active, Shapes) and len(active.data):
        return active
    return next((s for s in reversed(viewer.layers) if isinstance(s, Shapes) and len(s.data)), None)


def _ready(session: ViewerSession) -> tuple[Layer, str, ModelSpec]:
    layer, spec = session.image_layer, session.model.spec
    if layer is None:
        raise ImageMismatch("No image is chosen.", fix=words.PICK_IMAGE)
    if spec is None or session.model.loaded is None:
        raise SegLensError("No model is loaded.", fix=words.PICK_MODEL)
    axes = axes_of(session, layer)
    if not set(spec.axes) <= set(axes):
        raise ImageMismatch(
            f"{layer.name} has the axes {axes}, and {spec.name} needs {spec.axes}.",
            fix="Click an axis letter at the top of SegLens to name it, or choose another model.",
        )
    return layer, axes, spec


def _viewer(session: ViewerSession) -> Any:
    viewer = session.viewer
    if viewer is None:
        raise ImageMismatch("The viewer is closed.", fix="Open a viewer and an image.")
    return viewer


def _boxes(session: ViewerSession, layer: Layer, axes: str, model_axes: str, scope: str) -> list[adapt.Box]:
    if scope == "view":
        return [adapt.view_box(layer, _viewer(session), axes, model_axes)]
    if scope == "regions":
        shapes = shapes_layer(session)
        if shapes is None:
            raise NoSuchRegion("There is no region.", fix=words.NO_SHAPES)
        return adapt.shape_boxes(shapes, layer, axes, model_axes)
    return [{}]


def _around(boxes: list[adapt.Box]) -> adapt.Box:
    axes = set.intersection(*(set(box) for box in boxes))
    return {a: slice(min(b[a].start for b in boxes), max(b[a].stop for b in boxes)) for a in sorted(axes)}


def _view(
    session: ViewerSession, layer: Layer, axes: str, spec: ModelSpec, box: adapt.Box, position: dict[str, int]
) -> Image:
    image = adapt.image_of(layer, axes).select(**position).crop(**box)
    channels = channels_of(session, layer, axes, spec)
    return image if channels is None else image.with_channels(channels)


def _region(session: ViewerSession, kind: str, layer: Layer, axes: str, image: Image, spec: ModelSpec) -> Region:
    question = session.question
    if kind == "border":
        inner = _region(session, question.border_of, layer, axes, image, spec)
        return Border(inner, question.border_width)  # type: ignore[arg-type]
    if kind == "painted":
        target = session.layer(question.target_id)
        if not isinstance(target, Labels):
            raise NoSuchRegion("There is no layer to take the painted region from.", fix=words.PAINT_FIRST)
        return Painted(adapt.painted(target, layer, axes, image, spec.axes))
    if kind in ("point", "object"):
        at = _spot(session, layer, axes, image, spec)
        return Point(at) if kind == "point" else Object(at=at)
    return Predicted()


def _annotation(session: ViewerSession, layer: Layer, axes: str, image: Image, spec: ModelSpec) -> NDArray[Any]:
    labels = session.layer(session.question.annotation_id)
    if not isinstance(labels, Labels):
        raise MissingNeed("No Labels layer is chosen.", fix=words.PICK_LABELS)
    numbers = adapt.sampled(labels, layer, axes, image, spec.axes)
    if not numbers.any():
        raise NoSuchRegion(
            f"{labels.name} is empty in the part that is explained.",
            fix="Draw on it, choose another Labels layer, or a wider part in the Model tab.",
        )
    return numbers


def _spot(session: ViewerSession, layer: Layer, axes: str, image: Image, spec: ModelSpec) -> tuple[int, ...]:
    spot = session.question.spot
    pixel = None if spot is None else adapt.pixel_at(layer, spot)
    if pixel is None:
        raise NoSuchRegion("No pixel of the image is picked.", fix=words.PICK_SPOT)
    at = tuple(int(pixel[axes.index(a)] - image.offset(a)[0]) for a in spec.axes)
    if not all(0 <= n < image.size(a) for n, a in zip(at, spec.axes, strict=True)):
        raise NoSuchRegion(
            f"The picked pixel lies outside the part that is explained ({', '.join(map(str, np.array(pixel)))}).",
            fix="Pick another one, or choose the whole slice in the Model tab.",
        )
    return at
