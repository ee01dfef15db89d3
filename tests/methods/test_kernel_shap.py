"""Kernel SHAP: the tests of its card (A/A4), the definition by brute force, and a peer."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from captum.attr import KernelShap as CaptumKernelShap
from captum.attr import ShapleyValues

from hand import Context, Deep, Linear, cell_target, context_image, small_image, wrap
from seglens.core.errors import BadParameter
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.methods.perturbation import _shapley
from seglens.methods.perturbation._course import ShapleyCourse
from seglens.session import explain


def dice(seed=0):
    return torch.Generator().manual_seed(seed)


class Products:
    """A game that is a sum of products; the Shapley value shares each product among its players."""

    def __init__(self, players, orders, seed=0, each=40):
        rng = np.random.default_rng(seed)
        self.players = players
        self.terms = [(rng.permutation(players)[:order], rng.normal()) for order in orders for _ in range(each)]
        self.truth = torch.zeros(players, dtype=torch.float64)
        for members, strength in self.terms:
            self.truth[members.tolist()] += strength / len(members)

    def __call__(self, coalitions):
        z = coalitions.numpy()
        return torch.from_numpy(sum(c * z[:, t].all(1) for t, c in self.terms).astype(float))

    @property
    def total(self):
        return float(sum(c for _, c in self.terms))

    def error(self, values):
        return float((values - self.truth).abs().max())


def gaussian(game, rows):
    return _shapley.gaussian_process(rows, game(rows) - game(1 - rows), game.total)


def regression(game, rows):
    gains = game(rows) - game(1 - rows)
    return _shapley.least_squares(2 * rows - 1, gains, game.total, _shapley.kernel_weights(rows))


both = pytest.mark.parametrize("solve", [gaussian, regression])


@both
def test_additive_game_is_exact_for_any_full_rank_design(solve):
    game = Products(16, [1])
    for seed in range(3):
        rows = (torch.rand(40, 16, generator=dice(seed)) < 0.5).double()
        assert game.error(solve(game, rows).values) < 1e-6


@both
@pytest.mark.parametrize("players", [4, 7, 64])
def test_quadratic_game_is_exact_from_pairs(solve, players):
    game = Products(players, [1, 2])
    rows = _shapley.pairs(players, players + 8, dice())
    solved = solve(game, rows)
    assert game.error(solved.values) < 1e-6
    assert float(solved.errors.max()) < 1e-3


def test_quadratic_game_is_not_exact_from_single_coalitions():
    """The control: as many copies, the same weights, no pairs."""
    game = Products(64, [1, 2])
    rows = _shapley.pairs(64, 144, dice())
    flip = torch.rand(len(rows), 1, generator=dice(1)) < 0.5
    rows = torch.where(flip, 1 - rows, rows)
    solved = _shapley.least_squares(rows, game(rows), game.total, _shapley.kernel_weights(rows))
    assert game.error(solved.values) > 0.1


@both
def test_cubic_game_converges(solve):
    game = Products(24, [1, 2, 3])
    errors = [np.mean([game.error(solve(game, _shapley.pairs(24, n, dice(s))).values) for s in range(4)])
              for n in (48, 192, 768)]  # fmt: skip
    assert errors[0] > 1.5 * errors[1] > 2.25 * errors[2]


@both
def test_values_add_up(solve):
    game = Products(20, [1, 3, 5])
    solved = solve(game, _shapley.pairs(20, 60, dice()))
    assert float(solved.values.sum()) == pytest.approx(game.total, abs=1e-9)


def test_gaussian_process_needs_half_the_samples():
    errors = {}
    for solve in (gaussian, regression):
        for count in (100, 200):
            made = [
                (solve(game, _shapley.pairs(64, count, dice(seed))).values - game.truth).square().mean().sqrt()
                for seed in range(3)
                for game in (Products(64, [1, 2, 3, 4, 5], seed),)
            ]
            errors[solve, count] = float(np.mean(made))
    assert errors[gaussian, 100] < 0.8 * errors[regression, 100]
    assert errors[gaussian, 200] < 0.9 * errors[regression, 200]


@both
def test_standard_errors_are_as_large_as_the_errors(solve):
    ratios = []
    for seed in range(6):
        game = Products(30, [1, 2, 3, 5], seed)
        solved = solve(game, _shapley.pairs(30, 90, dice(seed)))
        real = (solved.values - game.truth).square().mean().sqrt()
        ratios.append(float(real / solved.errors.square().mean().sqrt()))
    assert 0.6 < np.mean(ratios) < 1.6


def test_exact_is_the_mean_over_all_orders():
    players, rng = 5, np.random.default_rng(3)
    worth = rng.normal(size=2**players)
    truth, orders = np.zeros(players), list(permutations(range(players)))
    for order in orders:
        seen = 0
        for player in order:
            truth[player] += worth[seen | 1 << player] - worth[seen]
            seen |= 1 << player
    made = _shapley.exact(_shapley.every(players), torch.from_numpy(worth))
    np.testing.assert_allclose(made, truth / len(orders), atol=1e-12)


@both
def test_all_pairs_give_the_definition(solve):
    """Full enumeration with the kernel's weights is the Shapley value, not only near to it."""
    players = 5
    worth = torch.from_numpy(np.random.default_rng(1).normal(size=2**players))
    powers = 2.0 ** torch.arange(players, dtype=torch.float64)

    def game(z):
        return worth[(z @ powers).long()]

    game.total = float(worth[-1] - worth[0])
    rows = _shapley.pairs(players, 1000, dice())
    truth = _shapley.exact(_shapley.every(players), worth)
    assert len(rows) == 2 ** (players - 1) - 1
    np.testing.assert_allclose(solve(game, rows).values, truth, atol=1e-6)


