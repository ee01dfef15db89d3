"""Attention rollout: the tests of its card (B/F2)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attending import PATCH, Given, blocks, random_matrices
from hand import AttendingDeep, Context, context_image, wrap
from seglens.core.errors import BadParameter, MissingNeed
from seglens.core.image import Image
from seglens.core.target import Painted, Target
from seglens.models.nets.segmenter import Segmenter
from seglens.session import explain

GRID = (3, 4)
TOKENS = 12
PIXELS = np.random.default_rng(0).random((PATCH * 3, PATCH * 4)).astype(np.float32)
IMAGE = Image(PIXELS, "YX", name="noise")


def rollout(matrices, patches, *, extras=0, classes=("background", "a"), of_class=1, smooth=False, **parameters):
    """The map of a network with these matrices, asked about some whole patches, as (*grid) and as an explanation."""
    mask = np.zeros(TOKENS, bool)
    mask[list(patches)] = True
    mask = mask.reshape(GRID).repeat(PATCH, 0).repeat(PATCH, 1)
    model = wrap(Given(matrices, extras, len(classes)), classes=classes, divisor=PATCH)
    answer = explain("attention-rollout", IMAGE, model, Target(of_class, Painted(mask)), smooth=smooth, **parameters)
    return blocks(answer.map.data), answer


def by_hand(matrices, joined=lambda m: m.mean(0), residual=True):
    """The whole product."""
    product = torch.eye(matrices[0].shape[1])
    for matrix in matrices:
        step = joined(matrix) + residual * torch.eye(len(product))
        product = step / step.sum(1, keepdim=True) @ product
    return product


def test_identity_attention_gives_the_region_itself():
    found, answer = rollout([torch.eye(TOKENS).expand(2, -1, -1)] * 3, (1, 2))
    wanted = torch.zeros(TOKENS)
    wanted[1:3] = 0.5
    torch.testing.assert_close(found, wanted.reshape(GRID))
    assert answer.tables[0].columns["on itself"] == pytest.approx([1.0] * 3)
    assert answer.tables[0].columns["distance in px"] == pytest.approx([0.0] * 3)


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_uniform_attention_in_closed_form(layers):
    found, answer = rollout([torch.full((2, TOKENS, TOKENS), 1 / TOKENS)] * layers, (7,))
    off = (1 - 2**-layers) / TOKENS
    wanted = torch.full((TOKENS,), off)
    wanted[7] += 2**-layers
    torch.testing.assert_close(found, wanted.reshape(GRID))
    assert answer.tables[0].columns["on itself"] == pytest.approx([1 / TOKENS] * layers)
    # the mean distance from patch 7, at row 1 and column 3, to any patch
    far = [np.hypot(r - 1, c - 3) for r in range(3) for c in range(4)]
    assert answer.tables[0].columns["distance in px"] == pytest.approx([PATCH * np.mean(far)] * layers)
    assert "true resolution is 3×4 tokens" in answer.text


JOINED = {
    "mean": lambda m: m.mean(0),
    "max": lambda m: m.max(0).values,
    "min": lambda m: m.min(0).values,
}


@pytest.mark.parametrize("heads", list(JOINED))
@pytest.mark.parametrize("residual", [True, False])
def test_is_the_product_by_hand(heads, residual):
    matrices = random_matrices(3, 4, TOKENS)
    found, _ = rollout(matrices, (0, 5, 6), heads=heads, residual=residual)
    wanted = by_hand(matrices, JOINED[heads], residual)[[0, 5, 6]].mean(0)
    torch.testing.assert_close(found, wanted.reshape(GRID))


@pytest.mark.parametrize(("first", "last"), [(1, 2), (2, None), (2, 2), (3, 3)])
def test_a_range_of_attentions_and_one_head(first, last):
    matrices = random_matrices(3, 4, TOKENS)
    found, _ = rollout(matrices, (4,), first=first, last=last, head=3)
    wanted = by_hand(matrices[first - 1 : last], lambda m: m[2])[4]
    torch.testing.assert_close(found, wanted.reshape(GRID))


def test_one_head_of_one_attention_without_the_way_around_is_the_raw_attention():
    matrices = random_matrices(2, 4, TOKENS)
    found, _ = rollout(matrices, (9,), first=2, last=2, head=1, residual=False)
    torch.testing.assert_close(found.flatten(), matrices[1][0, 9])


@pytest.mark.parametrize("extras", [0, 1, 3])
def test_shares_add_up_to_one_with_those_of_tokens_that_see_no_pixel(extras):
    matrices = random_matrices(3, 2, TOKENS + extras)
    found, answer = rollout(matrices, (2, 3), extras=extras)
    product = by_hand(matrices)[[2 + extras, 3 + extras]].mean(0)
    torch.testing.assert_close(found.flatten(), product[extras:])
    aside = float(product[:extras].sum())
    assert float(found.sum()) + aside == pytest.approx(1, abs=1e-5)
    assert f"{aside:.1%} of it from tokens that see no pixel" in answer.text


def test_the_token_of_a_class_reads_for_itself():
    matrices = random_matrices(2, 2, TOKENS + 3)
    names = ("background", "a", "b")
    for index in (1, 2):
        found, _ = rollout(matrices, (0,), extras=3, classes=names, of_class=index, rows="class token")
        torch.testing.assert_close(found.flatten(), by_hand(matrices)[index, 3:])
    with pytest.raises(MissingNeed, match="no token for the class a") as caught:
        rollout(matrices, (0,), extras=3, rows="class token")
    assert "region" in caught.value.fix


def test_a_network_with_a_sigmoid_per_class_has_no_token_for_background():
    matrices = random_matrices(2, 2, TOKENS + 2)
    model = wrap(Given(matrices, 2), classes=("background", "a", "b"), multilabel=True, divisor=PATCH)
    mask = Painted(np.ones(PIXELS.shape, bool))
    for index in (1, 2):
        answer = explain("attention-rollout", IMAGE, model, Target(index, mask), rows="class token", smooth=False)
        torch.testing.assert_close(blocks(answer.map.data).flatten(), by_hand(matrices)[index - 1, 2:])
    with pytest.raises(MissingNeed, match="no token for the class background"):
        explain("attention-rollout", IMAGE, model, Target(0, mask), rows="class token")


def test_a_region_counts_by_its_area():
    """Maps of disjoint regions add up, weighted by their pixels; patches may be covered in part."""
    model = wrap(Given(random_matrices(2, 2, TOKENS)), divisor=PATCH)
    one, two = np.zeros(PIXELS.shape, bool), np.zeros(PIXELS.shape, bool)
    one[1:6, 2:9], two[7:12, 3:5] = True, True
    both, a, b = (explain("attention-rollout", IMAGE, model, Target(1, Painted(m))) for m in (one | two, one, two))
    n, m = one.sum(), two.sum()
    np.testing.assert_allclose(both.map.data, (n * a.map.data + m * b.map.data) / (n + m), atol=1e-6)


def test_it_does_not_know_what_counts():
    """The class changes nothing; nor does a network whose answer does not use what it read."""
    matrices = random_matrices(2, 2, TOKENS + 3)
    names = ("background", "a", "b")
    one, two = (rollout(matrices, (1,), extras=3, classes=names, of_class=k)[0] for k in (1, 2))
    assert torch.equal(one, two)


def test_smooth_maps_are_interpolated_and_padded_images_are_cut_back():
    torch.manual_seed(0)
    model = wrap(Segmenter(1, 2, 8, 16, 2, 2), divisor=8)
    image = Image(PIXELS[:11, :13], "YX", name="odd")
    mask = np.zeros((11, 13), bool)
    mask[2:9, 4:12] = True
    smooth, coarse = (
        explain("attention-rollout", image, model, Target(1, Painted(mask)), smooth=s) for s in (True, False)
    )
    assert smooth.map.data.shape == coarse.map.data.shape == (11, 13)
    tokens = torch.as_tensor(coarse.map.data)[::8, ::8]
    assert tokens.shape == (2, 2)
    wide = torch.nn.functional.interpolate(tokens[None, None], (16, 16), mode="bilinear")[0, 0, :11, :13]
    np.testing.assert_allclose(smooth.map.data, wide.numpy(), atol=1e-6)


def test_refusals():
    matrices = random_matrices(2, 4, TOKENS)
    for parameters, words in (
        ({"first": 3}, "first=3 to last=2"),
        ({"last": 5}, "last=5"),
        ({"first": 2, "last": 1}, "first=2 to last=1"),
        ({"head": 5}, "head=5"),
    ):
        with pytest.raises(BadParameter, match=words) as caught:
            rollout(matrices, (0,), **parameters)
        assert "Use 1 to" in caught.value.fix
    image, cell, _ = context_image()
    with pytest.raises(MissingNeed, match="no attention"):
        explain("attention-rollout", image, wrap(Context(), classes=("background", "a", "b")), Target(1, Painted(cell)))
    model = wrap(AttendingDeep(), divisor=PATCH)
    with pytest.raises(MissingNeed, match="tiles"):
        explain("attention-rollout", IMAGE, model, Target(1, Painted(PIXELS > 0)), tile=8)


def test_the_record_tells_cost_and_memory():
    matrices = random_matrices(2, 4, TOKENS)
    _, answer = rollout(matrices, (0,))
    told = answer.record.engine["attention"]
    assert (told["layers"], told["heads"], told["tokens"]) == (2, [4, 4], [TOKENS, TOKENS])
    assert told["megabytes of all heads"] == round(2 * 4 * 4 * TOKENS**2 / 1e6, 1)
    # one to freeze the target, one for the matrices, and what it takes to find the tokens
    assert answer.record.cost["forwards"] == 2 + told["passes to find the tokens"]
    assert answer.record.cost["backwards"] == 0
