"""Where the tokens of a transformer lie on the image, and which of them go on from one attention to the next.

Attention tells who reads whom by number; the rest is measured with not-a-numbers, as the reach is. Some patches of the
image are spoilt, and the tokens that are lost at the first attention are theirs; so any order of tokens is found, and
tokens that see no pixel (class tokens, registers) are known wherever they stand. Then some tokens of an attention are
spoilt, and those lost at the next are what became of them. What cannot be told apart is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from math import prod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from seglens.core.errors import MissingNeed
from seglens.core.run import Run
from seglens.engine import fast
from seglens.engine.attention import Attention, lost_tokens
from seglens.models.segmentation import SegmentationModel

Order = Literal["measured", "rows"]

MOST_EXTRAS = 8  # class tokens and registers in front, where the order is not measured
NONE = -1

_KNOWN: dict[tuple[object, ...], Tokens] = {}


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of each attention, in the order of the network.

    Args:
        grid: patches along each axis of space.
        joins: per attention (tokens,): which token of the attention before it went on to be this one, for the first
            one the patch, numbered in reading order; -1 where a token is new or sees no pixel.
    """

    grid: tuple[int, ...]
    joins: tuple[Tensor, ...]

    @cached_property
    def places(self) -> tuple[Tensor, ...]:
        """Per attention (tokens,): the patch that a token began as; -1 for none."""
        found = [self.joins[0]]
        for join in self.joins[1:]:
            found.append(torch.where(join < 0, NONE, found[-1][join.clamp(min=0)]))
        return tuple(found)

    @cached_property
    def born(self) -> tuple[Tensor, ...]:
        """Per attention (tokens,): before which attention a token began, 0 for the first one."""
        found = [torch.zeros_like(self.joins[0])]
        for number, join in enumerate(self.joins[1:], start=1):
            found.append(torch.where(join < 0, number, found[-1][join.clamp(min=0)]))
        return tuple(found)

    def back(self, row: Tensor, matrices: Sequence[Tensor | None]) -> tuple[Tensor, float]:
        """Carry a row of shares (tokens,) of the last of some attentions back through them to the patches.

        Args:
            row: a share for each token of the last attention.
            matrices: per attention (tokens, tokens), ``None`` where nothing is read; as many as are gone through.

        Returns:
            The shares on the patches (*grid), and what ends on tokens that see no pixel.
        """
        aside = 0.0
        for number in reversed(range(len(matrices))):
            matrix, join = matrices[number], self.joins[number]
            row = row if matrix is None else row @ matrix
            known = join >= 0
            aside += float(row[~known].sum())
            before = prod(self.grid) if number == 0 else len(self.joins[number - 1])
            row = row.new_zeros(before).index_add(0, join[known], row[known])
        return row.reshape(self.grid), aside


def find_tokens(
    model: SegmentationModel, x: Tensor, seen: Sequence[Attention], run: Run, order: Order = "measured"
) -> Tokens:
    """Measure where tokens lie and how they go on; remembered for the model and the size of the image.

    Takes a few passes up to the first attention for the grid, and one from each attention to the next.

    Args:
        model: the network.
        x: input (1, C, *space).
        seen: its attentions (:func:`~seglens.engine.attention.attentions`) on it.
        run: cancel and cost.
        order: ``rows`` does not measure the grid: patches are in reading order, tokens that see no pixel in front.

    Raises:
        MissingNeed: tokens do not make a grid, or are merged or moved between attentions.
    """
    space = model.padded(tuple(x.shape[2:]))
    key = (model.fingerprint(), str(x.device), space, order, tuple((a.number, a.tokens) for a in seen))
    if key not in _KNOWN:
        margins = [n for size, full in zip(x.shape[2:], space, strict=True) for n in (full - size, 0)][::-1]
        measure = _Measure(model, F.pad(x, margins, mode="replicate") if any(margins) else x, run)
        with fast.kept_memory(model):
            first, grid = measure.first(seen[0]) if order == "measured" else measure.in_rows(seen[0])
            joins = [first]
            for one, two in pairwise(seen):
                joins.append(measure.join(one, two, joins))
        _KNOWN[key] = Tokens(grid, tuple(joins))
    return _KNOWN[key]


