"""Grid saliency: closed forms on linear context, baselines that imitate evidence, no context, CBD and CBL."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hand import Context, cell_target, context_image, wrap
from seglens.core.errors import Cancelled, ImageMismatch, NoSuchRegion
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine import optimise
from seglens.engine.resolve import resolve
from seglens.methods.perturbation.grid_saliency import GridSaliency
from seglens.session import explain

CLASSES = ("background", "healthy", "infected")
CONTRIBUTIONS = np.array([[0.5, 0.3], [0.08, 0.015]])
SIDE = 10  # two cells of 5 pixels along each axis, whose middle pixel has the value of the cell


class Sum(nn.Module):
    """Class 1 is, everywhere, the request pixel's share plus a weighted sum of the middles of four cells."""

    def __init__(self, contributions):
        """Fix the weights; the request pixel lies on no middle."""
        super().__init__()
        self.features = nn.Conv2d(1, 1, 1)
        weights = torch.zeros(SIDE, SIDE)
        weights[2::5, 2::5] = torch.as_tensor(contributions, dtype=torch.float32)
        weights[0, 0] = 1 - float(weights.sum())
        self.head = nn.Conv2d(1, 2, 1)
        self.register_buffer("weights", weights)

    def forward(self, x):
        """(N, 1, 10, 10) to (N, 2, 10, 10); the clean score is 1."""
        total = (x * self.weights).sum((1, 2, 3)).reshape(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])
        return torch.cat([torch.zeros_like(total), total], 1)


def linear(contributions, **parameters):
    pixels = np.ones((SIDE, SIDE), np.float32)
    pixels[9, 9] = 0  # an image that is not constant; no weight there
    request = np.zeros((SIDE, SIDE), bool)
    request[0, 0] = True
    method = GridSaliency(**{"cells": 2, "baseline": "0", "rate": 0.5, "steps": 400} | parameters)
    answer = explain(
        method, Image(pixels, "YX"), wrap(Sum(contributions), size=(SIDE, SIDE)), Target("cell", Painted(request))
    )
    return answer.map.data[2::5, 2::5], answer


@pytest.mark.parametrize("weight", [0.01, 0.05, 0.2, 0.4])
def test_a_cell_is_kept_if_and_only_if_it_gives_more_than_it_costs(weight):
    kept, _ = linear(CONTRIBUTIONS, weight=weight)
    np.testing.assert_allclose(kept, np.greater(CONTRIBUTIONS, weight), atol=0.02)


def test_nothing_is_needed_where_every_cell_costs_more_than_it_gives():
    kept, answer = linear(CONTRIBUTIONS, weight=0.6)
    assert not kept.any()
    assert answer.text.startswith("No context needed")


def test_a_negative_contributor_pays_for_a_cell_that_is_dropped():
    # hidden, the last cell gives back .2, so nothing of the .08 is missed: the hinge makes gains free
    kept, _ = linear(np.array([[0.5, 0.3], [0.08, -0.2]]), weight=0.02)
    without, _ = linear(np.array([[0.5, 0.3], [0.08, 0.0]]), weight=0.02)
    assert kept[1, 0] < 0.02
    assert without[1, 0] > 0.98
    assert kept[1, 1] < 0.02
    # an exact optimum: the loss of the best corner of the cube, found by trying all 16
    contributions = np.array([0.5, 0.3, 0.08, -0.2])
    corners = np.array(np.meshgrid(*[[0, 1]] * 4)).reshape(4, -1).T
    losses = np.maximum((contributions * (1 - corners)).sum(1), 0) + 0.02 * corners.sum(1)
    reached = np.maximum((contributions * (1 - kept.ravel())).sum(), 0) + 0.02 * kept.sum()
    assert reached <= losses.min() + 1e-3


def test_the_price_of_the_whole_mask_is_the_price_of_a_cell_times_their_number():
    by_cell, one = linear(CONTRIBUTIONS, weight=0.05, per="cell")
    by_mask, other = linear(CONTRIBUTIONS, weight=0.2, per="mask")
    np.testing.assert_array_equal(by_cell, by_mask)
    assert one.tables[0].columns["loss"] == other.tables[0].columns["loss"]


def test_noisy_copies_come_to_the_same_answer():
    kept, answer = linear(CONTRIBUTIONS, weight=0.05, copies=4, noise=0.05)
    np.testing.assert_allclose(kept, CONTRIBUTIONS > 0.05, atol=0.1)
    assert answer.record.cost["backwards"] == 4 * len(answer.figures[0].x)


def ask(method, module=None, **more):
    image, cell, _ = context_image()
    return explain(method, image, wrap(module or Context(), classes=CLASSES), cell_target(cell), **more)


