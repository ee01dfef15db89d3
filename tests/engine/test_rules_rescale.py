"""DeepLift's rescale rule: the sum rule for every operation, and agreement with Captum where Captum is right (B/B6)."""

from __future__ import annotations

import pytest
import torch
from captum.attr import DeepLift
from monai.networks.nets import AttentionUnet, BasicUNet, SegResNet
from monai.networks.nets import UNet as ResidualUNet
from torch import nn
from torch.nn import functional as F

from rule_nets import Functional, Modular, back, multipliers
from seglens.core.errors import NoRule
from seglens.engine.rules import Rescale
from seglens.engine.rules.tape import Tape


def noise(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gap(network, x, baseline, start=None):
    """How far Σ m·Δinput is from the change of the answer, and that change."""
    with torch.no_grad():
        one, two = network(x.clone()), network(baseline.clone())
    start = torch.ones_like(one) if start is None else start
    change = float(((one - two) * start).sum())
    found = float((multipliers(network, x, baseline, start) * (x - baseline)).sum())
    return abs(found - change), abs(change)


OPERATIONS = {
    "relu": F.relu, "leaky relu": lambda x: F.leaky_relu(x, 0.1), "elu": F.elu, "gelu": F.gelu, "silu": F.silu,
    "sigmoid": torch.sigmoid, "tanh": torch.tanh, "prelu": lambda x: F.prelu(x, noise(4)), "hardswish": F.hardswish,
    "relu in place": lambda x: torch.relu_(x * 1), "clamp": lambda x: x.clamp(-0.5, 0.7), "square": lambda x: x**2,
    "max pool": lambda x: F.max_pool2d(x, 2), "overlapping max pool": lambda x: F.max_pool2d(x, 3, 1, 1),
    "adaptive max pool": lambda x: F.adaptive_max_pool2d(x, 3), "max": lambda x: x.max(2)[0],
    "amax": lambda x: x.amax(1), "amin": lambda x: x.amin((2, 3)), "maximum": lambda x: torch.maximum(x, x.flip(1)),
    "average": lambda x: F.avg_pool2d(x, 2),
    "gate": lambda x: torch.sigmoid(x.mean(1, keepdim=True)) * x, "power": lambda x: x * x.flip(2),
    "quotient": lambda x: x / (x.flip(1) ** 2 + 1), "turned": lambda x: 2 / (x**2 + 1),
    "difference": lambda x: 1 - x.exp() + x,
    "softmax": lambda x: x.softmax(1) * noise(4, 1, 1), "log softmax": lambda x: x.log_softmax(1) * noise(4, 1, 1),
    "logsumexp": lambda x: x.logsumexp((1, 2)), "logaddexp": lambda x: torch.logaddexp(x, x.flip(3) * 2),
    "instance norm": lambda x: F.instance_norm(x, weight=noise(4), bias=noise(4, seed=1)),
    "group norm": lambda x: F.group_norm(x, 2, noise(4), noise(4, seed=1)),
    "layer norm": lambda x: F.layer_norm(x, x.shape[2:], noise(6, 6), noise(6, 6, seed=1)),
    "batch norm of the batch": lambda x: F.batch_norm(x, None, None, noise(4), training=True),
    "layer norm written out": lambda x: (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True) + 1e-5).sqrt(),
    "deviation": lambda x: x / (x.std((2, 3), keepdim=True) + 1e-5),
    "attention": lambda x: F.scaled_dot_product_attention(x, x * 2, x.flip(2)),
    "causal attention": lambda x: F.scaled_dot_product_attention(x, x * 2, x.flip(2), is_causal=True),
    "attention written out": lambda x: torch.softmax(x @ x.mT / 2, -1) @ x,
    "bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "slices": lambda x: torch.cat([x[:, :2] * 2, F.pad(x[:, 2:], (1, -1))], 1),
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_multipliers_times_differences_sum_up_to_the_change(name):
    x, baseline = noise(2, 4, 6, 6), noise(2, 4, 6, 6, seed=7) * 0.5
    operation = OPERATIONS[name]
    with torch.no_grad():
        start = noise(*operation(x.clone()).shape, seed=3)
    error, change = gap(operation, x, baseline, start)
    assert error <= 1e-9 * max(1, change)
    assert gap(operation, x, torch.zeros_like(x), start)[0] <= 1e-7


NETS = {
    "batch norm": lambda: BasicUNet(2, 1, 2, (8,) * 6, norm="batch", act=("relu", {"inplace": True})),
    "instance norm": lambda: BasicUNet(2, 1, 2, (8,) * 6, act=("relu", {"inplace": True})),
    "instance norm, leaky, 3-D": lambda: BasicUNet(3, 1, 2, (4,) * 6),
    "residual units": lambda: ResidualUNet(2, 1, 2, (4, 8, 8), (2, 2), num_res_units=2),
    "gates": lambda: AttentionUnet(2, 1, 2, (4, 8, 8), (2, 2)),
    "group norm": lambda: SegResNet(spatial_dims=2, in_channels=1, out_channels=2, init_filters=8),
    "functional, 3-D": lambda: Functional(3),
}


@pytest.mark.parametrize("name", NETS)
def test_the_sum_rule_holds_on_whole_networks(name):
    """Captum's DeepLift sums to 0 instead of the change under instance norm."""
    torch.manual_seed(0)
    net = NETS[name]().double().eval()
    dims = next(net.parameters()).ndim - 2
    x = noise(1, 1, *(32,) * dims)
    start = torch.zeros(1, 2, *(32,) * dims, dtype=torch.float64)
    start[:, 1, 8:20, 8:20] = 1
    for baseline in (noise(*x.shape, seed=5) * 0.3, torch.zeros_like(x)):
        error, change = gap(net, x, baseline, start)
        assert change > 1e-6
        assert error <= 1e-6 * change + 1e-9


def test_saturation_is_shared_where_the_gradient_is_zero():
    def saturated(z):
        return 1 - F.relu(1 - z.sum(-1))

    x = torch.tensor([[2.0, 2.0]], dtype=torch.float64)
    found = multipliers(saturated, x, torch.zeros_like(x)) * x
    torch.testing.assert_close(found, torch.full_like(x, 0.5))


class Summed(nn.Module):
    """One number per sample, as Captum wants it."""

    def __init__(self, net, start):
        super().__init__()
        self.net, self.start = net, start

    def forward(self, z):
        return (self.net(z) * self.start).flatten(1).sum(1)


def both(net, dims, seed):
    """Attributions of Captum and ours."""
    x, baseline = noise(1, 1, *(8,) * dims, seed=seed), noise(1, 1, *(8,) * dims, seed=seed + 9)
    with torch.no_grad():
        start = noise(*net(x).shape, seed=seed + 1)
    theirs = DeepLift(Summed(net, start)).attribute(x.clone(), baseline).detach()
    return theirs, multipliers(net, x, baseline, start) * (x - baseline)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_captum_on_a_unet_of_average_pooling_and_transposed_convolutions(dims, seed):
    net = Modular(Functional(dims, seed=seed), inplace=False).double()
    net.inner.pool = nn.AvgPool2d(2) if dims == 2 else nn.AvgPool3d(2)
    theirs, ours = both(net, dims, seed)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_agrees_with_captum_on_max_pooling_where_captum_keeps_its_sum(dims):
    torch.manual_seed(0)
    conv, pool = (nn.Conv2d, nn.MaxPool2d) if dims == 2 else (nn.Conv3d, nn.MaxPool3d)
    # not beside an activation: there Captum's multipliers do not sum up to the change
    net = nn.Sequential(conv(1, 4, 3), nn.ReLU(), conv(4, 4, 3), pool(2), conv(4, 2, 2)).double()
    theirs, ours = both(net, dims, 0)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


def test_the_first_sample_of_a_batch_has_no_say_in_the_others():
    net = Functional().double()
    x, baseline = noise(3, 1, 8, 8), torch.zeros(3, 1, 8, 8, dtype=torch.float64)
    together = multipliers(net, x, baseline)
    apart = torch.cat([multipliers(net, x[i : i + 1], baseline[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, apart)


def test_a_network_that_goes_another_way_on_the_baseline_is_refused():
    def network(x):
        return F.relu(x) if x.sum() > 0 else torch.tanh(x)

    def chosen(x):
        return x.flatten(1).gather(1, x.flatten(1).argsort(1)[:, :3])

    x = noise(1, 1, 4, 4).abs()
    with pytest.raises(NoRule, match="other operations"):
        multipliers(network, x, -x)
    with pytest.raises(NoRule, match="other operations"):
        multipliers(chosen, x, x.flip(3))


@pytest.mark.parametrize(
    "network",
    [
        lambda x: x * (x > 0).to(x), lambda x: x * (x > 0), lambda x: x / x.max().item(),
        lambda x: torch.where(x > 0, x, 0), lambda x: x + (x > 0.5).to(x).mean(),
    ],
)  # fmt: skip
def test_masks_and_numbers_that_differ_between_the_two_runs_are_refused(network):
    x = noise(1, 4, 6, 6)
    with pytest.raises(NoRule, match="fixed numbers"):
        multipliers(network, x, -x)


def test_constants_that_are_made_again_in_each_run_are_no_difference():
    weight = noise(4, 4, 3, 3, seed=4)

    def network(x):
        grid = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype).expand_as(x)
        far = torch.full_like(x, float("-inf")).triu(1)
        return F.conv2d(F.relu(x + grid), weight / weight.norm()) + (x * x.shape[1] + far).softmax(-1)[..., 1:-1, 1:-1]

    x, baseline = noise(1, 4, 6, 6), noise(1, 4, 6, 6, seed=5)
    error, change = gap(network, x, baseline)
    assert error <= 1e-9 * max(1, change)


def test_without_a_baseline_nothing_is_made_up():
    with pytest.raises(AssertionError):
        back(F.relu, noise(1, 1, 4, 4), Rescale())
    assert Tape(Rescale(), None).steps == []
