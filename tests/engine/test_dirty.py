"""Dirty rectangles: the same logits as whole passes, for every local operation; refused where one is not local."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from monai.networks.nets import AttentionUnet, BasicUNet, DynUNet, SegResNet
from monai.networks.nets import UNet as ResidualUNet
from torch import nn
from torch.nn import functional as F

from hand import CONV, wrap
from seglens.core.boxes import at_box, whole
from seglens.core.errors import Cancelled
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Object, Painted, Predicted, Target
from seglens.engine import cache, dirty, dirty_rules, evaluator
from seglens.engine.dirty_patches import run
from seglens.engine.dirty_program import Program
from seglens.engine.dirty_rules import Line, Rule
from seglens.engine.dirty_trace import Tracer
from seglens.engine.perturb import windows
from seglens.models.nets.unet import UNet
from seglens.session import explain, explain_many

CLASSES = ("background", "cell", "other")
UP = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
MEAN = {2: nn.AvgPool2d, 3: nn.AvgPool3d}
NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LINEAR = {2: "bilinear", 3: "trilinear"}


class Call(nn.Module):
    """Any function of tensors as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Tangled(nn.Module):
    """In-place changes of what somebody else still holds, views, skips, parts of channels, a gate."""

    def __init__(self, dims):
        super().__init__()
        conv = CONV[dims]
        self.one, self.two, self.head = conv(1, 4, 3, padding=1), conv(4, 4, 3, stride=2, padding=1), conv(10, 3, 3)

    def forward(self, x):
        skip = self.one(x)
        alias, kept = skip.detach(), skip * 2
        F.relu(skip, inplace=True)
        skip += 0.25
        below = F.leaky_relu_(self.two(alias), 0.2)
        below.mul_(1.5).clamp_(max=3)
        up = F.interpolate(below, scale_factor=2)[(..., *(slice(0, n) for n in x.shape[2:]))]
        up += kept
        first, second = skip.chunk(2, 1)
        gate = torch.sigmoid(up.mean(1, keepdim=True))
        both = torch.cat([skip * gate, torch.cat([up, first.softmax(1) - second], 1)], 1)
        return self.head(F.pad(both, (1, 1) * (x.ndim - 2)))


def layers(dims):
    """Name, what comes between two convolutions."""
    conv, up, largest, mean = CONV[dims], UP[dims], MAX[dims], MEAN[dims]
    return {
        "wide": (conv(4, 4, 5, padding=2), conv(4, 4, 1)),
        "dilated": (conv(4, 4, 3, padding=3, dilation=3),),
        "no padding": (conv(4, 4, 3), conv(4, 4, 2, padding=1)),
        "same, even kernel": (conv(4, 4, 4, padding="same"),),
        "grouped": (conv(4, 8, 3, padding=1, groups=2), conv(8, 4, 1)),
        "reflected": (conv(4, 4, 5, padding=2, padding_mode="reflect"),),
        "repeated": (conv(4, 4, 5, padding=2, padding_mode="replicate"),),
        "strided": (conv(4, 4, 3, stride=2, padding=1), up(4, 4, 3, stride=2, padding=1, output_padding=1)),
        "strided by three": (conv(4, 4, 3, stride=3), up(4, 4, 3, stride=3)),
        "wide transposed": (largest(2), up(4, 4, 4, stride=2, padding=1), up(4, 4, 3, dilation=2)),
        "pools": (largest(3, 2, 1), mean(2), largest(2, ceil_mode=True), up(4, 4, 6, stride=6)),
        "nearest": (largest(2), nn.Upsample(scale_factor=2), conv(4, 4, 3, padding=1)),
        "exact nearest": (mean(2), nn.Upsample(scale_factor=3, mode="nearest-exact")),
        "between two": (largest(2), nn.Upsample(scale_factor=2, mode=LINEAR[dims]), conv(4, 4, 3, padding=1)),
        "between three": (mean(2), nn.Upsample(scale_factor=3, mode=LINEAR[dims])),
        "to a size": (mean(2), Call(lambda x: F.interpolate(x, [4 * n for n in x.shape[2:]], mode=LINEAR[dims]))),
        "padded": (Call(lambda x: F.pad(x, (2, 1), value=0.7)), conv(4, 4, 3)),
        "cut": (Call(lambda x: x[..., 2:-3]), conv(4, 4, 3, padding=1), Call(lambda x: x[..., 1::2])),
        # what an activation may not overwrite, as somebody still needs it
        "parts": (Call(lambda x: torch.cat([F.relu(x.chunk(2, 1)[0]), x], 1)), conv(6, 4, 3, padding=1)),
        "padded by nothing": (Call(lambda x: F.relu(F.pad(x, (0, 0))) + x), conv(4, 4, 3, padding=1)),
        "norm": (NORM[dims](4), nn.PReLU(4), nn.Dropout(0.5), nn.GELU(), nn.ELU(inplace=True), nn.SiLU()),
    }


