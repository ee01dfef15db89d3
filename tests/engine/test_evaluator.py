"""Crop and packing give what the straight loop gives: any window, stride, fill, place and target; 2-D and 3-D."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import seglens
from hand import Deep, small_image, wrap
from seglens.core.boxes import common
from seglens.core.errors import BadParameter
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Border, Box, Object, Painted, Predicted, Target
from seglens.engine import cache, fast
from seglens.engine.perturb import Covered, Perturbations, windows
from seglens.engine.plan import _groups
from seglens.engine.reach import find_reach
from seglens.engine.resolve import resolve
from seglens.models.nets.unet import UNet
from seglens.session import explain, explain_many

CLASSES = ("background", "cell", "other")


def network(dims=2, **kwargs):
    torch.manual_seed(1)
    net = UNet(1, 3, (4, 6), dims=dims).eval()
    with torch.no_grad():
        # every class wins somewhere
        answer = net(torch.from_numpy(picture(dims).data)[None, None][(..., *(slice(0, 20),) * dims)])
        mean, size = answer.flatten(2).mean(2)[0], answer.std()
        net.head.weight.div_(size)
        net.head.bias.copy_((net.head.bias - mean) / size)
    return wrap(net, dims=dims, classes=CLASSES, divisor=2, **kwargs)


def picture(dims=2, seed=0):
    rng = np.random.default_rng(seed)
    size = (70, 63) if dims == 2 else (12, 18, 22)
    return Image(rng.random(size).astype(np.float32), "ZYX"[-dims:], name="noise")


def painted(dims=2, corner=6, side=7):
    mask = np.zeros(picture(dims).space("ZYX"[-dims:]), bool)
    mask[tuple(slice(c, c + side) for c in ((corner,) * dims))] = True
    return mask


def both(method, image, model, target, **parameters):
    fast_one = explain(method, image, model, target, run=Run(), **parameters)
    plain = explain(method, image, model, target, run=Run(plain=True), **parameters)
    return fast_one, plain


def same(one, other, relative=1e-5):
    for a, b in zip(one.layers, other.layers, strict=True):
        largest = float(np.abs(np.asarray(b.data, float)).max())
        # the second part is what float32 leaves of a small change of a large score
        rounding = 2e-6 * max(1.0, abs(other.record.target["resolved"]["score"]))
        np.testing.assert_allclose(a.data, b.data, rtol=0, atol=relative * largest + rounding)


TARGETS = {
    "painted": lambda dims: Target("cell", Painted(painted(dims))),
    "at the corner": lambda dims: Target("cell", Painted(painted(dims, 0, 3))),
    "sum of probabilities": lambda dims: Target("cell", Painted(painted(dims)), "probability", "sum"),
    "margin": lambda dims: Target("cell", Painted(painted(dims)), "margin"),
    "border": lambda dims: Target("cell", Border(Painted(painted(dims)), 2)),
    "whole class": lambda dims: Target("cell", Predicted()),
    "dice": lambda dims: Target("cell", Painted(painted(dims)), "dice"),
    "live": lambda dims: Target("cell", Predicted(live=True)),
    "log-probability": lambda dims: Target("other", Box((1,) * dims, (6,) * dims), "log-probability"),
}


@pytest.mark.parametrize("name", list(TARGETS))
@pytest.mark.parametrize("dims", [2, 3])
def test_occlusion_equals_the_straight_loop_for_any_target(name, dims):
    one, plain = both("occlusion", picture(dims), network(dims), TARGETS[name](dims), window=5, stride=6)
    same(one, plain)
    if dims == 2:
        assert one.record.cost["in forwards of the whole image"] < 0.5 * plain.record.cost["forwards"]


@pytest.mark.parametrize("window", [1, 4, 33])
@pytest.mark.parametrize("stride", [5, 7])
def test_any_window_and_stride(window, stride):
    same(*both("occlusion", picture(), network(), TARGETS["painted"](2), window=window, stride=stride))


@pytest.mark.parametrize("fill", ["mean", "rest-mean", "unit-mean", "blur", "inpaint", "noise", "permutation", "white"])
@pytest.mark.parametrize("where", ["whole", "object", "context"])
def test_any_fill_and_place(fill, where):
    same(*both("occlusion", picture(), network(), TARGETS["painted"](2), window=6, stride=6, fill=fill, where=where))


def test_record_says_what_was_saved():
    one, plain = both("occlusion", picture(), network(), TARGETS["painted"](2), window=5, stride=4)
    told = one.record.engine["evaluations"][0]
    assert told["packed"]
    assert told["instead of"] == plain.record.cost["forwards"] - 1 == one.record.cost["forwards of a plain loop"]
    # and: the image, a crop to check, a clean one, two to see that windows do not meet
    assert told["passes"] + 5 >= one.record.cost["forwards"] > told["passes"]
    box = [slice(*s) for s in told["crop"]]
    assert all(s.stop - s.start < n for s, n in zip(box, (70, 63), strict=True))
    outside = one.map.data.copy()
    outside[tuple(slice(max(0, s.start - 5), s.stop + 5) for s in box)] = 0
    assert not outside.any()
    assert "crop" not in plain.record.engine["evaluations"][0]


def test_global_network_is_not_cropped_and_says_nothing_wrong():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.ReLU(), nn.Conv2d(4, 3, 1))
    model = wrap(net, classes=CLASSES)
    one, plain = both("occlusion", picture(), model, TARGETS["painted"](2), window=9, stride=9)
    same(one, plain)
    assert "crop" not in one.record.engine["evaluations"][0]
    assert one.record.engine["evaluations"][0]["passes"] == 56


def test_a_network_that_hides_its_reach_from_nan_is_found_out_and_said():
    class Hidden(nn.Module):
        """NaN does not pass the comparison, but the mean of an image without negative pixels matters."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 3, 3, padding=1)

        def forward(self, x):
            seen = torch.nan_to_num(x)
            gate = (seen.amin((1, 2, 3), keepdim=True) >= 0).float()
            return self.conv(x) * (1 + gate * seen.mean((1, 2, 3), keepdim=True))

    torch.manual_seed(0)
    model = wrap(Hidden(), classes=CLASSES)
    one, plain = both("occlusion", picture(), model, TARGETS["painted"](2), window=9, stride=9)
    same(one, plain)
    assert any("on a crop" in note for note in one.record.notes)
    one, plain = both("occlusion", picture(), model, TARGETS["dice"](2), window=9, stride=9)
    same(one, plain)
    assert any("further away" in note for note in one.record.notes)


