"""Sobol indices: the tests of its card (A/A6), scipy as a peer, and what must be said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import qmc, sobol_indices, spearmanr

import seglens
from hand import Context, Linear, Threshold, cell_target, context_image, small_image, wrap
from seglens.core import run as runs
from seglens.core.errors import BadParameter
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.resolve import resolve
from seglens.methods.perturbation._designs import Exchanged
from seglens.methods.perturbation._estimators import shares
from seglens.session import explain

INFECTED = ("background", "healthy", "infected")


def played(game, d, points, seed=0):
    """Scores (N, d + 2) of a game on rows of what is kept."""
    sequence = torch.from_numpy(qmc.Sobol(2 * d, seed=seed).random(points))
    design = Exchanged(torch.zeros(1, 1, 1, dtype=torch.long), sequence[:, :d], sequence[:, d:])
    return game(design.rows(0, len(design))).reshape(points, d + 2)


@pytest.mark.parametrize(("points", "worst"), [(64, 0.03), (256, 0.01)])
def test_linear_game_gives_the_share_of_squares(points, worst):
    w = torch.randn(64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    total, first, *_ = shares(played(lambda m: m @ w + 3, 64, points))
    expected = w**2 / (w**2).sum()
    assert float((total - expected).abs().max()) < worst
    assert spearmanr(total, expected).statistic > 0.99
    assert float(total.sum()) == pytest.approx(1, abs=0.25)
    assert first.shape == total.shape


def test_product_game_counts_the_interaction():
    """First-order indices are 3/7: whoever returns them as total fails here."""
    total, first, *_ = shares(played(lambda m: m[:, 0] * m[:, 1], 2, 1024))
    np.testing.assert_allclose(total, [4 / 7, 4 / 7], atol=0.02)
    np.testing.assert_allclose(first, [3 / 7, 3 / 7], atol=0.03)


def test_standard_error_is_how_much_other_points_differ():
    w = torch.tensor([3.0, 2.0, 1.0, 0.5], dtype=torch.float64)
    found = [shares(played(lambda m: torch.exp(m @ w / 3), 4, 64, seed)) for seed in range(60)]
    between = torch.stack([f.total for f in found]).std(0)
    claimed = torch.stack([f.error for f in found]).mean(0)
    # low-discrepancy points differ less than chance would have it, never much more
    assert bool((claimed > 0.8 * between).all())
    assert bool((claimed < 6 * between).all())
    assert np.mean([f.sum_error for f in found]) > 0.8 * np.std([float(f.total.sum()) for f in found])


def test_agrees_with_scipy_on_the_same_evaluations():
    def game(m):
        return torch.sin(3 * m[:, 0]) + 2 * m[:, 1] * m[:, 2] + m[:, 3] ** 2

    scores = played(game, 5, 128)
    total, *_ = shares(scores)
    a, b, exchanged = scores[:, 0].numpy(), scores[:, 1].numpy(), scores[:, 2:].T.numpy()
    theirs = sobol_indices(func={"f_A": a[None], "f_B": b[None], "f_AB": exchanged[:, None]}, n=128)
    # scipy takes the variance of A and B together, the card that of A
    variance = np.concatenate([a, b]).var() / a.var(ddof=1)
    np.testing.assert_allclose(total, theirs.total_order.ravel() * variance, rtol=1e-10, atol=1e-12)


def test_rows_are_points_with_one_coordinate_exchanged_at_a_time():
    a, b = torch.rand(4, 3), torch.rand(4, 3)
    design = Exchanged(torch.tensor([[[0, 1, 2, -1]]]), a, b)
    assert len(design) == 4 * 5
    for j in range(4):
        expected = [a[j], b[j], *(torch.where(torch.arange(3) == i, b[j], a[j]) for i in range(3))]
        assert torch.equal(design.rows(5 * j, 5 * j + 5), torch.stack(expected))
    assert torch.equal(design.batch(7, 9)[:, 0, 0, :3], design.rows(7, 9))
    assert bool((design.batch(0, 20)[..., 3] == 1).all())
    cut = design.within((slice(0, 1), slice(1, 3)))
    assert torch.equal(cut.batch(3, 9), design.batch(3, 9)[..., 1:3])


def test_linear_model_in_closed_form():
    model = wrap(Linear(1, 2, width=3))
    image = small_image()
    mask = np.zeros((24, 27), bool)
    mask[1:-1, 1:-1] = True  # sees all of the image
    target = Target(1, Painted(mask), reduction="sum")
    run = Run(plain=True)
    answer = explain("sobol", image, model, target, run=run, points=128, cells=4)
    case = resolve(image, model, target, Run(plain=True))
    units = case.units("grid", 16)
    weight = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(mask).float()[None, None], model.module.conv.weight[1:2].detach(), padding=1
    )
    part = (weight * (case.x - case.x.mean()))[0, 0].double().flatten()
    moved = torch.zeros(len(units), dtype=torch.float64).index_add_(0, units.labels.flatten(), part)
    design = seglens.METHODS["sobol"](points=128, cells=4).copies(case).masks
    drawn = moved**2 * (design.a - design.b).square().mean(0) / 2 / (design.a @ moved).var()
    np.testing.assert_allclose(answer.tables[0].columns["total share"], drawn, rtol=1e-4, atol=1e-6)
    expected = moved**2 / (moved**2).sum()
    error = np.array(answer.tables[0].columns["standard error"])
    assert ((drawn - expected).abs().numpy() < 3.5 * error + 1e-4).all()
    assert error.max() < 0.1
    assert run.cost.forwards == 128 * (len(units) + 2) + 1  # the clean image


def test_a_target_that_is_saturated_is_called_insensitive():
    data = np.full((16, 16), 0.9, np.float32)
    data[0, 0] = 0.8
    target = Target(1, value="probability")
    answer = explain("sobol", Image(data, "YX"), wrap(Threshold(0.5, 300.0)), target, points=8, cells=3)
    assert not answer.map.data.any()
    assert "insensitive" in answer.text
    assert "sign" not in answer.text


class Quarters(torch.nn.Module):
    """Class 1 needs light in each quarter: the product of their means."""

    def forward(self, x):
        score = 9 * torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1).prod(1)
        score = score[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return torch.cat([torch.zeros_like(score), score], 1)


def test_says_that_cells_act_together_and_that_a_share_has_no_sign():
    pixels = np.ones((8, 8), np.float32)
    pixels[0, 0] = 0.9
    answer = explain("sobol", Image(pixels, "YX"), wrap(Quarters()), Target(1), points=512, cells=2, fill="black")
    table = answer.tables[0].columns
    whole = sum(table["total share"])
    expected = 4 * (1 / 12 / 27) / (1 / 81 - 1 / 256)
    assert whole == pytest.approx(expected, abs=0.1)
    assert f"add up to {whole:.2f} ±" in answer.text
    assert "cells act together" in answer.text
    assert "no sign" in answer.text
    assert sum(table["first-order share"]) < 1 < whole


def test_says_nothing_of_the_kind_where_cells_add_up():
    image, cell, zone = context_image()
    answer = explain("sobol", image, wrap(Context(), classes=INFECTED), cell_target(cell))
    assert "cells act together" not in answer.text
    assert answer.map.kind == "heat"
    assert answer.map.data[zone].sum() > 0.9 * answer.map.data.sum()
    shown = answer.figures[0].series["total share"]
    assert shown[0] == max(answer.tables[0].columns["total share"])


@pytest.mark.parametrize(("dims", "most"), [(2, 81), (3, 80)])
def test_cells_are_fewer_in_volumes(dims, most):
    image, cell, _ = context_image(dims)
    model = wrap(Context(dims=dims), dims=dims, classes=INFECTED)
    case = resolve(image, model, cell_target(cell), Run(plain=True))
    method = seglens.METHODS["sobol"]()
    _, forwards = method.passes(case)
    assert 32 * 34 < forwards <= 32 * (most + 2)


def test_tells_what_it_has_so_far(monkeypatch):
    monkeypatch.setattr(runs, "PAUSE", 0.0)
    shown = []
    image, cell, zone = context_image()
    run = Run(batch=60, on_partial=shown.append)
    explain("sobol", image, wrap(Context(), classes=INFECTED), cell_target(cell), run=run)
    assert len(shown) > 20
    assert "0 points" in shown[0].text
    half = shown[len(shown) // 2].map.data
    assert half[zone].sum() > 0.9 * half.sum() > 0


def test_only_powers_of_two():
    with pytest.raises(BadParameter) as caught:
        seglens.METHODS["sobol"](points=30)
    assert "32" in caught.value.fix
