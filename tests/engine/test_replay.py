"""Prefix cache: the same logits as running everything, through skips, in-place operations and nested modules."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets import AttentionUnet, BasicUNet, SegResNet
from monai.networks.nets import UNet as ResidualUNet
from torch import nn
from torch.nn import functional as F

from hand import wrap
from seglens.core.errors import MissingNeed
from seglens.engine.replay import Replay
from seglens.models.nets.unet import UNet


class InPlace(nn.Module):
    """Everything that makes a record go wrong: in-place changes, reuse, results that are thrown away."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.head = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((1, 4), (4, 4), (8, 3)))

    def forward(self, x):
        skip = self.one(x)
        kept = skip * 2
        F.relu(skip, inplace=True)
        skip += 0.25
        below = F.max_pool2d(skip, 2)
        below = F.relu_(self.two(below))
        below.mul_(1.5)
        up = F.interpolate(below, scale_factor=2)
        up += kept
        both = torch.cat([skip, up], 1)
        return self.head(both.clamp_(max=3))


def networks():
    torch.manual_seed(0)
    wide = (8, 16, 32)
    return {
        "unet": (UNet(1, 3, wide), ("encoder.0", "encoder.1.relu1", "bottleneck", "decoder.1", "head")),
        "unet 3-D": (UNet(1, 3, (4, 8), dims=3), ("encoder.0", "bottleneck")),
        "basic, batch norm": (
            BasicUNet(2, 1, 3, features=(8, 8, 16, 16, 32, 8), norm="batch"),
            ("conv_0", "down_1.convs.conv_0.conv", "down_4", "upcat_4"),
        ),
        "basic, instance norm": (BasicUNet(2, 1, 3, features=(8, 8, 16, 16, 32, 8)), ("down_4.convs.conv_1",)),
        "residual": (ResidualUNet(2, 1, 3, wide, (2, 2), num_res_units=2), ("model.0", "model.1.submodule.1")),
        "attention": (AttentionUnet(2, 1, 3, wide, (2, 2)), ("model.0", "model.1.submodule.1")),
        "segresnet": (SegResNet(2, 8, 1, 3), ("down_layers.1", "up_layers.0")),
        "in place": (InPlace(), ("one", "two")),
    }


CASES = [(name, layer) for name, (_, layers) in networks().items() for layer in layers]


@pytest.mark.parametrize(("name", "layer"), CASES)
def test_equals_running_everything(name, layer):
    net = networks()[name][0].eval().requires_grad_(False)
    dims = 3 if "3-D" in name else 2
    x = torch.randn(1, 1, *(32 if dims == 2 else 16,) * dims, generator=torch.Generator().manual_seed(1))
    module = dict(net.named_modules())[layer]
    replay = Replay(net, module, x)
    assert replay.exact
    torch.testing.assert_close(replay.clean, net(x), rtol=1e-5, atol=1e-6)
    for seed in range(2):
        # twice, since the first time must leave the record as it was
        noise = torch.randn(3, *replay.activation.shape[1:], generator=torch.Generator().manual_seed(seed))
        changed = replay.activation + 100 * noise
        whole = torch.cat([answer(net, module, x, one[None]) for one in changed])
        scale = float(whole.abs().max())
        assert float((replay(changed) - whole).abs().max()) <= 1e-5 * scale
        assert float((whole - replay.clean).abs().max()) > 1e-3 * scale
    assert not any(m._forward_hooks for m in net.modules())


def answer(net, module, x, changed):
    handle = module.register_forward_hook(lambda _m, _i, _o: changed.clone())
    try:
        return net(x)
    finally:
        handle.remove()


def test_what_lies_before_is_not_computed():
    net = networks()["unet"][0].eval().requires_grad_(False)
    replay = Replay(net, net.bottleneck, torch.randn(1, 1, 32, 32))
    assert 0.4 < replay.share < 0.7
    assert Replay(net, net.head, torch.randn(1, 1, 32, 32)).share < 0.02
    # only what the decoder asks for is kept: the two skips
    assert len(replay._record.needed) == 2


def test_a_network_that_cannot_be_recorded_runs_whole():
    class Counting(nn.Module):
        """Takes another way each time."""

        def __init__(self):
            super().__init__()
            self.conv, self.head, self.calls = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 3, 1), 0

        def forward(self, x):
            self.calls += 1
            y = self.conv(x)
            for _ in range(self.calls % 3):
                y = y + x.mean()
            return self.head(y)

    torch.manual_seed(0)
    net = Counting().eval().requires_grad_(False)
    assert not Replay(net, net.conv, torch.randn(1, 1, 16, 16)).exact


class Deaf(nn.Module):
    """Calls a layer and does not use what it answers."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 2, 1)

    def forward(self, x):
        self.conv(x)
        return self.head(torch.ones_like(x))


@torch.inference_mode()
def test_a_network_that_does_not_listen_to_the_layer_answers_as_ever():
    network = Deaf()
    replay = Replay(network, network.conv, torch.rand(1, 1, 12, 14))
    out = replay(torch.randn(3, 4, 12, 14))
    assert replay.exact
    torch.testing.assert_close(out, replay.clean.expand(3, -1, -1, -1))


def test_a_layer_that_nobody_calls():
    model = wrap(UNet(1, 2, (4, 4)))
    unused = nn.Conv2d(1, 1, 1)
    with pytest.raises(MissingNeed):
        Replay(model.module, unused, torch.randn(1, 1, 16, 16))
