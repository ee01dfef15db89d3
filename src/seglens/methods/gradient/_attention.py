"""What attention methods share: the matrices with their tokens found, the rows of a target, the map, the table."""

from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from seglens.core.errors import BadParameter, MissingNeed
from seglens.core.explanation import Table
from seglens.core.method import Method, Need
from seglens.core.param import Param
from seglens.engine.attention import Attention, Fold, attentions
from seglens.engine.case import Case
from seglens.engine.gradients import Score
from seglens.engine.tokens import Tokens, find_tokens

TokenOrder = Annotated[
    Literal["measured", "rows"],
    Param("Where tokens lie on the image: measured, or in reading order with class tokens in front."),
]
Smooth = Annotated[bool, Param("Interpolate between tokens; without, each token is a block.")]
First = Annotated[int, Param("The first attention that counts, from 1 on.", ge=1, le=4096)]
Last = Annotated[int | None, Param("The last attention that counts.", ge=1, le=4096, empty="the last one")]


class AttentionMethod(Method):
    """A method that follows attention back to the patches of the image."""

    works_on = "transformers whose attention spans the image"
    needs = frozenset({Need.ATTENTION})

    first: First = 1
    last: Last = None
    order: TokenOrder = "measured"
    smooth: Smooth = True

    def look(self, case: Case, fold: Fold, score: Score | None = None) -> tuple[tuple[Attention, ...], Tokens]:
        """The network's attentions as they are folded, and their tokens; the record tells how many and how large."""
        seen = attentions(case.model, case.x, case.run, fold, score)
        before = case.run.cost.forwards
        tokens = find_tokens(case.model, case.x, seen, case.run, self.order)
        case.run.engine["attention"] = {
            "layers": len(seen),
            "heads": [a.heads for a in seen],
            "tokens": [a.tokens for a in seen],
            "megabytes of all heads": round(sum(4 * a.heads * a.tokens**2 for a in seen) / 1e6, 1),
            "passes to find the tokens": case.run.cost.forwards - before,
        }
        return seen, tokens

    def until(self, case: Case, count: int) -> int:
        """The last attention that counts.

        Raises:
            BadParameter: the range is none of the network's attentions.
        """
        last = self.last or count
        if not self.first <= last <= count:
            raise BadParameter(
                f"{self.name}: first={self.first} to last={last} are no attentions of {case.model.spec.name}.",
                fix=f"Use 1 to {count}, the first one no later than the last.",
            )
        return last

    def through(self, last: int, count: int) -> str:
        """Which attentions of how many are followed, in words."""
        which = f"attention {last}" if last == self.first else f"attentions {self.first} to {last}"
        return f"{which} of {count}"

    def shown(self, case: Case, values: Tensor) -> NDArray[np.float32]:
        """Values of patches (*grid) at image size (*space)."""
        if self.smooth:
            return case.at_image(values[None, None])
        full = F.interpolate(values[None, None].float(), case.model.padded(case.shape), mode="nearest")[0, 0]
        return np.asarray(full[tuple(slice(0, n) for n in case.shape)].cpu().numpy(), dtype=np.float32)


def region_row(case: Case, tokens: Tokens, layer: int) -> Tensor:
    """How the region is shared by the tokens of an attention (tokens,), by area; adds up to 1."""
    inside = (case.target.weights != 0).float()
    margins = [
        n for size, full in zip(case.shape, case.model.padded(case.shape), strict=True) for n in (full - size, 0)
    ]
    patches = F.interpolate(F.pad(inside, margins[::-1])[None, None], tokens.grid, mode="area").flatten()
    places = tokens.places[layer]
    row = torch.where(places >= 0, patches[places.clamp(min=0)], 0.0)
    return row / row.sum()


def class_row(case: Case, tokens: Tokens, layer: int, least: int = 1) -> Tensor | None:
    """One at the token of the target's class (tokens,); ``None`` if there is not one token for each class.

    Tokens that see no pixel are the classes', in their order, where there are as many as the network answers and they
    joined behind the first attentions, as those of a decoder do. With ``least=0``, wherever they joined.
    """
    spec = case.model.spec
    extras = ((tokens.places[layer] < 0) & (tokens.born[layer] >= least)).nonzero()[:, 0]
    own = case.target.index - spec.multilabel  # a network with one sigmoid per class knows no background
    if len(extras) < 2 or len(extras) != len(spec.classes) - spec.multilabel or own < 0:
        return None
    return F.one_hot(extras[own], len(tokens.places[layer])).float()


def need_class_row(case: Case, tokens: Tokens, layer: int) -> Tensor:
    """The same, wherever these tokens joined.

    Raises:
        MissingNeed: there is none.
    """
    row = class_row(case, tokens, layer)
    row = class_row(case, tokens, layer, 0) if row is None else row
    if row is None:
        raise MissingNeed(
            f"{case.model.spec.name} has no token for the class {case.target.name} at attention {layer + 1}.",
            fix="Set rows to region.",
        )
    return row


def resolution(tokens: Tokens) -> str:
    """How coarse the map is, as a sentence."""
    return f"A low-resolution map: its true resolution is {'×'.join(map(str, tokens.grid))} tokens."


def layer_table(case: Case, seen: tuple[Attention, ...], tokens: Tokens) -> Table:
    """Per attention, of what the region's tokens read: the share on themselves, and how far away the rest lies."""
    sides = [n / g for n, g in zip(case.model.padded(case.shape), tokens.grid, strict=True)]
    axes = [(torch.arange(g) + 0.5) * side for g, side in zip(tokens.grid, sides, strict=True)]
    centres = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(sides)).to(case.x)
    columns: dict[str, list[float]] = {
        "attention": [],
        "heads": [],
        "tokens": [],
        "on itself": [],
        "distance in px": [],
    }
    for layer, one in enumerate(seen):
        row, places = region_row(case, tokens, layer), tokens.places[layer]
        own = (row > 0).nonzero()[:, 0]
        read = row[own, None] * one.matrix[own]
        whole, patch = float(read.sum()) or 1.0, places >= 0
        far = torch.cdist(centres[places[own]], centres[places[patch]])
        away = read[:, patch]
        numbers = (layer + 1, one.heads, one.tokens)
        shares = (
            float(read[torch.arange(len(own)), own].sum()) / whole,
            float((away * far).sum()) / (float(away.sum()) or 1.0),
        )
        for name, value in zip(columns, (*numbers, *shares), strict=True):
            columns[name].append(value)
    return Table("attentions", columns)
