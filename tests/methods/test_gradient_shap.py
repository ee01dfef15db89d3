"""GradientSHAP: the tests of its card (B/B8)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import GradientShap

from closed import Sites, as_input, everywhere, model_of, noise, scored
from hand import Linear, wrap
from seglens.core.errors import ImageMismatch
from seglens.core.run import Run
from seglens.engine.resolve import resolve
from seglens.methods.gradient.gradient_shap import GradientSHAP
from seglens.session import explain


def value(answer, quantity):
    table = answer.tables[0].columns
    return table["value"][table["quantity"].index(quantity)]


def test_a_linear_network_is_exact_with_every_single_point_and_agrees_with_captum():
    image, target = noise((14, 15), 2), everywhere((14, 15))
    module = Linear(2, 3)
    model = wrap(module, channels=2, classes=("a", "b", "c"))
    start = resolve(image, model, target, Run()).fill("mean")
    theirs = GradientShap(scored(module, target)).attribute(as_input(image), start, n_samples=3, stdevs=0.0)[0]
    answer = explain("gradient-shap", image, model, target, samples=3, channels=True)
    np.testing.assert_allclose(answer.map.data, theirs.sum(0).detach().numpy(), atol=1e-5)
    for layer, channel in zip(answer.layers[1:3], theirs, strict=True):
        np.testing.assert_allclose(layer.data, channel.detach().numpy(), atol=1e-5)
    assert value(answer, "gap / difference") == pytest.approx(0, abs=1e-4)
    np.testing.assert_allclose(answer["standard error"].data, 0, atol=1e-5)


def test_agrees_with_captum_on_the_same_draws(monkeypatch):
    image, target, module = noise((14, 15), 2), everywhere((14, 15)), Sites(2)
    model = model_of(module, 2)
    recipe = GradientSHAP(samples=16, spread=0.1)
    copies = recipe.copies(resolve(image, model, target, Run()))
    noisy = copies.ends.batch(0, 16) - as_input(image)
    monkeypatch.setattr(torch, "normal", lambda _, deviation: noisy[: len(deviation)])
    monkeypatch.setattr(np.random, "uniform", lambda *_: copies.alphas.numpy())
    theirs = GradientShap(scored(module, target)).attribute(as_input(image), copies.starts, n_samples=16, stdevs=0.1)[0]
    answer = explain(recipe, image, model, target)
    expected = theirs.sum(0).detach().numpy()
    np.testing.assert_allclose(answer.map.data, expected, atol=1e-5 * max(1, np.abs(expected).max()))


def test_converges_to_integrated_gradients_and_its_standard_error_tells_how_far_it_is():
    image, target, model = noise((14, 15)), everywhere((14, 15)), model_of(Sites())
    truth = explain("integrated-gradients", image, model, target, fill="black", steps=400).map.data
    one, four = (explain("gradient-shap", image, model, target, fill="black", samples=n) for n in (200, 800))
    ratio = one["standard error"].data.mean() / four["standard error"].data.mean()
    assert ratio == pytest.approx(2, rel=0.1)
    for answer in (one, four):
        error = answer["standard error"].data
        off = np.abs(answer.map.data - truth) / np.maximum(error, 1e-9)
        assert np.mean(off[error > 1e-6] < 2.5) > 0.95
        assert np.mean(off[error > 1e-6] > 0.3) > 0.4  # errors are not told too large
    curve = four.figures[0].series["standard error / size of the map"]
    assert curve[-1] == pytest.approx(curve[199] / 2, rel=0.2)


def test_reference_images_are_where_paths_start():
    image, target = noise((14, 15), 2), everywhere((14, 15))
    others = tuple(noise((14, 15), 2, seed=s) for s in (5, 6, 7))
    module = Linear(2, 3)
    model = wrap(module, channels=2, classes=("a", "b", "c"))
    answer = explain("gradient-shap", image, model, target, reference=others, samples=600)
    mean = torch.stack([as_input(o)[0] for o in others]).mean(0)
    x = as_input(image).requires_grad_(True)
    (gradient,) = torch.autograd.grad(scored(module, target)(x).sum(), x)
    expected = (gradient[0] * (x[0] - mean)).sum(0).detach().numpy()
    error = answer["standard error"].data
    assert (np.abs(answer.map.data - expected) < 4.5 * error + 1e-6).all()
    starts = [float(scored(module, target)(as_input(o)).detach()) for o in others]
    assert value(answer, "score of 3 reference images") == pytest.approx(np.mean(starts), rel=1e-4)
    with pytest.raises(ImageMismatch, match="20×15"):
        explain("gradient-shap", image, model, target, reference=(noise((20, 15), 2),))


def test_a_random_fill_is_drawn_several_times():
    case = resolve(noise((14, 15)), model_of(Sites()), everywhere((14, 15)), Run(seed=3))
    starts = GradientSHAP(fill="noise").copies(case).starts
    assert len(starts) > 4
    assert float((starts[0] - starts[1]).abs().max()) > 0.1
    answer = explain("gradient-shap", noise((14, 15)), model_of(Sites()), everywhere((14, 15)), fill="noise", samples=9)
    assert f"{len(starts)} images filled by noise" in answer.text
    again = GradientSHAP(fill="noise").copies(case).starts
    torch.testing.assert_close(starts, again, rtol=0, atol=0)


def test_noise_on_the_paths_is_said_to_loosen_the_sum():
    image, target, model = noise((14, 15)), everywhere((14, 15)), model_of(Sites())
    texts = [explain("gradient-shap", image, model, target, samples=9, spread=s).text for s in (0.0, 0.1)]
    assert ["approximate" in text for text in texts] == [False, True]


def test_stops_when_it_is_sure_enough_whatever_the_batch():
    image, target, model = noise((14, 15)), everywhere((14, 15)), model_of(Sites())
    counts = set()
    for batch in (1, 7):
        answer = explain("gradient-shap", image, model, target, samples=400, stop=0.1, run=Run(batch=batch))
        curve = answer.figures[0].series["standard error / size of the map"]
        assert curve[-1] < 0.1
        counts.add(len(curve))
    assert len(counts) == 1
    assert counts.pop() < 400
