"""LRP: each rule against its formula with the Jacobian, conservation, and networks on which others fail (card B/B9)."""

from __future__ import annotations

from dataclasses import replace

import captum.attr
import numpy as np
import pytest
import torch
from captum.attr._utils.lrp_rules import EpsilonRule, GammaRule
from monai.networks.nets import AttentionUnet, BasicUNet, SegResNet
from monai.networks.nets import UNet as ResidualUNet
from torch import nn
from torch.nn import functional as F

from hand import small_image
from rule_nets import Functional, back, case_of, gradient
from seglens.core.target import Painted, Target
from seglens.engine.rules import COMPOSITES, Relevance, Trace

ZERO = COMPOSITES["lrp-0"]
EPS = 1e-3  # large enough to be seen in double precision


def noise(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layers():
    torch.manual_seed(0)
    for dims, conv, up in (
        (1, nn.Conv1d, nn.ConvTranspose1d),
        (2, nn.Conv2d, nn.ConvTranspose2d),
        (3, nn.Conv3d, nn.ConvTranspose3d),
    ):
        size = (1, 4, *(5, 4, 3)[:dims])
        yield f"conv{dims}d", conv(4, 6, 3, padding=1, stride=2), size
        yield f"grouped conv{dims}d", conv(4, 6, 2, groups=2, bias=False), size
        yield f"transposed conv{dims}d", up(4, 6, 3, stride=2, padding=1, output_padding=1), size
        yield f"grouped transposed conv{dims}d", up(4, 6, 2, groups=2), size
    yield "linear", nn.Linear(7, 5), (3, 7)
    yield "linear of tokens", nn.Linear(7, 5), (2, 3, 7)
    yield "linear without bias", nn.Linear(7, 5, bias=False), (3, 7)


LAYERS = [pytest.param(layer.double(), size, id=name) for name, layer, size in layers()]


def matrix(layer, x, change):
    """The weights of a layer as a matrix (answers, inputs), after a change; and its bias (answers,), likewise."""
    copy = type(layer).__new__(type(layer))
    copy.__dict__ = dict(layer.__dict__)
    copy._parameters = {k: None if p is None else change(p.detach()) for k, p in layer._parameters.items()}
    zero = torch.zeros_like(x)
    bias = copy(zero).flatten()
    weights = torch.autograd.functional.jacobian(copy, zero).reshape(bias.numel(), x.numel())
    return weights, bias


def stab(z, eps):
    return z + eps * (2 * (z >= 0).to(z) - 1)


def by_formula(kind, layer, x, r, low, high):
    """R_i = Σ_j a_i w_ij R_j / Σ_i …, written with matrices."""
    a, shape = x.flatten(), x.shape
    w, b = matrix(layer, x, lambda p: p)
    up, b_up = matrix(layer, x, lambda p: p.clamp(min=0))
    down, b_down = matrix(layer, x, lambda p: p.clamp(max=0))

    def split(z, bias, eps=EPS):  # z: contributions (answers, inputs)
        return (z * (r.flatten() / stab(z.sum(1) + bias, eps))[:, None]).sum(0)

    plus, minus = a.clamp(min=0), a.clamp(max=0)
    if kind == "zero":
        found = split(w * a, b, 0)
    elif kind == "epsilon":
        found = split(w * a, b)
    elif kind == "gamma":
        found = split((w + 0.25 * up) * a, b + 0.25 * b_up)
    elif kind == "z-plus":
        found = split(up * plus + down * minus, b_up)
    elif kind == "alpha-beta":
        found = 2 * split(up * plus + down * minus, b_up) - split(down * plus + up * minus, b_down)
    elif kind == "flat":
        ones, bias = matrix(layer, x, torch.ones_like)
        found = split(ones, 0 * bias, 0)
    else:
        found = split(w * a - up * low.flatten() - down * high.flatten(), 0 * b)
    return found.reshape(shape)


@pytest.mark.parametrize("rectified", [True, False], ids=["after a ReLU", "of any sign"])
@pytest.mark.parametrize("kind", ["zero", "epsilon", "gamma", "z-plus", "alpha-beta", "flat", "box"])
@pytest.mark.parametrize(("layer", "size"), LAYERS)
def test_each_rule_is_its_formula(layer, size, kind, rectified):
    x = noise(*size)
    x = x.clamp(min=0) if rectified else x
    low, high = (bound.expand(size) for bound in (x.amin() - 0.1, x.amax() + 0.1))
    with torch.no_grad():
        r = noise(*layer(x).shape, seed=1)
    rules = Relevance(kind, kind, None, epsilon=EPS, low=low[:1], high=high[:1])
    found, _ = back(layer, x, rules, r)
    torch.testing.assert_close(found, by_formula(kind, layer, x, r, low, high).detach())


@pytest.mark.parametrize("kind", ["zero", "epsilon", "gamma", "z-plus", "alpha-beta"])
@pytest.mark.parametrize("up", [False, True], ids=["convolution", "transposed"])
def test_a_batch_norm_is_part_of_the_convolution_that_ran_before_it(kind, up):
    torch.manual_seed(1)
    conv = (nn.ConvTranspose2d(4, 6, 2, 2, groups=2) if up else nn.Conv2d(4, 6, 3, padding=1)).double()
    norm = nn.BatchNorm2d(6).double().eval()
    with torch.no_grad():
        norm.running_mean.copy_(noise(6)), norm.running_var.copy_(noise(6, seed=1).exp())
        norm.weight.copy_(noise(6, seed=2)), norm.bias.copy_(noise(6, seed=3))
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    folded = (nn.ConvTranspose2d(4, 6, 2, 2, groups=2) if up else nn.Conv2d(4, 6, 3, padding=1)).double()
    with torch.no_grad():
        for k in range(6):
            if up:  # weight (in, out / groups, …): channel k belongs to group k // 3
                rows = slice(0, 2) if k < 3 else slice(2, 4)
                folded.weight[rows, k % 3] = conv.weight[rows, k % 3] * factor[k]
            else:
                folded.weight[k] = conv.weight[k] * factor[k]
        folded.bias.copy_((conv.bias - norm.running_mean) * factor + norm.bias)
    x = noise(1, 4, 5, 5)
    torch.testing.assert_close(norm(conv(x)), folded(x))
    r = noise(*folded(x).shape, seed=5)
    rules = Relevance(kind, kind, None, epsilon=EPS)
    found, _ = back(lambda z: norm(conv(z)), x, rules, r)
    torch.testing.assert_close(found, back(folded, x, rules, r)[0])


def test_modules_that_were_registered_out_of_order_make_no_difference():
    class Blocks(nn.Module):
        def __init__(self, order):
            super().__init__()
            torch.manual_seed(0)
            parts = {"one": nn.Conv2d(1, 4, 3, padding=1), "two": nn.Conv2d(4, 4, 3, padding=1),
                     "a": nn.BatchNorm2d(4), "b": nn.BatchNorm2d(4), "head": nn.Conv2d(4, 2, 1)}  # fmt: skip
            for norm in (parts["a"], parts["b"]):
                norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2), norm.weight.data.normal_()
            for name in order:
                self.add_module(name, parts[name])

        def forward(self, x):
            x = F.relu(self.b(self.one(x)))
            return self.head(F.relu(self.a(self.two(x))))

    x = noise(1, 1, 8, 8).float()
    right, wrong = Blocks(["one", "b", "two", "a", "head"]), Blocks(["two", "b", "a", "one", "head"])
    wrong.load_state_dict(right.state_dict())
    right.eval(), wrong.eval()
    before = wrong(x)
    for rules in (COMPOSITES["epsilon-plus-flat"], ZERO):
        torch.testing.assert_close(back(right, x, rules)[0], back(wrong, x, rules)[0])
    assert torch.equal(wrong(x), before)


