"""Reach: against hand-wired networks whose reach is known, and against brute-force differences."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hand import CONV, Context, Deep, Linear, wrap
from seglens.core.errors import Cancelled
from seglens.core.run import Run
from seglens.engine.reach import Reach, find_reach, measure_reach
from seglens.models.nets.unet import UNet

CLASSES = ("background", "cell")


class Layers(nn.Sequential):
    """Layers one after the other, weights drawn by a seed."""

    def __init__(self, *modules):
        super().__init__(*modules)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.randn(p.shape, generator=generator) * 0.5)


def known(dims):
    conv = CONV[dims]
    pool = {2: nn.MaxPool2d, 3: nn.MaxPool3d}[dims]
    up = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[dims]
    mode = "bilinear" if dims == 2 else "trilinear"
    return [
        (conv(1, 2, 1), 1, (0,), (0,)),
        (conv(1, 2, 5, padding=2), 1, (2,), (2,)),
        (conv(1, 2, 3, padding=4, dilation=4), 1, (4,), (4,)),
        (conv(1, 2, 5, padding=2, padding_mode="reflect"), 1, (2,), (2,)),
        (conv(1, 2, 3, padding=1, padding_mode="replicate"), 1, (1,), (1,)),
        (Layers(pool(2), up(1, 2, 2, stride=2)), 2, (0, 1), (1, 0)),
        (Layers(conv(1, 2, 2, stride=2), up(2, 2, 2, stride=2)), 2, (0, 1), (1, 0)),
        (Layers(conv(1, 2, 3, stride=2, padding=1), nn.Upsample(scale_factor=2)), 2, (0, 1), (1, 2)),
        (Layers(conv(1, 2, 3, padding=1), nn.ReLU(), conv(2, 2, 3, padding=1)), 1, (2,), (2,)),
        (Layers(pool(4), conv(1, 2, 1), nn.Upsample(scale_factor=4, mode=mode)), 4, None, None),
    ]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("number", range(10))
def test_known_reach(dims, number):
    module, period, before, after = known(dims)[number]
    reach = measure_reach(wrap(module, dims=dims, classes=CLASSES, divisor=period))
    assert reach is not None
    assert reach.period == period
    if before is not None:
        assert reach.before == (before,) * dims
        assert reach.after == (after,) * dims


def test_strides_are_found_where_nobody_told_the_divisor():
    net = UNet(1, 2, (4, 4, 4))

    class AnySize(nn.Module):
        def forward(self, x):
            extra = [(-n) % 4 for n in x.shape[2:]]
            return net(F.pad(x, (0, extra[1], 0, extra[0])))[..., : x.shape[2], : x.shape[3]]

    told = measure_reach(wrap(net.eval(), classes=CLASSES, divisor=4))
    found = measure_reach(wrap(AnySize(), classes=CLASSES, divisor=1))
    assert told is not None
    assert found == told


@pytest.mark.parametrize("dims", [2, 3])
def test_agrees_with_brute_force(dims):
    torch.manual_seed(0)
    model = wrap(UNet(1, 2, (3, 4), dims=dims).double(), classes=CLASSES, dims=dims, divisor=2)
    # in double precision every connection shows as a difference, unless a ReLU or a pool hides it: so on average
    side = 32 if dims == 2 else 24
    reach = measure_reach(wrap(model.module.float(), classes=CLASSES, dims=dims, divisor=2))
    model.module.double()
    for shift in range(2):
        place = side // 2 + shift
        low, high = place, place
        for seed in range(12):
            x = torch.randn(1, 1, *(side,) * dims, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
            y = x.clone()
            y[(0, 0, *(place,) * dims)] += 100.0
            with torch.no_grad():
                moved = (model.module(x) - model.module(y)).abs().amax(1)[0] > 1e-13
            hit = moved.nonzero()
            low, high = min(low, int(hit.min())), max(high, int(hit.max()))
        assert low == place - reach.before[0][place % 2]
        assert high == place + reach.after[0][place % 2]


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.InstanceNorm2d(2)),
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.GroupNorm(1, 2)),
        nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular")),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(1, 2, 1), nn.Upsample((32, 32))),
    ],
)
def test_global_is_none(module):
    assert measure_reach(wrap(module, classes=CLASSES)) is None


def test_an_answer_that_depends_on_the_place_is_global():
    class Placed(nn.Module):
        def forward(self, x):
            rows = torch.arange(x.shape[2], dtype=x.dtype)[:, None]
            return torch.cat([x, x * rows], 1)

    assert measure_reach(wrap(Placed(), classes=CLASSES)) is None


def test_boxes_in_and_out():
    reach = Reach(((1, 2), (0, 0)), ((3, 2), (1, 1)))
    assert reach.influenced((slice(4, 6), slice(0, 2)), (20, 20)) == (slice(3, 8), slice(0, 3))
    for start, stop in [(4, 6), (0, 1), (7, 12)]:
        box = (slice(start, stop), slice(3, 5))
        needed = reach.needed(box, (40, 40))[0]
        touching = [
            p for p in range(40) if p + reach.after[0][p % 2] >= start and p - reach.before[0][p % 2] <= stop - 1
        ]
        assert (needed.start, needed.stop) == (min(touching), max(touching) + 1)


def test_context_network_sees_fourteen_pixels():
    reach = measure_reach(wrap(Context(), classes=("background", "healthy", "infected")))
    assert reach.widest == 14
    assert measure_reach(wrap(Linear(1, 2), classes=CLASSES)).widest == 2


def test_remembered_by_fingerprint_on_disk(monkeypatch):
    from seglens.engine import reach as module

    calls = []

    class Counted(Deep):
        def forward(self, x):
            calls.append(1)
            return super().forward(x)

    one = find_reach(wrap(Counted()))
    first = len(calls)
    assert first > 0
    monkeypatch.setattr(module, "_KNOWN", {})
    assert find_reach(wrap(Counted())) == one
    assert len(calls) == first


def test_can_be_cancelled():
    run = Run()
    run.cancel()
    with pytest.raises(Cancelled):
        measure_reach(wrap(Deep(seed=9)), run)


class Anisotropic(nn.Module):
    """Strides along one axis only."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(1, 2, (2, 1), stride=(2, 1))
        self.up = nn.ConvTranspose2d(2, 2, (2, 1), stride=(2, 1))

    def forward(self, x):
        return self.up(self.down(x))


def test_each_axis_has_its_own_reach():
    reach = measure_reach(wrap(Anisotropic(), classes=CLASSES, divisor=2))
    assert reach == Reach(((0, 1), (0, 0)), ((1, 0), (0, 0)))


def test_what_strides_skip_across_does_not_hide_the_reach():
    # only pixels of even row and column are read
    net = Layers(nn.Conv2d(1, 2, 1, stride=2), nn.Upsample(scale_factor=2))
    reach = measure_reach(wrap(net, classes=CLASSES, divisor=2))
    assert reach == Reach(((0, 0), (0, 0)), ((1, 0), (1, 0)))


def test_a_deep_network_for_volumes_has_a_reach_too():
    net = UNet(1, 2, features=(4, 4, 4, 4), dims=3).eval()
    flat = UNet(1, 2, features=(4, 4, 4, 4), dims=2).eval()
    there = measure_reach(wrap(net, dims=3, classes=CLASSES, divisor=8))
    assert there is not None
    assert there.before[0] == measure_reach(wrap(flat, classes=CLASSES, divisor=8)).before[0]
