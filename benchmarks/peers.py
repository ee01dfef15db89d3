"""Captum and MONAI, each as its documentation says, each at its faster batch setting on a CPU (one copy at a time)."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from benchmarks.contender import Asked, Go, Outcome, Skip, cells, score, starts
from benchmarks.questions import STRIDE, UNITS, WINDOW, counts, lattice, sampled
from benchmarks.scenes import LAYERS


def captum_occlusion(asked: Asked) -> Go:
    """``Occlusion`` over all channels; fewer windows where all cannot be afforded."""
    from captum.attr import Occlusion

    scene = asked.scene
    strides = sampled(scene.shape, asked.affordable)
    windows = lattice(scene.shape, strides)
    numbers = score(scene)
    method = Occlusion(lambda x: numbers(x)[:, 0])
    channels = scene.x.shape[1]

    def go() -> Outcome:
        drops = method.attribute(
            scene.x,
            (channels, *(WINDOW,) * len(strides)),
            (channels, *strides),
            baselines=0.0,
            perturbations_per_eval=1,
        )
        return Outcome(len(windows), asked.total, {"map": drops[0, 0].float().numpy(), "starts": starts(windows)})

    return go


class Recorded(nn.Module):
    """A segmentation network as the classifier that MONAI expects, with what it answered.

    MONAI's occlusion raises on the map of a segmentation network, and its own map is of scores, not of drops.
    """

    def __init__(self, asked: Asked) -> None:
        """Wrap the network of a scene."""
        super().__init__()
        self.module = asked.scene.module
        self.numbers, self.seen = score(asked.scene), list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) to (N, 1)."""
        answer = self.numbers(x)
        self.seen.append(answer)
        return answer.float()


def monai_occlusion(asked: Asked) -> Go:
    """``OcclusionSensitivity`` of a wrapped network; a corner of the image where all of it cannot be afforded."""
    from monai.visualize import OcclusionSensitivity

    scene = asked.scene
    wrapped = Recorded(asked)
    method = OcclusionSensitivity(
        wrapped, mask_size=WINDOW, n_batch=1, overlap=1 - STRIDE / WINDOW, mode=0.0, activate=False, verbose=False
    )
    every = counts(scene.shape, (STRIDE,) * len(scene.shape))
    some = [1] * len(every)
    while prod(some) < min(asked.affordable, prod(every)):
        axis = min((a for a in range(len(some)) if some[a] < every[a]), key=lambda a: some[a])
        some[axis] += 1
    # MONAI adds the window to the end of the box, and -1 means all of an axis
    box = [b for n, k in zip(every, some, strict=True) for b in (0, -1 if n == k else STRIDE * (k - 1))]
    lines = [(WINDOW + STRIDE * (k - 1)) for k in some]
    windows = lattice(lines, (STRIDE,) * len(some))

    def go() -> Outcome:
        wrapped.seen.clear()
        with torch.no_grad():
            clean = scene.logits[:, scene.index].double().flatten(1) @ scene.weights(("class",)).flatten(1).T.double()
        method(scene.x, b_box=None if some == every else box)
        drops = (clean - torch.cat(wrapped.seen)).numpy()
        if len(drops) != len(windows):
            raise Skip(f"MONAI scored {len(drops)} windows where {len(windows)} were expected.")
        return Outcome(len(windows), asked.total, {"drops": drops, "starts": starts(windows)})

    return go


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
    method = LayerFeatureAblation(lambda x: numbers(x)[:, 0].float(), layer)
    channels = min(asked.total, max(4, int(asked.affordable)))
    # what shares a number is set to 0 together: the channels left over are one more
    mask = torch.arange(asked.total).clamp(max=channels).reshape(1, -1, *(1,) * len(scene.shape))

    def go() -> Outcome:
        drops = method.attribute(scene.x, layer_baselines=0.0, layer_mask=mask, perturbations_per_eval=1)
        values = drops.flatten(2)[0, :channels, 0]
        done = min(asked.total, channels + 1)
        return Outcome(done, asked.total, {"channels": values.double().numpy()})

    return go


PEERS = {
    "captum Occlusion": captum_occlusion,
    "captum KernelShap": captum_kernel_shap,
    "captum Lime": captum_lime,
    "captum ShapleyValueSampling": captum_shapley,
    "captum LayerFeatureAblation": captum_ablation,
    "monai OcclusionSensitivity": monai_occlusion,
}
