"""Seven gradient methods on one question, each as values per channel of the image."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from seglens.core.boxes import whole
from seglens.core.explanation import Table
from seglens.core.param import FillName, Param
from seglens.core.target import Predicted, Target
from seglens.engine.case import Case
from seglens.engine.channels import activation_map
from seglens.engine.optimise import BACKWARD
from seglens.engine.paths import Along, Noisy, nodes
from seglens.engine.rules import Backprop, Trace
from seglens.engine.target import freeze
from seglens.engine.turns import Turns
from seglens.methods.gradient._cams import spatial_mean
from seglens.methods.gradient._guided_path import GuidedPath
from seglens.methods.gradient._noisy import Moments
from seglens.methods.gradient._paths import placed, warn
from seglens.methods.gradient._straight import Straight
from seglens.models.classes import drawn
from seglens.models.device import fine_sum

Smoothed = Annotated[
    Literal["guided backpropagation", "vanilla gradient"], Param("What SmoothGrad takes the mean square of.")
]
Classes = Annotated[
    Literal["target", "all"],
    Param("Ask for the target's class alone, or also, with maps of its own, for every other class the model draws."),
]

Values = dict[str, Tensor]


class Seven:
    """The methods, one after the other.

    Args:
        layer: of Grad-CAM.
        steps, path_steps: of integrated gradients, and of guided integrated gradients.
        samples, spread: noisy copies of SmoothGrad, and their noise as a share of the range.
        smoothed: what SmoothGrad takes the mean square of.
        fill: where paths start.
    """

    def __init__(
        self, layer: str, steps: int, path_steps: int, samples: int, spread: float, smoothed: str, fill: FillName
    ) -> None:
        """Nothing is asked yet."""
        self._layer, self._steps, self._path_steps, self._samples = layer, steps, path_steps, samples
        self._spread, self._smoothed, self._fill = spread, smoothed, fill
        self._about = ""
        self._sums: list[tuple[str, str, float, float]] = []
        self._by_name: dict[str, Callable[[Case], Tensor]] = {
            "vanilla gradient": lambda case: case.gradient(),
            "guided backpropagation": _guided,
            "integrated gradients": self._integrated,
            "guided integrated gradients": self._guided_path,
            "SmoothGrad²": self._smooth,
            "Grad-CAM": self._cam,
        }

    def asked(self, case: Case, turns: Turns) -> Values:
        """Each method's values (1, C, *space) on the CPU; of Grad-CAM, which knows no channels, (1, 1, *space)."""
        case, made = replace(case, run=turns.run, shared=None), Values()
        self._about = case.target.name
        for name, ask in self._by_name.items():
            turns.next(name, f"{self._about}, {name}: ")
            made[name] = ask(case).detach().float().cpu()
        top = made["Grad-CAM"].max().clamp(min=1e-30)
        made["guided Grad-CAM"] = made["guided backpropagation"] * made["Grad-CAM"] / top
        return made

    def __len__(self) -> int:
        """Pieces of work for one class."""
        return len(self._by_name)

    def completeness(self) -> Table:
        """What each integral adds up to, beside the difference of the score that it should explain."""
        names, methods, changes, totals = zip(*self._sums, strict=True)
        gaps = [total - change for change, total in zip(changes, totals, strict=True)]
        parts = [gap / change if change else 0.0 for gap, change in zip(gaps, changes, strict=True)]
        return Table(
            "completeness",
            {
                "class": [*names],
                "method": [*methods],
                "difference": [*changes],
                "sum of the map": [*totals],
                "gap": gaps,
                "gap / difference": parts,
            },
        )

    def passes(self, case: Case) -> tuple[float, int]:
        """What one class takes."""
        guided = self._smoothed != "vanilla gradient"
        share, count = case.sampler.passes(1 + self._steps + self._path_steps + self._samples * (not guided))
        whole_images = 2 + self._samples * guided
        return share + whole_images * (1 + BACKWARD), count + whole_images

    def _integrated(self, case: Case) -> Tensor:
        points, weights = nodes("gauss-legendre", self._steps)
        path = Along(case.fill(self._fill), case.x, points)
        course = Straight(case, path, weights)
        for made in case.gradient_steps(path):
            course.feed(made)
        course.check(self._fill)
        self._sums.append((self._about, "integrated gradients", case.clean_score - course.first, course.total))
        return placed(case, course.values, course.box)

    def _guided_path(self, case: Case) -> Tensor:
        path = GuidedPath(case, case.fill(self._fill), self._path_steps, fraction=0.25, band=0.02)
        for _ in path.walk():
            pass
        first, total = path.scores[0], float(fine_sum(path.values))
        warn(case, total, first, path.points, self._fill)
        self._sums.append((self._about, "guided integrated gradients", case.clean_score - first, total))
        return placed(case, path.values[0], path.box)

    def _smooth(self, case: Case) -> Tensor:
        copies = Noisy.of(case.x, self._spread * float(case.x.max() - case.x.min()), self._samples, case.run.seed)
        moments, box = Moments(), whole(case.shape)
        if self._smoothed == "vanilla gradient":
            for made in case.gradient_steps(copies):
                box = made.box
                for one in made.gradients:
                    moments.add(one)
        else:
            for i in range(self._samples):
                case.run.progress(i, self._samples, "copies")
                moments.add(_guided(case, copies.batch(i, i + 1))[0])
        return placed(case, moments.mean.square() + moments.variance, box)

    def _cam(self, case: Case) -> Tensor:
        activation, gradient = case.activations(self._layer)
        return torch.from_numpy(activation_map(case, activation, spatial_mean(gradient[0])))[None, None]


def _guided(case: Case, x: Tensor | None = None) -> Tensor:
    return Trace(case, Backprop("guided"), x).back().values


def cases(case: Case, which: str) -> dict[str, Case]:
    """The question by its class; with ``all``, also for the pixels that the model draws of each other class."""
    spec, made, missing = case.model.spec, {case.target.name: case}, []
    for index, one in enumerate(spec.classes):
        if which == "target" or index in (0, case.target.index):
            continue
        if bool(drawn(case.logits, index, spec.overlapping).any()):
            told = Target(one.name, Predicted(), case.target.value, "mean" if case.target.mean else "sum")
            made[one.name] = case.about(freeze(told, case.logits, spec, case.labels), shared=None)
        else:
            missing.append(one.name)
    if missing:
        case.run.note(f"The model draws no {' and no '.join(missing)} here, so nothing is asked about it.")
    return made
