"""Where the colours of a map end: analytic arrays whose percentiles are known."""

from __future__ import annotations

import numpy as np
import pytest

from seglens.core.explanation import Layer

RNG = np.random.default_rng(0)
COUNT = np.arange(1.0, 101.0).reshape(10, 10)  # 1 … 100: the 99th percentile lies at 99.01


def heat(values: object) -> Layer:
    """A map of magnitudes."""
    return Layer("a", "heat", np.asarray(values))


def signed(values: object) -> Layer:
    """A map around zero."""
    return Layer("a", "signed", np.asarray(values))


def test_known_percentiles() -> None:
    assert heat(COUNT).limits() == (0.0, pytest.approx(99.01))
    assert heat(COUNT).span() == (0.0, 100.0)
    assert signed(-COUNT).limits() == (pytest.approx(-99.01), pytest.approx(99.01))
    assert signed(-COUNT).span() == (-100.0, 100.0)
    values = RNG.normal(size=(60, 70))
    assert signed(values).limits()[1] == pytest.approx(np.percentile(np.abs(values), 99))
    assert heat(np.abs(values)).limits()[1] == pytest.approx(np.percentile(np.abs(values), 99))


def test_whole_numbers() -> None:
    assert heat(COUNT.astype(np.uint8)).limits() == (0.0, pytest.approx(99.01))
    assert signed(np.array([[-128, 127]], np.int8)).limits()[1] == pytest.approx(127.99)
    assert heat(np.eye(4, dtype=bool)).limits() == (0.0, 1.0)


@pytest.mark.parametrize("kind", ["heat", "signed"])
def test_a_few_extreme_pixels_leave_the_rest_to_be_seen(kind: str) -> None:
    values = RNG.uniform(0.5, 1.0, size=(64, 64)).astype(np.float32)
    values[3, :8] = 1e6
    before = values.copy()
    layer = Layer("a", kind, values)  # type: ignore[arg-type]
    assert 0.9 < layer.limits()[1] <= 1.0
    # a person can still go up to them, and nothing was written
    assert layer.span()[1] == 1e6
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("kind", ["heat", "signed"])
def test_zeros_beside_a_window_count_for_nothing(kind: str) -> None:
    values = np.zeros((2000, 2000), np.float32)
    values[900:910, 900:910] = COUNT
    assert Layer("a", kind, values).limits()[1] == pytest.approx(99.01)  # type: ignore[arg-type]
    few = np.zeros((50, 50))
    few[0, :5] = [1, 2, 3, 4, 5]
    assert heat(few).limits() == (0.0, pytest.approx(4.96))
    assert heat(few).span() == (0.0, 5.0)
    one = np.zeros((50, 50))
    one[7, 7] = -0.25
    assert signed(one).limits() == (-0.25, 0.25)


def test_nothing_to_see() -> None:
    assert heat(np.zeros((5, 5))).limits() == heat(np.zeros((5, 5))).span() == (0.0, 1.0)
    assert signed(np.zeros((5, 5))).limits() == signed(np.zeros((5, 5))).span() == (-1.0, 1.0)
    assert heat(np.full((3, 3), np.nan)).limits() == (0.0, 1.0)
    assert signed(np.full((3, 3), np.inf)).limits() == (-1.0, 1.0)
    # magnitudes below zero break the promise of their method, and are shown as nothing
    assert heat(np.full((3, 3), -2.0)).limits() == (0.0, 1.0)
    assert heat(np.full((3, 3), -2.0)).span() == (-2.0, 1.0)


def test_what_is_not_finite_is_left_out() -> None:
    values = COUNT.copy()
    values = np.concatenate([values, [[np.nan, np.inf, -np.inf] + [0.0] * 7]])
    assert heat(values).limits() == (0.0, pytest.approx(99.01))
    assert signed(values).span() == (-100.0, 100.0)


def test_constant_maps() -> None:
    assert heat(np.full((4, 4), 0.3)).limits() == heat(np.full((4, 4), 0.3)).span() == (0.0, pytest.approx(0.3))
    assert signed(np.full((4, 4), -0.3)).limits() == (pytest.approx(-0.3), pytest.approx(0.3))


def test_pictures_show_all() -> None:
    assert Layer("a", "image", COUNT).limits() == (1.0, 100.0)
    assert Layer("a", "image", np.full((2, 2), 3.0)).limits() == (3.0, 4.0)
    assert Layer("a", "image", np.zeros((0, 4))).limits() == (0.0, 1.0)
