"""Losses by name, and their sums. Pixels with the label :data:`UNKNOWN` count in none of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from seglens.core.errors import BadParameter, UnknownName

SMOOTH = 1.0
FOCUS = 2.0  # exponent of the focal loss (Lin 2017)
UNKNOWN = -1


def soft_dice(probability: Tensor, truth: Tensor) -> Tensor:
    """One minus the soft Dice of a batch, per channel.

    Args:
        probability: (N, C, *space), each 0 to 1.
        truth: the same shape, 0 or 1.

    Returns:
        (C,), each 0 (perfect) to 1; the batch counts as one large image, which keeps sparse crops calm.
    """
    axes = [0, *range(2, probability.ndim)]
    overlap = (probability * truth).sum(axes)
    total = probability.sum(axes) + truth.sum(axes)
    return 1 - (2 * overlap + SMOOTH) / (total + SMOOTH)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the known pixels: (); logits (N, K, *space), labels (N, *space)."""
    return F.cross_entropy(logits, labels, ignore_index=UNKNOWN)


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Half the mean soft Dice loss of the foreground classes, half that of all of them together: ()."""
    known = (labels != UNKNOWN).unsqueeze(1).to(logits.dtype)
    probability = logits.softmax(1) * known
    truth = F.one_hot(labels.clamp(min=0), logits.shape[1]).movedim(-1, 1).to(probability.dtype) * known
    each = soft_dice(probability[:, 1:], truth[:, 1:]).mean()
    whole = soft_dice(known - probability[:, :1], known - truth[:, :1]).mean()
    return 0.5 * each + 0.5 * whole


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy that counts a pixel less the surer the network is of its truth (Lin 2017, γ = 2): ()."""
    surprise = F.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="none")
    weight = (1 - torch.exp(-surprise)) ** FOCUS
    return (weight * surprise).sum() / (labels != UNKNOWN).sum().clamp(min=1)


LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": cross_entropy,
    "dice": dice,
    "focal": focal,
}


def loss_named(text: str) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss that a recipe names: ``dice``, or a sum such as ``cross-entropy + 0.5 dice``.

    Raises:
        UnknownName: no loss of that name.
        BadParameter: a part that is no "name" or "weight name".
    """
    parts = [_part(part.strip()) for part in text.split("+")]
    return lambda logits, labels: torch.stack([weight * of(logits, labels) for weight, of in parts]).sum()


def _part(text: str) -> tuple[float, Callable[[Tensor, Tensor], Tensor]]:
    found = re.fullmatch(r"(\d*\.?\d+)?\s*\*?\s*([a-z][a-z-]*)", text)
    if found is None:
        raise BadParameter(f"A loss cannot be read from {text!r}.", fix="Write it like cross-entropy + 0.5 dice.")
    weight, name = found.groups()
    if name not in LOSSES:
        raise UnknownName.among("loss", name, LOSSES, listing=f"Losses: {', '.join(LOSSES)}, and sums of them.")
    return float(weight or 1), LOSSES[name]
