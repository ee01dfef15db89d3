"""Smooth U-Noise: γ = 0 is U-Noise to the last bit, variation falls with γ, and a checkerboard loses fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hand import Deep, small_image, wrap
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine import artefacts, optimise
from seglens.engine.resolve import resolve
from seglens.methods.perturbation._noise import NoiseLoss, edges, variation
from seglens.methods.perturbation.smooth_u_noise import SmoothUNoise
from seglens.methods.perturbation.u_noise import UNoise
from seglens.session import explain

LADDER = (0.0, 1e-5, 1e-4, 1e-3)
QUICK = {"steps": 60, "rate": 0.02, "weight": 0.3, "batch": 1, "flips": False, "keep": "image"}


@pytest.fixture(autouse=True)
def _untrained(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLENS_HOME", str(tmp_path))
    artefacts.clear()


def ask(method, seed=0):
    mask = np.zeros((24, 27), bool)
    mask[6:16, 5:17] = True
    target = Target("cell", Painted(mask))
    return explain(method, small_image(side=24), wrap(Deep(seed=2)), target, run=Run(seed=seed))


def total_variation(values):
    return sum(np.abs(np.diff(values, axis=axis)).mean() for axis in range(values.ndim))


def test_without_smoothing_it_is_u_noise_to_the_last_bit():
    one, other = ask(UNoise(**QUICK)), ask(SmoothUNoise(**QUICK, smoothness=0))
    for a, b in zip(one.layers, other.layers, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    assert one.tables[0].columns == other.tables[0].columns
    assert not np.array_equal(one.map.data, ask(SmoothUNoise(**QUICK, smoothness=1)).map.data)


@pytest.mark.parametrize("term", ["edges", "variation"])
def test_variation_falls_as_smoothing_grows_and_all_visible_stays_all_visible(term):
    answers = [ask(SmoothUNoise(**QUICK, smoothness=s, term=term, tau=1.0)) for s in (0.0, 0.03, 0.1, 0.3)]
    falls = [total_variation(answer.map.data) for answer in answers]
    assert falls == sorted(falls, reverse=True)
    assert falls[-1] < 0.5 * falls[0]
    assert all(answer.tables[0].columns["Dice"][-1] == 1.0 for answer in answers)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_term_is_that_of_a_plain_loop(dims):
    generator = torch.Generator().manual_seed(0)
    space = (3, 4, 5)[-dims:]
    b = torch.rand(2, 1, *space, generator=generator)
    x = torch.rand(2, 3, *space, generator=generator)
    plain = flat = 0.0
    for n in range(2):
        for at in np.ndindex(space):
            for axis in range(dims):
                for step in (-1, 1):
                    q = tuple(p + step * (a == axis) for a, p in enumerate(at))
                    if all(0 <= i < size for i, size in zip(q, space, strict=True)):
                        jump = abs(float(b[n, 0][at] - b[n, 0][q]))
                        far = float(((x[(n, slice(None), *at)] - x[(n, slice(None), *q)]) ** 2).sum())
                        plain += np.exp(-far / 0.3) * jump
                        flat += jump
    assert float(edges(0.3)(b, x)) == pytest.approx(plain / b.numel(), rel=1e-4)
    assert float(variation(b, x)) == pytest.approx(flat / b.numel(), rel=1e-4)


def optimum(sensitivity, smoothness):
    """B and the loss without its smoothing term, for a quadratic utility and a free B per pixel."""
    leaf = torch.zeros(1, 1, *sensitivity.shape, requires_grad=True)
    x = torch.zeros(1, 1, *sensitivity.shape)

    def utility(noisy):
        return ((sensitivity * noisy) ** 2).mean()

    def total(term):
        return NoiseLoss(1, 5, 0.001, term)(leaf, x, torch.ones_like(x), torch.ones(()), utility)

    term = None if smoothness == 0 else lambda b, x: smoothness * variation(b, x)
    mask = np.zeros((24, 27), bool)
    mask[5, 5] = True
    case = resolve(small_image(side=24), wrap(Deep()), Target("cell", Painted(mask)), Run())
    walk = optimise.descend(case, torch.optim.Adam([leaf], lr=0.05), lambda a, b: total(term).reshape(1), steps=400)
    for _ in walk:
        pass
    return torch.sigmoid(leaf).detach()[0, 0], float(total(None).detach())


def test_a_checkerboard_of_evidence_loses_fidelity_to_smoothing():
    rows, columns = np.indices((8, 8))
    board = torch.tensor(np.where((rows + columns) % 2, 0.1, 0.01), dtype=torch.float32)
    found = [optimum(board, smoothness) for smoothness in LADDER]
    # the loss that is left without the term itself can only grow
    losses = [loss for _, loss in found]
    assert losses[0] < losses[2] <= losses[3] + 1e-6
    # and the evidence fades: what is needed and what is not come to look alike
    contrast = [float(b[board < 0.05].mean() - b[board > 0.05].mean()) for b, _ in found]
    assert contrast[0] > 0.3
    assert contrast == sorted(contrast, reverse=True)
    assert contrast[-1] < 0.5 * contrast[0]
