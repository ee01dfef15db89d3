"""Descriptor Shapley: the test of its card (A/A5), planted descriptors, and real nuclei."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from hand import Threshold, box_sum, wrap
from seglens.core.errors import NoSuchRegion
from seglens.core.files import open_image
from seglens.core.image import Image
from seglens.core.target import Object, Painted, Target
from seglens.methods.perturbation._descriptors import descriptors
from seglens.methods.perturbation._heads import fit, shapley
from seglens.models.loaders import load_model
from seglens.session import explain

DATA = Path(__file__).parents[2] / ".." / "shared" / "data" / "dsb2018_fluo"


def cells(dims=2, seed=0, count=24):
    """Balls of random size and brightness on a jittered lattice, each evenly bright with a little noise of its own."""
    rng = np.random.default_rng(seed)
    side, rows = 22, 6
    size = (rows * side, -(-count // rows) * side)
    shape = size if dims == 2 else (14, *size)
    pixels = 0.02 * rng.random(shape)
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    for i in range(count):
        centre = [7] * (dims - 2) + [side * (i % rows) + 11, side * (i // rows) + 11]
        centre = [c + rng.integers(-2, 3) * (a >= dims - 2) for a, c in enumerate(centre)]
        ball = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= rng.uniform(2.5, 6) ** 2
        pixels[ball] = rng.uniform(0.55, 0.9) + 0.05 * rng.random() * rng.standard_normal(int(ball.sum()))
    return Image(pixels.astype(np.float32), "ZYX"[-dims:], name="cells")


class Size(torch.nn.Module):
    """The logit of a cell is its number of pixels: what is above a level, counted around."""

    def forward(self, x):
        """(N, 1, *space) to (N, 2, *space)."""
        there = (x > 0.3).float()
        score = 0.05 * box_sum(there, 12) * there - 0.5 * (1 - there)
        return torch.cat([torch.zeros_like(score), score], 1)


def shares(answer):
    return {row["descriptor"]: row["Shapley value"] for row in answer.tables[0].rows()}


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("head", ["linear", "trees"])
def test_finds_the_planted_descriptor(dims, head):
    """Each network is the other's control: what is planted in one must get nothing in the other."""
    image = cells(dims)
    size = "area" if dims == 2 else "volume"
    for module, planted, other in ((Threshold(0.3), "mean intensity", size), (Size(), size, "mean intensity")):
        model = wrap(module, dims=dims)
        strong = []
        for number in (1, 5, 9, 14) if head == "linear" else (1, 9):
            answer = explain("descriptor-shapley", image, model, Target("cell", Object(number)), head=head)
            told = shares(answer)
            strong.append((abs(told.pop(planted)), abs(told[other]), max(map(abs, told.values()))))
        own, controlled, rest = np.mean(strong, 0)
        assert own > (10 if head == "linear" else 3) * controlled
        assert own > (5 if head == "linear" else 2) * rest
        assert max(shares(answer), key=lambda k: abs(shares(answer)[k])) == planted