def test_the_marker_is_the_context_that_is_needed():
    _, cell, zone = context_image()
    answer = ask("grid-saliency", annotation=zone)
    table = answer.tables[0].rows()
    shown = next(row for row in table if row["shown"] == "yes")
    assert shown["baseline"] == "mean"
    assert shown["CBL"] > 0.8
    assert 0 < shown["CBD"] < 0.2
    assert shown["score with it"] > 0.95 * 4.6
    assert shown["score without context"] == 0
    assert not answer.map.data[cell].any()
    assert (answer["labels with kept context"].data[cell] == answer["labels before"].data[cell]).all()
    assert len(answer.figures[0].series) == 6


def test_a_baseline_that_imitates_the_evidence_wins_by_the_published_rule_only():
    # white is more marker than any marker: without context the score rises, and nothing is needed
    published = ask(GridSaliency(baseline="lowest", steps=60))
    assert published.text.startswith("No context needed")
    assert next(r for r in published.tables[0].rows() if r["shown"] == "yes")["baseline"] == "1"
    assert ask(GridSaliency(baseline="mean")).text.startswith("Minimal context")


class Local(Context):
    """The same cells by their own brightness: nothing around counts."""

    def forward(self, x):
        """(N, 1, *space) to (N, 3, *space)."""
        own = 10 * (x - 0.4)
        return torch.cat([-own, torch.zeros_like(own), own], 1)


def test_without_use_of_context_none_is_needed():
    _, _, zone = context_image()
    answer = ask("grid-saliency", Local(), annotation=zone)
    assert answer.text.startswith("No context needed")
    assert not answer.map.data.any()
    assert answer.tables[0].columns["CBD"] == [0.0] * 6
    assert answer.record.cost["backwards"] == 0


def test_what_is_far_away_is_never_looked_at():
    answer = ask(GridSaliency(baseline="mean"))
    # the network sees 14 pixels around the cell: rows 8-14 to 18+14
    assert not answer.map.data[33:].any()
    assert answer.map.data.shape == (48, 56)


def test_probabilities_have_the_unit_one_and_logits_their_clean_score():
    image, cell, _ = context_image()
    target = Target("infected", Painted(cell), "probability")
    answer = explain(GridSaliency(baseline="0.75"), image, wrap(Context(), classes=CLASSES), target)
    assert "a loss of 1 is 1 of" in answer.text
    assert "a loss of 1 is 4.61 of" in ask(GridSaliency(baseline="0.75")).text


def test_what_cannot_be_asked_is_refused():
    image, _, _ = context_image()
    model = wrap(Context(), classes=CLASSES)
    with pytest.raises(NoSuchRegion, match="no context"):
        explain("grid-saliency", image, model, Target("infected", Painted(np.ones((48, 56), bool))))
    with pytest.raises(ImageMismatch, match="annotation"):
        ask("grid-saliency", annotation=np.ones((3, 3)))


def case_of(run=None):
    image, cell, _ = context_image()
    return resolve(image, wrap(Context(), classes=CLASSES), cell_target(cell), run or Run())


def test_descent_with_momentum_is_that_of_torch_and_keeps_the_best():
    start = torch.tensor([[3.0], [-2.0]])
    found = optimise.minimise(
        case_of(), start, lambda p, a, b: ((p[a:b, 0] - 1) ** 2), steps=7, rate=0.3, momentum=0.8,
        project=lambda p: p.clamp(-2.5, 2.5),
    )  # fmt: skip
    for row, value in enumerate(start[:, 0]):
        p, v, losses, seen = float(value), 0.0, [], []
        for _ in range(7):
            losses.append((p - 1) ** 2)
            seen.append(p)
            v = 0.8 * v + 2 * (p - 1)
            p = min(2.5, max(-2.5, p - 0.3 * v))
        np.testing.assert_allclose([h[row] for h in found.history], losses, rtol=1e-5)
        np.testing.assert_allclose(found.values[row, 0], seen[int(np.argmin(losses))], rtol=1e-5)


def test_chunks_do_not_change_a_descent():
    def loss(p, start, stop):
        return ((p[torch.arange(start, stop) // 2] - 1) ** 2).sum(1)

    one, eight = (
        optimise.minimise(case_of(Run(batch=batch)), torch.zeros(3, 2), loss, steps=5, rate=0.1, copies=2).values
        for batch in (1, 8)
    )
    torch.testing.assert_close(one, eight)
    assert (one > 0.5).all()


def test_a_descent_is_cancelled_within_a_chunk_and_counts_what_it_spends():
    run = Run(batch=1)
    case = case_of(run)
    run.cost.forwards = 0
    calls = []

    def loss(p, start, stop):
        calls.append(start)
        if len(calls) == 3:
            run.cancel()
        x = case.x + p[start:stop].reshape(-1, 1, 1, 1)
        return optimise.logits(case.model, x, run).flatten(1).sum(1)

    with pytest.raises(Cancelled):
        optimise.minimise(case, torch.zeros(2, 1), loss, steps=10, rate=0.1)
    assert calls == [0, 1, 0]
    assert run.cost.forwards == run.cost.backwards == 2
