"""Neuroscope's maps of scores: the tests of their card (B/B15)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hand import Deep, context_image, small_image, wrap
from seglens.core.errors import UnknownName
from seglens.core.image import Image
from seglens.core.target import Painted, Target
from seglens.session import explain

BOTH = pytest.mark.parametrize("dims", [2, 3])
GROWN = pytest.mark.parametrize("method", ["segmented-score-map", "guided-segmentation-map"])
THREE = ("background", "cell", "other")


class Blocks(torch.nn.Module):
    """The class's score is the brightness, but in a hidden square, whose edges nobody sees, it is higher by 5."""

    def __init__(self, bias: float = 0.0, hidden: float = 5.0) -> None:
        super().__init__()
        self.bias, self.hidden = bias, hidden

    def forward(self, x):
        own = x[:, :1] + self.bias
        own[..., 20:36, 24:44] += self.hidden
        return torch.cat([torch.full_like(own, 3.0 + self.bias), own], 1)


def blocks(dims):
    """Two levels and a little noise: the right half is bright."""
    shape = (6, 48, 56)[-dims:]
    pixels = 0.05 * np.random.default_rng(0).random(shape)
    pixels[..., 28:] += 1
    return Image(pixels.astype(np.float32), "ZYX"[-dims:], name="blocks")


def deep_case(dims=2):
    image = small_image(dims=dims)
    mask = np.zeros(image.space("ZYX"[-dims:]), bool)
    mask[(slice(2, 6),) * dims] = True
    return image, wrap(Deep(dims=dims, classes=3), dims=dims, classes=THREE), Target("cell", Painted(mask))


def logits_of(image, model):
    with torch.no_grad():
        return model.logits(torch.from_numpy(image.read("C" + model.spec.axes))[None])[0].numpy()


@BOTH
@GROWN
def test_each_value_is_the_mean_of_the_score_over_its_part(method, dims):
    image, model, target = deep_case(dims)
    answer = explain(method, image, model, target, smallest=20)
    score = logits_of(image, model)[1]
    values, order = answer.layers[0].data, answer.layers[1].data
    np.testing.assert_allclose(answer.layers[2].data, score, atol=1e-5)
    assert order.max() > 2
    for part in range(1, order.max() + 1):
        np.testing.assert_allclose(values[order == part], score[order == part].mean(), atol=1e-5)
    table = answer.tables[0].columns
    assert table["new pixels"][0] == (order == 1).sum()
    assert answer.figures[0].x[-1] == pytest.approx(1)


@BOTH
def test_the_brighter_block_comes_first(dims):
    answer = explain(
        "segmented-score-map", blocks(dims), wrap(Blocks(hidden=0), dims=dims), Target("cell", right(dims))
    )
    order = answer.layers[1].data
    assert order[..., 30:].max() < order[..., :26].min()


def right(dims):
    mask = np.zeros((6, 48, 56)[-dims:], bool)
    mask[..., 28:] = True
    return Painted(mask)


@GROWN
def test_a_constant_added_to_the_score_shifts_the_map_and_leaves_the_order(method):
    one, two = (explain(method, blocks(2), wrap(Blocks(b)), Target("cell", right(2))) for b in (0.0, 2.0))
    np.testing.assert_array_equal(one.layers[1].data, two.layers[1].data)
    np.testing.assert_allclose(two.layers[0].data, one.layers[0].data + 2, atol=1e-5)


def test_a_mask_that_follows_no_edge_is_a_segment_of_the_guided_map_alone():
    image, model, target = blocks(2), wrap(Blocks()), Target("cell", right(2))
    drawn = logits_of(image, model).argmax(0) == 1
    guided, plain = (
        explain(m, image, model, target).layers[1].data for m in ("guided-segmentation-map", "segmented-score-map")
    )
    assert drawn[..., 20:36, 24:44].all()
    np.testing.assert_array_equal(guided == 1, drawn)
    assert not np.array_equal(plain == 1, drawn)


def test_segments_may_be_dilated():
    near, wide = (
        explain("segmented-score-map", blocks(2), wrap(Blocks(hidden=0)), Target("cell", right(2)), dilation=d).tables[
            0
        ]
        for d in (0, 5)
    )
    assert wide.columns["new pixels"][0] > near.columns["new pixels"][0]


