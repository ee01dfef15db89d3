"""Grid saliency's problem: baselines, pictures whose context a coarse mask keeps, and their loss."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from seglens.core.boxes import at_box
from seglens.core.explanation import Table
from seglens.engine import optimise
from seglens.engine.case import Case

SHARES = ("0", "0.25", "0.5", "0.75", "1")  # of the range of intensities
LINEAR = {2: "bilinear", 3: "trilinear"}
FLAT = 1e-3  # a clean score this near 0 is no unit


def baselines(case: Case, chosen: str) -> dict[str, Tensor]:
    """What hidden context is replaced with, each (1, C, *space): the mean, or a share of the range of intensities."""
    names = ("mean", *SHARES) if chosen in ("typical", "lowest") else (chosen,)
    return {name: case.fill("mean") if name == "mean" else _constant(case, float(name)) for name in names}


def _constant(case: Case, share: float) -> Tensor:
    low, high = case.intake.low, case.intake.high
    flat = torch.full(tuple(case.x.shape[1:]), low + share * (high - low), dtype=torch.float64)
    return torch.from_numpy(case.intake.to_input(flat.numpy())).to(case.x).unsqueeze(0)


class Context:
    """What the target needs of its surroundings: masks (rows, 1, *grid), one row per baseline, and their loss.

    ``scale`` is the unit of the loss: the clean score for logits and margins, 1 for probabilities.
    """

    def __init__(
        self, case: Case, fills: Tensor, *, cells: int, weight: float, per_cell: bool, copies: int, noise: float
    ) -> None:
        """Cut out the field and look at its clean logits.

        Args:
            case: the question.
            fills: baselines (rows, C, *space).
            cells: of the mask along each axis.
            weight: λ, in units of ``scale``.
            per_cell: λ is paid per cell; else for the mask as a whole.
            copies, noise: noisy copies per step; deviation of what is added to the baseline, in the image's own.
        """
        at = at_box(case.field)
        self.case, self.x, self.fills = case, case.x[at], fills[at]
        self.target = case.target.within(case.field)
        self.weights = self.target.weights.to(self.x)
        self.region = self.weights != 0
        self.grid = tuple(min(cells, n) for n in self.region.shape)
        self.weight, self.per_cell, self.copies, self.noise = weight, per_cell, copies, noise
        self._generator = case.generator()
        self._drawn = torch.zeros(0)
        self._clean = self.target.per_pixel(case.logits[at])
        unit = abs(float(self._mean(self._clean)[0])) if case.target.value in ("logit", "margin") else 1.0
        self.scale = unit if unit > FLAT else 1.0

    @property
    def pixels(self) -> int:
        """Of one picture."""
        return self.region.numel()

    def start(self, value: float) -> Tensor:
        """Masks (rows, 1, *grid) of one value."""
        return torch.full((len(self.fills), 1, *self.grid), value, dtype=self.x.dtype, device=self.x.device)

    def spread(self, masks: Tensor) -> Tensor:
        """Coarse masks over the pixels of the field (n, 1, *field)."""
        mode = LINEAR[len(self.grid)]
        return F.interpolate(masks, tuple(self.region.shape), mode=mode, align_corners=False)

    def pictures(self, masks: Tensor, fills: Tensor) -> Tensor:
        """Pictures (n, C, *field) that show the region, and the context as far as masks (n, 1, *grid) keep it."""
        kept = self.spread(masks)
        return torch.where(self.region, self.x, kept * self.x + (1 - kept) * fills)

    def loss(self, masks: Tensor, start: int, stop: int) -> Tensor:
        """λ times the size of the mask plus the mean hinge over the region, per item (n,), in units of ``scale``."""
        if self.noise > 0 and start == 0:
            # all at once, so that the size of chunks does not change what is drawn
            shape = (len(masks) * self.copies, *self.x.shape[1:])
            self._drawn = torch.randn(shape, generator=self._generator) * self.noise
        rows = torch.arange(start, stop, device=masks.device) // self.copies
        fills = self.fills[rows]
        if self.noise > 0:
            fills = fills + self._drawn[start:stop].to(fills) * self.x.std()
        logits = optimise.logits(self.case.local, self.pictures(masks[rows], fills), self.case.run)
        return self.price(masks[rows]) + self.hinge(logits)

    def price(self, masks: Tensor) -> Tensor:
        """λ times the size of masks, (n,): their sum over cells, or their mean."""
        flat = masks.flatten(1)
        return self.weight * (flat.sum(1) if self.per_cell else flat.mean(1))

    def hinge(self, logits: Tensor) -> Tensor:
        """What the region loses against the clean image, (n,), pixel by pixel; what it gains counts nothing."""
        lost = (self._clean - self.target.per_pixel(logits)) * self.weights.sign()
        return (lost.clamp(min=0) * self.region).flatten(1).sum(1) / self.region.sum() / self.scale

    def look(self, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Losses and scores without noise, both (rows,) on the CPU."""
        losses, scores = [], []
        size = optimise.chunk(self.case, self.pixels)
        for start in range(0, len(masks), size):
            some = slice(start, start + size)
            logits = self.case.forward(self.pictures(masks[some], self.fills[some]), self.case.local)
            losses.append(self.price(masks[some]) + self.hinge(logits))
            scores.append(self.target(logits))
        return torch.cat(losses).cpu().double(), torch.cat(scores).cpu().double()

    def only(self, rows: Tensor) -> Context:
        """The same for some of the baselines (rows,) boolean."""
        some = copy.copy(self)
        some.fills = self.fills[rows.to(self.fills.device)]
        return some

    def share(self, masks: Tensor) -> list[float]:
        """How much of the context, in pixels, each mask keeps (rows,)."""
        return self._kept(masks).mean(1).tolist()

    def bias(self, masks: Tensor, drawn: Tensor) -> dict[str, list[float]]:
        """CBD, the share of the context that is salient, and CBL, the share of that inside what was drawn (*space)."""
        kept, inside = self._kept(masks), drawn.to(self.x.device)[self.case.field][~self.region]
        total = kept.sum(1)
        found = (kept * inside).sum(1) / total.clamp(min=1e-12)
        return {"CBD": self.share(masks), "CBL": found.tolist()}

    def _kept(self, masks: Tensor) -> Tensor:
        """Masks at the pixels of the context (rows, pixels); one empty pixel where there is no context."""
        kept = self.spread(masks)[:, 0, ~self.region]
        return kept if kept.shape[1] else kept.new_zeros(len(masks), 1)

    def _mean(self, values: Tensor) -> Tensor:
        return (values * self.weights.sign()).flatten(1).sum(1) / self.region.sum()


