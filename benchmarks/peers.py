"""Captum and MONAI, each as its documentation says, each at its faster batch setting on a CPU (one copy at a time)."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.contender import Asked, Go, Outcome, Skip, cells, score, starts
from benchmarks.questions import STRIDE, UNITS, WINDOW, Box, lattice
from benchmarks.scenes import LAYERS, Scene

FEWEST = 3  # perturbed copies, however slow


class Enough(Exception):
    """Stops a library that offers no way to stop it."""


class Recorded(nn.Module):
    """A segmentation network as the classifier that libraries expect: it keeps its answers, and stops after some.

    MONAI's occlusion raises on the map of a segmentation network, and its own map is of scores, not of drops.
    """

    def __init__(self, scene: Scene, most: int) -> None:
        """Wrap the network of a scene."""
        super().__init__()
        self.module, self.numbers, self.most = scene.module, score(scene), most
        self.seen: list[float] = []
        self.times: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, *space) to (1, 1) in float64.

        Raises:
            Enough: it has answered often enough.
        """
        self.times.append(time.perf_counter())
        if len(self.seen) == self.most:
            raise Enough
        answer = self.numbers(x)
        self.seen.append(float(answer))
        return answer

    def start(self) -> None:
        """Forget what was seen, and start the clock."""
        self.seen.clear()
        self.times[:] = [time.perf_counter()]

    def seconds(self, calls: int) -> float | None:
        """What so many calls would have taken, with what comes before the first one once; ``None``: all were made."""
        if len(self.seen) == calls:
            return None
        start, first, *_, last = self.times
        return first - start + (last - first) / len(self.seen) * calls


def captum_occlusion(asked: Asked) -> Go:
    """``Occlusion`` over all channels."""
    from captum.attr import Occlusion

    scene = asked.scene
    every = lattice(scene.shape[::-1], (STRIDE,) * len(scene.shape))
    windows = [box[::-1] for box in every]  # Captum counts along the first axis first
    recorded = Recorded(scene, 1 + max(FEWEST, min(asked.total, int(asked.affordable))))
    method = Occlusion(lambda x: recorded(x)[:, 0])
    size, strides = (scene.x.shape[1], *(WINDOW,) * len(scene.shape)), (scene.x.shape[1], *(STRIDE,) * len(scene.shape))

    def go() -> Outcome:
        recorded.start()
        try:
            drops = method.attribute(scene.x, size, strides, baselines=0.0, perturbations_per_eval=1)
        except Enough:
            answer = _some(asked, recorded.seen[0], recorded.seen[1:], windows)
            return replace(answer, seconds=recorded.seconds(1 + asked.total))
        return Outcome(asked.total, asked.total, {"map": drops[0, 0].numpy(), "starts": starts(windows)})

    return go


def monai_occlusion(asked: Asked) -> Go:
    """``OcclusionSensitivity`` of a wrapped network."""
    from monai.visualize import OcclusionSensitivity

    scene = asked.scene
    recorded = Recorded(scene, max(FEWEST, min(asked.total, int(asked.affordable))))
    method = OcclusionSensitivity(
        recorded, mask_size=WINDOW, n_batch=1, overlap=1 - STRIDE / WINDOW, mode=0.0, activate=False, verbose=False
    )
    windows = lattice(scene.shape, (STRIDE,) * len(scene.shape))
    logits = scene.logits[:, scene.index].double()
    clean = float((logits * scene.weights(("class",)).double()).sum())

    def go() -> Outcome:
        recorded.start()
        with suppress(Enough):
            method(scene.x)
        return replace(_some(asked, clean, recorded.seen, windows), seconds=recorded.seconds(asked.total))

    return go


def _some(asked: Asked, clean: float, seen: list[float], windows: list[Box]) -> Outcome:
    """The first windows of a library's order."""
    drops = clean - np.array(seen)[:, None]
    return Outcome(len(seen), asked.total, {"drops": drops, "starts": starts(windows[: len(seen)])})


def _units(asked: Asked, name: str) -> Go:
    """Captum's ``KernelShap`` and ``Lime`` over the grid."""
    import captum.attr

    scene = asked.scene
    numbers = score(scene)
    method = getattr(captum.attr, name)(lambda x: numbers(x)[:, 0].float())
    mask = cells(scene)
    samples = min(asked.total, max(10, int(asked.affordable)))

    def go() -> Outcome:
        torch.manual_seed(0)
        method.attribute(scene.x, baselines=0.0, feature_mask=mask, n_samples=samples, perturbations_per_eval=1)
        return Outcome(samples, asked.total)

    return go


def captum_kernel_shap(asked: Asked) -> Go:
    """500 samples."""
    return _units(asked, "KernelShap")


def captum_lime(asked: Asked) -> Go:
    """500 samples; its own kernel and Lasso."""
    return _units(asked, "Lime")


def captum_shapley(asked: Asked) -> Go:
    """``ShapleyValueSampling`` with as many permutations as equal the error of ``KernelShap`` with 500 samples."""
    from captum.attr import ShapleyValueSampling

    scene = asked.scene
    wanted = asked.passes.get("captum ShapleyValueSampling", 25)
    if asked.affordable < UNITS / 4:
        raise Skip("one permutation takes 65 forwards of this size")
    samples = min(wanted, max(1, int(asked.affordable / UNITS)))
    numbers = score(scene)
    method = ShapleyValueSampling(lambda x: numbers(x)[:, 0].float())
    mask = cells(scene)

    def go() -> Outcome:
        torch.manual_seed(0)
        method.attribute(scene.x, baselines=0.0, feature_mask=mask, n_samples=samples, perturbations_per_eval=1)
        return Outcome(samples * UNITS + 1, wanted * UNITS + 1)

    return go


def captum_ablation(asked: Asked) -> Go:
    """``LayerFeatureAblation``, a channel at a time set to 0; only some of them where all cannot be afforded."""
    from captum.attr import LayerFeatureAblation

    scene = asked.scene
    numbers = score(scene)
    module = scene.module
    layer = module.get_submodule(LAYERS[scene.network])
    method = LayerFeatureAblation(lambda x: numbers(x)[:, 0], layer)
    channels = min(asked.total, max(4, int(asked.affordable)))
    # what shares a number is set to 0 together: the channels left over are one more
    mask = torch.arange(asked.total).clamp(max=channels).reshape(1, -1, *(1,) * len(scene.shape))

    def go() -> Outcome:
        drops = method.attribute(scene.x, layer_baselines=0.0, layer_mask=mask, perturbations_per_eval=1)
        values = drops.flatten(2)[0, :channels, 0]
        # one pass of the clean image, and one of the channels that are left over
        done = 1 + min(asked.total, channels + 1)
        return Outcome(done, asked.total + 1, {"channels": values.double().numpy()})

    return go


PEERS = {
    "captum Occlusion": captum_occlusion,
    "captum KernelShap": captum_kernel_shap,
    "captum Lime": captum_lime,
    "captum ShapleyValueSampling": captum_shapley,
    "captum LayerFeatureAblation": captum_ablation,
    "monai OcclusionSensitivity": monai_occlusion,
}
