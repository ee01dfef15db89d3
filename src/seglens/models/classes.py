"""What logits say about classes: one wins each pixel, or each is drawn for itself and they may lie over each other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def log_probability(logits: Tensor, index: int, overlapping: bool) -> Tensor:
    """Of one class, (N, K, *space) to (N, *space): of a softmax, or of the class's own sigmoid.

    Args:
        logits: with that of the background, which is 0 where classes overlap.
        index: of the class. Where classes overlap, background is where none of them is.
        overlapping: see :attr:`~seglens.models.spec.ModelSpec.overlapping`.
    """
    if not overlapping:
        return logits.log_softmax(1)[:, index]
    return F.logsigmoid(logits[:, index]) if index else F.logsigmoid(-logits[:, 1:]).sum(1)


def probabilities(logits: Tensor, overlapping: bool) -> Tensor:
    """Of all classes, (N, K, *space); see :func:`log_probability`."""
    if not overlapping:
        return logits.softmax(1)
    return torch.cat([log_probability(logits, 0, overlapping)[:, None].exp(), logits[:, 1:].sigmoid()], 1)


def drawn(logits: Tensor, index: int, overlapping: bool) -> Tensor:
    """Where a class is drawn, (N, K, *space) to bool (N, *space): where it wins, or where its sigmoid is above 0.5."""
    if overlapping and index:
        return logits[:, index] > 0
    return logits.argmax(1) == index


def entropy(p: Tensor, overlapping: bool) -> Tensor:
    """Predictive entropy in nats of probabilities, (N, K, *space) to (N, *space); the mean over overlapping classes."""
    if not overlapping:
        return _surprise(p).sum(1)
    own = p[:, 1:]
    return (_surprise(own) + _surprise(1 - own)).mean(1)


def _surprise(p: Tensor) -> Tensor:
    return -p * p.clamp(min=1e-12).log()


def shares(logits: Tensor, overlapping: bool) -> Tensor:
    """Logarithms of probabilities that can be averaged (N, P, *space): of all classes, or of each and of its contrary.

    :func:`joined` makes logits of them.
    """
    if not overlapping:
        return logits.log_softmax(1)
    return torch.cat([F.logsigmoid(logits[:, 1:]), F.logsigmoid(-logits[:, 1:])], 1)


def joined(shares: Tensor, overlapping: bool) -> Tensor:
    """Logits (N, K, *space) of what :func:`shares` gave."""
    if not overlapping:
        return shares
    own, against = shares.chunk(2, 1)
    return torch.cat([torch.zeros_like(own[:, :1]), own - against], 1)
