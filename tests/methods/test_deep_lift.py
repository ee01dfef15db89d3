"""DeepLift and DeepLiftSHAP: the tests of their cards (B/B6, B/B7)."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn
from torch.nn import functional as F

from hand import Linear, small_image, wrap
from rule_nets import Functional, Modular
from seglens.core.errors import BadParameter, ImageMismatch, NoRule
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Predicted, Target
from seglens.session import explain


def painted(shape=(32, 32)):
    mask = np.zeros(shape, bool)
    mask[5:12, 6:15] = True
    return Painted(mask)


def picture(channels=1, seed=0):
    return small_image(channels, seed=seed, side=32).crop(X=slice(0, 32))


def pixels(image):
    return torch.from_numpy(image.read("CYX"))[None]


def quantities(answer):
    table = next(t for t in answer.tables if t.name == "completeness").columns
    return dict(zip(table["quantity"], table["value"], strict=True))


def averaging():
    net = Modular(Functional(seed=2), inplace=False).eval()
    net.inner.pool = nn.AvgPool2d(2)
    return net


class Summed(nn.Module):
    def __init__(self, net, mask):
        super().__init__()
        self.net, self.mask = net, torch.from_numpy(mask)

    def forward(self, x):
        return (self.net(x)[:, 1] * self.mask).sum((1, 2))


def test_agrees_with_captum_from_many_baselines():
    net, image, region = averaging(), picture(), painted()
    references = tuple(picture(seed=s) for s in (5, 6, 7))
    target = Target(1, region, reduction="sum")
    ours = explain("deep-lift-shap", image, wrap(net, divisor=2), target, reference=references)
    baselines = torch.cat([pixels(r) for r in references])
    theirs = (
        captum.attr.DeepLiftShap(Summed(net, region.mask)).attribute(pixels(image), baselines).detach()[0, 0].numpy()
    )
    np.testing.assert_allclose(ours.map.data, theirs, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("value", ["logit", "probability", "margin", "log-probability"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_the_map_adds_up_to_the_change_of_the_score_under_every_norm_and_for_every_value(norm, value):
    torch.manual_seed(0)
    net = BasicUNet(2, 1, 3, (8,) * 6, norm=norm)
    model = wrap(net, divisor=16, classes=("background", "cell", "other"))
    answer = explain("deep-lift", picture(), model, Target("cell", painted(), value), fill="blur")
    told = quantities(answer)
    assert abs(told["difference"]) > 1e-6
    assert abs(told["gap"]) <= 2e-3 * abs(told["difference"]) + 1e-7
    assert answer.map.data.sum() == pytest.approx(told["sum of the map"], rel=1e-3, abs=1e-6)


class Saturated(nn.Module):
    """Class 1 is 1 − relu(1 − the sum of two channels)."""

    def forward(self, x):
        y = 1 - F.relu(1 - x.sum(1, keepdim=True))
        return torch.cat([torch.zeros_like(y), y], 1)


def test_saturation_is_shared_where_the_gradient_is_zero():
    # the black baseline is the image's least value: 0, in a corner
    data = np.full((2, 32, 32), 2, np.float32)
    data[:, 0, 0] = 0
    image, target = Image(data, "CYX"), Target(1, painted(), reduction="sum")
    model = wrap(Saturated(), channels=2)
    assert not explain("vanilla-gradient", image, model, target).map.data.any()
    answer = explain("deep-lift", image, model, target, fill="black", channels=True)
    for layer in answer.layers[1:]:
        np.testing.assert_allclose(layer.data[painted().mask], 0.5)


def test_is_integrated_gradients_where_each_path_meets_one_relu():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 2, 1))
    image, target = picture(), Target(1, painted(), reduction="sum")
    ours = explain("deep-lift", image, wrap(net), target, fill="mean").map.data
    theirs = explain(
        "integrated-gradients", image, wrap(net), target, fill="mean", steps=1500, rule="midpoint"
    ).map.data
    np.testing.assert_allclose(ours, theirs, atol=5e-3 * np.abs(ours).max())


def test_one_baseline_is_deep_lift_and_many_are_its_mean():
    net, image, target = Functional(seed=1), picture(), Target(1, painted())
    model = wrap(net, divisor=2)
    references = tuple(picture(seed=s) for s in (3, 4))
    level = float(image.read("CYX").min())
    black = Image(np.full((1, 32, 32), level, np.float32), "CYX", name="black")
    black.data[0, -1, -1] += 1e-3  # an image of one value is refused
    one = explain("deep-lift-shap", image, model, target, reference=(black,)).map.data
    wanted = explain("deep-lift", image, model, target, fill="black").map.data
    np.testing.assert_allclose(one, wanted, atol=2e-3 * np.abs(wanted).max())
    each = [explain("deep-lift-shap", image, model, target, reference=(r,)).map.data for r in references]
    both = explain("deep-lift-shap", image, model, target, reference=references)
    np.testing.assert_allclose(both.map.data, np.mean(each, 0), atol=1e-5 * np.abs(both.map.data).max())
    np.testing.assert_allclose(both["deviation over baselines"].data, np.std(each, 0), atol=1e-6)
    rows = next(t for t in both.tables if t.name == "baselines").rows()
    assert [row["baseline"] for row in rows] == [r.name for r in references]
    assert quantities(both)["gap / difference"] == pytest.approx(0, abs=1e-3)


def test_of_a_linear_network_it_is_weights_times_distance_from_the_mean_baseline():
    net, image, target = Linear(channels=2), picture(2), Target(2, painted(), reduction="sum")
    model = wrap(net, channels=2, classes=("a", "b", "c"))
    references = tuple(picture(2, seed=s) for s in (3, 4, 5))
    answer = explain("deep-lift-shap", image, model, target, reference=references)
    mean = torch.cat([pixels(r) for r in references]).mean(0, keepdim=True)
    weights = F.conv_transpose2d(torch.from_numpy(painted().mask)[None, None].float(), net.conv.weight[2:3], padding=2)
    np.testing.assert_allclose(
        answer.map.data, ((pixels(image) - mean) * weights)[0].sum(0).detach().numpy(), atol=1e-5
    )


def test_without_references_baselines_are_drawn_from_the_seed():
    model, target = wrap(Functional(), divisor=2), Target(1, painted())
    one, same, other = (
        explain("deep-lift-shap", picture(), model, target, run=Run(seed=s)).map.data for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0


@pytest.mark.parametrize("name", ["deep-lift", "deep-lift-shap"])
def test_a_map_that_does_not_add_up_is_said(name, monkeypatch):
    model, target = wrap(Functional(), divisor=2), Target(1, painted())
    assert not explain(name, picture(), model, target).record.notes
    # every difference counts as too small to divide by, and the derivative is taken
    monkeypatch.setattr("seglens.engine.rules.rescale.SMALL", 1e9)
    (note,) = explain(name, picture(), model, target).record.notes
    assert "do not read it as shares" in note
    assert "another baseline" in note


class Masked(nn.Module):
    """A mask of floats that the network makes of the image."""

    def forward(self, x):
        y = x * (x > x.mean()).float()
        return torch.cat([torch.zeros_like(y), y], 1)


@pytest.mark.parametrize("region", [painted(), Predicted(live=True)], ids=["painted", "live"])
def test_a_mask_of_the_network_is_refused_and_one_of_a_live_target_is_not(region):
    target = Target(1, region)
    assert explain("deep-lift", picture(), wrap(Functional(seed=2), divisor=2), target, fill="blur").layers
    with pytest.raises(NoRule, match="other masks"):
        explain("deep-lift", picture(), wrap(Masked()), target, fill="blur")


def test_one_reference_image_is_the_baseline_and_several_are_refused():
    model, target = wrap(Functional(), divisor=2), Target(1, painted())
    one, two = picture(seed=3), picture(seed=4)
    answer = explain("deep-lift", picture(), model, target, reference=(one,))
    wanted = explain("deep-lift-shap", picture(), model, target, reference=(one,))
    np.testing.assert_allclose(answer.map.data, wanted.map.data, atol=1e-6)
    assert f"the reference image {one.name}" in answer.text
    assert "fill" not in answer.text
    with pytest.raises(BadParameter, match="2 reference images") as caught:
        explain("deep-lift", picture(), model, target, reference=(one, two))
    assert "deep-lift-shap" in caught.value.fix
    assert [layer.name for layer in wanted.layers] == ["DeepLiftSHAP"]  # nothing deviates from itself


@pytest.mark.parametrize("method", ["deep-lift", "input-x-gradient"])
def test_a_fill_whose_place_a_reference_takes_is_told(method):
    def notes(**given):
        return explain(method, picture(), model, target, **given).record.notes

    model, target = wrap(Functional(), divisor=2), Target(1, painted())
    note = "The reference image takes the place of fill=black."
    assert note in notes(reference=(picture(seed=3),), fill="black")
    assert not [n for n in notes(reference=(picture(seed=3),)) if "fill" in n]
    assert note not in notes(fill="black")


def test_references_of_another_size_are_refused():
    with pytest.raises(ImageMismatch, match="24×27"):
        explain(
            "deep-lift-shap", picture(), wrap(Functional(), divisor=2), Target(1, painted()), reference=(small_image(),)
        )