@pytest.mark.parametrize("dims", [2, 3])
def test_on_a_network_without_bias_lrp_0_is_input_times_gradient_and_conserves(dims):
    net = Functional(dims, bias=False).double()
    x = noise(1, 1, *(8,) * dims)
    out = net(x).detach()
    start = torch.zeros_like(out)
    start[:, 1, 2:5] = out[:, 1, 2:5]
    found, _ = back(net, x, ZERO, start)
    torch.testing.assert_close(found, x * gradient(net, x, (start != 0).double()))
    torch.testing.assert_close(found.sum(), start.sum())
    # the skip carries a part of it: who throws that away, as published code does, does not conserve
    skip = net.act(net.one(x)).detach()

    def lost(z):
        up = net.act(net.up(net.act(net.two(net.pool(net.act(net.one(z)))))))
        return net.head(net.act(net.three(torch.cat([skip, up], 1))))

    torch.testing.assert_close(lost(x), net(x))
    assert abs(float(back(lost, x, ZERO, start)[0].sum() / start.sum()) - 1) > 0.1


@pytest.mark.parametrize("name", ["epsilon-plus-flat", "epsilon-plus", "z-plus", "gamma"])
@pytest.mark.parametrize("dims", [2, 3])
def test_every_composite_conserves_on_a_network_without_bias(name, dims):
    net = Functional(dims, bias=False).double()
    x = noise(1, 1, *(8,) * dims).abs()
    start = net(x).detach()
    rules = replace(COMPOSITES[name], epsilon=1e-12)
    found, _ = back(net, x, rules, start)
    # what a rule of positive weights has no way on for is absorbed: only where no weight is positive
    kept = float(found.sum() / start.sum())
    assert kept == pytest.approx(1, abs=1e-6) if name == "gamma" else kept > 0.97
    positive, _ = back(net, x, COMPOSITES["epsilon-plus-flat"], start.abs())
    assert float(positive.min()) >= 0


