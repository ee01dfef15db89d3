"""Segmentation ability: the tests of its card (A/B4)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hand import CONV, wrap
from seglens.core.errors import ImageMismatch
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Target
from seglens.models.nets.unet import UNet
from seglens.session import explain

OWN, CHANCE = "Dice with the prediction", "chance"


class Given(nn.Module):
    """Features are the first channels of the image, mixed; what is drawn is in the last one."""

    def __init__(self, channels, mix=None, shift=None, dims=2, sure=40.0):
        super().__init__()
        self.features = CONV[dims](channels, channels, 1)
        self.sure = sure
        with torch.no_grad():
            mix = torch.eye(channels) if mix is None else mix
            self.features.weight.copy_(mix.reshape(self.features.weight.shape))
            self.features.bias.copy_(torch.zeros(channels) if shift is None else shift)

    def forward(self, x):
        self.features(x[:, :-1])
        score = self.sure * (x[:, -1:] - 0.5)
        return torch.cat([-score, score], 1)


def mask_of(dims=2, side=100):
    """A fifth of the pixels."""
    mask = np.zeros((side,) * dims if dims == 2 else (10, 40, 40), bool)
    mask[..., : mask.shape[-2] // 2, : mask.shape[-1] * 2 // 5] = True
    return mask


def ask(features, mask, drawn=None, dims=2, seed=0, annotation=None, sure=40.0, **net):
    """The row of the layer ``features`` and the answer; ``drawn`` is what the network draws."""
    pixels = np.concatenate([features, (mask if drawn is None else drawn)[None]]).astype(np.float32)
    model = wrap(Given(len(features), dims=dims, sure=sure, **net), dims=dims, channels=len(pixels))
    image = Image(pixels, "C" + "ZYX"[-dims:], name="given")
    answer = explain(
        "segmentation-ability", image, model, Target("cell"), run=Run(seed=seed), annotation=annotation, draws=5
    )
    return next(row for row in answer.tables[0].rows() if row["layer"] == "features"), answer


@pytest.mark.parametrize("dims", [2, 3])
def test_one_hot_features_draw_the_mask(dims):
    mask = mask_of(dims)
    row, answer = ask(np.stack([mask, ~mask]).astype(float), mask, dims=dims)
    assert row[OWN] == 1.0
    ability = answer["ability at features"].data
    assert ability.shape == mask.shape
    np.testing.assert_allclose(ability[mask], 1 / (1 + np.exp(-4)), atol=1e-3)
    np.testing.assert_allclose(ability[~mask], 1 / (1 + np.exp(4)), atol=1e-3)
    assert (answer["decided from depth"].data == 1).all()


def test_it_is_the_formula_of_the_card():
    rng = np.random.default_rng(0)
    mask, x = mask_of(), rng.normal(size=(3, 100, 100)) + 5
    x[1] += mask
    # unsure, so that the guide is soft
    row, answer = ask(x, mask, sure=1.5)
    p = np.where(mask, 1 / (1 + np.exp(-1.5)), 1 / (1 + np.exp(1.5)))
    plus, minus = ((x * w).sum((1, 2)) / w.sum() for w in (p, 1 - p))
    away, near = (((x - m[:, None, None]) ** 2).sum(0) for m in (minus, plus))
    binary = away > near
    assert row[OWN] == pytest.approx(2 * (binary & mask).sum() / (binary.sum() + mask.sum()), abs=1e-3)
    expected = 1 / (1 + np.exp(-4 * (away - near) / ((plus - minus) ** 2).sum()))
    np.testing.assert_allclose(answer["ability at features"].data, expected, atol=2e-3)


def test_turning_and_moving_the_space_of_features_changes_nothing():
    rng = np.random.default_rng(1)
    mask, x = mask_of(), rng.normal(size=(6, 100, 100))
    x[2] += 1.5 * mask
    turned, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
    plain, one = ask(x, mask)
    moved, two = ask(x, mask, mix=turned, shift=torch.full((6,), 100.0))
    assert moved[OWN] == pytest.approx(plain[OWN], abs=2e-3)
    name = "ability at features"
    np.testing.assert_allclose(one[name].data, two[name].data, atol=5e-3)


@pytest.mark.parametrize("seed", range(3))
def test_noise_reaches_the_line_of_chance_and_no_more(seed):
    mask = mask_of()
    row, answer = ask(np.random.default_rng(10 + seed).normal(size=(8, 100, 100)), mask, seed=seed)
    assert 0.26 < row[CHANCE] < 0.36  # the card's .29 to .34, and not 0
    assert row[OWN] == pytest.approx(row[CHANCE], abs=0.04)
    assert "No depth tells the class apart" in answer.text


def test_planted_shift_is_found_as_the_card_says():
    rng = np.random.default_rng(2)
    mask, noise = mask_of(side=140), rng.normal(size=(8, 140, 140))
    found = []
    for shift in (0, 0.5, 1, 2, 4, 8):
        x = noise.copy()
        x[3] += shift * mask
        found.append(ask(x, mask)[0][OWN])
    np.testing.assert_allclose(found, [0.30, 0.37, 0.48, 0.69, 0.95, 1.0], atol=0.03)


def test_an_annotation_uncovers_what_a_wrong_prediction_hides():
    mask = mask_of()
    wrong = np.roll(mask, 50, 1)  # the network draws elsewhere, and its features know only that
    x = np.stack([wrong, ~wrong]).astype(float)
    row, answer = ask(x, mask, drawn=wrong, annotation=mask.astype(np.uint8) * 7)
    assert row[OWN] == 1.0
    assert row["Dice with the annotation"] == 0.0
    assert row["Dice with the annotation, guided by it"] < 0.5
    assert 0.26 < row["chance, guided by it"] < 0.36
    assert "Against the annotation" in answer.text
    alone = ask(x, mask, drawn=wrong)[1]
    assert "hides the failure" in alone.text
    # features that know the truth, though the network does not use them
    known = ask(np.stack([mask, wrong]).astype(float), mask, drawn=wrong, annotation=mask)[0]
    assert known["Dice with the annotation, guided by it"] == 1.0


@pytest.mark.parametrize("wrong", [np.zeros((100, 100)), np.ones((4, 5))])
def test_an_annotation_that_cannot_be_used_is_refused(wrong):
    with pytest.raises(ImageMismatch, match="annotation"):
        ask(np.ones((2, 100, 100)), mask_of(), annotation=wrong)


def test_flat_features_draw_nothing():
    row, answer = ask(np.full((3, 100, 100), 1e6), mask_of())
    assert row[OWN] == 0.0
    assert (answer["ability at features"].data == 0.5).all()


def test_all_layers_of_a_network_take_one_pass():
    torch.manual_seed(0)
    net = UNet(1, 3, (4, 8, 8)).eval()
    model = wrap(net, classes=("background", "one", "two"), divisor=net.divisor)
    image = Image(np.random.default_rng(0).random((32, 37)).astype(np.float32), "YX", name="noise")
    one, run = explain("segmentation-ability", image, model, which="one for each depth"), Run()
    answer = explain("segmentation-ability", image, model, run=run)
    assert run.cost.forwards == 2  # the question's own, and one for all layers
    names = answer.tables[0].columns["layer"]
    assert {"encoder.0", "encoder.0.conv1", "bottleneck", "decoder.1"} <= set(names)
    assert "encoder.0.relu2" not in names  # the same as encoder.0
    assert "head" not in names
    assert [layer.name for layer in one.layers] == [layer.name for layer in answer.layers]
    for layer in one.layers:
        np.testing.assert_array_equal(layer.data, answer[layer.name].data)
    # every class that is drawn, against the rest
    assert list(answer.figures[1].series) == [n for n in answer.tables[1].columns if n != "layer"]
