"""Guided backpropagation, deconvolution and MC guided backpropagation: the tests of their card (B/B3)."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn
from torch.nn import functional as F

from hand import Deep, small_image, wrap
from rule_nets import Functional, Modular
from seglens.core.errors import MissingNeed
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.session import explain


def painted(rows=slice(5, 12), columns=slice(6, 15), shape=(24, 27)):
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return Painted(mask)


def pixels(image):
    return torch.from_numpy(image.read("CYX"))[None]


class Turned(nn.Module):
    """Class 1 is minus a ReLU of the image."""

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), -F.relu(x)], 1)


def test_what_speaks_against_the_target_is_cut_off():
    image, target = small_image(), Target(1, painted(), reduction="sum")
    plain, guided, deconvolved = (
        explain(name, image, wrap(Turned()), target, show="signed").map.data
        for name in ("vanilla-gradient", "guided-backprop", "deconvolution")
    )
    assert set(np.unique(plain)) == {-1, 0}
    assert not guided.any()
    assert not deconvolved.any()
    told = explain("guided-backprop", image, wrap(Turned()), target).text
    assert "all zero" in told
    assert "sharp" not in told


@pytest.mark.parametrize(
    ("name", "theirs"), [("guided-backprop", captum.attr.GuidedBackprop), ("deconvolution", captum.attr.Deconvolution)]
)
def test_agrees_with_captum_where_relus_are_modules(name, theirs):
    net = Modular(Functional(), inplace=False).eval()
    image, region = small_image(side=32).crop(X=slice(0, 32)), painted(shape=(32, 32))
    target = Target(1, region, reduction="sum")
    ours = explain(name, image, wrap(net, divisor=2), target, show="signed").map.data

    class Summed(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return (self.net(x)[:, 1] * torch.from_numpy(region.mask)).sum((1, 2))

    wanted = theirs(Summed()).attribute(pixels(image).requires_grad_(True))[0, 0].numpy()
    np.testing.assert_allclose(ours, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["guided-backprop", "deconvolution"])
def test_monais_own_network_has_no_hidden_plain_gradient_and_keeps_its_flags(name):
    torch.manual_seed(0)
    net = BasicUNet(2, 1, 2, (8,) * 6).eval()
    image, target = small_image(side=32), Target(1, painted(shape=(32, 35)))
    model = wrap(net, divisor=16)
    guided = explain(name, image, model, target, show="signed")
    plain = explain("vanilla-gradient", image, model, target, show="signed").map.data
    away = np.linalg.norm(guided.map.data / np.linalg.norm(guided.map.data) - plain / np.linalg.norm(plain))
    assert away > 0.3
    assert "leaky_relu" in guided.text
    assert all(m.inplace for m in net.modules() if isinstance(m, nn.LeakyReLU))
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in net.modules())


def test_a_network_of_relus_declares_nothing():
    image, target = small_image(), Target(1, painted())
    assert "published" not in explain("guided-backprop", image, wrap(Deep()), target).text


@pytest.mark.parametrize("name", ["guided-backprop", "deconvolution"])
def test_what_is_not_a_published_rule_is_said_in_words(name):
    image, target = small_image(), Target(1, painted())
    own = explain(name, image, wrap(Functional(act=lambda z: z * z.sigmoid()), divisor=2), target).text
    assert "an activation written out with mul" in own
    assert ("own slope" in own) == (name == "guided-backprop")
    curved = wrap(Functional(act=torch.tanh), divisor=2)
    plain = explain(name, image, curved, target, show="signed")
    assert "No rectifier was met" in plain.text
    gradient = explain("vanilla-gradient", image, curved, target, show="signed").map.data
    np.testing.assert_allclose(plain.map.data, gradient, atol=1e-5 * np.abs(gradient).max())
    assert "No rectifier" not in explain(name, image, wrap(Functional(), divisor=2), target).text


class Dropped(nn.Module):
    """A linear unit per pixel behind dropout, and a batch norm that would change its mean if it trained."""

    def __init__(self, drop, weight=0.7):
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.norm.running_mean.fill_(0.25)
        self.norm.running_var.fill_(4)
        self.drop, self.weight = drop, weight

    def forward(self, x):
        x = self.weight * self.drop(self.norm(x), self)
        return torch.cat([torch.zeros_like(x), x], 1)


DROPS = {
    "function": lambda x, m: F.dropout(x, 0.3, m.training),
    "function, in place": lambda x, m: F.dropout(x * 1, 0.3, m.training, True),
    "module": lambda x, m: nn.Dropout(0.3).eval()(x),
    "channels": lambda x, m: F.dropout2d(x, 0.3, m.training),
}


@pytest.mark.parametrize("kind", DROPS)
def test_behind_dropout_a_linear_unit_has_its_weight_as_mean_and_w2_p_by_1_minus_p_as_variance(kind):
    # dropout left off gives no variance, a batch norm that trains another mean
    drop, within = DROPS[kind], 0.2 if kind == "channels" else 0.06
    target = Target(1, painted(), reduction="sum")
    answer = explain("mc-guided-backprop", small_image(), wrap(Dropped(drop)), target, samples=200, show="signed")
    weight, inside = 0.7 / 2, target.region.mask
    assert answer.map.data[inside].mean() == pytest.approx(weight, rel=within)
    assert (answer["deviation"].data[inside] ** 2).mean() == pytest.approx(weight**2 * 0.3 / 0.7, rel=within)
    assert not answer["deviation"].data[~inside].any()


def test_entropy_is_that_of_the_mean_prediction_and_is_between_zero_and_log_of_the_classes():
    image, target = small_image(), Target(1, painted())
    entropy = explain("mc-guided-backprop", image, wrap(Deep()), target, samples=5)["predictive entropy"].data
    assert entropy.min() >= 0
    assert entropy.max() <= np.log(2) + 1e-6
    assert np.ptp(entropy) > 0


def test_the_probability_of_the_class_has_a_mean_and_a_deviation():
    image, target = small_image(), Target(1, painted())
    drop = DROPS["function"]
    answer = explain("mc-guided-backprop", image, wrap(Dropped(drop, weight=2.0)), target, samples=200)
    still = wrap(Dropped(drop, weight=2.0)).logits(pixels(image)).softmax(1)[0, 1].detach().numpy()
    # a logit that is z / 0.7 with probability 0.7, else 0
    logit = np.log(still / (1 - still))
    kept = 1 / (1 + np.exp(-logit / 0.7))
    np.testing.assert_allclose(answer["mean probability"].data, 0.7 * kept + 0.15, atol=0.08)
    wanted = np.abs(kept - 0.5) * np.sqrt(0.3 * 0.7)
    assert answer["predictive deviation"].data.mean() == pytest.approx(wanted.mean(), rel=0.1)
    table = answer.tables[0]
    assert table.columns["mean of"][2] == "predictive deviation"
    assert table.columns["region"][2] == pytest.approx(wanted[target.region.mask].mean(), rel=0.2)


def test_where_the_region_is_the_whole_image_nothing_is_said_of_elsewhere():
    everywhere = Target(1, Painted(np.ones((24, 27), bool)))
    answer = explain("mc-guided-backprop", small_image(), wrap(Deep()), everywhere, samples=2)
    assert list(answer.tables[0].columns) == ["mean of", "region"]


def test_a_large_seed_is_a_seed():
    image, target = small_image(), Target(1, painted())
    one, same, other = (
        explain("mc-guided-backprop", image, wrap(Deep()), target, samples=2, run=Run(seed=s)).map.data
        for s in (2**45, 2**45, 2**45 + 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0


def test_samples_differ_by_their_seed_alone():
    image, target = small_image(), Target(1, painted())
    one, same, other = (
        explain("mc-guided-backprop", image, wrap(Deep()), target, samples=3, run=Run(seed=s)).map.data
        for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01 * np.abs(one).max()


@pytest.mark.parametrize("net", [Functional(), Dropped(lambda x, m: F.dropout(x, 0.0, m.training))])
def test_a_network_without_dropout_is_refused_in_a_clear_sentence(net):
    with pytest.raises(MissingNeed, match="no dropout") as caught:
        explain("mc-guided-backprop", small_image(), wrap(net, divisor=2), Target(1, painted()))
    assert "guided-backprop" in caught.value.fix
