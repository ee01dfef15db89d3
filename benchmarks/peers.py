"""Captum and MONAI, each as its documentation says, each at its faster batch setting on a CPU (one copy at a time)."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contender import Asked, Go, Outcome, cells, score, starts
from benchmarks.gradients import GRADIENTS
from benchmarks.questions import STRIDE, UNITS, WINDOW, Box, lattice
from benchmarks.scenes import LAYER

FEWEST = 3  # perturbed copies, however slow


class Enough(Exception):
    """Stops a library that offers no way to stop it."""


class Recorded(nn.Module):
    """A segmentation network as the classifier that libraries expect: it keeps its answers, and stops after some.

    MONAI's occlusion raises on the map of a segmentation network, and its own map is of scores, not of drops.
    """

    def __init__(self, asked: Asked, total: int) -> None:
        """Wrap the network of a scene; ``total`` calls are the whole work."""
        super().__init__()
        self.module, self.numbers, self.total = asked.scene.module, score(asked.scene), total
        self.most = min(total, FEWEST + int(asked.affordable))
        self.seen: list[float] = []
        self.times: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        """(n, C, *space) to (n, 1) in float64.

        Raises:
            Enough: it has answered often enough.
        """
        self.times.append(time.perf_counter())
        if len(self.seen) >= self.most:
            raise Enough
        answer = self.numbers(x)
        self.seen += answer.detach().flatten().tolist()
        return answer

    def __call__(self, x: Tensor) -> Tensor:
        """As :meth:`forward`."""
        answer: Tensor = super().__call__(x)
        return answer

    def ask(self, library: Callable[[], object]) -> float | None:
        """Let a library work until it is done or has asked often enough.

        Returns:
            Seconds that all calls would have taken, with what comes before the first one once; ``None``: all were made.
        """
        self.times[:] = [time.perf_counter()]
        with suppress(Enough):
            library()
        if len(self.seen) == self.total:
            return None
        start, first, *_, last = self.times
        return first - start + (last - first) / len(self.seen) * self.total


def captum_occlusion(asked: Asked, at_once: int = 1) -> Go:
    """``Occlusion`` over all channels, so many windows at once."""
    from captum.attr import Occlusion

    scene = asked.scene
    every = lattice(scene.shape[::-1], (STRIDE,) * len(scene.shape))
    windows = [box[::-1] for box in every]  # Captum counts along the first axis first
    recorded = Recorded(asked, 1 + asked.total)
    method = Occlusion(lambda x: recorded(x)[:, 0])
    size, strides = (scene.x.shape[1], *(WINDOW,) * len(scene.shape)), (scene.x.shape[1], *(STRIDE,) * len(scene.shape))

    def go() -> Outcome:
        seconds = recorded.ask(
            lambda: method.attribute(scene.x, size, strides, baselines=0.0, perturbations_per_eval=at_once)
        )
        return _some(asked, recorded.seen[0], recorded.seen[1:], windows, seconds)

    return go


def monai_occlusion(asked: Asked) -> Go:
    """``OcclusionSensitivity`` of a wrapped network."""
    from monai.visualize import OcclusionSensitivity

    scene = asked.scene
    recorded = Recorded(asked, asked.total)
    method = OcclusionSensitivity(
        recorded, mask_size=WINDOW, n_batch=1, overlap=1 - STRIDE / WINDOW, mode=0.0, activate=False, verbose=False
    )
    windows = lattice(scene.shape, (STRIDE,) * len(scene.shape))
    clean = float(scene.number(scene.logits))

    def go() -> Outcome:
        seconds = recorded.ask(lambda: method(scene.x))
        return _some(asked, clean, recorded.seen, windows, seconds)

    return go


def _some(asked: Asked, clean: float, seen: list[float], windows: list[Box], seconds: float | None) -> Outcome:
    """The first windows of a library's order."""
    drops = clean - np.array(seen)[:, None]
    return Outcome(len(seen), asked.total, {"drops": drops, "starts": starts(windows[: len(seen)])}, seconds=seconds)


def _units(name: str, samples: Callable[[Asked], int], calls: Callable[[int], int]) -> Callable[[Asked], Go]:
    """A method of Captum over the grid, with so many ``samples`` that take so many ``calls``."""

    def contender(asked: Asked) -> Go:
        import captum.attr

        scene, mask, wanted = asked.scene, cells(asked.scene), samples(asked)
        recorded = Recorded(asked, calls(wanted))
        method = getattr(captum.attr, name)(lambda x: recorded(x)[:, 0].float())
        more = {"baselines": 0.0, "feature_mask": mask, "n_samples": wanted, "perturbations_per_eval": 1}

        def go() -> Outcome:
            torch.manual_seed(0)
            seconds = recorded.ask(lambda: method.attribute(scene.x, **more))
            return Outcome(len(recorded.seen), recorded.total, seconds=seconds)

        return go

    return contender


def permutations(asked: Asked) -> int:
    """As many as equal the error of Captum's own ``KernelShap`` with 500 samples; 8, about 500 passes, if unknown."""
    return asked.passes.get("captum ShapleyValueSampling", 8)


def captum_ablation(asked: Asked) -> Go:
    """``LayerFeatureAblation``, a channel at a time set to 0."""
    from captum.attr import LayerFeatureAblation

    scene = asked.scene
    recorded = Recorded(asked, 1 + asked.total)
    method = LayerFeatureAblation(lambda x: recorded(x)[:, 0], scene.module.get_submodule(LAYER))
    mask = torch.arange(asked.total).reshape(1, -1, *(1,) * len(scene.shape))

    def go() -> Outcome:
        seconds = recorded.ask(
            lambda: method.attribute(scene.x, layer_baselines=0.0, layer_mask=mask, perturbations_per_eval=1)
        )
        drops = recorded.seen[0] - np.array(recorded.seen[1:])
        return Outcome(len(recorded.seen), recorded.total, {"channels": drops}, seconds=seconds)

    return go


PEERS = {
    **GRADIENTS,
    "captum Occlusion": captum_occlusion,
    "captum KernelShap": _units("KernelShap", lambda asked: asked.total, lambda n: n),
    "captum Lime": _units("Lime", lambda asked: asked.total, lambda n: n),
    "captum ShapleyValueSampling": _units("ShapleyValueSampling", permutations, lambda n: 1 + n * UNITS),
    "captum LayerFeatureAblation": captum_ablation,
    "monai OcclusionSensitivity": monai_occlusion,
}