@BOTH
@pytest.mark.parametrize("method", ["segmented-score-map", "guided-segmentation-map", "similarity-map"])
def test_the_score_of_a_layer_is_its_class_activation_map(method, dims):
    image, model, target = deep_case(dims)
    score = explain(method, image, model, target, layer="features").layers[2].data
    cam = explain("seg-grad-cam", image, model, target, layer="features", normalise=False).map.data
    np.testing.assert_allclose(score.clip(0), cam, atol=1e-6)
    assert score.min() < 0


@BOTH
def test_similarity_is_the_mean_score_over_each_predicted_class(dims):
    image, model, target = deep_case(dims)
    logits = logits_of(image, model)
    labels = logits.argmax(0)
    answer = explain("similarity-map", image, model, target)
    rows = {row["class"]: row for row in answer.tables[0].rows()}
    assert set(rows) == {THREE[k] for k in np.unique(labels)}
    for k in np.unique(labels):
        mean = logits[1][labels == k].mean()
        np.testing.assert_allclose(answer.map.data[labels == k], mean, atol=1e-5)
        assert rows[THREE[k]]["mean logit"] == pytest.approx(mean, abs=1e-5)
        assert rows[THREE[k]]["pixels"] == (labels == k).sum()
    ranked = [row["mean logit"] for row in answer.tables[0].rows()]
    assert ranked == sorted(ranked, reverse=True)


def test_similarity_of_objects_names_each_of_them():
    image, cell, _ = context_image()
    net = Blocks(hidden=5)
    answer = explain("similarity-map", image, wrap(net), Target("cell", Painted(cell)), parts="objects")
    labels = logits_of(image, wrap(net)).argmax(0)
    assert [row["object"] for row in answer.tables[0].rows()] == [1, 0]
    assert answer.tables[0].columns["class"] == ["cell", "background"]
    assert answer.tables[0].columns["pixels"] == [int((labels == 1).sum()), int((labels == 0).sum())]


@BOTH
@pytest.mark.parametrize("background", [True, False])
def test_fusion_is_the_highest_score_of_the_classes(dims, background):
    image, model, target = deep_case(dims)
    scores = logits_of(image, model)[0 if background else 1 :]
    answer = explain("fusion-map", image, model, target, background=background)
    np.testing.assert_allclose(answer.map.data, scores.max(0), atol=1e-5)
    np.testing.assert_array_equal(answer.layers[1].data, scores.argmax(0) + (not background))
    best = np.sort(scores, 0)
    np.testing.assert_allclose(answer.layers[2].data, best[-1] - best[-2], atol=1e-5)
    assert sum(answer.tables[0].columns["highest on"]) == pytest.approx(1)


def test_probabilities_are_shown_from_zero_upwards():
    image, model, target = deep_case()
    target = Target("cell", target.region, value="probability")
    for method in ("fusion-map", "similarity-map", "segmented-score-map"):
        layer = explain(method, image, model, target).map
        assert layer.kind == "heat"
        assert 0 <= layer.data.min() <= layer.data.max() <= 1


@pytest.mark.parametrize("method", ["fusion-map", "similarity-map", "segmented-score-map", "guided-segmentation-map"])
def test_a_pixel_has_no_dice_but_a_probability(method):
    image, model, target = deep_case()
    one, two = (
        explain(method, image, model, Target("cell", target.region, value=value)) for value in ("dice", "probability")
    )
    np.testing.assert_array_equal(one.map.data, two.map.data)
    assert one.text == two.text
    assert [layer.unit for layer in one.layers] == [layer.unit for layer in two.layers]
    assert "dice" not in one.text + str([[*table.columns] for table in one.tables])


@pytest.mark.parametrize("method", ["segmented-score-map", "guided-segmentation-map", "similarity-map"])
def test_an_unknown_layer_is_refused(method):
    image, model, target = deep_case()
    with pytest.raises(UnknownName, match="features"):
        explain(method, image, model, target, layer="featurs")