def test_an_author_who_knows_only_boxes_is_cropped_and_packed():
    class Dark(Perturbations):
        """No ``within``: whole copies are made, and cut out."""

        def __init__(self, x, places):
            self.x, self.places = x, places

        def __len__(self):
            return len(self.places)

        @property
        def boxes(self):
            return self.places

        def batch(self, start, stop):
            return torch.cat([self.together([n]) for n in range(start, stop)])

        def together(self, members):
            copy = self.x.clone()
            for n in members:
                copy[(slice(None), slice(None), *self.places[n])] = 0
            return copy

    fast, plain = (resolve(picture(), network(), TARGETS["painted"](2), Run(plain=plain)) for plain in (False, True))
    places = windows((70, 63), 5, 5)
    torch.testing.assert_close(
        fast.scores(Dark(fast.x, places)), plain.scores(Dark(plain.x, places)), rtol=0, atol=5e-6
    )
    told = fast.run.engine["evaluations"][0]
    assert told["packed"]
    assert "crop" in told


def test_groups_never_meet_and_miss_nobody():
    rng = np.random.default_rng(0)
    for dims in (2, 3):
        boxes = {}
        for n in range(60):
            start = rng.integers(0, 50, dims)
            boxes[n] = tuple(slice(int(s), int(s) + int(rng.integers(1, 20))) for s in start)
        boxes[60] = boxes[0]
        groups = _groups(boxes)
        assert sorted(n for g in groups for n in g) == sorted(boxes)
        for group in groups:
            for i, a in enumerate(group):
                assert all(common(boxes[a], boxes[b]) is None for b in group[i + 1 :])


def test_lattice_needs_as_many_passes_as_windows_in_one_reach():
    # windows of 4 every 4 pixels, reach 6: the influence is 16 wide, so every fourth window may share a pass
    boxes = {n: tuple(slice(max(0, s.start - 6), s.stop + 6) for s in b) for n, b in enumerate(windows((80, 80), 4, 4))}
    assert len(_groups(boxes)) == 16


def test_many_targets_cost_about_one_run():
    image, model = picture(), network()
    labels = explain("occlusion", image, model, Target("cell", Predicted()), window=40).record.target
    assert labels["resolved"]["pixels"] > 0
    targets = [Target("cell", Painted(painted(2, corner, 4))) for corner in (5, 20, 33, 50)]
    targets.append(Target("other", Predicted(), "probability"))
    run = Run()
    many = explain_many("occlusion", image, model, targets, run=run, window=6, stride=5)
    passes = run.engine["evaluations"][0]["passes"]
    assert run.cost.forwards <= passes + 5
    for target, one in zip(targets, many, strict=True):
        alone = explain("occlusion", image, model, target, run=Run(plain=True), window=6, stride=5)
        same(one, alone)
        ours, plainly = one.record.target["resolved"], alone.record.target["resolved"]
        assert ours == {**plainly, "score": pytest.approx(plainly["score"], rel=1e-5)}


