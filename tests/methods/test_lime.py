"""LIME: the tests of its card (A/A3), scikit-learn and Captum as peers, and what must be said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum._utils.models.linear_model import SkLearnRidge
from captum.attr import LimeBase
from skimage import data
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import pairwise_distances

from hand import Constant, Context, Linear, cell_target, context_image, small_image, wrap
from seglens.core import run as runs
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.resolve import resolve
from seglens.methods.perturbation._estimators import fit, nearness
from seglens.session import explain

INFECTED = ("background", "healthy", "infected")


def coins(samples, units, seed=0):
    design = torch.randint(2, (samples, units), generator=torch.Generator().manual_seed(seed)).double()
    design[0] = 1
    return design


def curved(design):
    """A game that bends: what is near the whole image matters for the line through it."""
    return torch.exp(3 * design.mean(1)) + 2 * design[:, 0] * design[:, 1] - design[:, 2] * design[:, 3:].sum(1)


def test_additive_game_gives_its_contributions():
    truth = torch.randn(30, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    design = coins(1000, 30)
    scores, weights = design @ truth + 5, nearness(design, 0.25)
    exact, r2 = fit(design, scores, weights, 1e-9)
    np.testing.assert_allclose(exact, truth, atol=2e-8)
    assert r2 == pytest.approx(1)
    ridge, _ = fit(design, scores, weights, 1.0)
    assert float(ridge @ truth / (truth @ truth)) == pytest.approx(0.992, abs=0.003)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 30.0])
def test_fit_is_that_of_scikit_learn(alpha):
    design = coins(300, 12)
    scores, weights = curved(design), nearness(design, 0.25)
    ours, r2 = fit(design, scores, weights, alpha)
    theirs = (Ridge(alpha) if alpha else LinearRegression()).fit(design, scores, weights)
    np.testing.assert_allclose(ours, theirs.coef_, rtol=1e-8, atol=1e-10)
    assert r2 == pytest.approx(theirs.score(design, scores, weights))


@pytest.mark.parametrize("width", [0.1, 0.25, 1.0])
def test_kernel_is_the_root_of_a_gaussian_of_the_cosine_distance(width):
    design = coins(200, 9)
    design[7] = 0
    distance = pairwise_distances(design, np.ones((1, 9)), metric="cosine").ravel()
    np.testing.assert_allclose(nearness(design, width), np.sqrt(np.exp(-(distance**2) / width**2)), atol=1e-12)


def test_a_wrong_kernel_would_be_noticed_on_a_game_that_bends():
    """Without the root, or with another distance, an additive game would come out right all the same."""
    design = coins(1000, 8)
    scores = curved(design)
    ours, _ = fit(design, scores, nearness(design, 0.25), 1e-9)

    def direct(weights):
        root = np.sqrt(weights)[:, None]
        rows = np.column_stack([np.ones(len(design)), design])
        return np.linalg.lstsq(rows * root, scores.numpy() * root[:, 0], rcond=None)[0][1:]

    cosine = pairwise_distances(design, np.ones((1, 8)), metric="cosine").ravel()
    euclid = pairwise_distances(design, np.ones((1, 8))).ravel()
    np.testing.assert_allclose(ours, direct(np.exp(-(cosine**2) / 0.0625) ** 0.5), atol=1e-7)
    wrong = (np.exp(-(cosine**2) / 0.0625), np.exp(-(euclid**2) / 0.0625) ** 0.5, np.ones(len(design)))
    for weights in wrong:
        assert np.abs(ours.numpy() - direct(weights)).max() > 0.05


def test_agrees_with_captum():
    design = coins(120, 6)
    rows = iter(design.float())

    def similar(_original, _perturbed, row, **_kwargs):
        distance = pairwise_distances(row, np.ones((1, 6)), metric="cosine").item()
        return np.exp(-(distance**2) / 0.0625) ** 0.5

    captum = LimeBase(
        lambda x: curved(x.double()), SkLearnRidge(alpha=1.0), similar, lambda *_a, **_k: next(rows)[None], True,
        lambda row, *_a, **_k: row, lambda *_a, **_k: None,
    )  # fmt: skip
    theirs = captum.attribute(torch.ones(1, 6), n_samples=120)[0]
    ours, _ = fit(design, curved(design), nearness(design, 0.25), 1.0)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_linear_model_in_closed_form():
    model = wrap(Linear(1, 2, width=3))
    image = small_image()
    mask = np.zeros((24, 27), bool)
    mask[6:18, 6:20] = True
    target = Target(1, Painted(mask), reduction="sum")
    answer = explain("lime", image, model, target, samples=200, pieces=20, ridge=1e-6)
    case = resolve(image, model, target, Run())
    units = case.units("superpixels", 20)
    weight = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(mask).float()[None, None], model.module.conv.weight[1:2].detach(), padding=1
    )
    part = (weight * (case.x - case.fill("unit-mean", units=units)))[0, 0].double().flatten()
    inside = units.labels.flatten() >= 0
    owed = torch.zeros(len(units), dtype=torch.float64)
    owed.index_add_(0, units.labels.flatten()[inside], part[inside])
    assert float(part[~inside].abs().max()) < 1e-6
    np.testing.assert_allclose(answer.tables[0].columns["weight"], owed, atol=1e-4)
    shown = answer["units"].data
    for number, value in zip(answer.tables[0].columns["unit"], owed.tolist(), strict=True):
        np.testing.assert_allclose(answer.map.data[shown == number], value, atol=1e-4)
    assert not answer.map.data[shown == 0].any()
    assert "fits with a weighted R² of 1.00" in answer.text


class Wave(torch.nn.Module):
    """No line fits this: the class comes and goes with the light."""

    def forward(self, x):
        wave = torch.cos(60 * x.mean((2, 3), keepdim=True)).expand_as(x)
        return torch.cat([torch.zeros_like(wave), wave], 1)


def test_a_line_that_does_not_fit_is_not_to_be_trusted():
    image, cell, _ = context_image()
    answer = explain("lime", image, wrap(Wave()), Target(1, Painted(cell)), pieces=20, fill="white")
    assert "does not fit" in answer.text
    assert "do not trust" in answer.text
    assert answer.map.data.any()


def test_too_few_samples_say_so_and_a_flat_target_too():
    image, cell, _ = context_image()
    model = wrap(Context(), classes=INFECTED)
    answer = explain("lime", image, model, cell_target(cell), samples=40, pieces=40, fill="mean")
    assert "too few for" in answer.text
    answer = explain("lime", image, wrap(Constant()), Target(1, Painted(cell)), samples=60, pieces=10)
    assert "Nothing that was taken away changes the target" in answer.text
    assert not answer.map.data.any()


def test_deviation_is_how_much_weights_of_other_seeds_differ():
    image, cell, _ = context_image()
    model = wrap(Context(), classes=INFECTED)
    target = Target("infected", Painted(cell), value="probability")
    weights, deviations = [], []
    for seed in range(10):
        answer = explain("lime", image, model, target, run=Run(seed=seed), samples=200, pieces=40, fill="mean")
        weights.append(answer.tables[0].columns["weight"])
        deviations.append(answer.tables[0].columns["deviation"])
    ratio = np.mean(deviations) / np.std(weights, 0, ddof=1).mean()
    assert 0.6 < ratio < 1.7


@pytest.mark.parametrize("fill", ["unit-mean", "mean"])
def test_channels_have_no_place_but_an_effect(fill):
    model = wrap(Linear(3, 2), channels=3)
    image = small_image(3)
    target = Target(1, Painted(np.ones((24, 27), bool)))
    answer = explain("lime", image, model, target, units="channels", fill=fill, samples=64)
    weights = answer.tables[0].columns["weight"]
    assert answer.tables[0].columns["name"] == list(model.spec.channels)
    most = int(np.abs(weights).argmax())
    assert answer.map.name == f"drop of logit without channel {most}"
    x = torch.from_numpy(image.read("CYX"))[None]
    without = x.clone()
    without[:, most] = x[:, most].mean()
    with torch.no_grad():
        expected = (model.module(x) - model.module(without))[0, 1]
    np.testing.assert_allclose(answer.map.data, expected, atol=1e-5)
    assert answer.figures[0].x[0] == f"channel {most}"
    assert [layer.kind for layer in answer.layers] == ["signed"]


def test_own_mean_leaves_an_even_colour_and_another_fill_does_not():
    image, cell, zone = context_image()
    model = wrap(Context(), classes=INFECTED)
    kept = explain("lime", image, model, cell_target(cell), samples=300, pieces=48)
    taken = explain("lime", image, model, cell_target(cell), samples=300, pieces=48, fill="mean")
    assert np.abs(kept.map.data).max() < 0.2 * taken.map.data.max()
    assert zone[np.unravel_index(taken.map.data.argmax(), zone.shape)]
    assert "even colour" in kept.text
    assert "even colour" not in taken.text


def test_superpixels_of_a_colour_image_are_as_many_as_asked_for():
    pixels = data.immunohistochemistry()[:80, :80]
    case = resolve(Image(pixels, "YXC"), wrap(Linear(3, 2), channels=3), Target(1, Painted(np.ones((80, 80), bool))),
                   Run(plain=True))  # fmt: skip
    assert 30 <= len(case.units("superpixels", 60)) <= 90


def test_tells_what_it_has_so_far(monkeypatch):
    monkeypatch.setattr(runs, "PAUSE", 0.0)
    shown = []
    image, cell, _ = context_image()
    run = Run(batch=100, on_partial=shown.append)
    model = wrap(Context(), classes=INFECTED)
    last = explain("lime", image, model, cell_target(cell), run=run, samples=400, pieces=48, fill="mean")
    assert [f"{n} samples" in s.text for n, s in zip((100, 200, 300, 400), shown, strict=True)] == [True] * 4
    assert np.corrcoef(shown[1].map.data.ravel(), last.map.data.ravel())[0, 1] > 0.8
