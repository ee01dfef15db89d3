"""Layer activations: the tests of their card (B/B22)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hand import CONV, small_image, wrap
from seglens.core.errors import UnknownName
from seglens.core.image import Image
from seglens.core.target import Painted, Target
from seglens.methods.gradient.layer_activations import bits
from seglens.models.nets.unet import UNet
from seglens.session import estimate, explain

BOTH = pytest.mark.parametrize("dims", [2, 3])


class Planted(torch.nn.Module):
    """Eight channels of noise; the sixth answers where the image is bright, and the head reads it and the second."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = CONV[dims](1, 8, 3, padding=1)
        self.head = CONV[dims](8, 2, 1)
        with torch.no_grad():
            self.features.weight[5] = 0
            self.features.weight[(5, 0, *(1,) * dims)] = 10
            self.features.bias[5] = -5
            self.head.weight.zero_()
            self.head.bias.zero_()
            self.head.weight[1, 5] = 2
            self.head.weight[1, 1] = 0.5

    def forward(self, x):
        return self.head(F.relu(self.features(x)))


def planted(dims):
    shape = (6, 24, 30)[-dims:]
    mask = np.zeros(shape, bool)
    mask[(slice(1, 4),) * (dims - 2) + (slice(5, 15), slice(8, 20))] = True
    pixels = 0.3 * np.random.default_rng(0).random(shape) + mask
    return Image(pixels.astype(np.float32), "ZYX"[-dims:], name="planted"), mask


@BOTH
def test_the_channel_that_is_the_mask_comes_first_with_iou_one(dims):
    image, mask = planted(dims)
    answer = explain(
        "layer-activations", image, wrap(Planted(dims), dims=dims), Target(1, Painted(mask)), layer="features"
    )
    table = answer.tables[0].columns
    assert table["channel"][0] == 5
    assert table["IoU with the region"][0] == 1
    assert table["IoU with the region"] == sorted(table["IoU with the region"], reverse=True)
    with torch.no_grad():
        seen = wrap(Planted(dims), dims=dims).module.features(torch.from_numpy(image.read("ZYX"[-dims:]))[None, None])[
            0
        ]
    for channel, mean in zip(table["channel"], table["mean in the region"], strict=True):
        assert mean == pytest.approx(float(seen[channel][torch.from_numpy(mask)].mean()), abs=1e-5)
    np.testing.assert_allclose(answer.layers[0].data, seen[5], atol=1e-5)
    np.testing.assert_allclose(answer.layers[2].data, seen.mean(0), atol=1e-5)


def test_the_strongest_channel_is_shown_even_if_it_matches_badly():
    image, mask = planted(2)
    net = Planted()
    with torch.no_grad():
        net.features.bias[3] += 50
    answer = explain("layer-activations", image, wrap(net), Target(1, Painted(mask)), layer="features")
    assert answer.layers[1].name == "strongest: channel 3"
    assert 3 in answer.tables[0].columns["channel"]


@BOTH
def test_the_score_without_a_channel_is_that_of_the_network_without_it(dims):
    image, mask = planted(dims)
    target = Target(1, Painted(mask))
    answer = explain("layer-activations", image, wrap(Planted(dims), dims=dims), target, layer="features")
    x, region = torch.from_numpy(image.read("ZYX"[-dims:]))[None, None], torch.from_numpy(mask)
    told = dict(zip(*(answer.tables[0].columns[c] for c in ("channel", "score change without it")), strict=True))
    net = Planted(dims)
    with torch.no_grad():
        seen = net.features(x)
        clean = net.head(F.relu(seen))[0, 1][region].mean()
        for channel in range(8):
            less = seen.clone()
            less[:, channel] = 0
            change = float(net.head(F.relu(less))[0, 1][region].mean() - clean)
            assert told[channel] == pytest.approx(change, abs=1e-4)
    assert told[5] < -5
    assert told[0] == pytest.approx(0, abs=1e-6)
    assert f"changes most, by {told[5]:+.4g}, without channel 5." in answer.text
    told = dict(zip(*(answer.tables[0].columns[c] for c in ("channel", "entropy (bits)")), strict=True))
    for channel in range(8):
        values = seen[0, channel].numpy()
        levels = np.round((values - values.min()) / np.ptp(values) * 255)
        shares = np.unique(levels, return_counts=True)[1] / levels.size
        assert told[channel] == pytest.approx(-(shares * np.log2(shares)).sum(), abs=0.02)
    assert len({round(bits, 2) for bits in told.values()}) > 1


