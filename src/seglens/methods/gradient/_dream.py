"""Driving an image up the gradient of a target, and controls that go as far in no direction of sense."""

from collections.abc import Iterator
from dataclasses import replace
from math import sqrt
from typing import Annotated, Literal

import torch
from torch import Tensor

from seglens.core.boxes import at_box
from seglens.core.param import Param
from seglens.engine.case import Case
from seglens.engine.perturb import gaussian_blur
from seglens.engine.sampled import Sampler

FINE = 2.0  # pixels; what is finer than a blur of this width is told

Steps = Annotated[int, Param("Steps up the gradient.", ge=1, le=2000, quick=4)]
StepSize = Annotated[
    float,
    Param("Length of a step: spread evenly over the region, it would change each pixel by this share of the range.",
          gt=0, le=1, step=0.01),
]  # fmt: skip
Smooth = Annotated[float, Param("Blur of the gradient: keeps out changes too fine to see.", ge=0, le=16, unit="px")]
Clip = Annotated[bool, Param("Keep values within the range of the image.")]
Asked = Annotated[
    Literal["region", "current mask"],
    Param("Drive the region of the clean image, or whatever the model draws at each step."),
]


class Drive:
    """x ← x + η g / ‖g‖, inside the field of the target.

    Args:
        case: the question.
        steps: how many.
        size: η, see :data:`StepSize`.
        smooth: blur of the gradient, in pixels.
        clip: keep to the range of the image.
        asked: which target is driven.
    """

    def __init__(self, case: Case, steps: int, size: float, smooth: float, clip: bool, asked: str) -> None:
        """At the clean image."""
        live = asked == "current mask"
        sampler = Sampler(case.evaluator, replace(case.target, live=True)) if live else case.sampler
        self._case, self._sampler, self._steps, self._smooth = case, sampler, steps, smooth
        self.box = sampler.field
        self._low, self._high = float(case.x.min()), float(case.x.max())
        pixels = case.target.pixels * case.x.shape[1]
        self._length = size * (self._high - self._low) * sqrt(pixels)
        self._clip = clip
        self.x = case.x.clone()
        self.scores: list[float] = []

    @property
    def part(self) -> Tensor:
        """The image as it is now, in the field (1, C, *box)."""
        return self.x[at_box(self.box)]

    @property
    def change(self) -> Tensor:
        """What was changed so far (1, C, *box)."""
        return self.part - self._case.x[at_box(self.box)]

    def walk(self) -> Iterator[int]:
        """Step by step, from 1; :attr:`x` changes."""
        case, at = self._case, at_box(self.box)
        with self._sampler.busy():
            for step in range(1, self._steps + 1):
                case.run.progress(step - 1, self._steps, "steps")
                gradient, score = self._sampler.gradient(self.x)
                self.scores.append(float(score[0]))
                way = gradient[at]
                if self._smooth:
                    way = gaussian_blur(way, self._smooth)
                size = float(way.norm())
                if size > 0:
                    moved = self.part + way * (self._length / size)
                    self.x[at] = moved.clamp(self._low, self._high) if self._clip else moved
                yield step
        self.scores.append(float(self._sampler.scores(self.x)[0]))
        case.run.progress(self._steps, self._steps, "steps")

    @property
    def now(self) -> tuple[Tensor, Tensor]:
        """The image as it is, in the field (1, C, *box), and its logits (1, K, *box)."""
        return self.part, self._logits(self.part)

    def controls(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The clean image with the same change, its pixels shuffled over the field; and the logits."""
        generator, clean = self._case.generator(), self._case.x[at_box(self.box)]
        flat = self.change.flatten(2)
        for done in range(count):
            self._case.run.progress(done, count, "controls")
            order = torch.randperm(flat.shape[2], generator=generator).to(flat.device)
            part = clean + flat[:, :, order].reshape(clean.shape)
            yield part, self._logits(part)

    def _logits(self, part: Tensor) -> Tensor:
        return self._case.forward(part, self._case.model.within(self.box, self._case.shape))

    def fine(self) -> float:
        """The part of the change's energy that a blur of two pixels takes away."""
        change = self.change
        energy = float(change.square().sum())
        return float((change - gaussian_blur(change, FINE)).square().sum()) / energy if energy else 0.0
