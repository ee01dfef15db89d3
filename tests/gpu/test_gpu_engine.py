"""The engine on a GPU: short cuts change nothing, memory that runs out is borne, rules keep their sums."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from hand import Context, Deep, context_image, wrap
from rule_nets import Functional
from seglens.core.errors import Cancelled, OutOfMemory
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Object, Painted, Predicted, Target
from seglens.engine import cache, dirty, evaluator
from seglens.engine.features import build_bank
from seglens.engine.paths import Noisy
from seglens.engine.reach import Reach, find_reach
from seglens.engine.resolve import resolve
from seglens.models.nets.unet import UNet
from seglens.models.segmentation import quiet
from seglens.session import each_object, explain, explain_many, segment

CLASSES = ("background", "cell", "other")
# of the largest value; what two ways of summing up leave of float32, see test_gpu_methods
ALIKE = 1e-4


def picture(dims=2, seed=0):
    rng = np.random.default_rng(seed)
    size = (70, 63) if dims == 2 else (12, 18, 22)
    return Image(rng.random(size).astype(np.float32), "ZYX"[-dims:], name="noise")


NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def network(device="cpu", dims=2, norm="batch"):
    torch.manual_seed(1)
    net = UNet(1, 3, (4, 6), dims=dims).eval()
    if norm == "instance":
        for block in [m for m in net.modules() if hasattr(m, "norm1")]:
            block.norm1, block.norm2 = (NORM[dims](n.num_features) for n in (block.norm1, block.norm2))
    with torch.no_grad():
        # every class wins somewhere
        answer = net(torch.from_numpy(picture(dims).data)[None, None][(..., *(slice(0, 20),) * dims)])
        mean, size = answer.flatten(2).mean(2)[0], answer.std()
        net.head.weight.div_(size)
        net.head.bias.copy_((net.head.bias - mean) / size)
    return wrap(net, dims=dims, classes=CLASSES, divisor=2).to(device)


def painted(dims=2, corner=6, side=7):
    mask = np.zeros(picture(dims).space("ZYX"[-dims:]), bool)
    mask[(slice(corner, corner + side),) * dims] = True
    return Painted(mask)


def same(one, other, alike=ALIKE):
    for a, b in zip(one.layers, other.layers, strict=True):
        largest = float(np.abs(np.asarray(b.data, float)).max())
        # the second part is what float32 leaves of a small change of a large score
        rounding = 1e-5 * max(1.0, abs(other.record.target["resolved"]["score"]))
        np.testing.assert_allclose(a.data, b.data, rtol=0, atol=alike * largest + rounding, err_msg=a.name)


def three(device, forget, method, image, target, dims=2, **parameters):
    """With short cuts on the GPU, without them there, and on the CPU without them."""
    made = []
    for where, plain in ((device, False), (device, True), ("cpu", True)):
        forget()
        model = network(where, dims)
        made.append(explain(method, image, model, target, run=Run(plain=plain, seed=1), **parameters))
    same(made[0], made[1])
    same(made[0], made[2])
    return made[0]


TARGETS = {
    "painted": lambda dims: Target("cell", painted(dims)),
    "whole class": lambda dims: Target("cell", Predicted()),
    "margin": lambda dims: Target("cell", painted(dims), "margin", "sum"),
    "dice": lambda dims: Target("cell", painted(dims), "dice"),
    "live": lambda dims: Target("other", Predicted(live=True)),
}


@pytest.mark.parametrize(("name", "dims"), [*((name, 2) for name in TARGETS), ("painted", 3), ("dice", 3)])
def test_crops_and_packing_change_nothing(name, dims, device, forget):
    window = {"window": 7, "stride": 5} if dims == 2 else {"window": 4, "stride": 4}
    one = three(device, forget, "occlusion", picture(dims), TARGETS[name](dims), dims, **window)
    told = one.record.engine["evaluations"][-1]
    if name == "painted" and dims == 2:
        assert "crop" in told
        assert told["packed"]


@pytest.fixture
def forced(monkeypatch):
    """Rectangles whatever they cost."""
    made = dirty.rectangles
    monkeypatch.setattr(dirty, "rectangles", lambda *a, **k: dataclasses.replace(made(*a, **k), whole=1e30))
    monkeypatch.setattr(evaluator, "FEW", 3)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize(("name", "dims"), [*((name, 2) for name in TARGETS), ("painted", 3), ("dice", 3)])
def test_dirty_rectangles_change_nothing(name, dims, device, forget):
    window = {"window": 6, "stride": 5} if dims == 2 else {"window": 4, "stride": 4}
    one = three(device, forget, "occlusion", picture(dims), TARGETS[name](dims), dims, **window)
    assert one.record.engine["evaluations"][-1]["dirty rectangles"], one.record.notes


@pytest.mark.parametrize("fill", ["inpaint", "unit-mean", "noise", "rest-mean"])
def test_any_fill(fill, device, forget):
    three(device, forget, "occlusion", picture(), TARGETS["painted"](2), window=8, stride=8, fill=fill)


@pytest.mark.parametrize("method", ["seg-ablation-cam", "seg-score-cam"])
@pytest.mark.parametrize("layer", ["encoder.0", "bottleneck"])
def test_what_lies_before_a_layer_runs_once(method, layer, device, forget):
    one = three(device, forget, method, picture(), TARGETS["painted"](2), layer=layer)
    if method == "seg-ablation-cam":
        assert one.record.engine["behind the layer"] < 1, one.record.notes


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("net", ["unet", "context", "global"])
def test_reach_is_the_same(net, dims, device, forget):
    made = []
    for where in (device, "cpu"):
        forget()
        model = {
            "unet": lambda w: network(w, dims),
            "context": lambda w: wrap(Context(dims=dims), dims=dims, classes=CLASSES).to(w),
            "global": lambda w: network(w, dims, norm="instance"),
        }[net](where)
        made.append(find_reach(model))
    assert made[0] == made[1]
    assert isinstance(made[0], Reach) == (net != "global")


def test_gradients_on_a_crop_are_those_of_the_whole(device, forget):
    found = []
    for where, plain in ((device, False), (device, True), ("cpu", True)):
        forget()
        case = resolve(picture(), network(where), TARGETS["painted"](2), Run(plain=plain))
        if not plain:
            find_reach(case.model)
        out = torch.zeros(12, *case.x.shape[1:])
        with quiet(case.model.module):
            for made in case.gradient_steps(Noisy.of(case.x, 0.1, 12, seed=0)):
                out[(slice(int(made.index[0]), int(made.index[-1]) + 1), slice(None), *made.box)] = made.gradients.cpu()
        found.append(out)
        assert ("crop" in case.run.engine) == (not plain)
    for other in found[1:]:
        torch.testing.assert_close(found[0], other, rtol=0, atol=ALIKE * float(other.abs().max()))


def test_many_objects_at_once_are_as_on_the_cpu(device, forget):
    made = []
    for where in (device, "cpu"):
        forget()
        model = network(where)
        targets = each_object(picture(), model, Target("cell"))[:8]
        made.append(explain_many("vanilla-gradient", picture(), model, targets))
    assert len(made[0]) == len(made[1]) > 3
    for one, other in zip(*made, strict=True):
        same(one, other)


def numbers(answer, name):
    table = next(t for t in answer.tables if t.name == name).columns
    return table if name == "conservation" else dict(zip(table["quantity"], table["value"], strict=True))


def test_relevance_is_kept(device):
    model, image = wrap(Functional(bias=False), divisor=2).to(device), picture().crop(Y=slice(0, 32), X=slice(0, 32))
    mask = np.zeros((32, 32), bool)
    mask[5:12, 6:15] = True
    target = Target(1, Painted(mask), reduction="sum")
    answer = explain("lrp", image, model, target, composite="lrp-0")
    gradient = explain("input-x-gradient", image, model, target)
    np.testing.assert_allclose(answer.map.data, gradient.map.data, atol=ALIKE * np.abs(gradient.map.data).max())
    score = answer.map.data.sum(dtype=float)
    assert all(abs(leak) < 1e-4 * abs(score) for leak in numbers(answer, "conservation")["absorbed"])


@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("value", ["logit", "probability"])
def test_deep_lift_adds_up_to_the_change_of_the_score(norm, value, device, forget):
    model = network(device, norm=norm)
    target = Target("cell", painted(), value)
    told = numbers(explain("deep-lift", picture(), model, target, fill="blur"), "completeness")
    assert abs(told["difference"]) > 1e-6
    assert abs(told["gap"]) <= 2e-3 * abs(told["difference"]) + 1e-7


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_previews_tell_their_error_and_stay_near(kind, cuda, forget):
    image, target = picture(), TARGETS["painted"](2)
    exact = explain("occlusion", image, network(cuda), target, window=9, stride=9)
    for method, more in (("occlusion", {"window": 9, "stride": 9}), ("seg-ablation-cam", {"layer": "bottleneck"})):
        answer = explain(method, image, network(cuda), target, run=Run(precision=kind), **more)
        told = answer.record.engine["precision"]
        assert told["kind"] == kind
        assert 0 < told["logit error"] < 0.5
        assert any("preview" in note for note in answer.record.notes)
        if method == "occlusion":
            assert 0 < np.abs(answer.map.data - exact.map.data).max() < 4 * told["logit error"]


def test_tiles_are_segmented_as_on_the_cpu(device, forget):
    image = Image(np.random.default_rng(0).random((300, 260)).astype(np.float32), "YX")
    there, here = (segment(image, network(w), tile=96, halo=24, probabilities=True) for w in (device, "cpu"))
    np.testing.assert_allclose(there.probabilities, here.probabilities, atol=1e-5)
    # where two classes are equal up to rounding either may win
    assert np.mean(there.labels != here.labels) < 1e-3


def test_a_bank_is_built_as_on_the_cpu(device, tmp_path):
    made = []
    for where in (device, "cpu"):
        model = wrap(Context(), classes=("background", "healthy", "infected")).to(where)
        shown = [dataclasses.replace(context_image(2, seed)[0], name=f"context {seed}") for seed in range(3)]
        bank = build_bank(model, shown, tmp_path / f"{torch.device(where).type}.bank")
        made.append(bank.vectors())
    assert len(made[0]) == len(made[1]) > 3
    np.testing.assert_allclose(made[0], made[1], atol=1e-5 * np.abs(made[1]).max())


class Hungry(Deep):
    """Runs out of memory where more pixels go through than it likes, in the words of a GPU."""

    most = 10**9

    def forward(self, x):
        if x.shape[0] * x.shape[2:].numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return super().forward(x)


@pytest.mark.parametrize("method", ["occlusion", "smooth-grad", "rise"])
def test_memory_that_runs_out_makes_smaller_batches_and_then_an_error(method, device, forget):
    image, target = picture(), Target("cell", Painted(np.ones((70, 63), bool)))
    more = {"occlusion": {"window": 9, "stride": 9}, "smooth-grad": {"samples": 24}, "rise": {"samples": 48}}[method]
    calm = explain(method, image, wrap(Deep(), classes=CLASSES[:2]).to(device), target, run=Run(batch=8), **more)
    forget()
    net = Hungry()
    net.most = 2 * 70 * 63
    hungry = explain(method, image, wrap(net, classes=CLASSES[:2]).to(device), target, run=Run(batch=8), **more)
    assert any("Memory ran out" in note for note in hungry.record.notes)
    same(hungry, calm)
    forget()
    net.most = 10
    with pytest.raises(OutOfMemory) as caught:
        explain(method, image, wrap(net, classes=CLASSES[:2]).to(device), target, run=Run(batch=8), **more)
    assert caught.value.fix


def test_memory_that_really_runs_out(cuda, forget):
    """A share of the GPU that a few copies fill; the engine goes on, and says when nothing helps."""
    image = Image(np.random.default_rng(0).random((512, 512)).astype(np.float32), "YX")
    target, more = Target("cell", Painted(np.ones((512, 512), bool))), {"window": 128, "stride": 128}
    calm = explain("occlusion", image, wide(cuda), target, **more)
    try:
        allow(cuda, 2**30)
        tight = explain("occlusion", image, wide(cuda), target, run=Run(batch=16), **more)
        assert any("Memory ran out" in note for note in tight.record.notes)
        same(tight, calm)
        for method in ("occlusion", "vanilla-gradient"):
            model = wide(cuda)
            allow(cuda, 2**24)
            with pytest.raises(OutOfMemory):
                explain(method, image, model, target)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def allow(device, more):
    """From now on no more than so many bytes beside what is taken."""
    torch.cuda.empty_cache()
    cache.clear()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / total)


def wide(device):
    """A network that looks at the whole image, with 64 MiB for each answer of a layer at 512²."""
    torch.manual_seed(0)
    net = UNet(1, 2, (64, 64)).eval()
    for block in [m for m in net.modules() if hasattr(m, "norm1")]:
        block.norm1, block.norm2 = (nn.InstanceNorm2d(n.num_features) for n in (block.norm1, block.norm2))
    return wrap(net, classes=CLASSES[:2], divisor=2).to(device)


def test_cancelled_within_a_batch(device, forget):
    class Counting(Deep):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == 8:
                run.cancel()
            return super().forward(x)

    run, net = Run(batch=1), Counting()
    target = Target("cell", Painted(np.ones((70, 63), bool)))
    with pytest.raises(Cancelled):
        explain("occlusion", picture(), wrap(net).to(device), target, run=run, window=9, stride=9)
    assert net.calls <= 9


def test_products_are_exact(cuda):
    """Beside double precision: TF32 would be a hundred times as far off."""
    seen = []
    model = network(cuda)
    model.module.register_forward_hook(lambda _, x, y: seen.append((x[0].detach(), y.detach())))
    explain("vanilla-gradient", picture(), model, TARGETS["painted"](2))
    x, y = seen[0]
    with torch.no_grad():
        wanted = network().module.double()(x.double().cpu())
    assert float((y.cpu() - wanted).abs().max() / wanted.abs().max()) < 1e-5
    assert torch.backends.cudnn.allow_tf32


def test_questions_on_both_devices_at_once_do_not_disturb_each_other(cuda, forget):
    def ask(model, barrier):
        barrier.wait(30)
        return [
            explain("occlusion", picture(seed=seed), model, TARGETS["painted"](2), window=7, stride=5)
            for seed in range(4)
        ]

    alone = ask(network(), threading.Barrier(1))
    forget()
    # before the threads start: torch's dice, from which weights are drawn, are the process's
    models, barrier = [network(cuda), network()], threading.Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        there, here = pool.map(lambda model: ask(model, barrier), models)
    for one, other, wanted in zip(there, here, alone, strict=True):
        same(one, wanted)
        same(other, wanted)
    assert torch.backends.cudnn.allow_tf32


def test_one_object_of_a_volume(device, forget):
    three(device, forget, "smooth-grad", picture(3), Target("cell", Object(number=1)), 3, samples=6)
