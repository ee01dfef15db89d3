"""Volume Score-CAM: gradient-free class activation maps of volumes, by masks or by ablation."""

from typing import Annotated, Literal

import torch

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity
from seglens.core.param import Fill, Normalise, Param
from seglens.engine.case import Case
from seglens.engine.channels import Ablated, busiest
from seglens.engine.scored import Drops, follow
from seglens.methods.gradient._cams import Budget, ScoreCAM

By = Annotated[
    Literal["masks", "ablation"],
    Param("What weighs a channel: the score of the volume seen through it, or what the score loses without it."),
]


class VolumeScoreCAM(ScoreCAM):
    """Score-CAM and Ablation-CAM in 3-D, of the channels that answer most, on the part of the volume that counts.

    The survey tells of a gradient-free method for volumes and not which one, so both are here.
    """

    title = "Volume Score-CAM"
    cite = "survey-119"
    survey = (119,)
    fidelity = Fidelity.AFTER
    dims = (3,)

    by: By = "masks"
    budget: Budget = 32
    fill: Fill = "mean"
    normalise: Normalise = True

    def run(self, case: Case) -> Explanation:
        """One map; the fill counts for masks only."""
        if self.by == "masks":
            return super().run(case)
        name = case.layer(self.layer)
        activation = case.activation(name)
        channels = busiest(activation, self.budget, flat=True)
        change = Ablated(torch.zeros(activation.shape[1]), channels)
        course = Drops(len(change), case.clean_score)

        def answer() -> Explanation:
            weights = course.values / max(abs(case.clean_score), 1e-12)
            told = "no channel's loss changes the score, and the map is zero."
            if weights.any():
                first = int(weights.abs().argmax())
                told = f"without channel {channels[first]} the score changes most, by {-float(weights[first]):+.1%}."
            columns = {"weight": weights, "drop": course.values}
            return self.combined(case, activation, channels, columns, told)

        return follow(case, case.layer_steps(name, change), course, answer)
