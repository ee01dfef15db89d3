"""Input × gradient: the tests of its card (B/B4)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient
from torch import nn

from closed import Quadratic, Sites, as_input, everywhere, model_of, noise, scored
from hand import wrap
from seglens.core.errors import BadParameter
from seglens.session import explain


class NoBias(nn.Module):
    """A ReLU network without bias."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.ReLU(), nn.Conv2d(6, 2, 3, padding=1, bias=False)
        )

    def forward(self, x):
        return self.net(x)


def value(answer, quantity):
    table = answer.tables[0].columns
    return table["value"][table["quantity"].index(quantity)]


def test_sums_to_the_score_of_a_relu_network_without_bias_and_equals_integrated_gradients():
    image, target, model = noise((14, 15), 2), everywhere((14, 15)), model_of(NoBias(), 2)
    answer = explain("input-x-gradient", image, model, target)
    assert float(answer.map.data.sum()) == pytest.approx(value(answer, "score"), rel=1e-4)
    assert value(answer, "gap / difference") == pytest.approx(0, abs=1e-4)
    integrated = explain("integrated-gradients", image, model, target, fill="black", steps=8)
    np.testing.assert_allclose(answer.map.data, integrated.map.data, atol=1e-5)


def test_is_exactly_twice_integrated_gradients_on_a_quadratic():
    image, target, model = noise((14, 15)), everywhere((14, 15)), model_of(Quadratic())
    once = explain("input-x-gradient", image, model, target).map.data
    integrated = explain("integrated-gradients", image, model, target, fill="black", steps=6).map.data
    np.testing.assert_allclose(once, 2 * integrated, atol=1e-5)
    assert np.abs(once).max() > 0.1


def test_agrees_with_captum():
    image, target, module = noise((14, 15), 2), everywhere((14, 15)), Sites(2)
    theirs = InputXGradient(scored(module, target)).attribute(as_input(image).requires_grad_(True))
    answer = explain("input-x-gradient", image, model_of(module, 2), target, channels=True)
    np.testing.assert_allclose(answer.map.data, theirs[0].sum(0).detach().numpy(), atol=1e-5)
    for layer, channel in zip(answer.layers[1:], theirs[0], strict=True):
        np.testing.assert_allclose(layer.data, channel.detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("fill", ["mean", "white"])
def test_an_offset_is_taken_off_the_input(fill):
    image, target, module = noise((14, 15), 2), everywhere((14, 15)), Sites(2)
    x = as_input(image).requires_grad_(True)
    (gradient,) = torch.autograd.grad(scored(module, target)(x).sum(), x)
    level = image.data.max() if fill == "white" else image.data.reshape(2, -1).mean(1).reshape(2, 1, 1)
    answer = explain("input-x-gradient", image, model_of(module, 2), target, fill=fill)
    expected = ((x.detach() - torch.as_tensor(level)) * gradient)[0].sum(0).numpy()
    np.testing.assert_allclose(answer.map.data, expected, atol=1e-5)
    assert fill in answer.text


def test_a_reference_image_is_an_offset():
    image, target, module = noise((14, 15), 2), everywhere((14, 15)), Sites(2)
    other, model = noise((14, 15), 2, seed=8), model_of(module, 2)
    x = as_input(image).requires_grad_(True)
    (gradient,) = torch.autograd.grad(scored(module, target)(x).sum(), x)
    answer = explain("input-x-gradient", image, model, target, reference=(other,))
    expected = ((x.detach() - as_input(other)) * gradient)[0].sum(0).numpy()
    np.testing.assert_allclose(answer.map.data, expected, atol=1e-5)
    assert f"the reference image {other.name}" in answer.text
    with pytest.raises(BadParameter, match="2 reference images"):
        explain("input-x-gradient", image, model, target, reference=(other, image))


def test_zero_is_that_of_the_normalised_input():
    from seglens.models.spec import Normalisation

    module = Sites()
    model = wrap(module, classes=("nothing", "thing"), normalisation=Normalisation("zscore"))
    image, target = noise((14, 15)), everywhere((14, 15))
    zero, mean = (explain("input-x-gradient", image, model, target, fill=f).map.data for f in (None, "mean"))
    np.testing.assert_allclose(zero, mean, atol=1e-5)
