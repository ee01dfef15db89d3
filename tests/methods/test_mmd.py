"""Prototypes and criticisms on points: exact against brute force (card A/B5)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from seglens.methods.prototype import _mmd as mmd


def kernel_of(points, gamma):
    return np.exp(-gamma * mmd.squared_distances(points, points))


def plain_kernel(points, gamma):
    return np.array([[np.exp(-gamma * ((a - b) ** 2).sum()) for b in points] for a in points])


def plain_value(kernel, chosen):
    n, m = len(kernel), len(chosen)
    cross = sum(kernel[i, j] for i in range(n) for j in chosen)
    return 2 / (n * m) * cross - 1 / m**2 * sum(kernel[i, j] for i in chosen for j in chosen)


def clustered(seed=0):
    """80 points about the origin and 12 aside: 13 % of all."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(0, 2, (80, 2)), rng.normal(4, 0.2, (12, 2))])


@pytest.mark.parametrize("n", [2, 7, 30])
def test_value_and_witness_are_exact(n):
    points = np.random.default_rng(n).normal(size=(n, 3)) + 50
    kernel, plain = kernel_of(points, 0.7), plain_kernel(points, 0.7)
    np.testing.assert_allclose(kernel, plain, atol=1e-12)
    chosen = [0, n - 1]
    assert mmd.value(kernel, chosen) == pytest.approx(plain_value(plain, chosen), abs=1e-12)
    by_hand = [
        sum(plain[i, x] for i in range(n)) / n - sum(plain[j, x] for j in chosen) / len(chosen) for x in range(n)
    ]
    np.testing.assert_allclose(mmd.witness(kernel, chosen), by_hand, atol=1e-12)


def test_each_step_is_the_best_of_all_points():
    points = np.random.default_rng(4).normal(size=(30, 2))
    kernel = kernel_of(points, 0.5)
    chosen = mmd.prototypes(kernel, 8)
    for size in range(1, 9):
        before = chosen[: size - 1]
        gains = {x: plain_value(kernel, [*before, x]) for x in range(30) if x not in before}
        assert chosen[size - 1] == max(gains, key=gains.get)


def test_greedy_is_near_the_best_of_all_sets():
    points = np.random.default_rng(1).normal(size=(12, 2))
    kernel = kernel_of(points, 0.5)
    best = max(plain_value(kernel, s) for s in itertools.combinations(range(12), 3))
    # (1 - 1/e) is the bound of greedy maximisation
    assert mmd.value(kernel, mmd.prototypes(kernel, 3)) >= (1 - 1 / np.e) * best


def test_all_points_are_the_best_prototypes_and_leave_nothing_to_criticise():
    points = np.random.default_rng(2).normal(size=(9, 2))
    kernel = kernel_of(points, 0.5)
    chosen = mmd.prototypes(kernel, 50)
    assert sorted(chosen) == list(range(9))
    np.testing.assert_allclose(mmd.witness(kernel, chosen), 0, atol=1e-12)
    every = [plain_value(kernel, s) for m in range(1, 10) for s in itertools.combinations(range(9), m)]
    assert mmd.value(kernel, chosen) == pytest.approx(max(every))
    assert mmd.criticisms(kernel, chosen, 3) == []


def test_the_determinant_never_takes_a_point_twice():
    points = clustered()
    points = np.concatenate([points, points[80:]])  # every point of the small cluster has a double
    kernel = kernel_of(points, 0.5)
    chosen = mmd.prototypes(kernel, 2)
    diverse = mmd.criticisms(kernel, chosen, 30)
    assert len({tuple(points[i]) for i in diverse}) == len(diverse)
    plain = mmd.criticisms(kernel, chosen, 30, diverse=False)
    assert len({tuple(points[i]) for i in plain}) < len(plain)


def test_gain_in_the_determinant_is_that_of_the_matrix():
    points = np.random.default_rng(5).normal(size=(20, 2))
    kernel = kernel_of(points, 0.5)
    chosen = mmd.prototypes(kernel, 2)
    found = mmd.criticisms(kernel, chosen, 6)
    size = np.abs(mmd.witness(kernel, chosen))
    for step in range(6):
        before = found[:step]

        def told(x, before=before):
            block = [*before, x]
            return size[block].sum() + np.linalg.slogdet(kernel[np.ix_(block, block)])[1]

        free = [x for x in range(20) if x not in (*chosen, *before)]
        assert found[step] == max(free, key=told)


@pytest.mark.parametrize("diverse", [True, False])
def test_a_badly_represented_cluster_is_criticised_first(diverse):
    """One of two prototypes lies in the 13 %, and stands for half of all: that is said first."""
    kernel = kernel_of(clustered(), 0.5)
    chosen = mmd.prototypes(kernel, 2)
    assert max(chosen) >= 80
    # the cluster is tight: the determinant takes one of it and then looks elsewhere
    assert min(mmd.criticisms(kernel, chosen, 1 if diverse else 3, diverse=diverse)) >= 80
    assert (mmd.witness(kernel, chosen)[80:] < 0).all()


def test_a_lone_outlier_is_not_criticised_first_but_is_far_from_every_prototype():
    """|w| of a lone point is about 1/n: hence the separate list by distance."""
    points = np.concatenate([clustered(), [[30.0, -30.0]]])
    kernel = kernel_of(points, 0.5)
    chosen = mmd.prototypes(kernel, 4)
    assert len(points) - 1 not in mmd.criticisms(kernel, chosen, 10, diverse=False)
    assert mmd.squared_distances(points, points[chosen]).min(1).argmax() == len(points) - 1


def test_gamma_is_one_over_the_median():
    points = np.array([[0.0], [1.0], [3.0]])
    assert mmd.gamma_of(mmd.squared_distances(points, points)) == 1 / 4
    assert mmd.gamma_of(np.zeros((3, 3))) == 1
