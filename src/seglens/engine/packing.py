"""Several windows in one forward pass, told apart by where each can be felt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seglens.core.boxes import Box, around, at_box, common, moved
from seglens.engine.perturb import Perturbations
from seglens.engine.plan import ALIKE, Plan, Scored

if TYPE_CHECKING:
    from seglens.engine.evaluator import Evaluator


class NotApart(Exception):
    """Windows that should not meet do."""


class Parts:
    """The targets' numbers when logits have changed in a part of the crop alone.

    Args:
        engine: targets, and the whole image's logits.
        how: the crop.
        clean: its logits (1, K, *crop).
    """

    def __init__(self, engine: Evaluator, how: Plan, clean: Tensor) -> None:
        """Sum up the clean image."""
        self._targets, self._clean = engine.targets, clean
        self._corner = [s.start for s in how.crop]
        # on the device, as the windows are: each number that is fetched from a GPU waits until it has nothing to do
        self._sums = torch.stack(
            [_padded(t.sums(engine.logits[at_box(t.box)], t.box)[0]) for t in engine.targets]
        )  # (targets, 2)

    def score(self, part: Tensor, box: Box) -> Tensor:
        """Numbers (targets,) with logits (1, K, *box) in a box of the image, on the logits' device."""
        sums = self._sums.clone()
        for row, t in zip(sums, self._targets, strict=True):
            at = common(box, t.box)
            if at is not None:
                here, there = (at_box(moved(at, c)) for c in ([s.start for s in box], self._corner))
                row += _padded((t.sums(part[here], at) - t.sums(self._clean[there], at))[0])
        return torch.stack([t.combine(row) for row, t in zip(sums, self._targets, strict=True)])


class Packed:
    """Scores passes in which several windows are covered at once.

    What the sums of a target change by inside the box that only one window can reach is that window's doing.
    """

    def __init__(self, engine: Evaluator, inside: Perturbations, how: Plan, clean: Tensor) -> None:
        self._engine, self._inside, self._how, self._clean = engine, inside, how, clean
        self._corner = [s.start for s in how.crop]
        self._parts = Parts(engine, how, clean)

    def holds(self) -> bool:
        """Whether a window of the fullest group changes alone what it changes in company, and nothing elsewhere."""
        groups = self._how.groups or ()
        fullest = max(groups, key=len, default=())
        if len(fullest) < 2:
            return True
        member = fullest[len(fullest) // 2]
        # one after the other: two copies at once may be more than the memory that is allowed
        together, alone = (
            self._engine.run_on(self._inside.together(group), self._how.crop) for group in (fullest, [member])
        )
        self._engine.run.cost.forwards += 2
        self._engine.run.cost.images += 2 * self._how.share
        here = at_box(moved(self._how.met[member], self._corner))
        seen = at_box(moved(around([t.box for t in self._engine.targets]), self._corner))
        elsewhere = (alone - self._clean).abs()
        elsewhere[here] = 0
        worst = max(float((together[here] - alone[here]).abs().max()), float(elsewhere[seen].max()))
        return worst <= ALIKE * max(1e-12, float(self._clean.abs().max()))

    def score(self, start: int, stop: int) -> Scored:
        """The windows of some groups."""
        groups = (self._how.groups or ())[start:stop]
        x = torch.cat([self._inside.together(g) for g in groups])
        logits = self._engine.run_on(x, self._how.crop)
        members = [(n, i) for i, group in enumerate(groups) for n in group]
        scores = torch.stack([self._one(number, logits[i : i + 1]) for number, i in members])
        return Scored(torch.tensor([n for n, _ in members]), scores.cpu().double())

    def _one(self, number: int, logits: Tensor) -> Tensor:
        reached = self._how.met[number]
        return self._parts.score(logits[at_box(moved(reached, self._corner))], reached)


def _padded(sums: Tensor) -> Tensor:
    return torch.cat([sums, sums.new_zeros(2 - len(sums))])
