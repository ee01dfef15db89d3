"""Noise that is made of seed, copy and place alone: normal, without pattern, and the same on a crop."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from seglens.core.boxes import whole
from seglens.engine.paths import Noise

SHAPE = (3, 128, 96)


def drawn(seed=0, start=0, stop=4, shape=SHAPE, box=None):
    return Noise(shape, seed)(start, stop, box or whole(shape[1:]))


@pytest.mark.parametrize("seed", [0, 1, 2**40])
def test_it_is_normal(seed):
    values = drawn(seed).double().flatten().numpy()
    assert stats.kstest(values, "norm").pvalue > 1e-3
    assert abs(stats.kurtosis(values)) < 5 * np.sqrt(24 / values.size)
    assert abs(stats.skew(values)) < 5 * np.sqrt(6 / values.size)
    assert np.abs(values).max() > 3.9


@pytest.mark.parametrize("power", [1, 2])
def test_neighbours_channels_copies_and_seeds_know_nothing_of_each_other(power):
    noise = torch.cat([drawn(seed) for seed in (0, 1)]).double() ** power
    noise = (noise - noise.mean()) / noise.std()
    for axis in range(noise.ndim):
        for lag in (1, 2, 3, 16, 64):
            if lag < noise.shape[axis]:
                near, far = (noise.narrow(axis, at, noise.shape[axis] - lag) for at in (0, lag))
                assert abs(float((near * far).mean())) * np.sqrt(near.numel()) < 5


def test_no_wave_stands_out():
    power = np.abs(np.fft.fft2(drawn()[0, 0].numpy())) ** 2 / (128 * 96)
    assert power.mean() == pytest.approx(1, abs=0.05)
    assert power.max() < 2 * np.log(power.size)


@pytest.mark.parametrize("shape", [SHAPE, (2, 6, 20, 24)])
def test_a_crop_has_the_noise_of_the_whole(shape):
    box = tuple(slice(n // 3, n - 2) for n in shape[1:])
    for seed in (0, 7):
        there = drawn(seed, shape=shape)[(slice(None), slice(None), *box)]
        assert torch.equal(drawn(seed, shape=shape, box=box), there)


def test_batches_make_no_difference_and_every_copy_and_seed_is_another():
    assert torch.equal(drawn(5)[2:3], drawn(5, 2, 3))
    for one, other in combinations([drawn(5, 0, 1), drawn(5, 1, 2), drawn(6, 0, 1)], 2):
        assert float((one - other).abs().min()) < 0.01 < float((one - other).abs().mean())
