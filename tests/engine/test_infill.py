"""What replaces covered pixels: each fill against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.restoration import inpaint_biharmonic

from hand import Linear, small_image, wrap
from seglens.core.errors import BadParameter, MissingNeed, NoSuchRegion
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.resolve import resolve
from seglens.engine.units import one_unit


def case(dims=2, channels=2, annotation=None, side=24):
    model = wrap(Linear(channels, 2, dims=dims), channels=channels, dims=dims)
    image = small_image(channels, dims=dims, side=side)
    mask = np.zeros(image.shape[1:], bool)
    mask[tuple(slice(2, 6) for _ in range(dims))] = True
    return resolve(image, model, Target("cell", Painted(mask)), Run(seed=3), annotation=annotation)


def whole(c):
    return tuple(slice(0, n) for n in c.shape)


@pytest.mark.parametrize("dims", [2, 3])
def test_levels_and_means(dims):
    c = case(dims)
    flat = c.x.flatten(2)
    torch.testing.assert_close(c.fill("mean").flatten(2)[..., 0], flat.mean(2))
    rest = flat[:, :, torch.from_numpy(~c.target.region).flatten()].mean(2)
    torch.testing.assert_close(c.fill("rest-mean").flatten(2)[..., 5], rest)
    assert float(c.fill("black").abs().max()) == 0
    assert float(c.fill("zero").abs().max()) == 0
    assert c.fill("zero").shape == c.x.shape
    assert float((c.fill("grey") * 2 - c.fill("white")).abs().max()) < 1e-6


@pytest.mark.parametrize("dims", [2, 3])
def test_permutation_keeps_the_pixels_and_moves_them_together(dims):
    c = case(dims)
    shuffled = c.fill("permutation").flatten(2)[0].T
    pixels = c.x.flatten(2)[0].T
    assert not torch.equal(shuffled, pixels)
    torch.testing.assert_close(shuffled[shuffled[:, 0].argsort()], pixels[pixels[:, 0].argsort()])
    torch.testing.assert_close(c.fill("permutation"), c.fill("permutation"))


def test_noise_has_the_image_s_mean_and_deviation():
    c = case(side=64)
    noise = c.fill("noise").flatten(2)[0]
    torch.testing.assert_close(noise.mean(1), c.x.flatten(2)[0].mean(1), atol=0.02, rtol=0)
    torch.testing.assert_close(noise.std(1), c.x.flatten(2)[0].std(1), atol=0.02, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_inpaint_is_scikit_image_s(dims):
    c = case(dims)
    box = tuple(slice(3, 6) for _ in range(dims))
    copy = c.cover([box], "inpaint").batch(0, 1)[0].numpy()
    pixels = c.x[0].numpy()
    hole = np.zeros(c.shape, bool)
    hole[box] = True
    around = tuple(slice(max(0, 3 - 4), min(n, 6 + 4)) for n in c.shape)
    part = pixels[(slice(None), *around)]
    low, span = part.min(), np.ptp(part)
    theirs = inpaint_biharmonic((part - low) / span, hole[around], channel_axis=0) * span + low
    np.testing.assert_allclose(copy[(slice(None), *around)], theirs, atol=1e-5)
    outside = copy.copy()
    outside[:, hole] = pixels[:, hole]
    np.testing.assert_array_equal(outside, pixels)


def test_inpaint_continues_a_slope_where_a_mean_does_not():
    c = case()
    slope = torch.linspace(0, 1, c.shape[1]).expand_as(c.x).contiguous()
    c.x.copy_(slope)
    box = (slice(8, 14), slice(16, 22))
    at = (slice(None), slice(None), *box)
    inpainted, mean = (c.cover([box], name).batch(0, 1)[at] for name in ("inpaint", "mean"))
    assert float((inpainted - slope[at]).abs().max()) < 0.02
    assert float((mean - slope[at]).abs().max()) > 0.2


def test_unit_mean_of_windows_and_of_units():
    c = case()
    box = (slice(4, 9), slice(5, 11))
    at = (0, slice(None), *box)
    copy = c.cover([box], "unit-mean").batch(0, 1)
    torch.testing.assert_close(copy[at], c.x[at].mean((1, 2), keepdim=True).expand_as(c.x[at]))
    units = c.units("grid", 9)
    filled = c.fill("unit-mean", units=units)
    for unit in range(len(units)):
        inside = units.labels[0] == unit
        for channel in range(2):
            torch.testing.assert_close(
                filled[0, channel][inside], c.x[0, channel][inside].mean().expand(int(inside.sum()))
            )
    outside = units.labels[0] < 0
    assert torch.equal(filled[0][:, outside], c.x[0][:, outside])


def test_what_a_fill_needs_is_said():
    c = case()
    with pytest.raises(BadParameter, match="depends on what is covered"):
        c.fill("inpaint")
    with pytest.raises(BadParameter, match="channel cannot be continued"):
        c.fill("inpaint", units=c.units("channels", 2))


def test_one_unit_is_a_region():
    c = case()
    mask = c.target.weights != 0
    filled = c.fill("inpaint", units=one_unit(mask))
    assert torch.equal(filled[0][:, ~mask], c.x[0][:, ~mask])
    assert not torch.equal(filled, c.x)


class TestUnits:
    """Units cover the field, each pixel once, and say what is missing."""

    @pytest.mark.parametrize("kind", ["grid", "superpixels"])
    @pytest.mark.parametrize("dims", [2, 3])
    def test_places(self, kind, dims):
        c = case(dims)
        units = c.units(kind, 12)
        inside = torch.zeros(c.shape, dtype=torch.bool)
        inside[c.field] = True
        assert torch.equal(units.labels[0] >= 0, inside)
        assert sorted(torch.unique(units.labels[units.labels >= 0]).tolist()) == list(range(len(units)))
        # of pure noise superpixels leave few
        assert (4 if kind == "grid" else 1) <= len(units) <= 30
        spread = units.spread(torch.arange(1.0, len(units) + 1))
        assert torch.equal(spread[~inside], torch.zeros(int((~inside).sum())))
        assert torch.equal(spread[inside].long() - 1, units.labels[0][inside])

    def test_channels_slices_objects_labels(self):
        c = case()
        assert c.units("channels", 0).names == ("channel 0", "channel 1")
        assert not c.units("channels", 0).spatial
        assert len(case(3).units("slices", 0)) == case(3).field[0].stop - case(3).field[0].start
        drawn = np.zeros(c.shape, int)
        drawn[2:5, 2:5], drawn[5:7, 2:6], drawn[20:, 20:] = 4, 9, 7
        found = case(annotation=drawn).units("labels", 0)
        # what the target cannot see is no unit
        assert found.names == ("4", "9")

    def test_masks_keep_what_is_no_unit(self):
        c = case()
        units = c.units("grid", 6)
        keep = torch.zeros(2, len(units))
        keep[1, 0] = 0.5
        masks = units.masks(keep).batch(0, 2)
        assert bool((masks[:, 0][:, units.labels[0] < 0] == 1).all())
        assert bool((masks[0, 0][units.labels[0] >= 0] == 0).all())
        assert bool((masks[1, 0][units.labels[0] == 0] == 0.5).all())

    def test_what_is_missing_is_said(self):
        with pytest.raises(MissingNeed, match="one channel"):
            case(channels=1).units("channels", 0)
        with pytest.raises(MissingNeed, match="one slice"):
            case().units("slices", 0)
        with pytest.raises(MissingNeed, match="labels layer"):
            case().units("labels", 0)
        with pytest.raises(NoSuchRegion, match="shape"):
            case(annotation=np.ones((3, 3))).units("labels", 0)
        far = np.zeros(case().shape, int)
        far[20:, 20:] = 1
        with pytest.raises(NoSuchRegion, match="can see them"):
            case(annotation=far).units("labels", 0)
