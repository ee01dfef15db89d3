"""Losses by name against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from seglens.core.errors import BadParameter, UnknownName
from seglens.training.losses import LOSSES, UNKNOWN, loss_named

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(2, 3, 5, 4, generator=GENERATOR)
LABELS = torch.randint(0, 3, (2, 5, 4), generator=GENERATOR)


def test_a_sure_and_right_answer_costs_nothing() -> None:
    sure = 50.0 * F.one_hot(LABELS, 3).movedim(-1, 1)
    for loss in LOSSES.values():
        assert float(loss(sure, LABELS)) == pytest.approx(0, abs=1e-6)
        assert float(loss(-sure, LABELS)) > 0.4


def test_focal_is_cross_entropy_weighed_by_doubt() -> None:
    """At probability 1/2 the weight is (1/2)², so the loss is ln 2 / 4."""
    half = torch.zeros(1, 2, 3, 3)
    assert float(loss_named("focal")(half, torch.ones(1, 3, 3, dtype=torch.long))) == pytest.approx(math.log(2) / 4)


def test_dice_of_a_known_overlap() -> None:
    """Two of four foreground pixels found, surely: Dice (2·2+1)/(2+4+1) with the smoothing, for both halves."""
    truth = torch.tensor([[1, 1, 1, 1, 0, 0]])
    found = torch.tensor([[1, 1, 0, 0, 0, 0]])
    logits = 80.0 * F.one_hot(found, 2).movedim(-1, 1)
    assert float(loss_named("dice")(logits, truth)) == pytest.approx(1 - 5 / 7, abs=1e-6)


def test_a_sum_is_the_sum() -> None:
    ce, dice, focal = (LOSSES[name](LOGITS, LABELS) for name in ("cross-entropy", "dice", "focal"))
    assert torch.isclose(loss_named("cross-entropy + 0.5 dice + 2*focal")(LOGITS, LABELS), ce + 0.5 * dice + 2 * focal)
    assert torch.isclose(loss_named("cross-entropy")(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS))


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_pixels_that_nobody_knows_count_in_nothing(name: str) -> None:
    hidden = LABELS.clone()
    hidden[:, 2:] = UNKNOWN
    other = LOGITS.clone()
    other[:, :, 2:] += 3
    known, changed = (LOSSES[name](logits, hidden) for logits in (LOGITS, other))
    assert torch.isclose(known, changed)
    assert torch.isclose(known, LOSSES[name](LOGITS[:, :, :2], LABELS[:, :2]))


def test_wrong_names_say_which_there_are() -> None:
    with pytest.raises(UnknownName, match="'dise'") as caught:
        loss_named("cross-entropy + dise")
    assert "Did you mean dice?" in caught.value.fix
    for text in ("", "dice +", "0.5", "dice * 2"):
        with pytest.raises(BadParameter):
            loss_named(text)
