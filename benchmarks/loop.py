"""The straight loop: one perturbed copy at a time through the network, default layout, no thought given to speed.

It is written apart from the engine, and is what our answers are compared with.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.contender import Asked, Go, Outcome, cells, score, starts
from benchmarks.gradients import loop_gradient
from benchmarks.questions import STRIDE, WINDOW, Box, lattice, question, sampled
from benchmarks.scenes import LAYER, MANY, Scene

MOST = 2000  # windows of the loop


def targets(scene: Scene) -> tuple[str, ...]:
    """All targets of the occlusion questions of a scene, scored in one loop."""
    many = tuple(f"object {i}" for i in range(MANY)) if question("occlusion-fifty").asked_of(scene) else ()
    return ("class", "object", "painted", *many)


def occlusion(asked: Asked) -> Go:
    """Some windows over the image, and some near each target, where the drops are large."""
    scene = asked.scene
    names = targets(scene)
    windows = lattice(scene.shape, sampled(scene.shape, min(MOST, asked.affordable)))
    for name in names[1:4]:
        windows += [w for w in near(scene, name) if w not in windows]
    numbers = score(scene, names)

    @torch.inference_mode()
    def go() -> Outcome:
        clean = numbers(scene.x)
        drops = torch.empty(len(windows), len(names), dtype=torch.float64)
        for i, window in enumerate(windows):
            copy = scene.x.clone()
            copy[(slice(None), slice(None), *window)] = 0
            drops[i] = (clean - numbers(copy))[0]
        return Outcome(
            len(windows) + 1,
            max(len(windows), asked.total) + 1,
            {"drops": drops.numpy(), "starts": starts(windows)},
            {"targets": list(names)},
        )

    return go


def near(scene: Scene, target: str) -> list[Box]:
    """Two windows of the lattice: one within the target, one about a window away from it."""
    middle = np.argwhere(scene.mask(target)).mean(0)
    out = []
    for shift in (0, WINDOW):
        place = []
        for n, m in zip(scene.shape, middle, strict=True):
            start = int(np.clip(round((m - WINDOW / 2 - shift) / STRIDE), 0, (n - WINDOW) // STRIDE)) * STRIDE
            place.append(slice(start, start + WINDOW))
        out.append(tuple(place))
    return out


def _masked(asked: Asked, masks: Tensor, finish: bool) -> Go:
    """Score masked copies one by one; ``masks`` (N, units) of a grid or (N, cells) of RISE."""
    scene = asked.scene
    numbers = score(scene)
    unit = cells(scene)[0, 0]

    @torch.inference_mode()
    def go() -> Outcome:
        answers = torch.empty(len(masks), dtype=torch.float64)
        total = torch.zeros(scene.shape)
        for i, mask in enumerate(masks):
            if mask.ndim == 1:
                shown = mask[unit]
            else:
                cell = [-(-n // s) for n, s in zip(scene.shape, mask.shape, strict=True)]
                big = [(s + 1) * c for s, c in zip(mask.shape, cell, strict=True)]
                mode = "bilinear" if mask.ndim == 2 else "trilinear"
                shown = F.interpolate(mask[None, None], big, mode=mode, align_corners=False)[0, 0]
                shown = shown[tuple(slice(c // 2, c // 2 + n) for c, n in zip(cell, scene.shape, strict=True))]
            answers[i] = numbers(scene.x * shown)[0, 0]
            if not finish:
                total += float(answers[i]) * shown
        if finish:
            # ordinary least squares: the cost of the fit, not its fine points
            np.linalg.lstsq(np.c_[masks.numpy(), np.ones(len(masks))], answers.numpy(), rcond=None)
        return Outcome(len(masks), asked.total)

    return go


def units(asked: Asked) -> Go:
    """Kernel SHAP and LIME: 500 copies with half of the units taken away."""
    count = min(asked.total, max(3, int(asked.affordable)))
    generator = torch.Generator().manual_seed(0)
    return _masked(
        asked, (torch.rand(count, int(cells(asked.scene).max()) + 1, generator=generator) > 0.5).float(), True
    )


def rise(asked: Asked) -> Go:
    """Masks of 7 × 7 cells, half of them kept, enlarged bilinearly."""
    count = min(asked.total, max(3, int(asked.affordable)))
    generator = torch.Generator().manual_seed(0)
    grid = (7,) * len(asked.scene.shape)
    return _masked(asked, (torch.rand(count, *grid, generator=generator) > 0.5).float(), False)


def ablation(asked: Asked) -> Go:
    """The whole network once per channel, with this channel of the layer set to 0 by a hook."""
    scene = asked.scene
    layer = scene.module.get_submodule(LAYER)
    numbers = score(scene)
    count = min(asked.total, max(4, int(asked.affordable)))

    @torch.inference_mode()
    def go() -> Outcome:
        clean = float(numbers(scene.x))
        drops = np.empty(count)
        for channel in range(count):

            def silence(_: object, __: object, output: Tensor, channel: int = channel) -> Tensor:
                output = output.clone()
                output[:, channel] = 0
                return output

            handle = layer.register_forward_hook(silence)
            drops[channel] = clean - float(numbers(scene.x))
            handle.remove()
        return Outcome(count + 1, asked.total + 1, {"channels": drops})

    return go


def score_cam(asked: Asked) -> Go:
    """The whole network once per channel of the layer, on the image times this channel, enlarged and from 0 to 1."""
    scene = asked.scene
    numbers = score(scene)
    count = min(asked.total, max(4, int(asked.affordable)))

    @torch.inference_mode()
    def go() -> Outcome:
        kept: list[Tensor] = []
        handle = scene.module.get_submodule(LAYER).register_forward_hook(lambda *told: kept.append(told[-1].clone()))
        scene.module(scene.x)
        handle.remove()
        scores = np.zeros(count)
        for channel in range(count):
            mask = F.interpolate(kept[0][:, [channel]], scene.shape, mode="bilinear", align_corners=False)
            low, high = mask.aminmax()
            if high > low:
                scores[channel] = float(numbers(scene.x * (mask - low) / (high - low)))
        return Outcome(count + 1, asked.total + 1, {"channels": scores})

    return go


LOOPS = {
    "occlusion": occlusion,
    "kernel-shap": units,
    "lime": units,
    "rise": rise,
    "seg-ablation-cam": ablation,
    "seg-score-cam": score_cam,
    "vanilla-gradient": loop_gradient,
}