@pytest.mark.parametrize(("players", "count"), [(1, 4), (2, 4), (3, 9), (8, 40), (12, 2000), (12, 3000), (65, 300)])
def test_no_coalition_is_drawn_twice(players, count):
    rows = _shapley.pairs(players, count, dice())
    assert len(rows) == min(count, 2 ** (players - 1) - 1)
    all_of_them = torch.cat([rows, 1 - rows])
    assert len(torch.unique(all_of_them, dim=0)) == 2 * len(rows)
    assert not len(rows) or (rows.sum(1) > 0).all() & (rows.sum(1) < players).all()


def test_symmetric_players_get_the_same_and_dummies_nothing():
    def game(z):
        return torch.tanh(2 * z[:, 0] + 2 * z[:, 1] + z[:, 2] - 2 * z[:, 0] * z[:, 3])

    everyone = _shapley.every(5)
    values = _shapley.exact(everyone, game(everyone))
    assert values[4] == pytest.approx(0, abs=1e-12)
    swapped = everyone[:, [2, 1, 0, 3, 4]]
    assert _shapley.exact(everyone, game(swapped))[2] == pytest.approx(float(values[0]))

    def alike(z):
        return z.sum(1).sqrt()

    np.testing.assert_allclose(_shapley.exact(everyone, alike(everyone)), 5**0.5 / 5, atol=1e-12)


def net(dims=2, channels=2):
    model = wrap(Deep(channels, 3, dims=dims, seed=2), channels=channels, classes=("a", "b", "c"), dims=dims)
    image = small_image(channels, dims=dims, side=12)
    mask = np.zeros(image.shape[1:], bool)
    mask[tuple(slice(2, 6) for _ in mask.shape)] = True
    return model, image, mask


@pytest.mark.parametrize(("dims", "pieces"), [(2, 6), (3, 3)])
def test_agrees_with_captum(dims, pieces):
    model, image, mask = net(dims)
    target = Target("b", Painted(mask), reduction="sum")
    answer = explain("kernel-shap", image, model, target, units="grid", pieces=pieces, fill="black")
    labels = answer["units"].data
    assert "Exact" in answer.text
    assert 1 < labels.max() < 7  # captum's exact values take M! orders
    x = torch.from_numpy(image.read("C" + image.axes[1:]))[None]
    inside = torch.from_numpy(mask)

    def score(z):
        return (model.module(z)[:, 1] * inside).flatten(1).sum(1)

    # what lies outside every unit is one more feature for captum, and must get nothing
    feature = torch.unique(torch.from_numpy(labels.astype(np.int64)), return_inverse=True)[1][None, None]
    with torch.no_grad():
        theirs = ShapleyValues(score).attribute(x, feature_mask=feature)[0, 0].numpy()
        sampled = CaptumKernelShap(score).attribute(x, feature_mask=feature, n_samples=300)[0, 0].numpy()
    np.testing.assert_allclose(answer.map.data, theirs, atol=2e-4)
    assert np.corrcoef(answer.map.data.ravel(), sampled.ravel())[0, 1] > 0.98


def test_linear_network_gives_each_unit_its_sum():
    """Few samples, each solver: weight times what was replaced, in closed form."""
    module = Linear(2, 2)
    image = small_image(2)
    mask = np.zeros((24, 27), bool)
    mask[5:12, 6:15] = True
    x = torch.from_numpy(image.read("CYX"))[None].requires_grad_()
    (module(x)[:, 1] * torch.from_numpy(mask)).sum().backward()
    change = (x.grad * x).detach()[0].sum(0).double()
    for solver in ("gaussian-process", "least-squares"):
        answer = explain(
            "kernel-shap", image, wrap(module, channels=2), Target(1, Painted(mask), reduction="sum"),
            units="grid", pieces=20, fill="black", samples=60, solver=solver,
        )  # fmt: skip
        for row in answer.tables[0].rows():
            own = answer["units"].data == row["unit"]
            assert row["Shapley value"] == pytest.approx(float(change[own].sum()), abs=2e-4)


