"""Seg-Ablation-CAM: the tests of its card (A/A11), and the public faults that it names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hand import small_image, wrap
from seglens.core.errors import MissingNeed
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.models.nets.unet import UNet
from seglens.session import explain

CLASSES = ("background", "cell")


class Headed(nn.Module):
    """A layer of four channels and a linear head after it."""

    def __init__(self, weights, bias=0.0, squash=torch.relu):
        super().__init__()
        self.layer, self.head, self.squash = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 1), squash
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            self.layer.weight.copy_(torch.randn(self.layer.weight.shape, generator=generator))
            self.layer.bias.fill_(0.5)
            self.head.weight.zero_()
            self.head.weight[1, :, 0, 0] = torch.tensor(weights)
            self.head.bias.fill_(bias)

    def forward(self, x):
        return self.head(self.squash(self.layer(x)))


def region(side=24):
    mask = np.zeros((side, side + 3), bool)
    mask[6:14, 5:15] = True
    return mask


def weights_of(model, value="logit", **parameters):
    answer = explain(
        "seg-ablation-cam", small_image(), model, Target("cell", Painted(region()), value), layer="layer", **parameters
    )
    table = answer.tables[0].columns
    return answer, dict(zip(table["channel"], table["weight"], strict=True))


def activations(model):
    x = torch.from_numpy(small_image().read("CYX"))[None]
    with torch.no_grad():
        return model.module.layer(x)[0]


def test_linear_head_without_bias_the_weights_are_shares_and_add_up_to_one():
    head = [0.7, -0.2, 0.4, 1.1]
    model = wrap(Headed(head, squash=lambda a: a), classes=CLASSES)
    answer, weights = weights_of(model)
    inside = activations(model)[:, torch.from_numpy(region())]
    score = float((torch.tensor(head)[:, None] * inside).sum(0).mean())
    for k, v in enumerate(head):
        assert weights[k] == pytest.approx(v * float(inside[k].mean()) / abs(score), abs=1e-5)
    assert sum(weights.values()) == pytest.approx(np.sign(score), abs=1e-5)
    assert answer.record.target["resolved"]["score"] == pytest.approx(score, abs=1e-5)


def test_with_a_bias_they_do_not():
    _, weights = weights_of(wrap(Headed([0.7, -0.2, 0.4, 1.1], bias=-2.0, squash=lambda a: a), classes=CLASSES))
    assert abs(sum(weights.values()) - 1) > 0.2


def test_only_the_channel_that_feeds_the_head_counts():
    answer, weights = weights_of(wrap(Headed([0, 0, 0, 1.0]), classes=CLASSES))
    assert weights[3] == pytest.approx(1, abs=1e-6)
    assert max(abs(weights[k]) for k in range(3)) < 1e-9
    assert answer.layers[1].name == "channel 3"


def test_a_negative_score_turns_no_sign():
    _, up = weights_of(wrap(Headed([0.5, 0.3, 0.2, 1.0]), classes=CLASSES))
    _, down = weights_of(wrap(Headed([0.5, 0.3, 0.2, 1.0], bias=-9.0), classes=CLASSES))
    assert all(np.sign(up[k]) == np.sign(down[k]) == 1 for k in up)


def test_zero_is_zero_also_where_activations_are_negative():
    # public code pushes such channels to their minimum minus ten million
    model = wrap(Headed([1.0, 0.5, -0.5, 0.2], squash=torch.nn.functional.leaky_relu), classes=CLASSES)
    inside = torch.from_numpy(region())
    clean = activations(model)
    assert clean.min() < 0
    _, weights = weights_of(model)
    with torch.no_grad():
        score = [float(model.module.head(model.module.squash(clean)[None])[0, 1, inside].mean())]
        for k in range(4):
            without = clean.clone()
            without[k] = 0
            score.append(float(model.module.head(model.module.squash(without)[None])[0, 1, inside].mean()))
    for k in range(4):
        assert weights[k] == pytest.approx((score[0] - score[1 + k]) / abs(score[0]), abs=1e-5)


def test_mean_ablation_leaves_a_constant_channel_alone():
    model = wrap(Headed([1.0, 1.0, 1.0, 1.0]), classes=CLASSES)
    with torch.no_grad():
        model.module.layer.weight[2] = 0
    _, zero = weights_of(model)
    _, mean = weights_of(model, ablate="mean")
    assert zero[2] > 0.01
    assert abs(mean[2]) < 1e-6


@pytest.mark.parametrize("layer", ["encoder.0", "bottleneck", "decoder.0"])
def test_cached_cropped_and_plain_are_the_same(layer):
    torch.manual_seed(0)
    net = UNet(1, 2, (6, 8, 12))
    with torch.no_grad():
        # untrained layers damp what comes from below until rounding hides it
        for p in net.parameters():
            p.mul_(2)
    model = wrap(net, classes=CLASSES, divisor=4)
    image = small_image(side=96)
    mask = np.zeros((96, 99), bool)
    mask[8:16, 8:16] = True
    target = Target("cell", Painted(mask))
    fast = explain("seg-ablation-cam", image, model, target, layer=layer)
    plain = explain("seg-ablation-cam", image, model, target, layer=layer, run=Run(plain=True))
    for a, b in zip(fast.layers, plain.layers, strict=True):
        np.testing.assert_allclose(a.data, b.data, atol=2e-5 * np.abs(b.data).max())
    drops, true = (np.array(a.tables[0].columns["drop"]) for a in (fast, plain))
    np.testing.assert_allclose(drops, true, atol=1e-5 * np.abs(true).max())
    told = fast.record.engine
    assert told["evaluations"][0]["crop"][0][1] < 96
    assert told["behind the layer"] < 0.99
    assert fast.record.cost["in forwards of the whole image"] < 0.6 * plain.record.cost["forwards of a plain loop"]


def test_exported_graphs_are_refused():
    model = wrap(Headed([1.0, 0, 0, 0]), classes=CLASSES)
    model.layered = False
    with pytest.raises(MissingNeed):
        weights_of(model)
