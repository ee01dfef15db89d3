"""Designs of masks, kept small and made batch by batch: random soft grids, and Sobol points exchanged cell by cell."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from math import ceil

import torch
from scipy.stats import qmc
from torch import Tensor

from seglens.core.boxes import Box, at_box, common, moved, whole
from seglens.engine.case import Case
from seglens.engine.perturb import Masks
from seglens.engine.units import UnitMasks, Units

BLOCK = 256  # masks that are drawn at a time


@dataclass(frozen=True, eq=False)
class GridMasks(Masks):
    """Coarse random grids, upsampled linearly to one cell more than they have and moved by less than a cell.

    Nothing of the size of the image is kept: mask ``i`` is drawn anew whenever it is asked for, and is the same
    whatever the batch.

    Args:
        box: where in the image the masks lie; all around it is kept.
        cells: per axis, how many.
        keep: how likely a cell is kept.
        seeds: one per block of masks.
        lines: per axis (pixels, cells): the share of each cell in each pixel of the upsampled grid.
        count: how many masks there are.
        seen: the part of the image for which masks are made.
    """

    box: Box
    cells: tuple[int, ...]
    keep: float
    seeds: Tensor
    lines: tuple[Tensor, ...]
    count: int
    seen: Box
    _drawn: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def over(cls, case: Case, cells: int, keep: float, count: int) -> GridMasks:
        """Masks over the part of a case's image that the target can see, no finer than its pixels."""
        sizes = [s.stop - s.start for s in case.field]
        per_axis = tuple(min(cells, n) for n in sizes)
        seeds = torch.randint(2**62, (ceil(count / BLOCK),), generator=case.generator())
        lines = tuple(_line(n, c).to(case.x.device) for n, c in zip(sizes, per_axis, strict=True))
        return cls(case.field, per_axis, keep, seeds, lines, count, whole(case.shape))

    def __len__(self) -> int:
        """How many there are."""
        return self.count

    def batch(self, start: int, stop: int) -> Tensor:
        """(n, 1, *seen)."""
        n = stop - start
        sizes = [s.stop - s.start for s in self.seen]
        inside = common(self.box, self.seen)
        if inside is None:
            return self.lines[0].new_ones(n, 1, *sizes)
        made = self._made(start, stop, moved(inside, [s.start for s in self.box]))
        if inside == self.seen:
            return made[:, None]
        out = made.new_ones(n, 1, *sizes)
        here = moved(inside, [s.start for s in self.seen])
        out[at_box(here)] = made[:, None]
        return out

    def within(self, box: Box) -> GridMasks:
        """Only the pixels in a box; no others are made."""
        seen = tuple(slice(v.start + b.start, v.start + b.stop) for v, b in zip(self.seen, box, strict=True))
        return replace(self, seen=seen)

    def parts(self) -> Iterable[Tensor | str]:
        """What they are drawn from."""
        return [self.seeds, f"{self.box} {self.cells} {self.keep} {self.count} {self.seen}"]

    def drawn(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Grids (n, *cells) of 0 and 1, and shifts (n, axes) in pixels."""
        parts = []
        for block in range(start // BLOCK, (stop - 1) // BLOCK + 1):
            grids, shifts = self._block(block)
            at = slice(max(0, start - block * BLOCK), min(BLOCK, stop - block * BLOCK))
            parts.append((grids[at], shifts[at]))
        return torch.cat([g for g, _ in parts]), torch.cat([s for _, s in parts])

    def _block(self, block: int) -> tuple[Tensor, Tensor]:
        if block not in self._drawn:
            generator = torch.Generator().manual_seed(int(self.seeds[block]))
            grids = (torch.rand(BLOCK, *self.cells, generator=generator) < self.keep).float()
            cell = torch.tensor([len(line) // (c + 1) for line, c in zip(self.lines, self.cells, strict=True)])
            shifts = (torch.rand(BLOCK, len(cell), generator=generator) * cell).long().minimum(cell - 1)
            self._drawn.clear()
            self._drawn[block] = (grids, shifts)
        return self._drawn[block]

    def _made(self, start: int, stop: int, at: Box) -> Tensor:
        """Upsampled axis by axis, (n, *at); ``at`` counts from the corner of the box."""
        grids, shifts = self.drawn(start, stop)
        device = self.lines[0].device
        masks, shifts = grids.to(device), shifts.to(device)
        for axis, line in enumerate(self.lines):
            rows = torch.arange(at[axis].start, at[axis].stop, device=device) + shifts[:, axis, None]
            weights = line[rows].mT  # (n, cells, pixels)
            masks = masks.movedim(1, -1)
            masks = masks @ weights.reshape(len(weights), *(1,) * (masks.ndim - 3), *weights.shape[1:])
        return masks.clamp_(0, 1)


def _line(pixels: int, cells: int) -> Tensor:
    """Linear interpolation of ``cells`` to one cell's pixels more than needed, (pixels', cells)."""
    cell = ceil(pixels / cells)
    length = (cells + 1) * cell
    place = ((torch.arange(length) + 0.5) * cells / length - 0.5).clamp(0, cells - 1)
    low = place.floor().long()
    share = (place - low)[:, None]
    one_hot = torch.eye(cells)
    return one_hot[low] * (1 - share) + one_hot[(low + 1).clamp(max=cells - 1)] * share


@dataclass(frozen=True, eq=False)
class Exchanged(Masks):
    """Per point j: A_j, B_j, then A_j with each coordinate in turn from B_j; made when asked for.

    Args:
        labels: (1, *space) long, the cell of each pixel, -1 is always kept.
        a, b: (N, d) in [0, 1]: how much of each cell is kept.
    """

    labels: Tensor
    a: Tensor
    b: Tensor

    @classmethod
    def sobol(cls, units: Units, points: int, generator: torch.Generator) -> Exchanged:
        """A and B from the two halves of a scrambled Sobol sequence of ``points`` points."""
        seed = int(torch.randint(2**31, (1,), generator=generator))
        sequence = torch.from_numpy(qmc.Sobol(2 * len(units), scramble=True, seed=seed).random(points))
        return cls(units.labels, *sequence.chunk(2, 1))

    def by_point(self, scores: Tensor) -> Tensor:
        """Scores (N (d + 2),) as rows of A, B and the exchanged (n, d + 2), of the points that have all of them."""
        rows = scores.reshape(len(self.a), -1)
        return rows[~rows.isnan().any(1)]

    def __len__(self) -> int:
        """N (d + 2)."""
        return len(self.a) * (self.a.shape[1] + 2)

    def rows(self, start: int, stop: int) -> Tensor:
        """How much of each cell is kept, (n, d)."""
        number = torch.arange(start, stop)
        point, which = number // (self.a.shape[1] + 2), number % (self.a.shape[1] + 2) - 2
        from_b = (which[:, None] == torch.arange(self.a.shape[1])) | (which == -1)[:, None]
        return torch.where(from_b, self.b[point], self.a[point])

    def batch(self, start: int, stop: int) -> Tensor:
        """(n, 1, *space), constant on each cell."""
        return UnitMasks(self.labels, self.rows(start, stop).float()).batch(0, stop - start)

    def within(self, box: Box) -> Exchanged:
        """Only the pixels in a box."""
        return replace(self, labels=self.labels[(slice(None), *box)])

    def parts(self) -> Iterable[Tensor | str]:
        """Cells and both halves of the sequence."""
        return [self.labels, self.a, self.b]