def test_scores_are_known_the_second_time_and_not_after_a_change():
    image, model, target = picture(), network(), TARGETS["painted"](2)
    first = explain("occlusion", image, model, target, window=9, stride=9)
    again = explain("occlusion", image, model, target, window=9, stride=9, scale="min-max")
    assert again.record.engine["scores"] == "known from an earlier run"
    assert again.record.cost["forwards"] <= 2
    with torch.no_grad():
        next(model.module.parameters()).mul_(1.5)
    changed = explain("occlusion", image, model, target, window=9, stride=9)
    assert "scores" not in changed.record.engine
    assert np.abs(changed.map.data - first.map.data).max() > 1e-4
    cache.clear()


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_preview_in_half_precision_tells_its_error(kind):
    image, model, target = picture(), network(), TARGETS["painted"](2)
    exact = explain("occlusion", image, model, target, window=9, stride=9)
    run = Run(precision=kind)
    preview = explain("occlusion", image, model, target, run=run, window=9, stride=9)
    told = preview.record.engine["precision"]
    assert told["kind"] == kind
    assert 0 < told["logit error"] < 0.5
    assert any("preview" in note for note in preview.record.notes)
    error = np.abs(preview.map.data - exact.map.data).max()
    assert 0 < error < 4 * told["logit error"]


def test_a_preview_whose_numbers_overflow_is_refused():
    model = network()
    with torch.no_grad():
        for parameter in model.module.parameters():
            parameter.mul_(300)
    with pytest.raises(BadParameter, match="too large") as caught:
        explain("occlusion", picture(), model, TARGETS["painted"](2), run=Run(precision="fp16"), window=9, stride=9)
    assert "bf16" in caught.value.fix


def test_a_layer_s_preview_tells_its_error_too():
    run = Run(precision="bf16")
    explain("seg-ablation-cam", picture(), network(), TARGETS["painted"](2), run=run, layer="bottleneck")
    assert 0 < run.engine["precision"]["logit error"] < 0.5


def test_many_targets_take_turns_when_memory_is_short():
    image, model = picture(), network()
    targets = [Target("cell", Painted(painted(2, corner, 4))) for corner in (5, 20, 33)]
    together = explain_many("occlusion", image, model, targets, window=9, stride=9)
    cache.clear()
    run = Run(memory=2 * 70 * 63 * 4)
    in_turns = explain_many("occlusion", image, model, targets, run=run, window=9, stride=9)
    # two at a time, so the copies are scored twice
    assert len(run.engine["evaluations"]) == 2
    for one, other in zip(together, in_turns, strict=True):
        same(one, other)


def test_batches_fit_the_memory_that_is_allowed():
    model = wrap(Deep(seed=1))
    x = torch.randn(1, 1, 64, 64)
    with fast.Peak() as peak, torch.inference_mode():
        model.logits(x)
    # eight feature maps before and after the ReLU, at least
    assert 2 * 8 * 64 * 64 * 4 <= peak.bytes < 8 * 8 * 64 * 64 * 4
    assert fast.batch_size(model, 64 * 64, peak.bytes, Run(memory=10 * peak.bytes)) == 6
    assert fast.batch_size(model, 64 * 64, peak.bytes, Run(memory=1)) == 1
    assert fast.batch_size(model, 64 * 64, peak.bytes, Run(batch=3)) == 3


def test_on_a_gpu_batches_hold_many_small_copies():
    model = wrap(Deep(seed=1))
    model.device = torch.device("cuda")
    sizes = [fast.batch_size(model, side**2, 1, Run(memory=2**34)) for side in (64, 256, 1024, 4096)]
    assert sizes == [256, 64, 4, 1]


def test_memory_is_never_of_the_order_of_the_samples():
    model, image = wrap(Deep(seed=1)), small_image(side=64)
    largest = []

    class Watched(Covered):
        def together(self, members):
            largest.append(len(members))
            return super().together(members)

    mask = np.zeros((64, 67), bool)
    mask[:] = True
    run = Run(memory=2**20)
    explain("occlusion", image, model, Target("cell", Painted(mask)), run=run, window=4, stride=2)
    assert run.engine["evaluations"][0]["batch"] < 8


def test_partial_answers_come_while_it_works(monkeypatch):
    monkeypatch.setattr("seglens.core.run.PAUSE", 0.0)
    seen = []
    run = Run(batch=1, on_partial=seen.append)
    answer = explain("occlusion", picture(), network(), TARGETS["whole class"](2), run=run, window=6, stride=6)
    assert len(seen) > 3
    assert not np.array_equal(seen[0].map.data, answer.map.data)
    np.testing.assert_array_equal(seen[-1].map.data, answer.map.data)


