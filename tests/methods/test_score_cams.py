"""Maps of a layer without a gradient: the tests of their cards (B/B12 Score and Eigen, B/B17)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import seglens
from hand import CONV, Context, cell_target, context_image, small_image, wrap
from seglens.core.errors import BadParameter
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.methods.gradient._cams import softmax_weights
from seglens.models.nets.unet import UNet
from seglens.session import explain

BOTH = pytest.mark.parametrize("dims", [2, 3])
THREE = ("background", "healthy", "infected")


def unet(dims=2, features=(4, 8, 12)):
    torch.manual_seed(0)
    return UNet(1, 2, features, dims=dims).eval()


def mask_of(dims):
    mask = np.zeros(small_image(dims=dims).space("ZYX"[-dims:]), bool)
    mask[(slice(2, 6),) * dims] = True
    return mask


def ask(method, net, dims=2, reduction="mean", image=None, mask=None, **more):
    target = Target(1, Painted(mask_of(dims) if mask is None else mask), reduction=reduction)
    model = wrap(net, dims=dims, divisor=getattr(net, "divisor", 1))
    return explain(method, image or small_image(dims=dims), model, target, **more)


def weights_of(answer, count):
    columns = answer.tables[0].columns
    told = dict(zip(columns["channel"], columns["weight"], strict=True))
    return np.array([told.get(k, 0.0) for k in range(count)])


def channels_of(net, image, name, dims):
    """A layer's answer enlarged, (K, *space), and the padded size that the network saw."""
    seen = []
    handle = net.get_submodule(name).register_forward_hook(lambda *a: seen.append(a[2]))
    x = torch.from_numpy(image.read("C" + "ZYX"[-dims:]))[None]
    shape = x.shape[2:]
    padded = [-(-n // net.divisor) * net.divisor for n in shape]
    margins = [m for n, p in zip(shape, padded, strict=True) for m in (p - n, 0)][::-1]
    with torch.no_grad():
        net(F.pad(x, margins, mode="replicate"))
    handle.remove()
    full = F.interpolate(seen[0], padded, mode=("bilinear", "trilinear")[dims - 2], align_corners=False)[0]
    return x, full[(slice(None), *(slice(0, n) for n in shape))]


@BOTH
def test_score_cam_is_a_softmax_of_the_scores_of_masked_images(dims):
    net, image = unet(dims), small_image(dims=dims)
    answer = ask("seg-score-cam", net, dims, layer="bottleneck", normalise=False)
    x, full = channels_of(net, image, "bottleneck", dims)
    model = wrap(net, dims=dims, divisor=net.divisor)
    fill = x.flatten(2).mean(2).reshape(1, 1, *(1,) * dims)
    scores = []
    for one in full:
        m = (one - one.min()) / (one.max() - one.min())
        with torch.no_grad():
            logits = model.logits(x * m + fill * (1 - m))
        scores.append(float(logits[0, 1][torch.from_numpy(mask_of(dims))].mean()))
    weights = torch.tensor(scores).softmax(0)
    np.testing.assert_allclose(weights_of(answer, 12), weights, atol=1e-5)
    expected = (weights.reshape(-1, *(1,) * dims) * full).sum(0).relu()
    np.testing.assert_allclose(answer.map.data, expected, atol=1e-5 * float(expected.max()))


@BOTH
def test_the_mask_that_keeps_the_cue_has_the_top_weight_and_flat_channels_are_not_asked(dims):
    image, cell, _ = context_image(dims)
    answer = explain(
        "seg-score-cam", image, wrap(Context(dims=dims), dims=dims, classes=THREE), cell_target(cell), layer="features"
    )
    weights = weights_of(answer, 8)
    assert weights[0] > 0.9
    assert not weights[2:].any()
    assert answer.record.cost["forwards of a plain loop"] == 2


def test_weights_are_not_saturated_where_a_sum_was_asked_for():
    net = unet()
    with torch.no_grad():
        net.head.weight *= 1000
    everything = np.ones_like(mask_of(2))
    one, two = (ask("seg-score-cam", net, reduction=r, mask=everything, layer="bottleneck") for r in ("mean", "sum"))
    np.testing.assert_allclose(weights_of(one, 12), weights_of(two, 12), atol=1e-6)
    np.testing.assert_allclose(one.map.data, two.map.data, atol=1e-5)
    assert weights_of(one, 12).max() < 0.5
    kept = np.array(one.tables[0].columns["score per pixel"])
    assert torch.from_numpy(kept * everything.size).softmax(0).max() > 0.95


def test_scores_that_are_alike_or_not_known_weigh_nothing():
    nan = float("nan")
    assert not softmax_weights(torch.tensor([3.0, 3, 3])).any()
    assert not softmax_weights(torch.tensor([nan, nan])).any()
    torch.testing.assert_close(softmax_weights(torch.tensor([1.0, nan, 0])), torch.tensor([0.7310586, 0, 0.2689414]))


def test_a_budget_takes_the_channels_that_answer_most():
    answer = ask("seg-score-cam", unet(), layer="bottleneck", budget=3)
    assert answer.record.cost["forwards of a plain loop"] == 3
    assert (weights_of(answer, 12) > 0).sum() == 3
    assert "the 3 largest of them" in answer.text


def test_a_layer_without_any_difference_gives_a_zero_map():
    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.features = torch.nn.Conv2d(1, 3, 1)
            self.head = torch.nn.Conv2d(1, 2, 1)
            with torch.no_grad():
                self.features.weight.zero_()

        def forward(self, x):
            return self.head(x + 0 * self.features(x)[:, :1])

    answer = ask("seg-score-cam", Flat(), layer="features")
    assert not answer.map.data.any()
    assert "; all of them the same everywhere);" in answer.text
    assert "map is zero" in answer.text


def test_masks_come_batch_by_batch_and_the_answer_grows(monkeypatch):
    monkeypatch.setattr("seglens.core.run.PAUSE", -1)
    shown = []
    run = Run(batch=2, on_partial=shown.append)
    answer = ask("seg-score-cam", unet(), layer="bottleneck", run=run)
    assert answer.record.engine["evaluations"][0]["batch"] == 2
    assert [int((weights_of(one, 12) > 0).sum()) for one in shown] == [2, 4, 6, 8, 10, 12]
    assert all(np.isfinite(one.map.data).all() for one in shown)


def test_a_fill_that_needs_units_is_refused():
    with pytest.raises(BadParameter, match="unit-mean"):
        ask("seg-score-cam", unet(), fill="unit-mean")


class RankOne(torch.nn.Module):
    """Every channel is the image times a number."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.features = CONV[dims](1, 6, 1, bias=False)
        self.head = CONV[dims](6, 3, 1)

    def forward(self, x):
        return self.head(self.features(x))


@BOTH
def test_eigen_cam_of_rank_one_is_the_centred_image_for_every_class_and_region(dims):
    image = small_image(dims=dims)
    image = Image(image.data**4, image.axes, name="spots")
    model, mask = wrap(RankOne(dims), dims=dims, classes=THREE), mask_of(dims)
    maps = [
        explain("seg-eigen-cam", image, model, Target(k, Painted(m)), layer="features", normalise=False).map.data
        for k in (0, 2)
        for m in (mask, ~mask)
    ]
    pixels = image.read("C" + "ZYX"[-dims:])[0]
    size = torch.linalg.vector_norm(model.module.features.weight).item()
    np.testing.assert_allclose(maps[0], size * (pixels - pixels.mean()), atol=1e-5)
    assert all(np.array_equal(maps[0], one) for one in maps)


def test_eigen_cam_says_that_it_asks_no_target():
    answer = ask("seg-eigen-cam", unet())
    assert answer.map.kind == "signed"
    assert "bottleneck (12 channels, 6×7 map shown at 24×27)" in answer.text
    assert "the same whatever is explained" in answer.text


class Flatwise(torch.nn.Module):
    """A network of planes: the same in 2-D and, with kernels of depth 1, in 3-D."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        torch.manual_seed(4)
        conv, flat = CONV[dims], dims == 2
        kernel, margin = (3, 1) if flat else ((1, 3, 3), (0, 1, 1))
        self.features = conv(1, 6, kernel, padding=margin)
        self.seen = torch.nn.ReLU()
        self.head = conv(6, 2, kernel, padding=margin)

    def forward(self, x):
        return self.head(self.seen(self.features(x)))


@pytest.mark.parametrize(("by", "flat"), [("masks", "seg-score-cam"), ("ablation", "seg-ablation-cam")])
def test_a_volume_of_slices_that_are_alike_is_as_the_image(by, flat):
    image, mask = small_image(), mask_of(2)
    one = ask(flat, Flatwise(2), 2, image=image, mask=mask, layer="seen", normalise=False).map.data
    volume = Image(image.data[:, None].repeat(2, 1), "CZYX", name="slices")
    masks = np.stack([mask, mask])
    two = ask("volume-score-cam", Flatwise(3), 3, image=volume, mask=masks, layer="seen", normalise=False, by=by)
    assert np.ptp(one) > 0
    np.testing.assert_allclose(two.map.data[1], one, atol=1e-5 * one.max())


class Constant(torch.nn.Module):
    """One channel is the same everywhere, and the score hangs on it more than on the image."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = CONV[3](1, 4, 3, padding=1)
        self.seen = torch.nn.ReLU()
        self.head = CONV[3](4, 2, 1)
        with torch.no_grad():
            self.features.weight[2], self.features.bias[2] = 0, 5
            self.head.weight[1] = self.head.weight[1].abs()

    def forward(self, x):
        return self.head(self.seen(self.features(x)))


@pytest.mark.parametrize("budget", [None, 1])
def test_a_constant_channel_counts_where_channels_are_ablated(budget):
    ours, plain = (
        ask(method, Constant(), 3, layer="seen", normalise=False, **more)
        for method, more in (
            ("volume-score-cam", {"by": "ablation", "budget": budget}),
            ("seg-ablation-cam", {}),
        )
    )
    told, whole = weights_of(ours, 4), weights_of(plain, 4)
    assert whole[2] > 0.1
    np.testing.assert_allclose(told[2], whole[2], atol=1e-6)
    if budget is None:
        np.testing.assert_allclose(told, whole, atol=1e-6)
        np.testing.assert_allclose(ours.map.data, plain.map.data, atol=1e-5)
    else:
        assert not np.delete(told, 2).any()


@pytest.mark.parametrize("by", ["masks", "ablation"])
def test_only_the_budget_of_a_volume_is_scored(by):
    answer = ask("volume-score-cam", unet(3), 3, layer="bottleneck", budget=5, by=by)
    assert answer.record.cost["forwards of a plain loop"] == 5
    assert "the 5 largest of them" in answer.text


def deletion(order: np.ndarray, pixels: np.ndarray, score) -> float:
    """The mean score while voxels go, first to last of an order, in 16 steps."""
    flat, scores = pixels.ravel().copy(), []
    for part in np.array_split(order, 16):
        scores.append(score(flat.reshape(pixels.shape)))
        flat[part] = pixels.mean()
    return float(np.mean(scores))


@pytest.mark.parametrize("by", ["masks", "ablation"])
def test_deleting_by_the_map_lowers_the_score_of_a_volume_faster_than_by_chance_and_no_slower_than_grad_cam(by):
    image, cell, _ = context_image(3)
    net = Context(dims=3)
    model, target = wrap(net, dims=3, classes=THREE), cell_target(cell)
    pixels = image.read("ZYX")

    def score(volume):
        with torch.no_grad():
            return float(net(torch.from_numpy(volume)[None, None])[0, 2][torch.from_numpy(cell)].mean())

    def area(values):
        return deletion(np.argsort(-values.ravel(), kind="stable"), pixels, score)

    ours = area(explain("volume-score-cam", image, model, target, layer="features", by=by).map.data)
    grad = area(explain("seg-grad-cam", image, model, target, layer="features").map.data)
    chance = [area(np.random.default_rng(seed).random(pixels.shape)) for seed in range(5)]
    assert ours <= grad + 1e-6
    assert ours < 0.5 * min(chance)


def test_a_volume_score_cam_is_for_volumes():
    assert seglens.METHODS["volume-score-cam"].dims == (3,)
