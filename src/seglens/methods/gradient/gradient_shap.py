"""GradientSHAP: gradients at random points between starting images and the image, and their standard error."""

from typing import Annotated, Any

import torch

from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Need
from seglens.core.param import Param
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.paths import Drawn, Noisy
from seglens.methods.gradient._expected import Error, Expected
from seglens.methods.gradient._paths import (
    SampledGradients,
    Spread,
    Start,
    check_references,
    completeness,
    starts,
    starts_named,
)
from seglens.methods.gradient._shared import EachChannel, Show, as_map, channel_table, input_layers

Samples = Annotated[int, Param("Random points to take the gradient at.", ge=2, le=100_000, quick=16)]


class GradientSHAP(SampledGradients):
    """The mean of ∂T/∂x at x′ + α (x + ε − x′) times (x + ε − x′), with x′, α and ε drawn: expected gradients."""

    title = "GradientSHAP"
    cite = "erion2021"
    survey = (183,)
    takes = frozenset({Need.REFERENCE})

    samples: Samples = 100
    fill: Start = "mean"
    spread: Spread = 0.0
    show: Show = "signed"
    channels: EachChannel = False
    stop: Error = None

    def check(self, case: Case) -> None:
        """Raise ImageMismatch for references of another size, BadParameter for a fill that has none of its own."""
        check_references(case)
        starts(case, self.fill)

    def copies(self, case: Case) -> Drawn:
        """One per point; paths start at the reference images if there are any."""
        begin, draw = starts(case, self.fill), case.generator()
        alphas = torch.rand(self.samples, generator=draw)
        which = torch.randint(len(begin), (self.samples,), generator=draw)
        sigma = self.spread * float(case.x.max() - case.x.min())
        return Drawn(begin, which, alphas, Noisy.of(case.x, sigma, self.samples, case.run.seed))

    def course(self, case: Case, copies: Any) -> Expected:
        """Means and errors."""
        return Expected(case, copies, self.stop)

    def answer(self, case: Case, course: Any) -> Explanation:
        """The map, its standard error, and what it adds up to beside what it should in the mean."""
        values, unit = course.values, case.target.value
        table, told = completeness(case, course.total, course.start, starts_named(case, self.fill))
        noisy = (
            " Noise on the ends of the paths makes that sum approximate, however many points." if self.spread else ""
        )
        layers = input_layers(case, "GradientSHAP", values, self.show, unit, self.channels)
        layers += (Layer("standard error", "heat", as_map(course.error(self.show)), unit),)
        text = (
            f"GradientSHAP of {case.target.name} over {plural(case.target.pixels, 'pixel')}, {course.n} points. "
            f"{told}{noisy} {course.told()}"
        )
        return Explanation(layers, (table, *channel_table(case, values)), (course.figure(),), text)