def hand_wired(name, dims):
    torch.manual_seed(3)
    conv = CONV[dims]
    middle = Tangled(dims) if name == "tangled" else None
    if middle is None:
        net = nn.Sequential(
            conv(1, 4, 3, padding=1), nn.ReLU(), *layers(dims)[name], nn.ReLU(inplace=True), conv(4, 3, 1)
        )
    else:
        net = middle
    with torch.no_grad():
        for one in net.modules():
            if isinstance(one, nn.BatchNorm2d | nn.BatchNorm3d):
                one.running_mean.normal_()
                one.running_var.uniform_(0.5, 2)
    return net.eval()


def known_network(name):
    torch.manual_seed(0)
    wide = (4, 8, 8)
    few = (4, 4, 4, 4, 4, 4)
    net = {
        "unet": lambda: UNet(1, 3, wide),
        "unet 3-D": lambda: UNet(1, 3, (4, 8), dims=3),
        "basic": lambda: BasicUNet(2, 1, 3, features=few, norm="batch"),
        "basic 3-D": lambda: BasicUNet(3, 1, 3, features=few, norm="batch"),
        # with corners aligned: where a pixel goes depends on the size of the image
        "basic, interpolated": lambda: BasicUNet(2, 1, 3, features=few, norm="batch", upsample="nontrainable"),
        "residual": lambda: ResidualUNet(2, 1, 3, wide, (2, 2), num_res_units=2, norm="batch"),
        "residual 3-D": lambda: ResidualUNet(3, 1, 3, wide, (2, 2), num_res_units=2, norm="batch"),
        "dynamic": lambda: DynUNet(2, 1, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=wide, norm_name="batch"),
        "segresnet, batch norm": lambda: SegResNet(2, 8, 1, 3, norm="batch"),
        "segresnet": lambda: SegResNet(2, 8, 1, 3),
        "attention": lambda: AttentionUnet(2, 1, 3, wide, (2, 2)),
        "basic, instance norm": lambda: BasicUNet(2, 1, 3, features=few),
    }[name]()
    for one in net.modules():
        if isinstance(one, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(one.running_mean, 0, 0.1)
    return net.eval()


def traced(net, x):
    tracer = Tracer(x)
    with torch.inference_mode(), tracer:
        out = net(x)
    return Program.of(tracer.trace(out)), out


def check(net, shape, side, stride, *, slack=1.02, seen=None, single=False):
    """Every window by rectangles and by a whole pass."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 1, *shape, generator=generator)
    program, clean_out = traced(net, x)
    assert program is not None
    everything = seen or tuple(slice(0, n) for n in clean_out.shape[2:])
    boxes = dict(enumerate(windows(shape, side, stride)))
    found = dirty.rectangles(program, boxes, everything, slack)
    scale = float(clean_out.abs().max())
    felt = 0.0
    with torch.inference_mode():
        clean = program.clean(x)
        for group in found.groups:
            changed = x.repeat(len(group.members), *(1,) * (x.ndim - 1))
            fresh = []
            for one, number in zip(changed, group.members, strict=True):
                box = (slice(None), *boxes[number])
                one[box] = torch.randn(one[box].shape, generator=generator) * 2
            for one, window in zip(changed, group.windows, strict=True):
                starts = [a.starts[0][n] for a, n in zip(group.along, window, strict=True)]
                fresh.append(
                    one[(slice(None), *(slice(s, s + a.lengths[0]) for s, a in zip(starts, group.along, strict=True)))]
                )
            truth = torch.cat([net(one) for one in changed.split(1)]) if single else net(changed)
            part = run(program, torch.stack(fresh), clean, group.along, group.windows)
            out = clean_out.repeat(len(truth), *(1,) * (x.ndim - 1))
            for n, window in enumerate(group.windows):
                places = [
                    (a.starts[program.trace.out][k], a.lengths[program.trace.out])
                    for a, k in zip(group.along, window, strict=True)
                ]
                if part is not None:
                    out[(n, slice(None), *(slice(s, s + k) for s, k in places))] = part[n]
            at = at_box(everything)
            assert float((out[at] - truth[at]).abs().max()) <= 1e-5 * scale
            felt = max(felt, float((truth - clean_out).abs().max()))
    assert felt > 1e-3 * scale
    return found


NAMES = [*layers(2), "tangled"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("side", "stride"), [(5, 6), (1, 7), (16, 4)])
def test_every_window_equals_a_whole_pass(name, side, stride):
    check(hand_wired(name, 2), (37, 42), side, stride)


@pytest.mark.parametrize("name", NAMES)
def test_every_window_equals_a_whole_pass_in_a_volume(name):
    check(hand_wired(name, 3), (13, 19, 18), 4, 5)


@pytest.mark.parametrize("name", NAMES)
def test_windows_of_any_alignment_go_together(name):
    # one group of all: rectangles are larger than they need be, and still right
    found = check(hand_wired(name, 2), (37, 42), 5, 6, slack=1e9)
    assert len(found.groups) == 1


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_looked_at_is_not_computed_and_the_rest_is_right(name):
    net = hand_wired(name, 2)
    part = (slice(9, 14), slice(2, 8))
    narrow = check(net, (37, 42), 5, 6, seen=part)
    assert narrow.share < check(net, (37, 42), 5, 6).share


@pytest.mark.parametrize(
    "name",
    ["unet", "unet 3-D", "basic", "basic 3-D", "residual", "residual 3-D", "dynamic",
     "segresnet, batch norm"],
)  # fmt: skip
def test_known_networks(name):
    shape = (16, 16, 32) if "3-D" in name else (48, 64)
    check(known_network(name), shape, 8, 8 if "3-D" in name else 12)


def test_a_torchscript_network_is_followed_too():
    x = torch.randn(1, 1, 48, 64)
    with torch.no_grad():
        check(torch.jit.trace(known_network("unet"), x), (48, 64), 8, 12)


def test_a_graph_that_was_exported_is_followed_too():
    # its size is fixed, and whole passes of one copy at a time are compared
    shape = (48, 64)
    net = torch.export.export(known_network("unet"), (torch.randn(1, 1, *shape),)).module()
    check(net, shape, 8, 12, single=True)


@pytest.mark.parametrize("name", ["segresnet", "attention", "basic, instance norm", "basic, interpolated"])
def test_networks_that_are_not_local_are_refused(name):
    program, _ = traced(known_network(name), torch.randn(1, 1, 32, 32))
    assert program is None


class Deciding(nn.Module):
    def forward(self, x):
        return x * 2 if float(x.max()) > 0 else x


@pytest.mark.parametrize(
    "net",
    [
        Deciding(),
        Call(lambda x: x * x.mean()),
        Call(lambda x: x.flip(-1)),
        Call(lambda x: x.transpose(-1, -2)),
        Call(lambda x: x.softmax(-1)),
        Call(lambda x: x + torch.arange(16.0)),
        Call(lambda x: F.interpolate(x, size=(20, 20))),
        Call(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)),
        Call(lambda x: F.pad(x, (2, 2, 2, 2), mode="circular")),
        Call(lambda x: torch.cat([x, x], 2)),
        Call(lambda x: F.dropout(x, 0.5, training=True)),
        Call(lambda x: F.batch_norm(x, torch.zeros(1), torch.ones(1), training=True)),
        Call(lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)),
        Call(lambda x: torch.zeros_like(x).copy_(x)),
    ],
)
def test_operations_that_are_not_local_are_refused(net):
    assert traced(net, torch.rand(1, 1, 16, 16))[0] is None


def test_a_part_that_is_changed_through_a_view_is_refused():
    def half(x):
        y = x * 2
        y[:, :, :4].mul_(3)
        return y

    assert traced(Call(half), torch.rand(1, 1, 16, 16))[0] is None


def test_a_line_tells_exactly_what_reads_what():
    for line in (
        Line(1, 1, 2),
        Line(2, 1, 2),
        Line(3, 0, 4),
        Line(2, 0, 1, True),
        Line(2, 1, 3, True),
        Line(3, 1, 4, True),
    ):
        reads = {o: set(range(*line.read(o, o + 1))) for o in range(-40, 80)}
        for a in range(5, 9):
            for b in range(a + 1, a + 6):
                touched = [o for o, inputs in reads.items() if inputs & set(range(a, b))]
                low, high = line.seen(a, b)
                assert (min(touched), max(touched) + 1) == (low, high)


# through the whole engine


@pytest.fixture
def forced(monkeypatch):
    """Rectangles whatever they cost."""
    made = dirty.rectangles
    monkeypatch.setattr(
        dirty, "rectangles", lambda *args, **kwargs: dataclasses.replace(made(*args, **kwargs), whole=1e30)
    )
    monkeypatch.setattr(evaluator, "FEW", 3)
    cache.clear()
    yield
    cache.clear()


def picture(dims=2):
    rng = np.random.default_rng(0)
    return Image(rng.random((46, 53) if dims == 2 else (8, 14, 18)).astype(np.float32), "ZYX"[-dims:], name="noise")


def model(name="unet", dims=2, **more):
    net = known_network(name)
    with torch.no_grad():
        # every class wins somewhere
        head = [m for m in net.modules() if isinstance(m, CONV[dims])][-1]
        x = torch.from_numpy(picture(dims).data[(..., *(slice(0, 8 if dims == 3 else 32),) * dims)])[None, None]
        answer = net(x).flatten(2)
        head.weight.div_(answer.std())
        head.bias.copy_((head.bias - answer.mean(2)[0]) / answer.std())
    more.setdefault("divisor", 2 if dims == 3 else 4)
    return wrap(net, dims=dims, classes=CLASSES, **more)


def painted(dims=2):
    mask = np.zeros(picture(dims).space("ZYX"[-dims:]), bool)
    mask[(slice(2, 7),) * dims] = True
    return Painted(mask)


TARGETS = {
    "whole class": lambda dims: Target("cell", Predicted()),
    "one object": lambda dims: Target("cell", Object(number=1)),
    "painted": lambda dims: Target("cell", painted(dims)),
    "margin": lambda dims: Target("cell", painted(dims), "margin", "sum"),
    "dice": lambda dims: Target("cell", painted(dims), "dice"),
    "live": lambda dims: Target("other", Predicted(live=True)),
}


def same(one, other):
    for a, b in zip(one.layers, other.layers, strict=True):
        largest = float(np.abs(np.asarray(b.data, float)).max())
        # the second part is what float32 leaves of a small change of a large score
        rounding = 2e-6 * max(1.0, abs(other.record.target["resolved"]["score"]))
        np.testing.assert_allclose(a.data, b.data, rtol=0, atol=1e-5 * largest + rounding)


def both(image, network, target, **parameters):
    one = explain("occlusion", image, network, target, run=Run(), **parameters)
    plain = explain("occlusion", image, network, target, run=Run(plain=True), **parameters)
    same(one, plain)
    told = one.record.engine["evaluations"][-1]
    assert "dirty rectangles" not in plain.record.engine["evaluations"][0]
    return one, told


@pytest.mark.parametrize("name", list(TARGETS))
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.usefixtures("forced")
def test_occlusion_equals_the_straight_loop(name, dims):
    network = model("unet" if dims == 2 else "unet 3-D", dims)
    _, told = both(picture(dims), network, TARGETS[name](dims), window=6, stride=5)
    assert told["dirty rectangles"]
    assert 0 < told["multiplications"] < 1


@pytest.mark.parametrize("name", ["basic", "residual", "dynamic", "segresnet, batch norm"])
@pytest.mark.parametrize(("window", "stride"), [(9, 7), (16, 8), (3, 11)])
@pytest.mark.usefixtures("forced")
def test_any_network_window_and_stride(name, window, stride):
    divisor = 16 if name == "basic" else 8
    _, told = both(picture(), model(name, divisor=divisor), TARGETS["whole class"](2), window=window, stride=stride)
    assert told["dirty rectangles"]


@pytest.mark.parametrize("fill", ["mean", "unit-mean", "blur", "noise"])
@pytest.mark.parametrize("where", ["whole", "object", "context"])
@pytest.mark.usefixtures("forced")
def test_any_fill_and_place(fill, where):
    both(picture(), model(), TARGETS["painted"](2), window=7, stride=6, fill=fill, where=where)


@pytest.mark.usefixtures("forced")
def test_the_record_tells_passes_multiplications_and_cost():
    run = Run()
    explain("occlusion", picture(), model(), TARGETS["whole class"](2), run=run, window=6, stride=5)
    told = run.engine["evaluations"][0]
    assert told["passes"] == told["instead of"] == 99
    # the image, a clean pass that is written down, one that is kept, three that are compared
    assert run.cost.forwards == 99 + 6
    assert run.cost.images == pytest.approx(5 + 99 * told["multiplications"], rel=1e-3)


@pytest.mark.usefixtures("forced")
def test_many_targets_are_scored_in_one_go():
    targets = [TARGETS[name](2) for name in ("whole class", "painted", "margin")]
    network, run = model(), Run()
    many = explain_many("occlusion", picture(), network, targets, run=run, window=6, stride=6)
    assert run.engine["evaluations"][0]["dirty rectangles"]
    for target, one in zip(targets, many, strict=True):
        same(one, explain("occlusion", picture(), network, target, run=Run(plain=True), window=6, stride=6))


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("memory", [2**17, 2**20])
def test_refused_where_the_record_does_not_fit_into_the_memory(memory):
    run = Run(memory=memory)
    explain("occlusion", picture(), model(), TARGETS["whole class"](2), run=run, window=6, stride=5)
    assert ("dirty rectangles" in run.engine["evaluations"][0]) == (memory == 2**20)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("batch", [1, 5, None])
def test_batches_of_any_size_give_the_same(batch):
    network, target = model(), TARGETS["painted"](2)
    one = explain("occlusion", picture(), network, target, run=Run(batch=batch), window=6, stride=5)
    same(one, explain("occlusion", picture(), network, target, run=Run(plain=True), window=6, stride=5))


@pytest.mark.usefixtures("forced")
def test_memory_that_runs_out_halves_the_batch(monkeypatch):
    real, sizes = dirty.run, []

    def small(program, fresh, *rest):
        sizes.append(len(fresh))
        if len(fresh) > 2:
            raise RuntimeError("CPU out of memory")
        return real(program, fresh, *rest)

    monkeypatch.setattr(dirty, "run", small)
    one, told = both(picture(), model(), TARGETS["whole class"](2), window=6, stride=5)
    assert told["dirty rectangles"]
    assert max(sizes) > 2
    assert any("Memory ran out" in note for note in one.record.notes)


@pytest.mark.usefixtures("forced")
def test_a_wrong_rule_is_found_out_said_and_not_used(monkeypatch):
    real = dirty_rules._pool

    def short(step, size, dims):
        # as if the pool looked at one pixel of two
        rule = real(step, size, dims)
        lines = tuple(dataclasses.replace(line, pad=-1, extent=0) for line in rule.lines)
        return Rule(lambda patch: patch[(..., *(slice(None, None, 2),) * dims)], lines)

    monkeypatch.setattr(dirty_rules, "_pool", short)
    one, told = both(picture(), model(), TARGETS["whole class"](2), window=6, stride=5)
    assert "dirty rectangles" not in told
    assert any("no more than a window changes" in note for note in one.record.notes)


@pytest.mark.usefixtures("forced")
def test_a_network_that_takes_another_way_by_what_it_has_seen_is_found_out():
    class Moody(nn.Module):
        """Looks at numbers behind the back of whoever watches."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3, padding=1)

        def forward(self, x):
            with torch.utils._python_dispatch._disable_current_modes():
                bright = float(x.mean())
            return self.conv(x) * (1 + bright)

    torch.manual_seed(0)
    one, told = both(picture(), wrap(Moody(), classes=CLASSES), TARGETS["dice"](2), window=9, stride=9)
    assert "dirty rectangles" not in told
    assert one.record.notes


@pytest.mark.usefixtures("forced")
def test_cancelled_within_a_batch():
    seen = []

    def progress(done, total, text):
        seen.append(done)
        if 0 < done < total:
            run.cancel()

    run = Run(batch=4, on_progress=progress)
    with pytest.raises(Cancelled):
        explain("occlusion", picture(), model(), TARGETS["whole class"](2), run=run, window=6, stride=5)
    assert max(seen) <= 4


@pytest.mark.usefixtures("forced")
def test_a_preview_and_tiles_go_the_old_way():
    run = Run(precision="bf16")
    explain("occlusion", picture(), model(), TARGETS["whole class"](2), run=run, window=9, stride=9)
    assert "dirty rectangles" not in run.engine["evaluations"][0]
    run = Run()
    explain("occlusion", picture(), model(), TARGETS["whole class"](2), run=run, window=9, stride=9, tile=32)
    assert "dirty rectangles" not in run.engine["evaluations"][0]


def program_and_crop(net, side):
    x = torch.randn(1, 1, side, side)
    return traced(net, x)[0], whole((side, side))


def test_the_cheaper_way_is_chosen():
    def costs(net, side, window, stride):
        program, crop = program_and_crop(net, side)
        boxes = dict(enumerate(windows((side, side), window, stride)))
        found = min((dirty.rectangles(program, boxes, crop, s) for s in dirty.SLACKS), key=lambda r: r.cost)
        return found.cost / found.whole

    deep = UNet(1, 3, (8, 16, 32, 64)).eval()
    flat = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1)).eval()
    # a reach of 46 pixels: hardly two windows share a pass at this size, and each changes a quarter of it
    assert costs(deep, 256, 16, 16) < 0.6 * 169
    # a reach of 2: windows of 4 every 4 pixels share nine passes, and one by one they would be copied for long
    assert costs(flat, 128, 4, 4) > 9


def test_choice_in_the_engine():
    rng = np.random.default_rng(0)
    image = Image(rng.random((128, 128)).astype(np.float32), "YX", name="noise")
    flat = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1))
    told = []
    for net, divisor in ((flat, 1), (UNet(1, 3, (8, 16, 32, 64)), 8)):
        torch.manual_seed(0)
        run = Run()
        explain(
            "occlusion",
            image,
            wrap(net, classes=CLASSES, divisor=divisor),
            Target("cell", Painted(np.ones((128, 128), bool))),
            run=run,
            window=8,
            stride=8,
        )
        told.append(run.engine["evaluations"][0])
    assert told[0]["packed"]
    assert told[1]["dirty rectangles"]
