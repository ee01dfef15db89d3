"""Attention rollout: which patches the region's tokens have read from, through all attentions of a transformer."""

from typing import Annotated, Literal

import torch
from torch import Tensor

from seglens.core.errors import BadParameter
from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity
from seglens.core.param import Param
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.methods.gradient._attention import (
    AttentionMethod,
    layer_table,
    need_class_row,
    region_row,
    resolution,
)

Heads = Annotated[Literal["mean", "max", "min"], Param("How the heads of an attention are joined.")]
Head = Annotated[int | None, Param("Only this head, from 1 on.", ge=1, le=4096, empty="all heads")]
Residual = Annotated[bool, Param("Count the way around each attention: half of a token stays what it was.")]
Rows = Annotated[Literal["region", "class token"], Param("Whose reading is shown: the region's, or the class token's.")]


class AttentionRollout(AttentionMethod):
    """The product of all (A + I) / 2, read in the region's rows; the class and the logits play no part."""

    title = "Attention rollout"
    cite = "abnar2020"
    survey = (216,)
    fidelity = Fidelity.EXACT
    class_blind = True

    heads: Heads = "mean"
    head: Head = None
    residual: Residual = True
    rows: Rows = "region"

    def run(self, case: Case) -> Explanation:
        """Shares of the patches, which add up to 1 with those of class tokens and registers."""
        seen, tokens = self.look(case, self._joined)
        last = self.until(case, len(seen))
        row = (region_row if self.rows == "region" else need_class_row)(case, tokens, last - 1)
        steps = [None if n < self.first else self._step(a.matrix) for n, a in enumerate(seen[:last], start=1)]
        shares, aside = tokens.back(row, steps)
        layer = Layer("rollout", "heat", self.shown(case, shares), "share of what was read")
        text = (
            f"What the tokens of {plural(case.target.pixels, 'pixel')} ({self.rows}) have read through "
            f"{self.through(last, len(seen))}; {aside:.1%} of it from tokens that see no pixel. "
            f"{resolution(tokens)} The same for every class: it shows what was read, not what counted."
        )
        return Explanation((layer,), (layer_table(case, seen, tokens),), text=text)

    def _joined(self, weights: Tensor) -> Tensor:
        """Heads (heads, tokens, tokens) as one matrix."""
        if self.head is not None:
            if self.head > len(weights):
                raise BadParameter(
                    f"attention-rollout: head={self.head} is asked for, and an attention has {len(weights)}.",
                    fix=f"Use 1 to {len(weights)}, or leave it empty.",
                )
            return weights[self.head - 1].clone()
        if self.heads == "mean":
            return weights.mean(0)
        return weights.amax(0) if self.heads == "max" else weights.amin(0)

    def _step(self, matrix: Tensor) -> Tensor:
        """One factor of the product: rows that add up to 1."""
        step = matrix + torch.eye(len(matrix), device=matrix.device) if self.residual else matrix
        return step / step.sum(-1, keepdim=True).clamp(min=1e-12)