def test_linear_head_gives_weight_times_difference_from_the_mean():
    """The card's test, to the last digits, with the head's own coefficients."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(40, 6)) * [1, 10, 100, 1, 0.1, 5] + 3
    wanted = table @ [1, -0.2, 0.01, 0, 3, 0.4] + 0.1 * rng.normal(size=40)
    head = fit("linear", table, wanted, 0)
    zero = np.zeros((1, 6))
    beta = np.array([float((head.answer(zero + row) - head.answer(zero))[0]) for row in np.eye(6)])
    for one in table[:5]:
        np.testing.assert_allclose(shapley(head.answer, one, table), beta * (one - table.mean(0)), atol=1e-9)
    np.testing.assert_allclose(beta, [1, -0.2, 0.01, 0, 3, 0.4], atol=0.3)
    assert head.quality > 0.95


def test_shares_of_a_bent_head_add_up_and_split_a_product():
    rng = np.random.default_rng(1)
    table = rng.normal(size=(50, 3))

    def answer(rows):
        return rows[:, 0] * rows[:, 1]

    made = shapley(answer, table[0], table)
    assert made.sum() == pytest.approx(float(answer(table[:1])[0] - answer(table).mean()))
    assert made[2] == pytest.approx(0, abs=1e-12)
    # by hand: both orders of two players
    a, b = table[0, :2]
    mean = table.mean(0)
    first = (a * mean[1] - answer(table).mean() + a * b - b * mean[0]) / 2
    assert made[0] == pytest.approx(first)


def test_quality_tells_noise_from_signal():
    rng = np.random.default_rng(2)
    table = rng.normal(size=(60, 6))
    for head in ("linear", "trees"):
        assert fit(head, table, rng.normal(size=60), 0).quality < 0.2
        assert fit(head, table, 3 * table[:, 0], 0).quality > 0.7
    classes = (table[:, 1] > 0).astype(float)
    logistic = fit("logistic", table, classes, 0)
    assert logistic.quality > 0.85 > logistic.chance
    assert fit("logistic", table, rng.permutation(classes), 0).quality < 0.7


@pytest.mark.parametrize("dims", [2, 3])
def test_descriptors_of_a_box_in_closed_form(dims):
    shape = (6, 30, 30)[-dims:]
    labels, pixels = np.zeros(shape, int), np.zeros((*shape, 1))
    first, second = np.s_[..., 4:8, 4:14], np.s_[..., 20:24, 4:8]
    labels[first], labels[second] = 1, 2
    pixels[..., 0][first], pixels[..., 0][second] = 10.0, 4.0
    spacing = (3.0, 0.5, 0.5)[-dims:]
    made = descriptors(labels, pixels, ["light"], spacing)
    depth = 6 * 3.0 if dims == 3 else 1
    np.testing.assert_allclose(made["area" if dims == 2 else "volume"], [40 * 0.25 * depth, 16 * 0.25 * depth])
    np.testing.assert_allclose(made["mean intensity"], [10, 4])
    np.testing.assert_allclose(made["texture"], 0)
    distance = 0.5 * np.hypot(21.5 - 5.5, 5.5 - 8.5)
    np.testing.assert_allclose(made["neighbour distance"], distance)
    # the central difference over a step of 10 in 2 * 0.5; at a corner in both directions
    straight, corner = 10.0, np.hypot(10.0, 10.0)
    assert made["boundary gradient"][0] == pytest.approx((20 * straight + 4 * corner) / 24)
    assert ("eccentricity" in made) == (dims == 2)
    if dims == 2:
        assert made["eccentricity"][1] == pytest.approx(0, abs=1e-6)
        assert made["eccentricity"][0] == pytest.approx((1 - 15 / 99) ** 0.5, abs=0.02)


def test_each_channel_has_its_mean():
    image = cells()
    data = np.stack([image.data, np.random.default_rng(0).random(image.data.shape).astype(np.float32)])

    class Second(torch.nn.Module):
        """Cells by the first channel, their score by the second."""

        def forward(self, x):
            there = (x[:, :1] > 0.3).float()
            return torch.cat([torch.zeros_like(there), (0.2 + F.avg_pool2d(x[:, 1:], 1)) * there - (1 - there)], 1)

    answer = explain("descriptor-shapley", Image(data, "CYX"), wrap(Second(), channels=2), Target("cell", Object(3)))
    told = shares(answer)
    assert {"mean channel 0", "mean channel 1"} < set(told)
    assert max(told, key=lambda k: abs(told[k])) == "mean channel 1"


def test_network_without_differences_gives_nothing():
    class Same(torch.nn.Module):
        def forward(self, x):
            there = (x > 0.3).float()
            return torch.cat([torch.zeros_like(x), 2 * there - 1], 1)

    answer = explain("descriptor-shapley", cells(), wrap(Same()), Target("cell", Object(1)))
    assert max(map(abs, shares(answer).values())) < 1e-9
    assert np.ptp(answer.map.data) < 1e-6
    assert "do not trust" in answer.text


def test_logistic_head_tells_classes_by_what_makes_them():
    """Class 2 is what is brighter than 0.72; size has no part in it."""

    class Bright(torch.nn.Module):
        def forward(self, x):
            mean = box_sum(x * (x > 0.3), 1) / box_sum((x > 0.3).float(), 1).clamp(min=1)
            there = (x > 0.3).float()
            return torch.cat([0.5 - there, there * 0.4, there * (0.4 + 9 * (mean - 0.72))], 1)

    image = cells(count=36, seed=3)
    image = Image(ndimage.grey_closing(image.data, 1), "YX", name="cells")
    model = wrap(Bright(), classes=("background", "dim", "bright"))
    answer = explain("descriptor-shapley", image, model, Target("bright", Object(1)), head="logistic", smallest=12)
    told = shares(answer)
    assert max(told, key=lambda k: abs(told[k])) == "mean intensity"
    assert "names the class of" in answer.text


def test_maps_show_the_explained_object_and_all_others():
    image = cells()
    answer = explain("descriptor-shapley", image, wrap(Threshold(0.3)), Target("cell", Object(4)))
    head, network, one = (layer.data for layer in answer.layers)
    labels = ndimage.label(image.data > 0.3)[0]
    assert set(np.unique(labels[one > 0])) == {int(labels[one > 0][0])}
    assert np.abs(head[labels == 0]).max() == 0
    assert np.corrcoef(head[labels > 0], network[labels > 0])[0, 1] > 0.95
    assert answer.record.fidelity == "small"
    assert "not the network itself" in answer.text
    assert "marginal" in answer.text


def test_refuses_what_has_no_objects_to_compare():
    image = cells()
    empty = np.zeros(image.data.shape, bool)
    empty[:2, :2] = True
    with pytest.raises(NoSuchRegion) as caught:
        explain("descriptor-shapley", image, wrap(Threshold(0.3)), Target("cell", Painted(empty)))
    assert "--object" in caught.value.fix
    few = cells(count=3)
    with pytest.raises(NoSuchRegion) as caught:
        explain("descriptor-shapley", few, wrap(Threshold(0.3)), Target("cell", Object(1)))
    assert "Only 3 objects" in caught.value.what
    with pytest.raises(NoSuchRegion):
        explain("descriptor-shapley", image, wrap(Threshold(0.3)), Target("cell", Object(1)), head="logistic")


def test_image_without_background():
    """Stripes of two classes and nothing else: numbers of objects still are what they are."""

    class Stripes(torch.nn.Module):
        def forward(self, x):
            return torch.cat([x * 0 - 9, x, 0.5 + 0 * x], 1)

    stripes = np.repeat([0.1, 0.7, 0.2, 0.9, 0.3, 0.6], 8)[:, None] * np.ones((1, 30))
    model = wrap(Stripes(), classes=("background", "bright", "dim"))
    answer = explain(
        "descriptor-shapley", Image(stripes.astype(np.float32), "YX"), model, Target(1, Object(4)), among="all"
    )
    told = shares(answer)
    assert max(told, key=lambda k: abs(told[k])) == "mean intensity"
    assert (answer["explained object"].data[24:32] == 1).all()
    assert answer["explained object"].data.sum() == 8 * 30


def test_real_nuclei():
    if not DATA.exists():
        pytest.skip("real nuclei (dsb2018_fluo) are not here")
    path = sorted((DATA / "images").glob("*.png"))[2]
    image = open_image(str(path))
    image = image.crop(Y=slice(0, 256), X=slice(0, 256))
    model = load_model("nuclei-fluorescence")
    answer = explain("descriptor-shapley", image, model, Target("nucleus"))
    told = shares(answer)
    assert len(told) == 6
    assert all(np.isfinite(v) for v in told.values())
    says = float(answer.text.partition("against the mean of")[0].rpartition(", ")[2])
    assert sum(told.values()) == pytest.approx(says, rel=1e-2, abs=1e-3)
