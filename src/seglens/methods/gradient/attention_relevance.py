"""Attention relevance: which patches the target asks for, by attention times its gradient through a transformer."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from torch import Tensor

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Need
from seglens.core.param import Param
from seglens.core.plural import plural
from seglens.engine.attention import Attention
from seglens.engine.case import Case
from seglens.methods.gradient._attention import (
    AttentionMethod,
    class_row,
    layer_table,
    need_class_row,
    region_row,
    resolution,
)
from seglens.models.device import fine_sum

Rows = Annotated[
    Literal["both", "region", "class token"],
    Param("Whose relevance is read: the region's tokens, the token of the class, or both where there is one."),
]
Itself = Annotated[bool, Param("Count what each token of the region is by itself, before it reads any other.")]
LITTLE = 0.05  # of the score: below, attention has next to nothing to do with it


class AttentionRelevance(AttentionMethod):
    """R ← R + mean over heads of (A · ∂T/∂A)⁺ · R from R = 1, attention by attention, read in the region's rows.

    The rule is that of the paper for self-attention; how a region and a class token are read is ours.
    """

    title = "Attention relevance"
    cite = "chefer2021generic"
    survey = (216,)
    fidelity = Fidelity.AFTER
    needs = frozenset({Need.GRADIENT, Need.ATTENTION})

    rows: Rows = "both"
    itself: Itself = False

    def run(self, case: Case) -> Explanation:
        """Relevance of the patches, from 0 upwards, in units of the target."""
        seen, tokens = self.look(case, _relevant, case.target)
        last = self.until(case, len(seen))
        of_class = (need_class_row if self.rows == "class token" else class_row)(case, tokens, last - 1)
        parts = {"the region's tokens": None if self.rows == "class token" else region_row(case, tokens, last - 1)}
        parts[f"the token of {case.target.name}"] = None if self.rows == "region" else of_class
        rows = {name: part for name, part in parts.items() if part is not None}
        row = torch.stack(list(rows.values())).sum(0)
        steps = [None if n < self.first else _step(a.matrix) for n, a in enumerate(seen[:last], start=1)]
        relevance, _ = tokens.back(row, steps)
        if not self.itself:
            relevance = relevance - tokens.back(row, [None] * last)[0]
        gain = self._gained(case, seen)
        layer = Layer("relevance", "heat", self.shown(case, relevance), f"{case.target.value} asked for")
        followed = last - self.first + 1
        through = plural(len(seen), "attention") if followed == len(seen) else self.through(last, len(seen))
        text = (
            f"Relevance of the patches for {case.target.name} over {plural(case.target.pixels, 'pixel')} (score "
            f"{case.clean_score:.4g}), through {through}, read from {' and '.join(rows)}; it adds up to "
            f"{float(relevance.sum()):.3g}. Through one attention the score gains {gain:.3g} at most. "
            f"{resolution(tokens)}"
        )
        return Explanation((layer,), (layer_table(case, seen, tokens),), text=text)

    def _gained(self, case: Case, seen: Sequence[Attention]) -> float:
        """What the target gains by the attention that gives it most."""
        most = max(a.heads * float(fine_sum(a.matrix)) for a in seen)
        if most < LITTLE * abs(case.clean_score) or not most:
            case.run.note(
                f"Hardly any of the score {case.clean_score:.4g} comes through attention, {most:.2g} at most: the "
                "network goes around it, and the map shows how that remainder is shared. Ask a method of gradients or "
                "of perturbation, too."
            )
        return most


def _step(matrix: Tensor) -> Tensor:
    return matrix + torch.eye(len(matrix), device=matrix.device)


def _relevant(weights: Tensor, gradient: Tensor) -> Tensor:
    """Mean over the heads of what the target gains by attention, (heads, tokens, tokens) to (tokens, tokens)."""
    return (weights * gradient).clamp_(min=0).mean(0)
