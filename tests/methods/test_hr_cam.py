"""HR-CAM: the tests of its card (B/B14)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hand import CONV, small_image, wrap
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.resolve import resolve
from seglens.methods.gradient._readout import fit, followed
from seglens.models.nets.unet import UNet
from seglens.models.segmentation import quiet
from seglens.session import explain

BOTH = pytest.mark.parametrize("dims", [2, 3])
POOL = {2: F.avg_pool2d, 3: F.avg_pool3d}


class Mix(torch.nn.Module):
    """Three resolutions, of which the logits are an exact linear mix of the first and the last."""

    divisor = 4

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv = CONV[dims]
        self.dims = dims
        self.fine, self.middle, self.coarse = (
            conv(1, 3, 3, padding=1),
            conv(3, 4, 3, padding=1),
            conv(4, 5, 3, padding=1),
        )
        generator = torch.Generator().manual_seed(3)
        self.mix = [torch.randn(k, 2, generator=generator) for k in (3, 5)]

    def forward(self, x):
        one = self.fine(x)
        two = self.middle(POOL[self.dims](F.relu(one), 2))
        three = self.coarse(POOL[self.dims](F.relu(two), 2))
        mode = ("bilinear", "trilinear")[self.dims - 2]
        logits = 0.0
        for weights, layer in zip(self.mix, (one, three), strict=True):
            low = torch.einsum("kc,nk...->nc...", weights.to(layer), layer)
            logits = logits + F.interpolate(low, x.shape[2:], mode=mode, align_corners=False)
        return logits


def case_of(net, dims, side=24):
    image = small_image(dims=dims, side=side)
    mask = np.zeros(image.space("ZYX"[-dims:]), bool)
    mask[(slice(2, 6),) * dims] = True
    return image, wrap(net, dims=dims, divisor=net.divisor), Target(1, Painted(mask)), mask


@BOTH
def test_an_exact_linear_mix_is_recovered(dims):
    net = Mix(dims)
    image, model, target, _ = case_of(net, dims, side=40)
    with quiet(model.module):
        case = resolve(image, model, target, Run())
        out = fit(case, ["fine", "middle", "coarse"], 1e-9, 10**6)
    np.testing.assert_allclose(out.weights[0], net.mix[0], atol=1e-4)
    np.testing.assert_allclose(out.weights[1], 0, atol=1e-4)
    np.testing.assert_allclose(out.weights[2], net.mix[1], atol=1e-4)
    np.testing.assert_allclose(out.logits(), case.logits[0], atol=1e-4)
    assert followed(case.logits[0, 1], out.logits()[1]) == pytest.approx(1, abs=1e-6)


@BOTH
def test_the_map_is_the_logit_without_its_mean_and_the_sum_of_its_resolutions(dims):
    image, model, target, _ = case_of(Mix(dims), dims)
    answer = explain("hr-cam", image, model, target, ridge=1e-9)
    with torch.no_grad():
        logits = model.logits(torch.from_numpy(image.read("C" + model.spec.axes))[None])[0].numpy()
    np.testing.assert_allclose(answer.map.data, logits[1] - logits[1].mean(), atol=1e-3)
    parts = [layer.data for layer in answer.layers if layer.name.startswith("from ")]
    assert len(parts) == 3
    np.testing.assert_allclose(sum(parts), answer.map.data, atol=1e-4)
    assert answer["from middle"].resolution == tuple(-(-n // 4) * 2 for n in answer.map.data.shape)
    np.testing.assert_array_equal(answer.layers[-1].data, logits.argmax(0))
    assert "R² 1.000" in answer.text
    assert "100.0% of the pixels" in answer.text


def test_a_resolution_that_nobody_reads_has_no_share_and_is_not_missed():
    image, model, target, mask = case_of(Mix(), 2)
    answer = explain("hr-cam", image, model, target, ridge=1e-9)
    rows = answer.tables[0].rows()
    assert [row["layer"] for row in rows] == ["fine", "middle", "coarse"]
    assert [row["stride"] for row in rows] == [1, 2, 4]
    assert rows[1]["share"] < 1e-3
    assert rows[1]["pixels drawn alike without it"] == 1
    assert rows[0]["pixels drawn alike without it"] < 1
    fine = answer["from fine"].data
    assert rows[0]["adds in the region"] == pytest.approx(float(fine[mask].mean()), abs=1e-5)
    assert sum(row["share"] for row in rows) == pytest.approx(1)


@BOTH
def test_the_encoder_of_a_unet_is_read_out_and_how_well_is_told(dims):
    torch.manual_seed(0)
    net = UNet(1, 2, (4, 8, 12), dims=dims).eval()
    image, model, target, _ = case_of(net, dims)
    answer = explain("hr-cam", image, model, target, pixels=300)
    assert answer.tables[0].columns["layer"] == ["encoder.0", "encoder.1", "bottleneck"]
    again = explain("hr-cam", image, model, target, pixels=300, run=Run(seed=0))
    np.testing.assert_array_equal(answer.map.data, again.map.data)


def test_how_well_one_map_follows_another():
    one = torch.arange(12.0).reshape(3, 4)
    assert followed(one, one) == 1
    assert followed(one, torch.full_like(one, 5.5)) == pytest.approx(0)
    assert followed(torch.ones(3), torch.ones(3)) == 1


def test_channels_that_are_copies_share_the_weight():
    class Copies(torch.nn.Module):
        divisor = 1

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.features = torch.nn.Conv2d(1, 4, 1, bias=False)
            self.head = torch.nn.Conv2d(4, 2, 1)
            with torch.no_grad():
                self.features.weight.fill_(1)
                self.features.weight[3] = 0

        def forward(self, x):
            return self.head(self.features(x))

    image, model, target, _ = case_of(Copies(), 2)
    with quiet(model.module):
        out = fit(resolve(image, model, target, Run()), ["features"], 1e-6, 10**6)
    total = float(model.module.head.weight.detach()[1, :3].sum())
    np.testing.assert_allclose(out.weights[0][:, 1], [total / 3, total / 3, total / 3, 0], atol=1e-4)
