"""From what was chosen to what the engine is asked, without a window."""

import numpy as np
import pytest
from napari.components import ViewerModel
from viewer_help import blobs, make_model

from seglens.app.napari import asking, words
from seglens.app.napari.viewer_session import State, layer_id, session_of
from seglens.core.catalogue import METHODS
from seglens.core.errors import BadParameter, ImageMismatch, NoSuchRegion
from seglens.core.target import Border, Object, Painted, Point, Predicted


def ready(data=None, model=None, method="occlusion", **image):
    """A session that could run."""
    viewer = ViewerModel()
    layer = viewer.add_image(blobs(40, 50) if data is None else data, **image)
    session = session_of(viewer)
    session.question.layer_id = layer_id(layer)
    made = model or make_model()
    session.model.spec, session.model.loaded = made.spec, made
    session.engine.methods = tuple(METHODS[m] for m in METHODS)
    session.engine.ready = True
    session.question.method = method
    return viewer, layer, session


def test_reasons_come_one_at_a_time():
    viewer = ViewerModel()
    session = session_of(viewer)
    assert asking.why_not(session, "segment") == words.PICK_IMAGE
    layer = viewer.add_image(blobs(40, 50))
    session.question.layer_id = layer_id(layer)
    assert asking.why_not(session, "segment") == words.ENGINE_STARTING
    session.engine.ready = True
    assert asking.why_not(session, "segment") == words.PICK_MODEL
    session.model.loading = True
    assert asking.why_not(session, "segment") == words.MODEL_LOADING
    session.model.loading = False
    session.model.untrusted = "abc"
    assert asking.why_not(session, "segment") == words.MODEL_UNTRUSTED


def test_reasons_with_a_model():
    _viewer, _layer, session = ready(method="")
    question = session.question
    assert asking.why_not(session, "segment") == ""
    assert asking.why_not(session, "explain") == words.PICK_METHOD
    question.method = "occlusion"
    assert asking.why_not(session, "explain") == ""
    # what cannot run on a model of two classes, and what cannot be given in the viewer
    question.method = "neural-backed-tree"
    assert asking.why_not(session, "explain").startswith("SegNBDT needs 3 classes or more")
    question.method = "cross-model-cam"
    assert asking.why_not(session, "explain") == words.NEEDS["second model"]
    question.method = "occlusion"
    question.region = "object"
    assert asking.why_not(session, "explain") == words.PICK_SPOT
    question.region = "border"
    question.border_of = "painted"
    assert asking.why_not(session, "explain") == words.PAINT_FIRST
    question.scope = "regions"
    assert asking.why_not(session, "segment") == words.NO_SHAPES
    question.scope = "slice"
    question.labels = question.probabilities = question.uncertainty = False
    assert asking.why_not(session, "segment") == words.PICK_OUTPUT
    session.status.state = State.RUNNING
    assert asking.why_not(session, "segment") == words.BUSY


def test_a_volume_model_needs_depth():
    _viewer, _, session = ready(model=make_model(dims=3))
    assert "Z" in asking.why_not(session, "segment")
    with pytest.raises(ImageMismatch):
        asking.plan_segment(session)


def test_renamed_axes_are_used():
    _viewer, layer, session = ready(blobs(5, 40, 50))
    assert asking.plan_segment(session, "slice").views[0].kept == "YX"
    session.set_axes(layer, "CYX")
    plan = asking.plan_segment(session, "all")
    assert plan.views[0].kept == "CYX"
    assert plan.views[0].channels == (0,)


def test_scopes_of_a_stack():
    viewer, layer, session = ready(blobs(3, 5, 40, 50))
    viewer.dims.set_point(0, 2)
    viewer.dims.set_point(1, 4)
    plan = asking.plan_segment(session, "slice")
    assert plan.views[0].kept == "YX"
    assert plan.frame.start == (2, 4, 0, 0)
    assert plan.frame.shape == (1, 1, 40, 50)
    plan = asking.plan_segment(session, "all")
    assert plan.views[0].kept == "TZYX"
    assert plan.frame.shape == (3, 5, 40, 50)
    layer.corner_pixels = np.array([[0, 0, 10, 10], [0, 0, 19, 29]])
    plan = asking.plan_segment(session, "view")
    assert plan.views[0].shape == (10, 20)
    assert plan.frame.start == (2, 4, 10, 10)


