"""What class activation maps share: a layer's activations and gradients, weighted, as one map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, TypeVar

import torch
from torch import Tensor

from seglens.core.explanation import Explanation, Kind
from seglens.core.method import Need
from seglens.core.param import Fill, Normalise, Param
from seglens.engine.case import Case
from seglens.engine.channels import (
    ChannelMasks,
    LayerMethod,
    activation_map,
    busiest,
    cam_layer,
    seen_at,
    strongest,
)
from seglens.engine.perturb import Mixed
from seglens.engine.plan import ALIKE
from seglens.engine.scored import ScoredCopies, Scores

T = TypeVar("T", float, Tensor)

Budget = Annotated[
    int | None,
    Param("How many channels to score: those of the largest mean answer.", ge=1, le=65536, quick=8, empty="all"),
]


class CAM(LayerMethod):
    """A class activation map; a subclass says with what a layer's answers are weighted.

    Class attributes:
        rectified: what speaks against the target is cut off; without, the map is signed.
    """

    needs = frozenset({Need.GRADIENT, Need.LAYER})
    rectified: ClassVar[bool] = True

    normalise: Normalise = True

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """Weights per channel (K,), or per channel and place (K, *s), of A and ∂T/∂A (K, *s)."""
        raise NotImplementedError

    def remark(self, activation: Tensor, gradient: Tensor) -> str:
        """What else a reader has to know, as a further sentence."""
        return ""

    def run(self, case: Case) -> Explanation:
        """A map at image size, and what each channel adds to it."""
        name = case.layer(self.layer)
        activation, gradient = case.activations(name)
        weights = self.weigh(activation[0], gradient[0])
        cam = activation_map(case, activation, weights, rectified=self.rectified)
        if weights.ndim == 1:
            table, bars = strongest({"weight": weights}, "channel weights", "channel weights")
        else:
            share = (weights * activation[0]).flatten(1).sum(1)
            table, bars = strongest({"sum of its map": share}, "channels", "what each channel adds")
        kind: Kind = "heat" if self.rectified else "signed"
        layer = cam_layer(self.title, cam, self.normalise, case.target.value, kind, activation.shape[2:])
        told = f"{self.title} of {case.target.name} at layer {name} ({seen_at(case, activation)}); "
        if not cam.any():
            told += "nothing there speaks for it, and the map is zero."
        else:
            told += f"its maximum before scaling is {float(cam.max()):.4g}."
        text = " ".join([told, self.remark(activation[0], gradient[0])]).strip()
        return Explanation((layer,), (table,), (bars,), text)


def spatial_mean(values: Tensor) -> Tensor:
    """Per channel the mean over places, (K, *s) to (K,)."""
    return values.flatten(1).mean(1)


def plus_plus(activation: Tensor, gradient: Tensor) -> Tensor:
    """Σ_p relu(g) / (2 + S relu(g)), with the sum S of the channel above zero: (K, *s) each to (K,); card B/B12.

    The published g² / (2 g² + S g³ + 1e-6) is this without the 1e-6, which would outweigh the gradient of a mean over
    many pixels. It is for layers without values below zero; elsewhere S is the sum of what is above.
    """
    wanted = gradient.flatten(1).relu()
    there = activation.flatten(1).relu().sum(1, keepdim=True)
    return (wanted / (2 + there * wanted)).sum(1)


def below_zero(activation: Tensor, instead: str) -> str:
    """What to say where a formula for rectified layers meets answers (K, *s) below zero; else nothing."""
    return f"The layer answers below zero, too, so {instead}." if bool((activation < 0).any()) else ""


class ScoreCAM(LayerMethod, ScoredCopies):
    """Weights from masked copies of the image: each channel, enlarged, is a mask, and what it keeps is scored."""

    needs = frozenset({Need.LAYER})
    counted = "channels"

    budget: Budget = None
    fill: Fill = "mean"
    normalise: Normalise = True

    def copies(self, case: Case) -> Mixed[ChannelMasks]:
        """One per channel that is not flat: the image where the channel answers, the fill where it does not."""
        activation = case.activation(case.layer(self.layer))
        masks = ChannelMasks(case, activation, busiest(activation, self.budget))
        return Mixed(case.x, case.fill(self.fill), masks)

    def answer(self, case: Case, copies: Mixed[ChannelMasks], course: Scores) -> Explanation:
        """Weights are a softmax of the scores; the weighted sum of the layer is rectified."""
        activation, kept = copies.masks.activation, per_pixel(case, course.values)
        weights = softmax_weights(kept)
        told = "no channel's mask changes the score, and the map is zero."
        if weights.any():
            best = int(weights.argmax())
            told = (
                f"the mask of channel {copies.masks.channels[best]} keeps most, {float(kept[best]):.4g} per pixel of "
                f"{per_pixel(case, case.clean_score):.4g}, and has {float(weights[best]):.0%} of the weight."
            )
        columns = {"weight": weights, "score per pixel": kept.nan_to_num()}
        return self.combined(case, activation, copies.masks.channels, columns, told)

    def combined(
        self, case: Case, activation: Tensor, channels: Sequence[int], columns: dict[str, Tensor], told: str
    ) -> Explanation:
        """The rectified map of channels (n,) of a layer (1, K, *s), by the column ``weight``, and the columns (n,)."""
        every = {name: spread_over(values, channels, activation.shape[1]) for name, values in columns.items()}
        cam = activation_map(case, activation, every["weight"])
        table, bars = strongest(every, "channels", "channel weights")
        layer = cam_layer(self.title, cam, self.normalise, "activation", own=activation.shape[2:])
        if every["weight"].any() and not cam.any():
            told += " The weighted sum is below zero everywhere, and the map is zero."
        where = f"{self.title} of {case.target.name} at layer {case.layer(self.layer)} ({seen_at(case, activation)}"
        fewer = ""
        if len(channels) < activation.shape[1]:
            many = "" if len(channels) == 1 else f"{len(channels)} "
            fewer = f"; the {many}largest of them" if channels else "; all of them the same everywhere"
        return Explanation((layer,), (table,), (bars,), f"{where}{fewer}); {told}")


def per_pixel(case: Case, score: T) -> T:
    """A score as a mean over the region, whatever its reduction: of sums, a softmax would be 1 for one channel."""
    return score if case.target.mean or case.target.value == "dice" else score / case.target.pixels


def softmax_weights(scores: Tensor) -> Tensor:
    """Softmax of scores (n,); those not known yet weigh nothing, and where all are alike there is nothing to weigh."""
    known = scores.isfinite()
    weights = torch.zeros_like(scores)
    if known.any() and float(scores[known].max() - scores[known].min()) > ALIKE * float(scores[known].abs().max()):
        weights[known] = scores[known].softmax(0)
    return weights


def spread_over(values: Tensor, channels: Sequence[int], count: int) -> Tensor:
    """Values of some channels (n,) among all (count,), 0 elsewhere."""
    out = values.new_zeros(count)
    out[list(channels)] = values
    return out
