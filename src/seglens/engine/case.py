"""A resolved question: model, image, target, run. It holds data and forwards to the engine's verbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seglens.core.image import Image
from seglens.core.method import Artefact
from seglens.core.run import Run
from seglens.engine import gradients, infill
from seglens.engine.evaluator import evaluate
from seglens.engine.perturb import Perturbations
from seglens.engine.target import FrozenTarget
from seglens.models.intake import Intake
from seglens.models.layers import default_layer, find_layer
from seglens.models.segmentation import SegmentationModel


@dataclass(frozen=True, eq=False)
class Case:
    """Everything a method may ask for; made by :func:`seglens.engine.resolve.resolve`.

    Args:
        model: what is explained.
        image: the view that is explained; its axes are the model's (and channels).
        target: class and region, frozen on the clean image.
        run: progress, cancel, seed.
        intake: the frozen normalisation.
        x: clean input (1, C, *space) on the model's device.
        logits: its logits (1, K, *space).
        reference: further images, for methods that compare.
        annotation: a mask that a person drew (*space).
        second: the same question to a second model.
        artefact: what the method prepared earlier.
    """

    model: SegmentationModel
    image: Image
    target: FrozenTarget
    run: Run
    intake: Intake
    x: Tensor
    logits: Tensor
    reference: tuple[Image, ...] = ()
    annotation: NDArray[Any] | None = None
    second: Case | None = None
    artefact: Artefact | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of space."""
        return tuple(self.x.shape[2:])

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Predicted class per pixel of the clean image (*space)."""
        labels: NDArray[np.uint8] = self.classes(self.logits)[0]
        return labels

    def classes(self, logits: Tensor) -> NDArray[np.uint8]:
        """Predicted class per pixel, (N, K, *space) to (N, *space)."""
        return logits.argmax(1).cpu().numpy().astype(np.uint8)

    def score(self, logits: Tensor) -> Tensor:
        """The target's number per sample, (N, K, *space) to (N,)."""
        return self.target(logits)

    @property
    def clean_score(self) -> float:
        """The target's number on the clean image."""
        return float(self.score(self.logits)[0])

    def scores(self, perturbations: Perturbations, text: str = "evaluations") -> Tensor:
        """The target's number for every perturbed copy (N,), on the CPU."""
        return evaluate(self.model, perturbations, self.target, self.run, text=text)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K, *space) of input (N, C, *space), without gradients."""
        self.run.check()
        self.run.cost.forwards += len(x)
        with gradients.guarded(self.model), torch.inference_mode():
            return self.model.logits(x.to(self.model.device))

    def gradient(self, x: Tensor | None = None) -> Tensor:
        """Gradient of the target with respect to the input (N, C, *space); the clean one by default."""
        return gradients.input_gradient(self.model, self.x if x is None else x, self.target, self.run)

    def activations(self, layer: str) -> tuple[Tensor, Tensor]:
        """Activations of a layer on the clean image and the target's gradient there, both (1, K, *s)."""
        module = find_layer(self.model, layer)
        return gradients.layer_gradient(self.model, module, self.x, self.target, self.run)

    def layer(self, wanted: str | None) -> str:
        """The layer's name; without one, the default found by looking at the network."""
        if wanted is None:
            return default_layer(self.model)
        find_layer(self.model, wanted)
        return wanted

    def fill(self, name: infill.AnyFill, without: Tensor | None = None) -> Tensor:
        """What replaces covered pixels (1, C, *space); see :func:`seglens.engine.infill.fill`."""
        return infill.fill(name, self.x, self.intake, generator=self.generator(), without=without)

    def generator(self) -> torch.Generator:
        """A fresh source of random numbers from the run's seed, on the CPU."""
        return torch.Generator().manual_seed(self.run.seed)

    def intensities(self, x: Tensor) -> NDArray[np.float32]:
        """Model input (1, C, *space) as intensities of the image, to be shown: (*space, C), grey (*space)."""
        shown = self.intake.to_intensity(x[0].cpu().numpy())
        return shown[0] if len(shown) == 1 else np.moveaxis(shown, 0, -1)
