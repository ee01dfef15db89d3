"""SmoothGrad, SmoothGrad² and VarGrad: the tests of their card (B/B2)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, Saliency
from torch import nn

from closed import Quadratic, Sites, as_input, everywhere, model_of, noise, scored
from hand import Context, Linear, cell_target, context_image, wrap
from seglens.core.errors import BadParameter
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.paths import Noisy
from seglens.engine.resolve import resolve
from seglens.session import explain


def ask(module, image, dims=2, channels=1, seed=0, **parameters):
    shape = image.space("ZYX"[-dims:])
    model = model_of(module, channels, dims)
    return explain("smooth-grad", image, model, everywhere(shape), run=Run(seed=seed), **parameters)


@pytest.mark.parametrize("shape", [(14, 15), (6, 7, 8)])
def test_on_a_quadratic_the_mean_is_qx_and_the_variance_that_of_the_noise(shape):
    dims, image = len(shape), noise(shape)
    module = Quadratic(dims=dims)
    mean = ask(module, image, dims, samples=1500, show="signed")
    expected = module.q(as_input(image))[0, 0].numpy()
    sigma = 0.15 * float(np.ptp(image.data))
    kernel = module.conv.weight.detach().numpy()
    off = mean.map.data - expected
    assert np.abs(off).max() < 6 * sigma * np.sqrt((kernel**2).sum() / 1500)
    variance = ask(module, image, dims, samples=1500, form="variance").map.data
    inside = (slice(1, -1),) * dims
    np.testing.assert_allclose(variance[inside], sigma**2 * (kernel**2).sum(), rtol=0.25)
    assert abs(variance[inside].mean() / (sigma**2 * (kernel**2).sum()) - 1) < 0.03


def test_the_mean_square_is_the_square_of_the_mean_and_the_variance():
    image, module = noise((14, 15)), Sites()
    mean, square, variance = (
        ask(module, image, samples=20, form=form, show="magnitude").map.data for form in ("mean", "square", "variance")
    )
    np.testing.assert_allclose(square, mean**2 + variance, rtol=1e-4, atol=1e-6)


def test_twice_the_noise_is_four_times_the_variance_of_a_quadratic():
    image, module = noise((14, 15)), Quadratic()
    one, two = (ask(module, image, samples=9, form="variance", spread=s).map.data for s in (0.1, 0.2))
    np.testing.assert_allclose(two, 4 * one, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("samples", [2, 7])
def test_a_linear_network_has_its_own_gradient_and_no_variance(samples):
    image = noise((14, 15), 2)
    model = wrap(Linear(2, 3), channels=2, classes=("a", "b", "c"))
    target = everywhere((14, 15))
    plain = explain("vanilla-gradient", image, model, target).map.data
    smooth = explain("smooth-grad", image, model, target, samples=samples)
    np.testing.assert_allclose(smooth.map.data, plain, atol=1e-6)
    np.testing.assert_allclose(smooth["standard deviation"].data, 0, atol=1e-6)


@pytest.mark.parametrize(
    ("form", "kind"), [("mean", "smoothgrad"), ("square", "smoothgrad_sq"), ("variance", "vargrad")]
)
def test_agrees_with_captum_on_the_same_noise(form, kind, monkeypatch):
    image, module, target = noise((14, 15), 2), Sites(2), everywhere((14, 15))
    model = model_of(module, 2)
    copies = Noisy.of(as_input(image), 0.15 * float(np.ptp(image.data)), 12, 0)
    drawn = copies.batch(0, 12) - as_input(image)
    monkeypatch.setattr(torch, "normal", lambda _, deviation: drawn[: len(deviation)])
    peer = NoiseTunnel(Saliency(scored(module, target)))
    theirs = peer.attribute(as_input(image), nt_type=kind, nt_samples=12, stdevs=0.1, abs=False)[0]
    answer = explain("smooth-grad", image, model, target, samples=12, form=form)
    expected = theirs.abs().amax(0).detach().numpy()
    np.testing.assert_allclose(answer.map.data, expected, atol=1e-5 * expected.max())


def test_noise_is_a_share_of_the_range_of_the_input_and_the_seed_tells_the_draws():
    image = noise((14, 15))
    image = type(image)(image.data * 7, image.axes, name="brighter")
    case = resolve(image, model_of(Sites()), everywhere((14, 15)), Run())
    from seglens.methods.gradient.smooth_grad import SmoothGrad

    copies = SmoothGrad(samples=400, spread=0.2).copies(case)
    spread = float((copies.batch(0, 400) - case.x).std())
    assert spread == pytest.approx(0.2 * float(np.ptp(image.data)), rel=0.02)
    one, two, again = (ask(Sites(), image, seed=s, samples=4).map.data for s in (1, 2, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - two).max() > 1e-4


def test_the_region_stays_that_of_the_clean_image():
    # under noise other pixels are predicted; asked about these, the score of each copy would be another question's
    image, cell, _ = context_image()
    model = wrap(Context(), classes=("background", "healthy", "infected"))
    predicted = explain("smooth-grad", image, model, Target("infected"), samples=6, spread=0.5).map.data
    case = resolve(image, model, Target("infected"), Run())
    painted = Target("infected", Painted(case.labels == 2))
    np.testing.assert_array_equal(
        predicted, explain("smooth-grad", image, model, painted, samples=6, spread=0.5).map.data
    )
    assert cell.any()


def test_says_how_it_settles_and_stops_when_its_halves_agree():
    image, cell, _ = context_image()
    model = wrap(Context(), classes=("background", "healthy", "infected"))
    every = explain("smooth-grad", image, model, cell_target(cell), samples=64)
    curve = every.figures[0].series["change of the mean"]
    assert len(curve) == 64
    assert np.mean(curve[-8:]) < 0.2 * np.mean(curve[1:9])
    some = explain("smooth-grad", image, model, cell_target(cell), samples=64, stop=0.3)
    assert len(some.figures[0].x) < 64
    assert some.record.cost["backwards"] < every.record.cost["backwards"]
    assert "rank correlation" in some.text
    batches = [explain("smooth-grad", image, model, cell_target(cell), samples=64, stop=0.3, run=Run(batch=b))
               for b in (1, 5)]  # fmt: skip
    assert len({len(b.figures[0].x) for b in batches} | {len(some.figures[0].x)}) == 1


def test_the_deviation_is_that_of_what_is_shown():
    class Opposed(nn.Module):
        """The gradients of the two channels change with the image, their sum does not."""

        def forward(self, x):
            y = 0.5 * (x[:, :1] - x[:, 1:]) ** 2
            return torch.cat([torch.zeros_like(y), y], 1)

    image = noise((14, 15), 2)
    shown = {show: ask(Opposed(), image, channels=2, samples=9, show=show) for show in ("signed", "magnitude")}
    assert shown["signed"]["standard deviation"].data.max() < 1e-5
    assert shown["magnitude"]["standard deviation"].data.min() > 0.01


def test_squares_have_no_sign():
    with pytest.raises(BadParameter, match="sign"):
        ask(Sites(), noise((14, 15)), form="square", show="signed")


def test_each_channel_has_a_map_and_a_share():
    image = noise((14, 15), 3)
    model = wrap(Linear(3, 3), channels=3, classes=("a", "b", "c"))
    answer = explain("smooth-grad", image, model, everywhere((14, 15)), samples=3, channels=True, show="signed")
    maps = [layer.data for layer in answer.layers if layer.name.startswith("SmoothGrad: ")]
    assert len(maps) == 3
    np.testing.assert_allclose(sum(maps), answer.map.data, atol=1e-5)
    table = answer.tables[0].columns
    assert sum(table["share of the size"]) == pytest.approx(1)
    assert table["sum"] == pytest.approx([float(m.sum()) for m in maps], rel=1e-3)