@dataclass(frozen=True)
class _Measure:
    model: SegmentationModel
    x: Tensor
    run: Run

    def first(self, attention: Attention) -> tuple[Tensor, tuple[int, ...]]:
        """The patch of each token (tokens,), and the grid."""
        sees = self._lost(attention, torch.ones([1] * (self.x.ndim - 2), dtype=torch.bool))
        for grid in grids(int(sees.sum()), tuple(self.x.shape[2:])):
            found = self._patches(attention, grid, sees)
            if found is not None:
                join = torch.full((attention.tokens,), NONE)
                join[sees] = found
                return join.to(self.x.device), grid
        raise MissingNeed(
            f"Where the {attention.tokens} tokens of {self.model.spec.name} lie on the image cannot be told: they do "
            "not stand for one patch each.",
            fix="If they are in reading order, class tokens in front, set order to rows; else choose another method.",
        )

    def _patches(self, attention: Attention, grid: tuple[int, ...], sees: Tensor) -> Tensor | None:
        """Patch numbers of the tokens that see something, read bit by bit; ``None`` if this is not the grid."""
        number = torch.arange(prod(grid))
        found = torch.zeros(len(number), dtype=torch.long)
        for bit in range((len(number) - 1).bit_length()):
            spoilt = (number >> bit & 1).bool()
            lost = self._lost(attention, spoilt.reshape(grid))[sees]
            if int(lost.sum()) != int(spoilt.sum()):
                return None
            found |= lost.long() << bit
        return found if torch.equal(found.sort().values, number) else None

    def _lost(self, attention: Attention, spoilt: Tensor) -> Tensor:
        """Which tokens are lost when patches (*grid) are spoilt, (tokens,) on the CPU."""
        at_pixels = F.interpolate(spoilt[None, None].float(), tuple(self.x.shape[2:]), mode="nearest") > 0
        x = self.x.masked_fill(at_pixels.to(self.x.device), torch.nan)
        return lost_tokens(self.model, x, attention.number, self.run).cpu()

    def in_rows(self, attention: Attention) -> tuple[Tensor, tuple[int, ...]]:
        """The same without measuring: some tokens in front, then square patches in reading order."""
        space, tokens = tuple(self.x.shape[2:]), attention.tokens
        fits = [
            (extra, grid)
            for extra in range(min(MOST_EXTRAS + 1, tokens))
            for grid in grids(tokens - extra, space)
            if len({n // g for n, g in zip(space, grid, strict=True)}) == 1
        ]
        if len(fits) != 1:
            raise MissingNeed(
                f"The {tokens} tokens of {self.model.spec.name} fit {len(fits) or 'no'} grids of square patches on an "
                f"image of {'×'.join(map(str, space))}.",
                fix="Choose an image of another size, or another method.",
            )
        extra, grid = fits[0]
        return torch.arange(-extra, tokens - extra, device=self.x.device).clamp(min=NONE), grid

    def join(self, one: Attention, two: Attention, joins: list[Tensor]) -> Tensor:
        """Which token of an attention went on to be which of the next one (tokens of the next,)."""
        every = torch.ones(one.tokens, dtype=torch.bool, device=self.x.device)
        pattern = (torch.rand(one.tokens, generator=torch.Generator().manual_seed(0)) < 0.5).to(self.x.device)
        alike = one.tokens == two.tokens
        old = every if alike else lost_tokens(self.model, self.x, two.number, self.run, (one.number, every))
        places = Tokens((), tuple(joins)).places[-1]
        kept = next((k for k in (every.nonzero(), (places >= 0).nonzero()) if len(k) == int(old.sum())), None)
        if kept is not None:
            join = torch.full((two.tokens,), NONE, device=self.x.device)
            join[old] = kept[:, 0]
            lost = lost_tokens(self.model, self.x, two.number, self.run, (one.number, pattern))
            if torch.equal(lost, pattern[join.clamp(min=0)] & (join >= 0)):
                return join
        raise MissingNeed(
            f"{self.model.spec.name} does not hand its tokens on one by one from each attention to the next "
            f"({one.tokens} and {two.tokens} tokens), so what was read cannot be followed back to the image.",
            fix="Choose a network that keeps its tokens, or another method.",
        )


def grids(count: int, space: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Grids of so many equal patches on an image, those with the most even patches first."""
    if count < 1:
        return []
    choices = ([g for g in range(1, n + 1) if n % g == 0 and count % g == 0] for n in space)
    found = [grid for grid in product(*choices) if prod(grid) == count]

    def uneven(grid: tuple[int, ...]) -> float:
        sides = [n / g for n, g in zip(space, grid, strict=True)]
        return max(sides) / min(sides)

    return sorted(found, key=uneven)