def box(x):
    return replace(COMPOSITES["epsilon-gamma-box"], low=x.amin((2, 3), keepdim=True), high=x.amax((2, 3), keepdim=True))


def question(module, side=32, **spec):
    mask = np.zeros((side, side + 3), bool)
    mask[8:20, 9:24] = True
    return case_of(module, small_image(side=side), Target(1, Painted(mask)), **spec)


def medical():
    norms = {"batch": "batch", "instance": "instance"}
    for name, norm in norms.items():
        yield (
            f"BasicUNet {name}",
            lambda n=norm: BasicUNet(2, 1, 2, (8, 8, 8, 8, 8, 8), norm=n, act=("relu", {"inplace": True})),
        )
    yield "BasicUNet as MONAI makes it", lambda: BasicUNet(2, 1, 2, (8, 8, 8, 8, 8, 8))
    yield "UNet with residual units", lambda: ResidualUNet(2, 1, 2, (4, 8, 8), (2, 2), num_res_units=2)
    yield "AttentionUnet", lambda: AttentionUnet(2, 1, 2, (4, 8, 8), (2, 2))
    yield "SegResNet", lambda: SegResNet(spatial_dims=2, in_channels=1, out_channels=2, init_filters=8)


MEDICAL = [pytest.param(make, id=name) for name, make in medical()]


@pytest.mark.parametrize("make", MEDICAL)
@pytest.mark.parametrize("name", ["epsilon-plus-flat", "epsilon-plus"])
def test_relevance_stays_within_its_start_on_medical_networks(make, name):
    """Others make 4e10 of it on SegResNet, and 142 times as much on AttentionUnet."""
    torch.manual_seed(0)
    case = question(make(), divisor=16)
    flow = Trace(case, COMPOSITES[name]).back(rows=True)
    start = Trace(case, COMPOSITES[name]).start()
    assert float(flow.values.abs().sum()) <= 1.001 * float(start.abs().sum())
    assert float(flow.values.abs().sum()) > 0
    # nothing is lost without being told
    leaks = sum(row.leak for row in flow.rows)
    assert flow.total + leaks + flow.constants == pytest.approx(flow.start, abs=1e-4 * float(start.abs().sum()))


