"""Transformers whose attention is known: for the tests of attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 4


def random_matrices(layers: int, heads: int, tokens: int, seed: int = 0) -> list[Tensor]:
    """Attention matrices (heads, tokens, tokens) whose rows add up to 1."""
    generator = torch.Generator().manual_seed(seed)
    return [(2 * torch.randn(heads, tokens, tokens, generator=generator)).softmax(-1) for _ in range(layers)]


class Given(nn.Module):
    """A transformer with given attention matrices; a patch is one token, and its number the mean of its pixels.

    ``extras`` tokens without a pixel stand in front. Each attention adds what the heads have read, on average. The
    logit of class 1 is the patch's token, that of class 2 the last extra token.
    """

    divisor = PATCH

    def __init__(self, matrices: list[Tensor], extras: int = 0, classes: int = 2) -> None:
        super().__init__()
        self.matrices, self.extras, self.classes = matrices, extras, classes

    def run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits, and the weights as the graph holds them."""
        grid = F.avg_pool2d(x[:, :1], PATCH)
        tokens = torch.cat([x.new_full((len(x), self.extras), 0.5), grid.flatten(1)], 1)
        seen = []
        for matrix in self.matrices:
            # nothing is added, but what is not a number spreads as in any attention
            about = 0 * (tokens[:, :, None] + tokens[:, None])
            seen.append((matrix.clamp(min=1e-30).log() + about[:, None]).softmax(-1))
            read = torch.einsum("nhqk,nk->nhq", seen[-1], tokens)
            tokens = tokens + read.mean(1)
        own = F.interpolate(tokens[:, self.extras :].reshape(grid.shape), x.shape[2:], mode="nearest")
        extra = [tokens[:, self.extras - 1].reshape(-1, 1, 1, 1).expand_as(own)] * (self.classes - 2)
        return torch.cat([torch.zeros_like(own), own, *extra], 1), seen

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)[0]


def blocks(data: object, side: int = PATCH) -> Tensor:
    """The values of patches (*grid) of a map that shows each token as a block."""
    return torch.as_tensor(data)[::side, ::side]
