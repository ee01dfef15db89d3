"""HR-CAM: the tests of its card (B/B14)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hand import CONV, small_image, wrap
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.resolve import resolve
from seglens.methods.gradient._readout import blocks, fit, followed
from seglens.models.nets.unet import UNet
from seglens.models.segmentation import quiet
from seglens.session import estimate, explain

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
    with torch.no_grad():
        net, x = model.module, torch.from_numpy(image.read("C" + model.spec.axes))[None]
        logits, low = net(x)[0], torch.einsum("kc,nk...->nc...", net.mix[0], net.fine(x))[0]
    less = logits - low + low.mean((1, 2), keepdim=True)
    same = float((less.argmax(0) == logits.argmax(0)).float().mean())
    assert rows[0]["pixels drawn alike without it"] == pytest.approx(same, abs=5e-3)  # the border is padded


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


class Half(torch.nn.Module):
    """Logits of which a layer tells a known share, and the rest is noise that no layer sees."""

    divisor = 1

    def __init__(self, noise: float, channels: int = 4) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.answers = torch.randn(1, channels, 64, 64, generator=generator)
        self.mix = torch.randn(channels, 2, generator=generator)
        self.noise = noise * torch.randn(1, 2, 64, 64, generator=generator)
        self.shown = torch.nn.Identity()

    def forward(self, x):
        at = (..., slice(x.shape[2]), slice(x.shape[3]))
        return torch.einsum("kc,nk...->nc...", self.mix, self.shown(self.answers[at] + 0 * x)) + self.noise[at]


def ridge_by_hand(seen, wanted, ridge):
    """Of standardised channels (n, K): how it goes on to predict others."""
    mean, size, constant = seen.mean(0), seen.std(0), wanted.mean(0)
    z = (seen - mean) / size
    w = np.linalg.solve(z.T @ z / len(z) + ridge * np.eye(z.shape[1]), z.T @ (wanted - constant) / len(z))
    return w / size[:, None], lambda new: (new - mean) / size @ w + constant


@pytest.mark.parametrize("ridge", [1e-4, 0.7])
def test_how_well_it_follows_is_told_where_it_was_not_fitted(ridge):
    net = Half(3.0)
    image, model, target, _ = case_of(net, 2, side=48)
    answer = explain("hr-cam", image, model, target, ridge=ridge)
    seen, logits = (
        t.flatten(2)[0].T.double().numpy() for t in (net.answers[..., :48, :51], net(torch.zeros(1, 1, 48, 51)))
    )
    y, x = np.mgrid[:48, :51]
    second = ((y // 4 + x // 4) % 2 == 1).ravel()
    held = np.empty_like(logits)
    for told in (second, ~second):
        held[told] = ridge_by_hand(seen[~told], logits[~told], ridge)[1](seen[told])
    table = answer.tables[1].columns
    weights, predict = ridge_by_hand(seen, logits, ridge)
    for row, told in enumerate((predict(seen), held)):
        left = ((told - logits)[:, 1] ** 2).sum() / ((logits[:, 1] - logits[:, 1].mean()) ** 2).sum()
        assert table["R² of the logit"][row] == pytest.approx(1 - left, abs=1e-5)
        assert table["pixels drawn alike"][row] == pytest.approx((told.argmax(1) == logits.argmax(1)).mean(), abs=1e-6)
    assert 0.1 < table["R² of the logit"][1] < 0.5
    assert 0.5 < table["pixels drawn alike"][1] < 0.9
    assert f"R² {table['R² of the logit'][1]:.3f} with its logit" in answer.text
    assert f"{table['pixels drawn alike'][1]:.1%} of the pixels" in answer.text
    assert any("do not take its map" in note for note in answer.record.notes)
    expected = (seen - seen.mean(0)) @ weights[:, 1]
    np.testing.assert_allclose(answer.map.data.ravel(), expected, atol=1e-4)


def test_many_channels_follow_noise_where_they_are_fitted_and_nowhere_else():
    net = Half(1.0, channels=320)
    net.mix *= 0
    image, model, target, _ = case_of(net, 2, side=48)
    answer = explain("hr-cam", image, model, target, pixels=300)
    fitted, held = answer.tables[1].columns["R² of the logit"]
    assert fitted > 0.99
    assert held < 0.1
    assert any("320 channels and 300 pixels" in note for note in answer.record.notes)
    assert not any("channels and" in note for note in explain("hr-cam", image, model, target).record.notes)


def test_reference_images_join_the_fit():
    """Each image shows one of two channels alone, and only both together tell the mix."""

    class Two(torch.nn.Module):
        divisor = 1

        def __init__(self):
            super().__init__()
            self.shown = torch.nn.Identity()

        def forward(self, x):
            seen = self.shown(torch.cat([x, x.relu()], 1))
            own = seen[:, :1] + 3 * seen[:, 1:]
            return torch.cat([-own, own], 1)

    net, rng = Two(), np.random.default_rng(0)
    light = Image(rng.random((24, 27)).astype(np.float32), "YX", name="light")
    dark = Image(-rng.random((30, 20)).astype(np.float32), "YX", name="dark")
    target = Target(1, Painted(np.ones((24, 27), bool)))
    alone, both = (
        fit(resolve(light, wrap(net), target, Run(), reference=more), ["shown"], 1e-6, 10**6) for more in ((), (dark,))
    )
    np.testing.assert_allclose(alone.weights[0][:, 1], [2, 2], atol=1e-2)
    np.testing.assert_allclose(both.weights[0][:, 1], [1, 3], atol=1e-2)
    assert estimate("hr-cam", light, wrap(net), target, reference=(dark,)).plain == 2
    answer = explain("hr-cam", light, wrap(net), target, reference=(dark,))
    assert answer.record.cost["forwards"] == 2
    assert answer.tables[1].columns["R² of the logit"][1] == pytest.approx(1, abs=1e-3)


def test_blocks_are_a_chessboard_and_there_are_two_at_least():
    found = blocks((4, 9), 3)
    y, x = np.mgrid[:4, :9]
    np.testing.assert_array_equal(found, (y // 3 + x // 3) % 2 == 1)
    np.testing.assert_array_equal(blocks((2, 6), 64), np.repeat([[0, 0, 0, 1, 1, 1]], 2, 0))