@pytest.mark.parametrize("name", ["epsilon-plus-flat", "epsilon-gamma-box", "lrp-0"])
def test_volumes_with_instance_norm_and_transposed_convolutions_are_followed(name):
    """Captum has no rule for any of the three."""
    torch.manual_seed(0)
    net = BasicUNet(3, 1, 2, (4,) * 6, norm="instance")
    image = small_image(dims=3, side=48)
    mask = np.zeros(image.space("ZYX"), bool)
    mask[2:6, 6:14, 8:18] = True
    case = case_of(net, image, Target(1, Painted(mask)), dims=3, divisor=16)
    rules = COMPOSITES[name]
    if "box" in name:
        rules = replace(rules, low=case.x.amin((2, 3, 4), keepdim=True), high=case.x.amax((2, 3, 4), keepdim=True))
    flow = Trace(case, rules).back(rows=True)
    leaks = [row.leak for row in flow.rows]
    scale = max(abs(flow.start), *(abs(leak) for leak in leaks))
    assert flow.total + sum(leaks) + flow.constants == pytest.approx(flow.start, abs=2e-3 * scale)
    assert {nn.ConvTranspose3d, nn.InstanceNorm3d} <= {type(m) for m in net.modules()}
    assert float(flow.values.abs().sum()) > 0


@pytest.mark.parametrize("make", MEDICAL)
@pytest.mark.parametrize("name", ["lrp-0", "epsilon", "gamma", "epsilon-gamma-box", "alpha2-beta1", "z-plus"])
def test_every_composite_goes_through_medical_networks_and_tells_what_is_absorbed(make, name):
    torch.manual_seed(0)
    case = question(make(), divisor=16)
    rules = box(case.x) if "box" in name else COMPOSITES[name]
    flow = Trace(case, rules).back(rows=True)
    leaks = [row.leak for row in flow.rows]
    scale = max(abs(flow.start), *(abs(leak) for leak in leaks))
    assert np.isfinite(flow.values.numpy()).all()
    assert flow.total + sum(leaks) + flow.constants == pytest.approx(flow.start, abs=2e-3 * scale)


def test_a_gate_gets_nothing_and_the_signal_all():
    gate, signal = nn.Conv2d(2, 1, 1).double(), nn.Conv2d(2, 3, 1, bias=False).double()
    x = noise(1, 2, 4, 4)
    r = noise(1, 3, 4, 4, seed=1)
    found, tape = back(lambda z: signal(z) * torch.sigmoid(gate(z)), x, ZERO, r)
    torch.testing.assert_close(found, back(signal, x, ZERO, r)[0])
    assert not tape.declared


def test_of_a_product_of_two_signals_half_goes_to_each_and_that_is_declared():
    one, two = (nn.Conv2d(2, 3, 1, bias=False).double() for _ in range(2))
    x, r = noise(1, 2, 4, 4), noise(1, 3, 4, 4, seed=1)
    found, tape = back(lambda z: one(z) * two(z), x, ZERO, r)
    assert tape.declared == {"mul"}
    torch.testing.assert_close(found, back(one, x, ZERO, r / 2)[0] + back(two, x, ZERO, r / 2)[0])


class Attends(nn.Module):
    """Patches, attention written out or in one operation, layer norm, a residual and an MLP; a map again."""

    def __init__(self, fused=True, bias=False):
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(1, 8, 4, 4, bias=bias)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24, bias=bias)
        self.out = nn.Linear(8, 8, bias=bias)
        self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16, bias=bias), nn.GELU(), nn.Linear(16, 8, bias=bias))
        self.head = nn.Linear(8, 2, bias=bias)
        self.fused = fused

    def attend(self, t):
        q, k, v = (p.reshape(1, -1, 2, 4).transpose(1, 2) for p in self.qkv(self.norm(t)).chunk(3, -1))
        out = F.scaled_dot_product_attention(q, k, v) if self.fused else torch.softmax(q @ k.mT / 2, -1) @ v
        return self.out(out.transpose(1, 2).reshape(1, -1, 8))

    def forward(self, x):
        maps = self.patch(x)
        t = maps.flatten(2).mT
        t = t + self.attend(t)
        t = t + self.mlp(t)
        small = self.head(t).mT.reshape(1, 2, *maps.shape[2:])
        return F.interpolate(small, x.shape[2:], mode="bilinear")


def test_relevance_goes_through_attention_layer_norm_and_gelu_and_is_kept():
    x = noise(1, 1, 16, 16)
    net = Attends().double()
    start = net(x).detach()
    rules = Relevance("epsilon", "epsilon", None, epsilon=0.0, by_size=True)
    found, _ = back(net, x, rules, start)
    torch.testing.assert_close(found.sum(), start.sum(), rtol=1e-6, atol=1e-9)
    same, _ = back(Attends(fused=False).double(), x, rules, start)
    torch.testing.assert_close(found, same)