def test_sum_is_what_the_units_bring():
    image, cell, _ = context_image()
    model = wrap(Context(), classes=("background", "healthy", "infected"))
    answer = explain("kernel-shap", image, model, cell_target(cell), samples=200)
    total = sum(answer.tables[0].columns["Shapley value"])
    told = float(answer.text.partition("F(fill)")[2].split(" = ")[2].split(". ")[0])
    assert total == pytest.approx(told, rel=1e-3)
    assert answer["standard error"].data.min() >= 0


def test_channels_are_shared_among():
    model, image, mask = net()
    target = Target("b", Painted(mask))
    answer = explain("kernel-shap", image, model, target, units="channels", fill="black")
    zero = torch.zeros(1, 2, *mask.shape)
    x = torch.from_numpy(image.read("CYX"))[None]

    def score(*kept):
        z = zero.clone()
        z[:, list(kept)] = x[:, list(kept)]
        with torch.no_grad():
            return float(model.module(z)[0, 1][torch.from_numpy(mask)].mean())

    first = (score(0) - score() + score(0, 1) - score(1)) / 2
    rows = answer.tables[0].rows()
    assert [r["name"] for r in rows] == ["channel 0", "channel 1"]
    assert rows[0]["Shapley value"] == pytest.approx(first, abs=1e-5)
    assert sum(r["Shapley value"] for r in rows) == pytest.approx(score(0, 1) - score(), abs=1e-5)
    assert answer.record.cost["forwards of a plain loop"] == 3


def test_objects_that_the_target_cannot_see_are_no_units():
    image, cell, _ = context_image()
    model = wrap(Context(), classes=("background", "healthy", "infected"))
    answer = explain("kernel-shap", image, model, cell_target(cell), units="objects", fill="black")
    rows = answer.tables[0].rows()
    values = {r["name"]: r["Shapley value"] for r in rows}
    best = max(values, key=values.get)
    assert len(rows) < 6
    assert values[best] > 1
    assert all(abs(v) < 1e-4 for name, v in values.items() if name != best)
    marker = answer["units"].data == next(r["unit"] for r in rows if r["name"] == best)
    assert marker[13, 23]


def test_tolerance_stops_early_and_at_the_same_place_for_any_batch():
    image, cell, _ = context_image()
    model = wrap(Context(), classes=("background", "healthy", "infected"))
    made = []
    for batch in (1, 32):
        run = Run(batch=batch)
        options = {"pieces": 30, "samples": 1000, "tolerance": 0.02}
        made.append(explain("kernel-shap", image, model, cell_target(cell), run=run, **options))
        assert run.cost.forwards < 500
    assert "Stopped after" in made[0].text
    np.testing.assert_allclose(made[0].map.data, made[1].map.data, atol=1e-5)
    error, total = made[0].figures[1].series["largest standard error"], made[0].tables[0].columns["Shapley value"]
    assert error[-1] <= 0.02 * abs(sum(total)) < error[-2]


def test_partial_answers_add_up():
    seen = []
    image, cell, _ = context_image()
    model = wrap(Context(), classes=("background", "healthy", "infected"))
    run = Run(batch=8, on_partial=seen.append)
    run._shown = -100.0
    final = explain("kernel-shap", image, model, cell_target(cell), run=run, pieces=30, samples=120)
    sums = [sum(e.tables[0].columns["Shapley value"]) for e in (*seen, final)]
    assert seen
    np.testing.assert_allclose(sums, sums[-1], rtol=1e-6)


def test_course_waits_for_whole_pairs():
    course = ShapleyCourse(_shapley.pairs(20, 30, dice()), 1.0, "gaussian-process", None)
    scores = torch.rand(61, generator=dice()).double()
    course.feed(torch.arange(0, 16), scores[:16])
    assert not course.ready
    course.feed(torch.arange(16, 17), scores[16:17])
    assert course.ready
    assert course.scored == 17


def test_least_squares_refuses_too_few_samples():
    image, cell, _ = context_image()
    model = wrap(Context(), classes=("background", "healthy", "infected"))
    with pytest.raises(BadParameter) as caught:
        explain("kernel-shap", image, model, cell_target(cell), samples=20, pieces=60, solver="least-squares")
    assert "gaussian-process" in caught.value.fix
