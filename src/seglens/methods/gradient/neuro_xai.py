"""NeuroXAI: seven gradient methods at once, for each class and channel, as a matrix."""

from typing import Annotated

import numpy as np

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Need
from seglens.core.param import Param
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.channels import LayerMethod
from seglens.engine.turns import Turns
from seglens.methods.gradient._matrix import Matrix
from seglens.methods.gradient._paths import Spread, Start
from seglens.methods.gradient._seven import Classes, Seven, Smoothed, cases
from seglens.methods.gradient._shared import EachChannel, input_layers

Steps = Annotated[int, Param("Points of the path of integrated gradients.", ge=2, le=5000, quick=8)]
PathSteps = Annotated[
    int,
    Param(
        "Steps of guided integrated gradients: fewer than alone, for it costs most of the seven.",
        ge=2,
        le=5000,
        quick=12,
    ),
]
Samples = Annotated[int, Param("Noisy copies for SmoothGrad.", ge=2, le=5000, quick=3)]
UNITS = {
    "vanilla gradient": "target per unit of normalised input",
    "SmoothGrad²": "squared signal",
    "guided backpropagation": "guided signal",
    "guided Grad-CAM": "guided signal",
}


class NeuroXAI(LayerMethod):
    """Vanilla, guided and integrated gradients, guided integrals, SmoothGrad, Grad-CAM and guided Grad-CAM."""

    title = "NeuroXAI"
    cite = "zeineldin2022"
    survey = (126,)
    fidelity = Fidelity.EXACT
    needs = frozenset({Need.GRADIENT, Need.LAYER})

    classes: Classes = "target"
    steps: Steps = 25
    path_steps: PathSteps = 50
    samples: Samples = 8
    spread: Spread = 0.15
    smoothed: Smoothed = "guided backpropagation"
    fill: Start = "mean"
    channels: EachChannel = False

    def check(self, case: Case) -> None:
        """Raise UnknownName if the layer is not there, BadParameter for a fill that depends on what it covers."""
        super().check(case)
        case.fill(self.fill)

    def passes(self, case: Case) -> tuple[float, int]:
        """All methods for each class."""
        share, count = self._seven(case.layer(self.layer)).passes(case)
        drawn = {int(k) for k in np.unique(case.labels) if k} | {case.target.index}
        classes = len(drawn) if self.classes == "all" else 1
        return share * classes, count * classes

    def run(self, case: Case) -> Explanation:
        """A map for each method, and the share of each channel by class and method."""
        layer, asked = case.layer(self.layer), cases(case, self.classes)
        seven = self._seven(layer)
        turns = Turns(case.run, len(seven) * len(asked))
        made = {name: seven.asked(one, turns) for name, one in asked.items()}
        matrix, of = Matrix(made, case.model.spec.channels), case.target.name
        layers: tuple[Layer, ...] = ()
        for about, by_method in made.items():
            for name, values in by_method.items():
                show = "signed" if "integrated" in name else "magnitude"
                # channels of every class would be a hundred maps
                each = self.channels and about == of and values.shape[1] > 1
                shown = name if about == of else f"{about}: {name}"
                layers += input_layers(case, shown, values, show, UNITS.get(name, case.target.value), each)
        text = (
            f"Seven gradient methods on {of} over {plural(case.target.pixels, 'pixel')}, Grad-CAM at layer {layer}. "
            f"{matrix.told(of)}"
        )
        return Explanation(layers, (matrix.table(), seven.completeness()), (matrix.figure(of),), text)

    def _seven(self, layer: str) -> Seven:
        return Seven(layer, self.steps, self.path_steps, self.samples, self.spread, self.smoothed, self.fill)
