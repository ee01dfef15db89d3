"""Guided integrated gradients: a path that first changes the pixels to which the target is least sensitive."""

from seglens.core.explanation import Explanation
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.methods.gradient._guided_path import Band, Fraction, GuidedPath, Steps
from seglens.methods.gradient._paths import Start, check_start, completeness, placed, start, start_named, warn
from seglens.methods.gradient._shared import EachChannel, Show, channel_table, input_layers
from seglens.models.device import fine_sum


class GuidedIntegratedGradients(Method):
    """Σ Δx ⊙ ∂T/∂x along a path that avoids pixels of large gradient as long as its band allows."""

    title = "Guided integrated gradients"
    cite = "kapishnikov2021"
    survey = (126,)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    needs = frozenset({Need.GRADIENT})
    takes = frozenset({Need.REFERENCE})

    steps: Steps = 200
    fraction: Fraction = 0.25
    band: Band = 0.02
    fill: Start = "mean"
    show: Show = "signed"
    channels: EachChannel = False

    def check(self, case: Case) -> None:
        """Raise BadParameter for several references or a fill that needs units, ImageMismatch for another size."""
        check_start(case, self.fill)

    def passes(self, case: Case) -> tuple[float, int]:
        """A gradient per step."""
        return case.sampler.passes(self.steps)

    def run(self, case: Case) -> Explanation:
        """The map, what it adds up to beside the change of the score, and the score along the path."""
        path = GuidedPath(case, start(case, self.fill), self.steps, self.fraction, self.band)
        for _ in path.walk():
            case.run.partial(lambda: self._answer(case, path))
        warn(case, float(fine_sum(path.values)), path.scores[0], path.points, self.fill)
        return self._answer(case, path)

    def _answer(self, case: Case, path: GuidedPath) -> Explanation:
        values = placed(case, path.values[0], path.box)
        total, where = float(fine_sum(values)), start_named(case, self.fill)
        table, told = completeness(case, total, path.scores[0], where)
        layers = input_layers(case, "guided integrated gradients", values, self.show, case.target.value, self.channels)
        text = (
            f"Guided integrated gradients of {case.target.name} over {plural(case.target.pixels, 'pixel')}, "
            f"{len(path.scores)} steps. {told}"
        )
        return Explanation(layers, (table, *channel_table(case, values)), (path.figure(),), text)
