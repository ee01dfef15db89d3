"""Results lie exactly on the image they explain."""

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels
from viewer_help import make_model

from seglens.app.napari import colours, results
from seglens.app.report import panels
from seglens.core.explanation import Explanation
from seglens.core.explanation import Layer as Answer

rng = np.random.default_rng(0)
SPEC = make_model().spec


def random_layer(shape, seed, **more):
    """An image under random scale, translation, rotation, shear and affine."""
    r = np.random.default_rng(seed)
    n = len(shape)
    affine = np.eye(n + 1)
    affine[:n, :n] += 0.2 * r.standard_normal((n, n))
    affine[:n, n] = r.uniform(-20, 20, n)
    rotate = {2: 30.0, 3: (10.0, 20.0, 30.0)}.get(n, np.eye(n))
    return Image(
        np.zeros(shape, np.float32),
        scale=r.uniform(0.3, 3, n),
        translate=r.uniform(-50, 50, n),
        rotate=rotate,
        shear=r.uniform(-0.3, 0.3, n * (n - 1) // 2),
        affine=affine,
        **more,
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("shape", "axes"), [((40, 50), "YX"), ((6, 40, 50), "ZYX"), ((2, 6, 40, 50), "TZYX")])
def test_a_crop_stays_in_place_under_any_affine(shape, axes, seed):
    source = random_layer(shape, seed, units=("um",) * len(shape), axis_labels=tuple(axes.lower()))
    position = {a: 1 for a in axes if a not in "YX"}
    box = {"Y": slice(7, 20), "X": slice(11, 40)}
    frame = results.Frame.of(source, axes, "YX", box, position)
    base, shown = frame.canvas(np.uint8)
    layer = results.prediction_layer(shown, SPEC, name="p", **results.placement(source, frame.start))
    assert layer.units == source.units
    assert layer.axis_labels == source.axis_labels
    for y, x in [(0, 0), (12, 28), (5, 9)]:
        extra = (0,) * (len(shape) - 2)
        here = source.data_to_world((*(1,) * (len(shape) - 2), 7 + y, 11 + x))
        np.testing.assert_allclose(layer.data_to_world((*extra, y, x)), here, atol=1e-6)
    assert base.shape == (*(1,) * (len(shape) - 2), 13, 29)


def test_a_target_layer_shares_the_grid_and_leaves_a_leading_channel_out():
    viewer = ViewerModel()
    source = random_layer((3, 40, 50), 1)
    target = results.target_layer(viewer, source, "ZYX")
    assert target.data.shape == (3, 40, 50)
    np.testing.assert_allclose(target.data_to_world((1, 3, 4)), source.data_to_world((1, 3, 4)))
    plain = Image(np.zeros((3, 40, 50)), scale=(1, 2, 3), translate=(0, 4, 5))
    target = results.target_layer(viewer, plain, "CYX")
    assert target.data.shape == (40, 50)
    np.testing.assert_allclose(target.data_to_world((3, 4)), plain.data_to_world((0, 3, 4))[1:])


def test_channels_repeat_the_result_without_memory():
    source = Image(np.zeros((2, 3, 40, 50)))
    frame = results.Frame.of(source, "TCYX", "YX", {}, {})
    base, shown = frame.canvas(np.uint8)
    assert base.shape == (2, 1, 40, 50)
    assert shown.shape == (2, 3, 40, 50)
    base[frame.where({"T": 1}, (slice(3, 5), slice(4, 6)))] = 7
    assert shown[1, 2, 3, 4] == 7
    assert shown[0].max() == 0


def test_rgb_layers_lose_the_colour_axis():
    source = Image(np.zeros((40, 50, 3), np.uint8), rgb=True)
    frame = results.Frame.of(source, "YXC", "YX", {}, {})
    assert frame.shape == (40, 50)


def test_a_transposed_layer_gets_a_transposed_map():
    source = Image(np.zeros((50, 40)))
    frame = results.Frame.of(source, "XY", "YX", {}, {})
    array = rng.random((40, 50))
    np.testing.assert_array_equal(frame.fit(array), array.T)
    np.testing.assert_array_equal(frame.points(np.array([[3, 7]])), [[7, 3]])


def test_large_results_live_in_a_file(monkeypatch):
    monkeypatch.setattr(results, "LARGE", 1000)
    base = results.empty((100, 100), np.float32)
    assert isinstance(base, np.memmap)
    assert not base.any()


def answer(kind, data, **more):
    return Explanation((Answer("map", kind, data, unit="logit", **more),))


def layers_of(explanation, source=None, axes="YX", box=None, position=None):
    source = source or Image(np.zeros((40, 50)))
    frame = results.Frame.of(source, axes, "YX", box or {}, position or {})
    limits = results.limits_of(explanation)
    makers = results.explanation_makers(ViewerModel(), source, frame, explanation, limits, SPEC, "Method")
    return [make() for make in makers]


def test_signed_maps_are_symmetric_raw_and_have_a_colour_bar():
    data = rng.standard_normal((40, 50)).astype(np.float32) + 0.5
    (layer,) = layers_of(answer("signed", data))
    low, high = layer.contrast_limits
    assert low == -high
    np.testing.assert_array_equal(layer.data, data)
    assert layer.colorbar.visible
    middle = layer.colormap.map(np.array([0.5]))[0]
    assert middle[3] < 0.05
    assert layer.name == "Method · map"
    assert layer.metadata["seglens"]["unit"] == "logit"


def test_heat_maps_start_at_zero():
    data = np.abs(rng.standard_normal((40, 50)))
    (layer,) = layers_of(answer("heat", data))
    assert layer.contrast_limits[0] == 0
    assert layer.colormap.map(np.array([0.0]))[0][3] == 0


@pytest.mark.parametrize("kind", ["heat", "signed"])
def test_the_contrast_slider_reaches_the_strongest_pixel(kind):
    data = rng.uniform(0.5, 1, (40, 50)).astype(np.float32)
    data[3, 4] = 80
    (layer,) = layers_of(answer(kind, data))
    assert 0.9 < layer.contrast_limits[1] <= 1
    assert layer.contrast_limits_range == [-80 if kind == "signed" else 0, 80]
    assert layer.data.max() == 80
    layer.contrast_limits = (layer.contrast_limits[0], 80)
    assert layer.contrast_limits_range[1] == 80


def test_new_limits_of_a_layer_that_changes_in_place():
    layer = Image(np.zeros((4, 5)), contrast_limits=(0, 3))
    results.Limits((0.0, 1.0), (0.0, 8.0)).give(layer)
    assert (layer.contrast_limits, layer.contrast_limits_range) == ([0, 1], [0, 8])
    results.Limits((-20.0, 20.0), (-50.0, 50.0)).give(layer)
    assert (layer.contrast_limits, layer.contrast_limits_range) == ([-20, 20], [-50, 50])
    # what the person set stays, also beyond all values
    layer.contrast_limits = (0, 70)
    results.Limits((0.0, 1.0), (-60.0, 2.0)).widen(layer)
    assert (layer.contrast_limits, layer.contrast_limits_range) == ([0, 70], [-60, 70])


def test_maps_of_a_slice_show_on_that_slice_only():
    source = Image(np.zeros((6, 40, 50)), scale=(2, 1, 1))
    (layer,) = layers_of(
        answer("heat", rng.random((10, 12))), source, "ZYX", {"Y": slice(5, 15), "X": slice(6, 18)}, {"Z": 4}
    )
    assert layer.data.shape == (1, 10, 12)
    np.testing.assert_allclose(layer.translate, (8, 5, 6))


def test_offsets_of_an_answer_are_added():
    (layer,) = layers_of(answer("heat", rng.random((4, 4)), offset=(3, 2)), box={"Y": slice(10, 30), "X": slice(5, 30)})
    np.testing.assert_allclose(layer.translate, (13, 7))


def test_other_kinds_of_answers():
    source = Image(np.zeros((6, 40, 50)))
    kinds = Explanation(
        (
            Answer("labels", "labels", np.ones((40, 50), int)),
            Answer("rgb", "image", rng.random((40, 50, 3)), rgb=True),
            Answer("points", "points", np.array([[1.0, 2.0]])),
            Answer("vectors", "vectors", np.array([[[1.0, 2.0], [3.0, 4.0]]])),
        )
    )
    labels, rgb, points, vectors = layers_of(kinds, source, "ZYX", position={"Z": 2})
    assert isinstance(labels, Labels)
    assert not labels.editable
    assert rgb.data.shape == (1, 40, 50, 3)
    assert rgb.rgb
    np.testing.assert_allclose(points.data_to_world(points.data[0]), (2 + 2, 1, 2) if points.data[0][0] else (2, 1, 2))
    np.testing.assert_array_equal(vectors.data[0, 1], (0, 3, 4))


@pytest.mark.parametrize(
    ("shape", "axes", "data", "expected"),
    [
        ((40, 50), "YX", (40, 50, 1), (40, 50)),
        ((40, 50), "YX", (40, 50, 2), (40, 50)),
        ((2, 40, 50), "CYX", (40, 50, 2), (2, 40, 50)),
        ((2, 40, 50), "CYX", (40, 50, 1), (2, 40, 50)),
        ((5, 2, 40, 50), "ZCYX", (40, 50, 2), (1, 2, 40, 50)),
        ((5, 40, 50), "ZYX", (40, 50, 1), (1, 40, 50)),
    ],
)
def test_images_with_channels(shape, axes, data, expected):
    values = rng.random(data).astype(np.float32)
    (layer,) = layers_of(
        answer("image", values), Image(np.zeros(shape)), axes, position={"Z": 3} if "Z" in axes else {}
    )
    assert layer.data.shape == expected
    plane = np.asarray(layer.data).reshape(-1, 40, 50)[-1]
    own = "C" in axes and data[-1] == 2
    np.testing.assert_allclose(plane, values[..., -1] if own else values.mean(-1), rtol=1e-6)


def test_names_never_collide():
    viewer = ViewerModel()
    for wanted in ("prediction", "prediction #2", "prediction #3"):
        assert results.unique_name(viewer, "prediction") == wanted
        viewer.add_labels(np.zeros((4, 4), int), name=wanted)


def test_adding_keeps_the_active_layer_and_locks():
    viewer = ViewerModel()
    mine = viewer.add_labels(np.zeros((8, 8), int))
    mine.mode = "paint"
    results.add(viewer, Image(np.zeros((8, 8))))
    assert viewer.layers.selection.active is mine
    assert mine.mode == "paint"
    assert viewer.layers[-1].locked


@pytest.mark.parametrize("name", colours.SIGNED)
def test_signed_colours_are_clear_in_the_middle_and_differ_at_the_ends(name):
    low, middle, high = colours.signed(name).map(np.array([0.0, 0.5, 1.0]))
    assert middle[3] < 0.05
    assert low[3] == high[3] == 1
    assert np.abs(low[:3] - high[:3]).sum() > 0.5


def test_pictures_of_a_run_have_the_same_colours():
    at = np.array([0.0, 0.25, 0.75, 1.0])
    np.testing.assert_allclose(
        results.map_colours("signed").map(at)[:, :3], panels.map_colours("signed")(at)[:, :3], atol=0.02
    )
    np.testing.assert_allclose(
        results.map_colours("heat").map(at)[:, :3], panels.map_colours("heat")(at)[:, :3], atol=0.02
    )
    # tissue has less green than red and blue
    for kind, places in (("heat", (0.4, 0.6, 0.8, 1.0)), ("signed", (0.25, 0.75))):
        for red, green, blue, _ in results.map_colours(kind).map(np.array(places)):
            assert green > min(red, blue) + 0.1


def test_class_colours_come_from_the_model():
    table = results.class_colours(SPEC).color_dict
    assert table[0][3] == 0
    np.testing.assert_allclose(table[1][:3], [0x26 / 255, 0xC6 / 255, 0xDA / 255], atol=1e-3)
