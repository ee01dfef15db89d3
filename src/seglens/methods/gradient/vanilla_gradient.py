"""Vanilla gradient: how the target changes with each pixel, to first order."""

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.methods.gradient._shared import EachChannel, Show, channel_table, input_layers


class VanillaGradient(Method):
    """The gradient of the target with respect to the image, one forward and one backward pass."""

    title = "Vanilla gradient"
    cite = "simonyan2014"
    survey = (24, 90, 194)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    needs = frozenset({Need.GRADIENT})

    show: Show = "magnitude"
    channels: EachChannel = False

    def run(self, case: Case) -> Explanation:
        """One map in units of target per unit of normalised input."""
        gradient = case.gradient()
        unit = f"{case.target.value} per unit of normalised input"
        layers = input_layers(case, "gradient", gradient, self.show, unit, self.channels)
        strongest = float(gradient.abs().max())
        text = (
            f"Vanilla gradient of {case.target.name} over {plural(case.target.pixels, 'pixel')} "
            f"(score {case.clean_score:.4g}); the strongest pixel changes it by {strongest:.3g} per unit of input."
        )
        return Explanation(layers, channel_table(case, gradient), text=text)
