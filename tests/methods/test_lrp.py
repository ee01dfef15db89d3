"""LRP: the tests of its card (B/B9); the rules themselves are tested with the engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hand import Deep, small_image, wrap
from rule_nets import Functional
from seglens.core.errors import NoRule, UnknownName
from seglens.core.target import Painted, Target
from seglens.engine.rules import COMPOSITES
from seglens.models.nets.unet import UNet
from seglens.session import explain


def painted(shape=(32, 32)):
    mask = np.zeros(shape, bool)
    mask[5:12, 6:15] = True
    return Painted(mask)


def picture(seed=0):
    return small_image(seed=seed, side=32).crop(X=slice(0, 32))


def table(answer):
    return next(t for t in answer.tables if t.name == "conservation")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_without_bias_the_map_adds_up_to_the_score_and_is_input_times_gradient(reduction):
    net = Functional(bias=False)
    target = Target(1, painted(), reduction=reduction)
    answer = explain("lrp", picture(), wrap(net, divisor=2), target, composite="lrp-0")
    score = answer.map.data.sum(dtype=float)
    other = explain("input-x-gradient", picture(), wrap(net, divisor=2), target)
    np.testing.assert_allclose(answer.map.data, other.map.data, atol=1e-5 * np.abs(other.map.data).max())
    completeness = next(t for t in other.tables if t.name == "completeness").columns["value"]
    assert score == pytest.approx(completeness[0], rel=1e-4)
    assert "100.0%" in answer.text
    assert all(abs(leak) < 1e-4 * abs(score) for leak in table(answer).columns["absorbed"])


@pytest.mark.parametrize("value", ["logit", "margin", "probability", "log-probability", "dice"])
def test_of_a_value_that_is_no_sum_of_logits_it_is_said_what_is_shared_out(value):
    target = Target(1, painted(), value)
    answer = explain("lrp", picture(), wrap(Functional(bias=False), divisor=2), target, composite="lrp-0")
    curved = value not in ("logit", "margin")
    assert (f"derivative of the {value}" in answer.text) == curved
    assert ("derivative" in answer.map.unit) == curved
    if curved:
        assert f"({table(answer).columns['came'][-1]:.4g})" in answer.text


def test_rules_that_depend_little_on_the_weights_say_so():
    model, target = wrap(Functional(), divisor=2), Target(1, painted())
    said = {
        name: "depend little" in explain("lrp", picture(), model, target, composite=name).text for name in COMPOSITES
    }
    assert {name for name in said if not said[name]} == {"epsilon-gamma-box", "gamma", "epsilon", "lrp-0"}


def test_what_biases_absorb_is_told_layer_by_layer_and_adds_up():
    answer = explain("lrp", picture(), wrap(Functional(), divisor=2), Target(1, painted()), composite="epsilon")
    rows = table(answer)
    assert [row["layer"] for row in rows.rows() if ":" not in row["layer"]] == [
        "one",
        "pool",
        "two",
        "up",
        "three",
        "head",
    ]
    leaks = sum(rows.columns["absorbed"])
    start = rows.columns["under way"][-1] + rows.columns["absorbed"][-1]
    assert answer.map.data.sum(dtype=float) == pytest.approx(start - leaks, rel=1e-3)
    assert abs(leaks) > 0.01 * abs(start)
    assert "absorb" in answer.text
    assert answer.figures[0].series["absorbs"]


def test_relevance_of_a_layer_is_shown_at_its_true_resolution():
    torch.manual_seed(0)
    net = UNet(1, 2, (4, 8, 12)).eval()
    model = wrap(net, divisor=net.divisor)
    answer = explain("lrp", picture(), model, Target(1, painted()), at="bottleneck")
    layer = answer["at bottleneck"]
    assert layer.resolution == (8, 8)
    assert layer.data.shape == (32, 32)
    came = dict(zip(table(answer).columns["layer"], table(answer).columns["came"], strict=True))["bottleneck.relu2"]
    assert layer.data.sum(dtype=float) / 16 == pytest.approx(came, rel=0.2)
    with pytest.raises(UnknownName, match="bottlneck"):
        explain("lrp", picture(), model, Target(1, painted()), at="bottlneck")


def test_positive_rules_give_positive_relevance_for_a_positive_score():
    class Positive(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Deep()

        def forward(self, x):
            return self.net(x).abs()

    answer = explain("lrp", picture(), wrap(Positive()), Target(1, painted()))
    assert answer.map.data.min() >= 0
    assert answer.map.data.max() > 0


def test_what_has_no_rule_is_refused_with_what_to_do_instead():
    class Cumulative(nn.Module):
        def forward(self, x):
            y = torch.cumprod(x, 2)
            return torch.cat([torch.zeros_like(y), y], 1)

    with pytest.raises(NoRule, match="cumprod") as caught:
        explain("lrp", picture(), wrap(Cumulative()), Target(1, painted()))
    assert "vanilla-gradient" in caught.value.fix
    assert explain("guided-backprop", picture(), wrap(Cumulative()), Target(1, painted())).map.data.any()