def test_where_no_channel_counts_none_is_named():
    image, mask = planted(2)
    net = Planted()
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.copy_(torch.tensor([0.0, 1.0]))
    answer = explain("layer-activations", image, wrap(net), Target(1, Painted(mask)), layer="features")
    assert "The score 1 does not change without any of those in the table." in answer.text
    assert not any(answer.tables[0].columns["score change without it"])


def test_how_the_mask_changes_is_told_where_it_is_asked_for():
    image, mask = planted(2)
    target = Target(1, Painted(mask), value="dice")
    answer = explain("layer-activations", image, wrap(Planted()), target, layer="features")
    table, net, x = answer.tables[0].columns, Planted(), torch.from_numpy(image.read("YX"))[None, None]

    def dice(seen):
        chance = net.head(F.relu(seen)).softmax(1)[0, 1].numpy()
        return 2 * chance[mask].sum() / (chance.sum() + mask.sum())

    with torch.no_grad():
        seen = net.features(x)
        for channel, change in zip(table["channel"], table["score change without it"], strict=True):
            less = seen.clone()
            less[:, channel] = 0
            assert change == pytest.approx(dice(less) - dice(seen), abs=1e-4)
    assert min(table["score change without it"]) < -0.1


@BOTH
@pytest.mark.parametrize("show", ["best match", "strongest", "mean"])
def test_every_depth_has_a_map_and_a_row(dims, show):
    torch.manual_seed(0)
    net = UNet(1, 2, (4, 8, 12), dims=dims).eval()
    mask = np.zeros(small_image(dims=dims).space("ZYX"[-dims:]), bool)
    mask[(slice(2, 6),) * dims] = True
    model = wrap(net, dims=dims, divisor=4)
    answer = explain("layer-activations", small_image(dims=dims), model, Target(1, Painted(mask)), show=show)
    names = ["encoder.0", "encoder.1", "bottleneck", "decoder.0", "decoder.1"]
    matched = answer.tables[0].columns["its IoU"]
    assert answer.layers[0].name == f"{names[int(np.argmax(matched))]}, {show}"
    assert sorted(layer.name for layer in answer.layers) == sorted(f"{name}, {show}" for name in names)
    assert answer[f"bottleneck, {show}"].resolution == answer_size(dims)
    assert answer.tables[0].columns["layer"] == names
    assert "shown at" in answer.tables[0].columns["map"][2]
    assert answer.record.cost["forwards"] == 1  # the pass that freezes the target is that of the layers
    closely = explain("layer-activations", small_image(dims=dims), model, Target(1, Painted(mask)), layer="encoder.1")
    row = answer.tables[0].rows()[1]
    assert row["best match"] == closely.tables[0].columns["channel"][0]
    shown = {"best match": 0, "strongest": 1, "mean": 2}[show]
    np.testing.assert_allclose(answer[f"encoder.1, {show}"].data, closely.layers[shown].data, atol=1e-5)


def answer_size(dims):
    return (6, 7) if dims == 2 else (2, 3, 4)


def test_entropy_is_nought_for_a_constant_map_and_eight_bits_for_all_levels_alike():
    assert bits(np.full((16, 16), 3.7, np.float32)) == 0
    assert bits(np.arange(256, dtype=np.float32).reshape(16, 16) * 0.1 - 3) == pytest.approx(8)
    assert bits(np.float32([[0, 1], [0, 1]])) == pytest.approx(1)


def test_what_it_takes_is_told_before():
    image, mask = planted(2)
    target = Target(1, Painted(mask))
    assert estimate("layer-activations", image, wrap(Planted()), target).plain == 1
    assert estimate("layer-activations", image, wrap(Planted()), target, layer="features").plain == 9


def test_an_unknown_layer_is_refused():
    image, mask = planted(2)
    with pytest.raises(UnknownName, match="features"):
        explain("layer-activations", image, wrap(Planted()), Target(1, Painted(mask)), layer="feature")
