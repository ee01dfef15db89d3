"""How alike two maps are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from seglens.engine.agreement import inside, rank_correlation, structure, top_overlap

BOTH = pytest.mark.parametrize("shape", [(17, 20), (4, 9, 8)])


def pair(shape):
    rng = np.random.default_rng(0)
    one = rng.random(shape)
    return one, one + rng.random(shape)


@BOTH
def test_a_map_agrees_with_itself(shape):
    one, _ = pair(shape)
    assert rank_correlation(one, one) == pytest.approx(1)
    assert structure(one, one) == pytest.approx(1)
    assert top_overlap(one, one, 0.2) == 1


@BOTH
def test_ranks_and_structure_do_not_see_a_scale(shape):
    one, other = pair(shape)
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    assert rank_correlation(one, -other) == pytest.approx(-rank_correlation(one, other))
    assert structure(one, 7 * other) == pytest.approx(structure(one, other))
    assert 0 < structure(one, other) < 1


@pytest.mark.parametrize(("shape", "axis"), [((2, 9, 8), 0), ((1, 9, 8), 0), ((9, 2, 8), 1), ((9, 8, 2), 2)])
def test_structure_of_a_thin_volume_is_the_mean_of_its_slices(shape, axis):
    one, other = (m / m.max() for m in pair(shape))
    slices = zip(*(np.moveaxis(m, axis, 0) for m in (one, other)), strict=True)
    plain = [structural_similarity(a, b, win_size=7, data_range=1.0) for a, b in slices]
    assert structure(one, other) == pytest.approx(np.mean(plain))
    assert structure(one, one) == pytest.approx(1)


def test_structure_of_a_map_of_a_few_pixels_is_a_number():
    one, other = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    assert structure(one, one) == pytest.approx(1)
    assert structure(one, other) < 0
    assert structure(*np.random.default_rng(0).random((2, 2, 1, 2))) < 1
    two, more = np.random.default_rng(0).random((2, 2, 30))
    assert structure(two, more) < 1


@pytest.mark.parametrize("level", [0.0, 1.0, np.linspace(1, 1 + 1e-8, 81).reshape(9, 9)])
def test_a_map_that_is_the_same_everywhere_agrees_and_disagrees_with_nothing(level):
    same, steps = np.zeros((9, 9)) + level, np.arange(81.0).reshape(9, 9)
    for one, other in ((same, same), (same, steps), (steps, same)):
        assert np.isnan(rank_correlation(one, other))
        assert np.isnan(structure(one, other))
        assert np.isnan(top_overlap(one, other, 0.2))
    assert np.isfinite(rank_correlation(steps, steps * 1e-30))


def test_the_strongest_places_are_counted():
    one, other = np.zeros((2, 10, 10))
    one[:2], other[1:3] = 1, 2
    assert top_overlap(one, other, 0.2) == pytest.approx(1 / 3)
    assert top_overlap(one, one[::-1], 0.2) == 0


def test_the_part_inside_a_mask():
    values = np.zeros((4, 4))
    mask = np.zeros((4, 4), bool)
    mask[0] = True
    assert inside(values, mask) == 0
    values[0, 0], values[3, 3] = 3, 1
    assert inside(values, mask) == 0.75