def test_estimate_is_what_it_takes():
    image, model, target = picture(), network(), TARGETS["painted"](2)
    told = seglens.estimate("occlusion", image, model, target, window=5, stride=4)
    took = explain("occlusion", image, model, target, window=5, stride=4).record.cost
    assert told.plain == took["forwards of a plain loop"]
    assert abs(told.forwards - took["in forwards of the whole image"]) < 1
    assert told.seconds > 0
    assert "forward passes instead of" in told.text


def test_compared_fills_disagree_where_the_fill_is_the_evidence():
    image, model = picture(), network()
    answer = seglens.compare_fills("occlusion", image, model, TARGETS["painted"](2), window=8, stride=8)
    heat = answer["disagreement of fills"].data
    stack = np.stack([layer.data for layer in answer.layers[1:]])
    np.testing.assert_allclose(heat, stack.std(0), atol=1e-6)
    assert len(answer.tables[0].columns["fill"]) == 7
    with pytest.raises(BadParameter):
        seglens.compare_fills("vanilla-gradient", image, model, TARGETS["painted"](2))


def test_fills_are_compared_with_one_progress_and_maps_on_the_way(monkeypatch):
    monkeypatch.setattr("seglens.core.run.PAUSE", 0.0)
    told, seen = [], []
    run = Run(on_progress=lambda done, total, text: told.append((done / total, text)), on_partial=seen.append)
    fills = ("mean", "blur", "black", "white")
    answer = seglens.compare_fills(
        "occlusion", picture(), network(), TARGETS["painted"](2), fills=fills, run=run, window=8, stride=8
    )
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert {text.split(",")[0] for _, text in told} == set(fills)
    # two and three fills are answers on the way; one alone says nothing, and a map of one fill never shows
    assert [one.text for one in seen] == ["2 of 4 fills.", "3 of 4 fills."]
    for count, one in zip((2, 3), seen, strict=True):
        stack = np.stack([layer.data for layer in answer.layers[1 : 1 + count]])
        np.testing.assert_allclose(one.map.data, stack.std(0), atol=1e-6)


@pytest.mark.parametrize("name", ["painted", "border", "log-probability", "dice", "live", "at the corner"])
@pytest.mark.parametrize("dims", [2, 3])
def test_gradient_on_the_crop_equals_the_gradient(name, dims):
    image, model, target = picture(dims), network(dims), TARGETS[name](dims)
    find_reach(model)
    one, plain = both("vanilla-gradient", image, model, target, show="signed")
    same(one, plain)
    if dims == 2 and name not in ("dice", "live"):
        box = tuple(slice(*s) for s in one.record.engine["crop"])
        outside = plain.map.data.copy()
        outside[box] = 0
        assert not outside.any()
        assert outside[box].size < outside.size


def test_object_of_the_class_is_a_sibling_of_its_class():
    image, model = picture(), network()
    answers = explain_many(
        "occlusion", image, model, [Target("cell", Predicted()), Target("cell", Object(number=1))], window=30
    )
    assert answers[0].record.target["resolved"]["pixels"] >= answers[1].record.target["resolved"]["pixels"]


@pytest.mark.parametrize(("method", "more"), [
    ("occlusion", {"window": 6, "stride": 3}), ("rise", {"samples": 64}), ("seg-ablation-cam", {}),
    ("smooth-grad", {"samples": 8}),
])  # fmt: skip
def test_what_ends_between_two_steps_leaves_nothing_on_in_its_thread(method, more, monkeypatch):
    """In a viewer threads are used again, and an error with all its frames goes to another one."""
    monkeypatch.setattr("seglens.core.run.PAUSE", -1)
    model, image = wrap(Deep()), small_image()
    mask = np.zeros(image.space("YX"), bool)
    mask[8:14, 8:16] = True
    target = Target("cell", Painted(mask))

    def stop(*_):
        raise KeyError("the window was closed")

    def state():
        modes = torch.overrides._get_current_function_mode_stack()
        return torch.is_inference_mode_enabled(), torch.is_grad_enabled(), len(modes)

    def gradient():
        cache.clear()
        return explain("vanilla-gradient", image, model, target).map.data

    run = Run()
    run.on_partial = stop
    with ThreadPoolExecutor(1) as pool:
        before, expected = pool.submit(state).result(), pool.submit(gradient).result()
        failed = pool.submit(lambda: explain(method, image, model, target, run=run, **more)).exception()
        assert isinstance(failed, KeyError)
        assert pool.submit(state).result() == before
        np.testing.assert_allclose(pool.submit(gradient).result(), expected, atol=1e-6 * expected.max())
        assert np.abs(expected).max() > 0
