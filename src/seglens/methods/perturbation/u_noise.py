"""U-Noise: where noise may lie on the image without changing the mask.

A small U-Net answers B between 0 and 1 per pixel; noise of deviation B·(σ_max - σ_min) + σ_min, counted in deviations
of the image, is laid over it. It is trained on the image of the question and on reference images, against the frozen
model: cross-entropy of the target's class against the rest, minus λ times the mean of log B. What the class should be
is the annotation where one is given, as in the publication, and else the model's own answer on the clean image, so no
truth is needed. Noise also makes bright spots: to a detector of these it is more evidence, and costs nothing.
"""

from math import prod
from typing import Annotated, Literal

import numpy as np
import torch

from seglens.core.errors import BadParameter, ImageMismatch
from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Artefact, Fidelity, Method, Need, Scope
from seglens.core.param import Param
from seglens.engine import artefacts, optimise
from seglens.engine.case import Case
from seglens.methods.perturbation._noise import (
    CROPS,
    NoiseLoss,
    Smooth,
    Training,
    everything,
    extent,
    lessons,
    load_net,
)  # fmt: skip
from seglens.methods.perturbation._noise_answer import SHARES, answer, tolerance
from seglens.models.nets.unet import UNet

Steps = Annotated[int, Param("Training steps.", ge=1, le=1_000_000, quick=60)]
Rate = Annotated[float, Param("Learning rate of Adam.", gt=0, le=1, quick=0.05)]
SigmaMin = Annotated[float, Param("Least noise, in deviations of the image.", ge=0, le=100)]
SigmaMax = Annotated[float, Param("Most noise, in deviations of the image.", gt=0, le=100)]
Weight = Annotated[float, Param("λ: what it is worth to tolerate more noise.", gt=0, le=100, quick=0.5)]
Depth = Annotated[int, Param("Levels of the noise network.", ge=2, le=4)]
Width = Annotated[int, Param("Channels of its first level; each further one has twice as many.", ge=1, le=64, quick=4)]
Batch = Annotated[int, Param("Crops per training step.", ge=1, le=256, quick=1)]
Crop = Annotated[
    int | None,
    Param("Side of the crops to train on.", ge=8, le=4096, unit="px", empty="128, 32 in volumes, or all that matters"),
]
Flips = Annotated[bool, Param("Mirror the crops at random.", quick=False)]
Keep = Annotated[
    Literal["image", "region"] | None,
    Param("Where the mask has to stay as it is.", empty="the whole image for a whole class, else the region"),
]
Shown = Annotated[
    Literal["1-B", "logit"], Param("The map: 1 - B, or ReLU(-logit of B) over its maximum.", quick="logit")
]


class UNoise(Method):
    """Important is where little noise is tolerated. Trains a small network once (minutes); then one forward pass."""

    title = "U-Noise"
    cite = "koker2021"
    survey = (26,)
    fidelity = Fidelity.EXACT
    scope = Scope.IMAGE
    works_on = "any network with gradients"
    needs = frozenset({Need.GRADIENT, Need.TRAINING})
    takes = frozenset({Need.REFERENCE, Need.ANNOTATION})

    steps: Steps = 300
    rate: Rate = 0.003
    sigma_min: SigmaMin = 1.0
    sigma_max: SigmaMax = 5.0
    weight: Weight = 0.001
    depth: Depth = 2
    width: Width = 16
    batch: Batch = 4
    crop: Crop = None
    flips: Flips = True
    keep: Keep = None
    shown: Shown = "1-B"

    def check(self, case: Case) -> None:
        """More noise at most than at least; an annotation of the image's size."""
        if self.sigma_max <= self.sigma_min:
            raise BadParameter(
                f"sigma-max={self.sigma_max:g} is not above sigma-min={self.sigma_min:g}.",
                fix="Use a larger sigma-max.",
            )
        if case.annotation is not None and np.shape(case.annotation) != case.shape:
            raise ImageMismatch(
                f"The annotation has shape {np.shape(case.annotation)}, the image {case.shape}.",
                fix="Draw the class on this image.",
            )

    def smooth(self) -> Smooth | None:
        """A further term of the loss; none here."""
        return None

    def passes(self, case: Case) -> tuple[float, int]:
        """The training's forwards and backwards if it has still to be done (a backward counts as 1.5 forwards)."""
        looks = 2 * len(SHARES) + 1
        if artefacts.known(self, case):
            return float(looks), looks
        crop = prod(min(self._side(case), n) for n in case.shape) / prod(case.shape)
        samples = self.steps * self.batch * (1 + optimise.BACKWARD)
        return samples * crop + looks, round(samples) + looks

    def prepare(self, case: Case) -> Artefact:
        """Train the noise network; cancelled, it goes on next time from where it stopped."""
        training = Training(
            case, lessons(case, self._whole(case)), self._loss(), self._features, self.steps, self.rate, self.batch,
            self._side(case), self.flips,
        )  # fmt: skip

        def so_far(net: UNet, losses: list[float]) -> None:
            case.run.partial(lambda: self._partial(case, net, f"{len(losses)} of {self.steps} training steps"))

        return training.run(artefacts.Store.of(self, case), so_far)

    def run(self, case: Case) -> Explanation:
        """The map, the noise that each pixel bears, and how the mask survives when unimportant pixels are hidden."""
        artefact = case.artefact or self.prepare(case)
        net = load_net(artefact, case.x.shape[1], self._features, len(case.shape), case.x.device)
        whole = self._whole(case)
        n = tolerance(case, net, extent(case, whole))
        if artefact.data["blind"]:
            # the loss has nothing but -log B left, and its least is at B = 1
            n = torch.full_like(n, 30.0)
        noise = self._loss().sigma(torch.sigmoid(n))
        return answer(self.title, case, artefact, n, noise, ratio=self.shown == "logit", whole=whole)

    @property
    def _features(self) -> tuple[int, ...]:
        return tuple(self.width * 2**level for level in range(self.depth))

    def _loss(self) -> NoiseLoss:
        return NoiseLoss(self.sigma_min, self.sigma_max, self.weight, self.smooth())

    def _whole(self, case: Case) -> bool:
        return everything(case) if self.keep is None else self.keep == "image"

    def _side(self, case: Case) -> int:
        whole = self._whole(case)
        return self.crop or (CROPS[len(case.shape)] if whole else max(s.stop - s.start for s in case.field))

    def _partial(self, case: Case, net: UNet, text: str) -> Explanation:
        n = tolerance(case, net, extent(case, self._whole(case)))
        return Explanation((Layer("importance", "heat", torch.sigmoid(-n).cpu().numpy(), "1 - B"),), text=text)
