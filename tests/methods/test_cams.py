"""Class activation maps from gradients: the tests of their cards (B/B11, B/B12, B/B13)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam, LayerGradientXActivation
from torch.nn import functional as F

from hand import CONV, small_image, wrap
from seglens.core.image import Image
from seglens.core.target import Box, Painted, Target
from seglens.methods.gradient.hires_cam import HiResCAM
from seglens.methods.gradient.seg_grad_cam import SegGradCAM
from seglens.methods.gradient.seg_grad_cam_plus_plus import SegGradCAMPlusPlus
from seglens.methods.gradient.seg_xgrad_cam import SegXGradCAM
from seglens.methods.gradient.seg_xres_cam import SegXResCAM
from seglens.models.nets.unet import UNet
from seglens.session import explain

BOTH = pytest.mark.parametrize("dims", [2, 3])


class OneByOne(torch.nn.Module):
    """Rectified features and a 1×1 head: what follows the layer ``seen`` is linear, pixel by pixel."""

    def __init__(self, dims: int = 2, positive: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = CONV[dims](1, 6, 3, padding=1)
        self.seen = torch.nn.ReLU()
        self.head = CONV[dims](6, 2, 1)
        if positive:
            with torch.no_grad():
                self.head.weight.abs_()

    def forward(self, x):
        return self.head(self.seen(self.features(x)))


def mask_of(dims):
    mask = np.zeros(small_image(dims=dims).space("ZYX"[-dims:]), bool)
    mask[(slice(2, 5),) * (dims - 1) + (slice(3, 9),)] = True
    return mask


def ask(method, module, dims=2, mask=None, image=None, **more):
    image = image or small_image(dims=dims)
    target = Target(1, Painted(mask_of(dims) if mask is None else mask), reduction="sum")
    return explain(method, image, wrap(module, dims=dims), target, layer="seen", normalise=False, **more)


def inside(module, dims=2):
    """The layer's answer (K, *s), the head's weights of class 1 (K,) and its bias."""
    image = small_image(dims=dims)
    with torch.no_grad():
        activation = module.seen(module.features(torch.from_numpy(image.read("C" + "ZYX"[-dims:]))[None]))[0]
    return activation, module.head.weight.detach()[1].flatten(), module.head.bias[1].item()


def pair(dims=2, seed=0):
    """Any activation and gradient (K, *s), the first without values below zero."""
    generator = torch.Generator().manual_seed(seed)
    shape = (5, *(4, 7, 6)[-dims:])
    return torch.randn(shape, generator=generator).relu(), torch.randn(shape, generator=generator)


@BOTH
def test_plus_plus_in_closed_form(dims):
    module = OneByOne(dims, positive=True)
    everything = np.ones_like(mask_of(dims))
    answer = ask("seg-grad-cam-plus-plus", module, dims, everything)
    activation, w, _ = inside(module, dims)
    expected = everything.size * w / (2 + activation.flatten(1).sum(1) * w)
    told = dict(zip(*(answer.tables[0].columns[c] for c in ("channel", "weight")), strict=True))
    np.testing.assert_allclose([told[k] for k in range(6)], expected, rtol=1e-4)


def test_plus_plus_is_the_published_formula_where_its_constant_does_not_count():
    activation, gradient = pair()
    total = activation.flatten(1).sum(1)[:, None, None]
    alpha = gradient**2 / (2 * gradient**2 + total * gradient**3 + 1e-6)
    ours = SegGradCAMPlusPlus().weigh(activation, gradient)
    torch.testing.assert_close(ours, (alpha * gradient.relu()).flatten(1).sum(1), rtol=1e-3, atol=1e-6)
    # of a mean over many pixels the gradient is small, and what is left is half of its positive part
    small = SegGradCAMPlusPlus().weigh(activation, gradient * 1e-7)
    torch.testing.assert_close(small, 0.5e-7 * gradient.relu().flatten(1).sum(1), rtol=1e-3, atol=0)


@BOTH
def test_xgrad_and_hires_add_up_to_the_same(dims):
    activation, gradient = pair(dims)
    weights = SegXGradCAM().weigh(activation, gradient)
    ours = (weights.reshape(-1, *(1,) * dims) * activation).sum()
    torch.testing.assert_close(ours, (HiResCAM().weigh(activation, gradient) * activation).sum())


def test_xgrad_gives_no_weight_to_a_channel_that_never_answers_and_keeps_the_sign_below_zero():
    activation, gradient = pair()
    activation[1] = 0
    assert SegXGradCAM().weigh(activation, gradient)[1] == 0
    # the published division by the sum would turn the sign: the sum is below zero, the gradient asks for more
    weights = SegXGradCAM().weigh(activation - 5, torch.ones_like(gradient))
    torch.testing.assert_close(weights, torch.ones(5))


@pytest.mark.parametrize(("cls", "words"), [(SegXGradCAM, "size of the answer"), (SegGradCAMPlusPlus, "above zero")])
def test_a_layer_with_answers_below_zero_is_told(cls, words):
    activation, gradient = pair()
    assert cls().remark(activation, gradient) == ""
    assert words in cls().remark(activation - 1, gradient)


@BOTH
def test_hires_adds_up_to_the_score_and_is_zero_outside_the_region(dims):
    module, mask = OneByOne(dims), mask_of(dims)
    answer = ask("hires-cam", module, dims)
    bias = inside(module, dims)[2]
    score = answer.record.target["resolved"]["score"]
    assert answer.map.kind == "signed"
    assert answer.map.data.sum() == pytest.approx(score - mask.sum() * bias, abs=1e-4)
    assert not answer.map.data[~mask].any()
    assert answer.map.data.min() < 0


@BOTH
def test_seg_grad_cam_leaks_out_of_the_region_where_hires_does_not(dims):
    mask = mask_of(dims)
    leak = ask("seg-grad-cam", OneByOne(dims), dims).map.data
    assert leak[~mask].sum() > 0.5 * leak.sum()


@BOTH
def test_layer_cam_is_what_is_positive_of_the_gradient_times_the_answer(dims):
    module, mask = OneByOne(dims), mask_of(dims)
    activation, w, _ = inside(module, dims)
    expected = (w.relu().reshape(-1, *(1,) * dims) * activation).sum(0).numpy() * mask
    np.testing.assert_allclose(ask("seg-layer-cam", module, dims).map.data, expected, atol=1e-5)


@BOTH
def test_xres_goes_from_hires_to_grad_cam(dims):
    activation, gradient = pair(dims)
    torch.testing.assert_close(SegXResCAM(window=1).weigh(activation, gradient), gradient)
    whole = SegXResCAM(window=4096).weigh(activation, gradient)
    alpha = SegGradCAM().weigh(activation, gradient)
    torch.testing.assert_close(whole, alpha.reshape(-1, *(1,) * dims).expand_as(whole))


def test_xres_pools_windows_that_are_cut_at_the_far_end():
    gradient = torch.tensor([[[1.0, 2, 3], [5, 6, 7], [-1, 0, 8]]])
    mean = torch.tensor([[[3.5, 3.5, 5], [3.5, 3.5, 5], [-0.5, -0.5, 8]]])
    most = torch.tensor([[[6.0, 6, 7], [6, 6, 7], [0, 0, 8]]])
    torch.testing.assert_close(SegXResCAM(window=2).weigh(gradient, gradient), mean)
    torch.testing.assert_close(SegXResCAM(window=2, pooling="max").weigh(gradient, gradient), most)


@BOTH
@pytest.mark.parametrize(("window", "pooling"), [(1, "mean"), (3, "mean"), (3, "max"), (4096, "mean")])
def test_xres_is_the_rectified_sum_of_answers_times_pooled_gradients(dims, window, pooling):
    """By hand: the gradient of a 1×1 head is its weight in the region and zero around it."""
    module, mask = OneByOne(dims), np.zeros(mask_of(dims).shape, bool)
    mask[(slice(2, 7),) * dims] = True
    with torch.no_grad():
        module.head.weight[1] = torch.tensor([1, 0.5, -1, 0.7, -0.3, 0.9]).reshape(-1, *(1,) * dims)
    activation, weight, _ = inside(module, dims)
    drawn = torch.from_numpy(mask).float()[None, None]
    cut = [min(window, n) for n in mask.shape]
    pool = {("mean", 2): F.avg_pool2d, ("mean", 3): F.avg_pool3d, ("max", 2): F.max_pool2d, ("max", 3): F.max_pool3d}
    every = torch.cat([drawn * w for w in weight], 1)
    pooled = pool[pooling, dims](every, cut, ceil_mode=True)[0]
    at = np.ix_(*(np.arange(n) // side for n, side in zip(mask.shape, cut, strict=True)))
    total = (pooled[(slice(None), *map(torch.from_numpy, at))] * activation).sum(0)
    assert total.min() < 0 < total.max()
    answer = ask("seg-xres-cam", module, dims, mask, window=window, pooling=pooling)
    np.testing.assert_allclose(answer.map.data, total.clamp(min=0), atol=1e-5)
    whole = f"the {pooling} over the whole layer"
    assert (whole in answer.text) == (window == 4096)
    assert (f"windows of {window} pixels" in answer.text) == (window < 4096)


def test_a_window_that_is_cut_along_one_axis_is_told_as_it_is():
    gradient = torch.zeros(2, 3, 9, 8)
    assert "windows of 3×4×4 pixels" in SegXResCAM(window=4).remark(gradient, gradient)


@BOTH
def test_when_the_box_moves_the_mass_moves_with_it_but_not_that_of_grad_cam(dims):
    """Two objects alike, a box around one of them: only a map that keeps the place can tell which."""
    module = OneByOne(dims, positive=True)
    with torch.no_grad():
        module.head.bias.copy_(torch.tensor([9.0, 0.0]))
        module.head.weight[0] = 0
        module.head.weight[1] *= 60
    shape = (6, 24, 48)[-dims:]
    pixels = np.zeros((1, *shape), np.float32)
    middle = (slice(1, 4),) * (dims - 2)
    pixels[(0, *middle, slice(8, 16), slice(8, 16))] = pixels[(0, *middle, slice(8, 16), slice(32, 40))] = 1
    image, model = Image(pixels, "C" + "ZYX"[-dims:]), wrap(module, dims=dims)
    left = np.s_[..., :24]

    def share(method, column, **more):
        box = Box((0, 6, column)[-dims:], (6, 18, column + 12)[-dims:])
        found = explain(method, image, model, Target(1, box), layer="seen", **more).map.data
        return found[left].sum() / found.sum()

    for window in (1, 3):
        assert share("seg-xres-cam", 6, window=window) > 0.99
        assert share("seg-xres-cam", 30, window=window) < 0.01
    assert share("seg-grad-cam", 6) == pytest.approx(0.5, abs=0.02)
    assert share("seg-grad-cam", 30) == pytest.approx(0.5, abs=0.02)


@BOTH
@pytest.mark.parametrize(
    ("method", "theirs"), [("seg-grad-cam", LayerGradCam), ("hires-cam", LayerGradientXActivation)]
)
@pytest.mark.parametrize("layer", ["encoder.1", "bottleneck", "decoder.0"])
def test_agrees_with_captum(dims, method, theirs, layer):
    torch.manual_seed(0)
    net = UNet(1, 2, (4, 8, 12), dims=dims).eval()
    side = (8, 16, 24)[-dims:]
    pixels = np.random.default_rng(0).random((1, *side)).astype(np.float32)
    mask = np.zeros(side, bool)
    mask[(slice(2, 7),) * dims] = True
    answer = explain(
        method, Image(pixels, "C" + "ZYX"[-dims:]), wrap(net, dims=dims, divisor=net.divisor),
        Target(1, Painted(mask), reduction="sum"), layer=layer, normalise=False,
    )  # fmt: skip
    region = torch.from_numpy(mask)
    peer = theirs(lambda x: (net(x)[:, 1] * region).flatten(1).sum(1), net.get_submodule(layer))
    found = peer.attribute(torch.from_numpy(pixels)[None]).sum(1, keepdim=True).detach()
    expected = F.interpolate(found, side, mode=("bilinear", "trilinear")[dims - 2], align_corners=False)[0, 0].numpy()
    expected = expected.clip(0) if method == "seg-grad-cam" else expected
    np.testing.assert_allclose(answer.map.data, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    "method", ["seg-grad-cam-plus-plus", "seg-xgrad-cam", "seg-layer-cam", "seg-xres-cam", "hires-cam"]
)
def test_a_coarse_map_says_its_true_resolution(method):
    torch.manual_seed(0)
    net = UNet(1, 2, (4, 8, 12)).eval()
    target = Target(1, Painted(mask_of(2)))
    text = explain(method, small_image(), wrap(net, divisor=net.divisor), target).text
    assert "layer bottleneck (12 channels, 6×7 map shown at 24×27)" in text