def test_the_softmax_of_attention_is_a_gate_and_the_value_the_signal():
    x = noise(1, 5, 4)
    weights = torch.softmax(x @ x.mT, -1).detach()
    r = noise(1, 5, 4, seed=1)
    found, _ = back(lambda z: torch.softmax(z @ z.mT, -1) @ z, x, ZERO, r)
    torch.testing.assert_close(found, back(lambda z: weights @ z, x, ZERO, r)[0])
    torch.testing.assert_close(found.sum(), r.sum())


def test_torch_attention_modules_are_followed():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True).double().eval()
    x = noise(2, 5, 8)
    found, _ = back(layer, x, COMPOSITES["epsilon-plus"])
    assert found.abs().max() > 0


def test_addition_shares_in_proportion_and_a_constant_takes_its_part():
    x = noise(1, 2, 3, 3).abs() + 0.1
    r = noise(1, 2, 3, 3, seed=1)
    for rules in (ZERO, replace(COMPOSITES["epsilon-plus"], epsilon=0.0)):
        torch.testing.assert_close(back(lambda z: z * 3 + z, x, rules, r)[0], r)
        torch.testing.assert_close(back(lambda z: z + 2, x, rules, r)[0], r * x / (x + 2))
        torch.testing.assert_close(back(lambda z: 5 - z * 2, x, ZERO, r)[0], r * -2 * x / (5 - 2 * x))


@pytest.mark.parametrize("name", ["lrp-0", "epsilon-plus"])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling_and_pooling_hand_all_of_it_on(mode, name):
    rules = replace(COMPOSITES[name], epsilon=0.0)
    x, r = noise(1, 2, 6, 6).abs(), noise(1, 2, 12, 12, seed=1)
    found, _ = back(lambda z: F.interpolate(z, scale_factor=2, mode=mode), x, rules, r)
    torch.testing.assert_close(found.sum(), r.sum())
    found, _ = back(lambda z: F.adaptive_avg_pool2d(F.max_pool2d(z, 2), 3), x, rules, r[:, :, :3, :3])
    torch.testing.assert_close(found.sum(), r[:, :, :3, :3].sum())


def chain(bias=True):
    torch.manual_seed(0)
    one, two, three = (
        nn.Conv2d(2, 4, 3, 1, 1, bias=bias),
        nn.Conv2d(4, 6, 3, 1, 1, bias=bias),
        nn.Conv2d(6, 3, 1, bias=bias),
    )
    return nn.Sequential(one, nn.ReLU(), nn.MaxPool2d(2), two, nn.ReLU(), three).double()


@pytest.mark.parametrize("kind", ["epsilon", "gamma"])
def test_agrees_with_captum_where_captum_has_rules(kind):
    net = chain()
    for layer in net:
        if isinstance(layer, nn.Conv2d):
            layer.rule = EpsilonRule(1e-9) if kind == "epsilon" else GammaRule(gamma=0.25)
    x = noise(1, 2, 8, 8)
    at = (1, 2, 3)
    theirs = captum.attr.LRP(net).attribute(x.clone().requires_grad_(True), target=at).detach()
    start = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    start[0, 1, 2, 3] = net(x)[0, 1, 2, 3]
    rules = Relevance(kind, kind, None, epsilon=1e-9, by_size=False)
    found, _ = back(net, x, rules, start)
    if kind == "gamma":
        # Captum's gamma rule changes the weights and not the bias
        bias_free = chain(bias=False)
        bias_free.load_state_dict(net.state_dict(), strict=False)
        for layer in bias_free:
            if isinstance(layer, nn.Conv2d):
                layer.rule = GammaRule(gamma=0.25)
        theirs = captum.attr.LRP(bias_free).attribute(x.clone().requires_grad_(True), target=at).detach()
        start[0, 1, 2, 3] = bias_free(x)[0, 1, 2, 3]
        found, _ = back(bias_free, x, rules, start)
    torch.testing.assert_close(found, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))
