"""Layer-fusion CAM: the tests of its card (B/B20)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hand import CONV, Deep, small_image, wrap
from seglens.core.errors import MissingNeed
from seglens.core.image import Image
from seglens.core.target import Painted, Target
from seglens.methods.gradient.layer_fusion_cam import fusion_weights
from seglens.models.nets.unet import UNet
from seglens.session import estimate, explain

BOTH = pytest.mark.parametrize("dims", [2, 3])


def region(dims):
    mask = np.zeros(small_image(dims=dims).space("ZYX"[-dims:]), bool)
    mask[(slice(2, 6),) * dims] = True
    return mask


@BOTH
def test_of_one_layer_the_fusion_is_that_map(dims):
    image, target = small_image(dims=dims), Target(1, Painted(region(dims)))
    model = wrap(Deep(dims=dims, seed=3), dims=dims)
    fused = explain("layer-fusion-cam", image, model, target)
    alone = explain("seg-grad-cam", image, model, target, layer="features").map.data
    assert fused.tables[0].columns["weight"] == [1]
    assert alone.max() == 1
    assert alone.min() == 0
    np.testing.assert_allclose(fused.map.data, alone, atol=1e-5)


@BOTH
def test_the_fusion_is_the_weighted_sum_of_the_maps_of_all_depths(dims):
    torch.manual_seed(0)
    net = UNet(1, 2, (4, 8, 12), dims=dims).eval()
    mask = region(dims)
    image, model, target = small_image(dims=dims), wrap(net, dims=dims, divisor=4), Target(0, Painted(mask))
    answer = explain("layer-fusion-cam", image, model, target)
    names = ["encoder.0", "encoder.1", "bottleneck", "decoder.0", "decoder.1"]
    cams = [explain("seg-grad-cam", image, model, target, layer=n, normalise=False).map.data for n in names]
    fits = np.array([cam[mask].mean() for cam in cams])
    weights = np.exp(fits / fits.max())
    weights /= weights.sum()
    assert answer.tables[0].columns["layer"] == names
    np.testing.assert_allclose(answer.tables[0].columns["mean on the mask"], fits, rtol=1e-3, atol=1e-8)
    np.testing.assert_allclose(answer.tables[0].columns["weight"], weights, atol=1e-4)
    assert answer["bottleneck"].resolution == tuple(-(-n // 4) for n in mask.shape)
    tops = [max(cam.max(), 1e-30) for cam in cams]
    expected = sum(w * cam / top for w, cam, top in zip(weights, cams, tops, strict=True))
    expected = (expected - expected.min()) / np.ptp(expected)
    np.testing.assert_allclose(answer.map.data, expected, atol=1e-3)
    assert answer.record.cost["backwards"] == 1


def test_what_it_takes_is_told_before():
    model = wrap(Deep(seed=3))
    told = estimate("layer-fusion-cam", small_image(), model, Target(1, Painted(region(2))))
    assert told.plain == 1
    assert told.forwards > 0


class TwoDepths(torch.nn.Module):
    """The first layer answers everywhere, the second only where a mask is, and both are read."""

    divisor = 2

    def __init__(self, mask: np.ndarray) -> None:
        super().__init__()
        dims = mask.ndim
        self.mask = torch.from_numpy(mask).float()
        self.coarse = CONV[dims](1, 2, 2, stride=2)
        self.fine = torch.nn.ConvTranspose2d(2, 1, 2, stride=2) if dims == 2 else torch.nn.ConvTranspose3d(2, 1, 2, 2)
        self.shown = torch.nn.Identity()
        with torch.no_grad():
            for p in self.parameters():
                p.fill_(0.5)

    def forward(self, x):
        deep = self.fine(self.coarse(x))
        exact = self.shown(deep * 0 + F.interpolate(self.mask[None, None], x.shape[2:]))
        own = exact + 0.01 * deep
        return torch.cat([torch.zeros_like(own), own], 1)


def test_the_depth_whose_map_lies_on_the_mask_has_the_largest_weight():
    mask = np.zeros((24, 28), bool)
    mask[6:12, 8:16] = True
    image = Image(np.random.default_rng(0).random((24, 28)).astype(np.float32), "YX", name="even")
    answer = explain("layer-fusion-cam", image, wrap(TwoDepths(mask), divisor=2), Target(1, Painted(mask)))
    rows = answer.tables[0].rows()
    assert [row["layer"] for row in rows] == ["coarse", "shown"]
    assert rows[1]["weight"] > rows[0]["weight"]
    assert rows[1]["mean on the mask"] > 10 * rows[0]["mean on the mask"]


def test_weights_are_alike_where_no_map_has_anything_or_nothing_is_asked():
    np.testing.assert_allclose(fusion_weights(np.zeros(4)), 0.25)
    np.testing.assert_allclose(fusion_weights(np.array([2.0, 4.0])), np.exp([0.5, 1]) / np.exp([0.5, 1]).sum())
    torch.manual_seed(0)
    net = UNet(1, 2, (4, 8, 12)).eval()
    target = Target(0, Painted(region(2)))
    answer = explain("layer-fusion-cam", small_image(), wrap(net, divisor=4), target, mask="none")
    np.testing.assert_allclose(answer.tables[0].columns["weight"], 0.2)


def test_a_drawn_mask_may_weigh_and_has_to_be_there():
    torch.manual_seed(0)
    net = UNet(1, 2, (4, 8, 12)).eval()
    image, model, target = small_image(), wrap(net, divisor=4), Target(0, Painted(region(2)))
    with pytest.raises(MissingNeed, match="annotation"):
        explain("layer-fusion-cam", image, model, target, mask="annotation")
    drawn = np.zeros((24, 27), int)
    drawn[12:20, 10:22] = 3
    answer = explain("layer-fusion-cam", image, model, target, mask="annotation", annotation=drawn)
    cam = explain("seg-grad-cam", image, model, target, layer="decoder.1", normalise=False).map.data
    assert answer.tables[0].columns["mean on the mask"][-1] == pytest.approx(float(cam[drawn > 0].mean()), rel=1e-3)
