"""The loss of all recipes: cross-entropy plus soft Dice of each class and of the foreground as a whole."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SMOOTH = 1.0


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


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy + mean soft Dice of the foreground classes + soft Dice of all of them together.

    Args:
        logits: (N, K, *space), class 0 is background.
        labels: (N, *space), class numbers.
    """
    probability = logits.softmax(1)
    truth = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(probability.dtype)
    each = soft_dice(probability[:, 1:], truth[:, 1:]).mean()
    whole = soft_dice(1 - probability[:, :1], 1 - truth[:, :1]).mean()
    return torch.stack([F.cross_entropy(logits, labels), 0.5 * each, 0.5 * whole]).sum()
