"""Seg-Grad-CAM: the tests of its card (B/B11)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from torch.nn import functional as F

from hand import Deep, context_image, small_image, wrap
from seglens.core.errors import MissingNeed, ModelMismatch, UnknownName
from seglens.core.target import Painted, Target
from seglens.models.nets.unet import UNet
from seglens.session import explain


class OneByOne(torch.nn.Module):
    """Features and a 1×1 head, so that channel weights are w_k·|A|/Z everywhere."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = torch.nn.Conv2d(1, 6, 3, padding=1)
        self.head = torch.nn.Conv2d(6, 2, 1)
        with torch.no_grad():
            self.features.weight *= scale
            self.features.bias *= scale
            self.head.weight /= scale

    def forward(self, x):
        return self.head(self.features(x))


def region():
    mask = np.zeros((24, 27), bool)
    mask[5:9, 6:12] = True
    return Painted(mask)


def test_linear_head_in_closed_form():
    module = OneByOne()
    image = small_image()
    answer = explain(
        "seg-grad-cam", image, wrap(module), Target(1, region(), reduction="sum"), layer="features", normalise=False
    )
    with torch.no_grad():
        activation = module.features(torch.from_numpy(image.read("CYX"))[None])[0]
        weights = module.head.weight[1, :, 0, 0] * region().mask.sum() / region().mask.size
        expected = torch.einsum("k,kyx->yx", weights, activation).relu()
    np.testing.assert_allclose(answer.map.data, expected.numpy(), atol=1e-6)


def test_scaling_a_layer_and_unscaling_its_reader_changes_nothing():
    image, target = small_image(), Target(1, region())
    one, five = (explain("seg-grad-cam", image, wrap(OneByOne(s)), target, layer="features").map.data for s in (1, 5))
    np.testing.assert_allclose(one, five, atol=1e-5)


def test_agrees_with_captum_on_a_strided_layer():
    torch.manual_seed(0)
    net = UNet(1, 2, (4, 8, 12)).eval()
    image = small_image(side=32)
    mask = np.zeros((32, 35), bool)
    mask[4:20, 4:20] = True
    image = image.crop(X=slice(0, 32))
    target = Target(1, Painted(mask[:, :32]), reduction="sum")
    model = wrap(net, divisor=net.divisor)
    answer = explain("seg-grad-cam", image, model, target, layer="bottleneck", normalise=False)
    x = torch.from_numpy(image.read("CYX"))[None]
    inside = torch.from_numpy(mask[:, :32])
    cam = LayerGradCam(lambda z: (net(z)[:, 1] * inside).sum((1, 2)), net.bottleneck).attribute(x)
    theirs = F.interpolate(cam, (32, 32), mode="bilinear", align_corners=False).relu()[0, 0].detach().numpy()
    np.testing.assert_allclose(answer.map.data, theirs, atol=1e-6)


def test_default_layer_is_the_bottleneck_of_a_unet():
    net = UNet(1, 2, (4, 8, 12)).eval()
    image, cell, _ = context_image()
    answer = explain("seg-grad-cam", image, wrap(net, divisor=net.divisor), Target(1, Painted(cell)))
    assert "bottleneck" in answer.text


def test_an_in_place_relu_behind_the_layer_does_not_change_the_record():
    def net(inplace):
        torch.manual_seed(3)
        return torch.nn.Sequential(
            torch.nn.Conv2d(1, 5, 3, padding=1), torch.nn.ReLU(inplace=inplace), torch.nn.Conv2d(5, 2, 1)
        )

    image, target = small_image(), Target(1, region())
    one, two = (explain("seg-grad-cam", image, wrap(net(i)), target, layer="0").map.data for i in (False, True))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("method", ["seg-grad-cam", "hires-cam", "vanilla-gradient", "integrated-gradients"])
def test_a_fault_of_the_network_is_not_swallowed_and_leaves_no_hook(method):
    """A peer returns nothing when an IndexError comes up."""

    class Faulty(Deep):
        def forward(self, x):
            out = super().forward(x)
            if torch.is_grad_enabled():
                raise IndexError("a fault of the network")
            return out

    module = Faulty()
    with pytest.raises(ModelMismatch, match="a fault of the network") as caught:
        explain(method, small_image(), wrap(module), Target(1, region()))
    assert isinstance(caught.value.__cause__, IndexError)
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in module.modules())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(("weights", "rule"), [("absolute", torch.abs), ("positive", torch.relu)])
def test_weights_may_be_absolute_or_positive(weights, rule):
    module, image = Deep(), small_image()
    target = Target(1, region())
    signed = explain("seg-grad-cam", image, wrap(module), target, layer="features", normalise=False)
    other = explain("seg-grad-cam", image, wrap(module), target, layer="features", normalise=False, weights=weights)
    alpha = dict(zip(*(signed.tables[0].columns[c] for c in ("channel", "weight")), strict=True))
    with torch.no_grad():
        activation = module.features(torch.from_numpy(image.read("CYX"))[None])[0]
        changed = rule(torch.tensor([alpha[k] for k in range(8)]))
        expected = torch.einsum("k,kyx->yx", changed, activation).relu()
    np.testing.assert_allclose(other.map.data, expected.numpy(), atol=1e-6)


def test_refusals():
    image, cell, _ = context_image()
    with pytest.raises(UnknownName, match="features"):
        explain("seg-grad-cam", image, wrap(Deep()), Target(1, Painted(cell)), layer="featurs")
    scripted = wrap(torch.jit.trace(Deep(), torch.zeros(1, 1, 8, 8)))
    scripted.layered = False
    with pytest.raises(MissingNeed, match="exported graph"):
        explain("seg-grad-cam", image, scripted, Target(1, Painted(cell)))


def test_a_planted_bias_draws_the_map_to_the_biased_corner():
    """Ten pairs of networks: one reads a tile in the corner as well as the object, its twin does not."""

    class Biased(torch.nn.Module):
        def __init__(self, bias: float, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.features = torch.nn.Conv2d(2, 4, 1, bias=False)
            with torch.no_grad():
                self.features.weight.copy_(torch.rand(4, 2, 1, 1) * 0.1)
                self.features.weight[0, :, 0, 0] = torch.tensor([1.0, 0.0])
                self.features.weight[1, :, 0, 0] = torch.tensor([0.0, 1.0])
            self.bias = bias

        def forward(self, x):
            seen = F.relu(self.features(x))
            own = seen[:, :1] + self.bias * seen[:, 1:2].mean((2, 3), keepdim=True) * 50
            return torch.cat([torch.full_like(own, 0.2), own], 1)

    tile, wins = np.s_[18:24, 20:27], 0
    for seed in range(10):
        image = small_image(2, seed=seed)
        image.data[1] *= 0.05
        image.data[1][tile] = 1
        one, two = (
            explain("seg-grad-cam", image, wrap(Biased(b, seed), channels=2), Target(1, region()), layer="features")
            for b in (1.0, 0.0)
        )
        share = [m.map.data[tile].sum() / m.map.data.sum() for m in (one, two)]
        wins += share[0] > share[1]
    assert wins == 10
