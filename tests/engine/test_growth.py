"""Maps that grow from segments."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.segmentation import felzenszwalb

from seglens.core.errors import Cancelled
from seglens.core.run import Run
from seglens.engine.growth import SCALES, grow, members, oversegmented, together

BOTH = pytest.mark.parametrize("dims", [2, 3])


def slow_growth(score, segments):
    """XRAI's loop, as it is told: segments are boolean arrays."""
    values, covered = np.zeros(score.shape), np.zeros(score.shape, bool)
    while True:
        left = [(score[s & ~covered].mean(), i) for i, s in enumerate(segments) if (s & ~covered).any()]
        if not left:
            return values
        mean, best = max(left)
        values[segments[best] & ~covered] = mean
        covered |= segments[best]


def test_two_segments_that_overlap_give_exactly_two_and_then_one():
    score = np.ones((4, 6))
    score[:, :3] = 2
    one, two = np.zeros((2, 4, 6), int)
    one[:, :3] = 1  # mean 2
    two[:, 1:] = 1  # mean 1.4, and 1 on what the first leaves
    grown = grow(score, together([members(one)[[1]], members(two)[[1]]]))
    np.testing.assert_array_equal(grown.values, score)
    np.testing.assert_array_equal(grown.rank, np.where(score == 2, 1, 2))
    assert grown.parts == ((0, 2.0, 12), (1, 1.0, 12))


def test_what_no_candidate_covers_is_the_last_part():
    score = np.arange(6.0).reshape(2, 3)
    labels = np.array([[1, 1, 0], [0, 0, 0]])
    grown = grow(score, members(labels)[[1]])
    np.testing.assert_array_equal(grown.values, [[0.5, 0.5, 3.5], [3.5, 3.5, 3.5]])
    assert grown.parts[-1] == (-1, 3.5, 4)


@BOTH
@pytest.mark.parametrize("dilation", [0, 1])
def test_growth_is_that_of_the_plain_loop(dims, dilation):
    rng = np.random.default_rng(0)
    shape = (5, 9, 8)[-dims:]
    score = rng.normal(size=shape)
    every = [rng.integers(0, n, shape) for n in (3, 7, 12)]
    candidates = together([members(labels, dilation) for labels in every])
    dense = [row.reshape(shape) for row in candidates.toarray().astype(bool)]
    grown = grow(score, candidates)
    np.testing.assert_allclose(grown.values, slow_growth(score, dense), atol=1e-6)
    assert sum(pixels for *_, pixels in grown.parts) == score.size


def test_a_constant_added_shifts_the_values_and_leaves_the_order():
    rng = np.random.default_rng(1)
    score = rng.normal(size=(20, 20))
    candidates = together([members(rng.integers(0, n, (20, 20))) for n in (4, 30)])
    one, two = grow(score, candidates), grow(score + 3, candidates)
    np.testing.assert_array_equal(one.rank, two.rank)
    np.testing.assert_allclose(two.values, one.values + 3, atol=1e-5)


def test_segments_are_grown_by_a_ball():
    labels = np.zeros((9, 9), int)
    labels[4, 4] = 5
    grown = members(labels, 2).toarray()[1].reshape(9, 9)
    y, x = np.mgrid[-4:5, -4:5]
    np.testing.assert_array_equal(grown, (y**2 + x**2 <= 4).astype(int))


@BOTH
@pytest.mark.parametrize("channels", [0, 2])
def test_oversegmentations_cover_the_image_and_keep_to_edges(dims, channels):
    rng = np.random.default_rng(0)
    shape = (6, 40, 44)[-dims:]
    pixels = 0.02 * rng.random((*shape, *((channels,) if channels else ())))
    bright = (slice(None),) * (dims - 1) + (slice(22, None),)
    pixels[bright] += 1
    candidates = oversegmented(pixels, dims, 30, Run(), scales=(20, 400)).astype(int)
    cover = np.asarray(candidates.sum(0)).reshape(shape)
    assert (cover == 2).all()
    inside = np.zeros(shape, bool)
    inside[bright] = True
    sizes = np.asarray(candidates.sum(1)).ravel()
    bright = candidates @ inside.ravel()
    assert np.minimum(bright, sizes - bright).sum() < 0.02 * sizes.sum()


def test_scales_are_those_of_xrai():
    pixels = np.random.default_rng(0).random((60, 64)) * 0.3 + (np.arange(64) > 30)
    scaled = (pixels - pixels.min()) / np.ptp(pixels)
    assert SCALES == (50, 100, 150, 250, 500, 1200)
    every = [felzenszwalb(scaled, scale=s, sigma=0.8, min_size=20) for s in SCALES]
    plain = together([members(labels) for labels in every])
    found = oversegmented(pixels, 2, 20, Run())
    assert found.shape == plain.shape
    assert (found != plain).nnz == 0


def test_segmentations_are_cancelled_between_scales():
    run = Run()
    run.cancel()
    with pytest.raises(Cancelled):
        oversegmented(np.random.default_rng(0).random((20, 20)), 2, 10, run)