def test_several_regions_share_one_frame():
    viewer, _, session = ready()
    viewer.add_shapes([[[2, 2], [2, 10], [8, 10], [8, 2]], [[20, 30], [20, 45], [35, 45], [35, 30]]])
    plan = asking.plan_segment(session, "regions")
    assert [v.shape for v in plan.views] == [(7, 9), (16, 16)]
    assert plan.frame.start == (2, 2)
    assert plan.frame.shape == (34, 44)
    assert plan.corners == [{"Y": 0, "X": 0}, {"Y": 18, "X": 28}]


@pytest.mark.parametrize(
    ("channels", "shape", "axes", "expected"),
    [
        (3, (40, 50), "YX", (0, 0, 0)),
        (3, (40, 50, 4), "YXC", (0, 1, 2)),
        (1, (2, 40, 50), "CYX", (0,)),
        (3, (40, 50, 3), "YXC", None),
    ],
)
def test_channels_are_mapped(channels, shape, axes, expected):
    _viewer, layer, session = ready(
        np.zeros(shape, np.uint8), make_model(channels), rgb=len(shape) == 3 and shape[-1] in (3, 4)
    )
    assert asking.channels_of(session, layer, axes, session.model.spec) == expected


def test_a_persons_mapping_wins_until_it_no_longer_fits():
    _viewer, layer, session = ready(np.zeros((40, 50, 3), np.uint8), make_model(3), rgb=True)
    session.channels[layer_id(layer)] = (2, 1, 0)
    assert asking.channels_of(session, layer, "YXC", session.model.spec) == (2, 1, 0)
    session.model.spec = make_model(1).spec
    assert asking.channels_of(session, layer, "YXC", session.model.spec) == (0,)


def test_regions_become_targets():
    viewer, layer, session = ready(scale=(2, 2))
    question = session.question
    assert isinstance(asking.plan_explain(session).target.region, Predicted)
    question.spot = tuple(layer.data_to_world((20, 25)))
    question.region = "point"
    assert asking.plan_explain(session).target.region == Point((20, 25))
    question.region = "object"
    assert asking.plan_explain(session).target.region == Object(at=(20, 25))
    question.region, question.border_of, question.border_width = "border", "object", 3
    assert asking.plan_explain(session).target.region == Border(Object(at=(20, 25)), 3)
    target = viewer.add_labels(np.zeros((40, 50), int), scale=(2, 2))
    target.data[20, 25] = 1
    question.region, question.target_id = "painted", layer_id(target)
    region = asking.plan_explain(session).target.region
    assert isinstance(region, Painted)
    assert region.mask.sum() == 1
    question.of_class, question.value, question.reduction = "cell", "margin", "sum"
    told = asking.plan_explain(session).target
    assert (told.of_class, told.value, told.reduction) == ("cell", "margin", "sum")


def test_points_are_told_in_pixels_of_the_view():
    _viewer, layer, session = ready()
    layer.corner_pixels = np.array([[10, 20], [29, 44]])
    session.question.scope = "view"
    session.question.region, session.question.spot = "point", (15, 30)
    plan = asking.plan_explain(session)
    assert plan.target.region == Point((5, 10))
    assert plan.frame.start == (10, 20)
    session.question.spot = (2, 2)
    with pytest.raises(NoSuchRegion):
        asking.plan_explain(session)


def test_parameters_are_checked():
    _viewer, _, session = ready()
    session.values["occlusion"] = {"window": -4}
    with pytest.raises(BadParameter):
        asking.plan_explain(session)


def test_two_viewers_have_two_sessions_and_nothing_is_kept_alive():
    import gc
    import weakref

    one, two = ViewerModel(), ViewerModel()
    assert session_of(one) is not session_of(two)
    assert session_of(one) is session_of(one)
    gone = weakref.ref(session_of(one))
    del one
    gc.collect()
    assert gone() is None


def test_state_follows_a_layer_not_its_name():
    viewer, layer, session = ready(blobs(5, 40, 50))
    session.set_axes(layer, "TYX")
    layer.name = "something else"
    assert asking.axes_of(session, layer) == "TYX"
    viewer.layers.remove(layer)
    assert session.axes == {}
    assert session.image_layer is None
