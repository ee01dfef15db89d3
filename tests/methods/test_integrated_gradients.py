"""Integrated gradients and guided integrated gradients: the tests of their card (B/B5)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients

from closed import Normalising, Quadratic, Saturating, SaturatingTwice, Sites, as_input, everywhere, model_of, noise
from closed import scored as score_of
from hand import Linear, wrap
from seglens import METHODS
from seglens.core.errors import BadParameter, ImageMismatch
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.engine.resolve import resolve
from seglens.models.nets.unet import UNet
from seglens.session import compare_fills, explain

BOTH = ("integrated-gradients", "guided-integrated-gradients")


def value(answer, quantity):
    table = answer.tables[0].columns
    return table["value"][table["quantity"].index(quantity)]


def two(shape=(6, 7)):
    """Every pixel (2, 2), but for one corner, so that black is 0 and the image is not constant."""
    data = np.full((2, *shape), 2, np.float32)
    data[:, 0, 0] = 0
    return Image(data, "CYX")


@pytest.mark.parametrize("module", [Saturating, SaturatingTwice])
@pytest.mark.parametrize("method", BOTH)
def test_saturation_is_seen_and_the_implementation_makes_no_difference(method, module):
    image, target = two(), everywhere((6, 7))
    model = model_of(module(), 2)
    assert not explain("vanilla-gradient", image, model, target).map.data[1:].any()
    steps = {"steps": 400} if method == BOTH[0] else {"steps": 100}
    answer = explain(method, image, model, target, fill="black", channels=True, **steps)
    for layer in answer.layers[1:]:
        np.testing.assert_allclose(layer.data[1:], 0.5, atol=0.015)
    np.testing.assert_allclose(answer.map.data[1:], 1, atol=0.03)


@pytest.mark.parametrize("shape", [(14, 15), (6, 7, 8)])
@pytest.mark.parametrize("rule", ["gauss-legendre", "midpoint"])
def test_is_half_of_input_times_gradient_on_a_quadratic(shape, rule):
    # gradients at the image alone, as in a published program, would give all of it
    image, dims = noise(shape), len(shape)
    module = Quadratic(dims=dims)
    answer = explain("integrated-gradients", image, model_of(module, dims=dims), everywhere(shape), fill="black",
                     steps=5, rule=rule)  # fmt: skip
    x = as_input(image)
    np.testing.assert_allclose(answer.map.data, (0.5 * x * module.q(x))[0, 0].numpy(), atol=1e-5)
    assert value(answer, "gap / difference") == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("rule", "theirs"), [("gauss-legendre", "gausslegendre"), ("midpoint", "riemann_middle")])
@pytest.mark.parametrize("fill", ["black", "blur"])
def test_agrees_with_captum_by_the_same_quadrature(rule, theirs, fill):
    image, target, module = noise((14, 15), 2), everywhere((14, 15)), Sites(2)
    model = model_of(module, 2)
    start = resolve(image, model, target, Run()).fill(fill)
    peer = IntegratedGradients(score_of(module, target))
    expected = peer.attribute(as_input(image), start, n_steps=16, method=theirs)[0]
    answer = explain("integrated-gradients", image, model, target, fill=fill, steps=16, rule=rule, channels=True)
    largest = float(expected.abs().max())
    np.testing.assert_allclose(answer.map.data, expected.sum(0).detach().numpy(), atol=1e-5 * max(1, largest))
    for layer, channel in zip(answer.layers[1:], expected, strict=True):
        np.testing.assert_allclose(layer.data, channel.detach().numpy(), atol=1e-5 * max(1, largest))


@pytest.mark.parametrize("fill", ["mean", "blur", "white", "noise"])
def test_adds_up_to_the_change_of_the_score(fill):
    torch.manual_seed(3)
    model = wrap(UNet(1, 2, (4, 6)).eval(), classes=("nothing", "thing"), divisor=2)
    image = noise((30, 33))
    answer = explain("integrated-gradients", image, model, everywhere((30, 33)), fill=fill, steps=200)
    case = resolve(image, model, everywhere((30, 33)), Run())
    start = float(case.score(case.forward(case.fill(fill))))
    assert value(answer, "difference") == pytest.approx(case.clean_score - start, rel=1e-4, abs=1e-3)
    assert abs(value(answer, "gap")) < 2e-3 * np.abs(answer.map.data).sum()
    assert not answer.record.notes


def test_a_network_that_evens_out_contrast_is_found_by_its_gap_and_said():
    image, target, model = noise((30, 33)), everywhere((30, 33)), model_of(Normalising())
    flat = explain("integrated-gradients", image, model, target, fill="black", steps=32)
    assert abs(value(flat, "gap / difference")) > 0.5
    (note,) = flat.record.notes
    assert "first" in note
    assert "instance norm" in note
    assert "fill=blur" in note
    blurred = explain("integrated-gradients", image, model, target, fill="noise", steps=300)
    assert abs(value(blurred, "gap / difference")) < 0.05
    assert not blurred.record.notes


class Steep(torch.nn.Module):
    """Most happens at once, pixel by pixel: nothing is evened out, and more steps are all it takes."""

    def forward(self, x):
        return torch.cat([torch.zeros_like(x), torch.tanh(60 * x)], 1)


def test_a_steep_start_of_a_network_that_sees_near_asks_for_more_steps():
    image, target, model = noise((30, 33)), everywhere((30, 33)), model_of(Steep())
    few = explain("integrated-gradients", image, model, target, fill="zero", steps=4)
    (note,) = few.record.notes
    assert "more steps" in note
    assert "evens out" not in note
    assert not explain("integrated-gradients", image, model, target, fill="zero", steps=300).record.notes


@pytest.mark.parametrize("method", ["integrated-gradients", "deep-lift", "deep-lift-shap", "gradient-shap"])
def test_an_image_that_is_compared_with_itself_is_said(method):
    image, more = noise((30, 33)), {"spread": 0} if method == "gradient-shap" else {}
    answer = explain(method, image, model_of(Steep()), everywhere((30, 33)), reference=(image,), **more)
    assert not answer.map.data.any()
    assert "compared with itself" in " ".join(answer.record.notes)


def test_too_few_steps_are_said():
    answer = explain("integrated-gradients", two(), model_of(Saturating(), 2), everywhere((6, 7)), fill="black",
                     steps=2, rule="midpoint")  # fmt: skip
    assert value(answer, "gap / difference") == pytest.approx(-1)
    assert "more steps" in answer.record.notes[0]


def test_tells_the_score_along_the_path():
    image, target, module = noise((14, 15)), everywhere((14, 15)), Sites()
    answer = explain("integrated-gradients", image, model_of(module), target, fill="black", steps=9)
    path = answer.figures[0]
    assert path.x == sorted(path.x)
    assert (path.x[0], path.x[-1]) == (0, 1)
    score = score_of(module, target)
    for alpha, told in zip(path.x, path.series["score"], strict=True):
        assert told == pytest.approx(float(score(alpha * as_input(image)).detach()), rel=1e-3)


def test_partial_answers_stand_for_the_whole_path(monkeypatch):
    monkeypatch.setattr("seglens.core.run.PAUSE", 0.0)
    seen = []
    run = Run(batch=4, on_partial=seen.append)
    answer = explain(
        "integrated-gradients", noise((14, 15)), model_of(Sites()), everywhere((14, 15)), run=run, steps=32
    )
    assert len(seen) >= 7
    for one in seen[2:]:
        assert np.corrcoef(one.map.data.ravel(), answer.map.data.ravel())[0, 1] > 0.97
    assert not answer.record.notes


@pytest.mark.parametrize("method", BOTH)
def test_fills_can_be_compared_and_one_that_needs_units_is_refused(method):
    image, target, model = noise((14, 15)), everywhere((14, 15)), model_of(Sites())
    compared = compare_fills(method, image, model, target, fills=("mean", "black"), steps=8)
    assert len(compared.layers) == 3
    with pytest.raises(BadParameter):
        explain(method, image, model, target, fill="inpaint")


@pytest.mark.parametrize("method", BOTH)
def test_a_reference_image_is_where_the_path_starts(method):
    image, target, module = noise((14, 15), 2), everywhere((14, 15)), Linear(2, 3)
    model, other = wrap(module, channels=2, classes=("a", "b", "c")), noise((14, 15), 2, seed=8)
    answer = explain(method, image, model, target, reference=(other,), steps=9)
    x = as_input(image).requires_grad_(True)
    (gradient,) = torch.autograd.grad(score_of(module, target)(x).sum(), x)
    expected = ((x.detach() - as_input(other)) * gradient)[0].sum(0).numpy()
    np.testing.assert_allclose(answer.map.data, expected, atol=1e-4)
    start = float(score_of(module, target)(as_input(other)).detach())
    assert value(answer, f"score of the reference image {other.name}") == pytest.approx(start, rel=1e-4)
    with pytest.raises(BadParameter, match="2 reference images"):
        explain(method, image, model, target, reference=(other, image))
    with pytest.raises(ImageMismatch, match="20×15"):
        explain(method, image, model, target, reference=(noise((20, 15), 2),))
    with pytest.raises(BadParameter, match="no fill"):
        compare_fills(method, image, model, target, reference=(other,), fills=("mean", "black"))


def test_captums_own_baseline_is_a_fill():
    image, target, module = noise((14, 15), 2), everywhere((14, 15)), Sites(2)
    expected = IntegratedGradients(score_of(module, target)).attribute(as_input(image), n_steps=16)[0].sum(0)
    answer = explain("integrated-gradients", image, model_of(module, 2), target, fill="zero", steps=16)
    np.testing.assert_allclose(
        answer.map.data, expected.detach().numpy(), atol=1e-5 * max(1, float(expected.abs().max()))
    )


def test_the_guided_path_takes_the_steps_of_its_paper():
    assert METHODS["guided-integrated-gradients"]().steps == 200


def straight_on(score, start, x, steps, fraction, band):
    """The path as it is published, pixel by pixel in float64; returns the map."""
    way, now = (x - start).ravel(), start.ravel().copy()
    made, total = np.zeros_like(now), np.abs(way).sum()
    for step in range(1, steps + 1):
        leaf = torch.from_numpy(now.reshape(x.shape)).requires_grad_(True)
        actual = torch.autograd.grad(score(leaf[None]).sum(), leaf)[0].numpy().ravel()
        grad, share = actual.copy(), step / steps
        low, high = max(share - band, 0), min(share + band, 1)
        wanted, gamma = total * (1 - share), np.inf
        while gamma > 1:
            old = now.copy()
            with np.errstate(divide="ignore", invalid="ignore"):
                along = np.where(way == 0, high, (now - start.ravel()) / way)
            now = np.where(along < low, start.ravel() + low * way, now)
            rest = np.abs(now - x.ravel()).sum()
            if np.isclose(wanted, rest, rtol=1e-9, atol=1e-9 * total):
                made += (now - old) * actual
                break
            far = start.ravel() + high * way
            grad[np.isclose(now, far, rtol=0, atol=1e-12)] = np.inf
            limit = np.quantile(np.abs(grad), fraction, method="lower")
            some = (np.abs(grad) <= limit) & (grad != np.inf)
            could = np.abs(far - now)[some].sum()
            gamma = (rest - wanted) / could if could > 0 else np.inf
            now[some] += min(gamma, 1) * (far - now)[some]
            made += (now - old) * actual
    return made.reshape(x.shape)


@pytest.mark.parametrize(("fraction", "band"), [(0.25, 0.02), (0.1, 0.5), (0.5, 1.0)])
def test_guided_equals_a_plain_replica(fraction, band):
    image, target, module = noise((9, 8), 2), everywhere((9, 8)), Sites(2)
    answer = explain("guided-integrated-gradients", image, model_of(module, 2), target, fill="black", steps=15,
                     fraction=fraction, band=band, channels=True)  # fmt: skip
    x = as_input(image)[0].double().numpy()
    expected = straight_on(score_of(module.double(), target), np.zeros_like(x), x, 15, fraction, band)
    for layer, channel in zip(answer.layers[1:], expected, strict=True):
        np.testing.assert_allclose(layer.data, channel, atol=2e-3 * np.abs(expected).max())


def test_guided_without_a_band_is_the_straight_path():
    image, target, module = noise((9, 8)), everywhere((9, 8)), Sites()
    answer = explain("guided-integrated-gradients", image, model_of(module), target, fill="black", steps=20, band=0)
    x, total = as_input(image), 0
    for i in range(20):
        leaf = (x * i / 20).requires_grad_(True)
        total = total + torch.autograd.grad(score_of(module, target)(leaf).sum(), leaf)[0] * x / 20
    np.testing.assert_allclose(answer.map.data, total[0, 0].numpy(), atol=1e-4)


def test_guided_equals_the_straight_path_on_a_linear_network_and_adds_up_on_others():
    image, target = noise((14, 15), 2), everywhere((14, 15))
    linear = wrap(Linear(2, 3), channels=2, classes=("a", "b", "c"))
    one, two_ = (explain(m, image, linear, target, fill="white", steps=12).map.data for m in BOTH)
    np.testing.assert_allclose(one, two_, atol=1e-4)
    bent = explain(BOTH[1], noise((14, 15)), model_of(Sites()), target, fill="white", steps=200)
    assert abs(value(bent, "gap / difference")) < 0.02
    assert bent.figures[0].x[0] == 0
    assert np.allclose(np.diff(bent.figures[0].x), 1 / 200, atol=1e-4)


def test_guided_says_when_it_does_not_add_up():
    image, target = noise((30, 33)), everywhere((30, 33))
    answer = explain(BOTH[1], image, model_of(Normalising()), target, steps=12)
    assert "adds up" in answer.record.notes[0]
