"""DeepLiftSHAP: the mean of DeepLift over many baseline images, and how much they disagree."""

import torch

from seglens.core.explanation import Explanation, Layer, Table
from seglens.core.method import Fidelity, Method, Need, Scope
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.rules import Rescale, Trace
from seglens.methods.gradient._noisy import Moments
from seglens.methods.gradient._paths import (
    Start,
    check_references,
    completeness,
    starts,
    starts_named,
    warn_of_rules,
)
from seglens.methods.gradient._shared import EachChannel, Show, as_map, channel_table, input_layers
from seglens.models.device import fine_sum


class DeepLiftSHAP(Method):
    """Baselines are the reference images (those without the finding, say), else draws of a fill."""

    title = "DeepLiftSHAP"
    cite = "lundberg2017"
    survey = (183,)
    fidelity = Fidelity.EXACT
    scope = Scope.REGION
    needs = frozenset({Need.GRADIENT})
    takes = frozenset({Need.REFERENCE})

    fill: Start = "noise"
    show: Show = "signed"
    channels: EachChannel = False

    def check(self, case: Case) -> None:
        """Raise ImageMismatch for references of another size, BadParameter for a fill that has none of its own."""
        check_references(case)
        starts(case, self.fill)

    def run(self, case: Case) -> Explanation:
        """Mean and, of several, deviation over the baselines, and a row for each."""
        baselines, trace = starts(case, self.fill), Trace(case, Rescale())
        moments, scores, sums = Moments(), [], []
        for done, one in enumerate(torch.split(baselines, 1)):
            case.run.progress(done, len(baselines), "baselines")
            scores.append(trace.compare(one))
            values = trace.back().values * (case.x - one)
            sums.append(float(fine_sum(values)))
            moments.add(torch.cat([values[0], values[0].sum(0, keepdim=True)]))
        mean, deviation = moments.mean[None, :-1], moments.variance.sqrt()
        shown = deviation[-1] if self.show == "signed" else deviation[:-1].amax(0)
        unit, many = case.target.value, len(baselines)
        total, score = float(fine_sum(mean)), sum(scores) / many
        table, told = completeness(case, total, score, starts_named(case, self.fill))
        warn_of_rules(case, total, score)
        names = [image.name for image in case.reference] or [f"{self.fill} {i}" for i in range(many)]
        each = Table("baselines", {"baseline": names, "its score": scores, "sum of its map": sums})
        layers = input_layers(case, "DeepLiftSHAP", mean, self.show, unit, self.channels)
        if many > 1:
            layers += (Layer("deviation over baselines", "heat", as_map(shown), unit),)
        text = f"DeepLiftSHAP of {case.target.name} over {plural(case.target.pixels, 'pixel')}. {told}"
        return Explanation(layers, (table, each, *channel_table(case, mean)), text=text)