@dataclass(frozen=True, eq=False)
class Found:
    """What was found for each baseline (rows), all on the CPU but the masks.

    Args:
        masks: (rows, 1, *grid); zero where no mask is better than none.
        losses, scores: with the mask.
        scores_hidden: with all context hidden.
        history: per step of the first descent the losses of all rows.
    """

    masks: Tensor
    losses: Tensor
    scores: Tensor
    scores_hidden: Tensor
    history: list[list[float]]

    @property
    def needed(self) -> Tensor:
        """For which baselines some context is needed (rows,)."""
        return self.masks.flatten(1).any(1).cpu()


def solve(context: Context, *, steps: int, rate: float, momentum: float, first: float) -> Found:
    """The best mask for each baseline, if it is better than none at all.

    Where the descent finds nothing better than no context although something is lost without, it starts once more
    from all context: a detector with a threshold answers nothing to half an image, and has no gradient there.

    Args:
        context: the problem.
        steps, rate, momentum: of the projected descent.
        first: value of the masks before it.
    """

    def descend(part: Context, value: float) -> optimise.Optimum:
        return optimise.minimise(
            context.case, part.start(value), part.loss, steps=steps, rate=rate, momentum=momentum,
            copies=context.copies, pixels=context.pixels, project=lambda v: v.clamp(0, 1), seen=_settled,
        )  # fmt: skip

    masks = context.start(0.0)
    hidden, scores_hidden = context.look(masks)
    losses, scores = hidden.clone(), scores_hidden.clone()
    history: list[list[float]] = []
    # where nothing is lost without any context, no mask is better than none
    for value in (first, 1.0):
        open_rows = (hidden > 0) & ~masks.flatten(1).any(1).cpu()
        if not bool(open_rows.any()) or (history and value == first):
            break
        part = context.only(open_rows)
        found = descend(part, value)
        history = history or _lines(found, open_rows)
        new_losses, new_scores = part.look(found.values)
        better = new_losses < losses[open_rows]
        rows = open_rows.nonzero().flatten()[better]
        masks[rows.to(masks.device)] = found.values[better.to(masks.device)]
        losses[rows], scores[rows] = new_losses[better], new_scores[better]
    return Found(masks, losses, scores, scores_hidden, history)


def _lines(found: optimise.Optimum, rows: Tensor) -> list[list[float]]:
    """Per step the losses of all rows; those without a descent lose nothing."""
    full = torch.zeros(len(found.history), len(rows), dtype=torch.float64)
    full[:, rows] = torch.stack(found.history)
    return full.tolist()


def told(context: Context, found: Found, names: Sequence[str], shown: int) -> Table:
    """A row per baseline; with CBD and CBL where a person drew the biased context."""
    columns = {
        "baseline": list(names),
        "loss": found.losses.tolist(),
        "share of context": context.share(found.masks),
        "score without context": found.scores_hidden.tolist(),
        "score with it": found.scores.tolist(),
        "shown": ["yes" if row == shown else "no" for row in range(len(names))],
    }
    drawn = context.case.annotation
    return Table(
        "baselines", columns | ({} if drawn is None else context.bias(found.masks, torch.from_numpy(drawn != 0)))
    )


def _settled(best: optimise.Optimum) -> bool:
    """Whether ten steps changed nothing."""
    h = best.history
    return len(h) > 20 and bool((h[-1] - h[-11]).abs().max() < 1e-5)
