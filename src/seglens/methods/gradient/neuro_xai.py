"""NeuroXAI: seven gradient methods at once, for each class and channel, as a matrix."""

from typing import Annotated

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Fidelity, Need
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.channels import LayerMethod
from seglens.engine.turns import Turns
from seglens.methods.gradient._matrix import Matrix
from seglens.methods.gradient._paths import Spread, Start
from seglens.methods.gradient._seven import Classes, Seven, Smoothed, cases
from seglens.methods.gradient._shared import EachChannel, input_layers

Steps = Annotated[int, Param("Steps of the two integrals.", ge=2, le=5000, quick=8)]
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
    samples: Samples = 8
    spread: Spread = 0.15
    smoothed: Smoothed = "guided backpropagation"
    fill: Start = "mean"
    channels: EachChannel = False

    def check(self, case: Case) -> None:
        """Raise UnknownName if the layer is not there, BadParameter for a fill that depends on what it covers."""
        super().check(case)
        case.fill(self.fill)

    def run(self, case: Case) -> Explanation:
        """A map for each method, and the share of each channel by class and method."""
        layer, asked = case.layer(self.layer), cases(case, self.classes)
        seven = Seven(layer, self.steps, self.samples, self.spread, self.smoothed, self.fill)
        turns = Turns(case.run, len(seven) * len(asked))
        made = {name: seven.asked(one, turns) for name, one in asked.items()}
        matrix, of = Matrix(made, case.model.spec.channels), case.target.name
        layers: tuple[Layer, ...] = ()
        for name, values in made[of].items():
            show, each = "signed" if "integrated" in name else "magnitude", self.channels and values.shape[1] > 1
            layers += input_layers(case, name, values, show, UNITS.get(name, case.target.value), each)
        text = (
            f"Seven gradient methods on {of} over {case.target.pixels} pixels, Grad-CAM at layer {layer}. "
            f"{matrix.told(of)}"
        )
        return Explanation(layers, (matrix.table(),), (matrix.figure(of),), text)
