"""Captum's gradient methods, each as its documentation says: all copies at once, or a few at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.contender import Asked, Go, Outcome, Skip, score
from benchmarks.scenes import LAYER, Scene
from seglens.engine import fast

GIB = 2**30
MOST = 8 * GIB  # what a peer's activations may take
FEW = 4  # copies at a time
EXACT = 256**2  # pixels up to which the answer is compared in double precision
NOISE = 0.1  # of the image's range, which is 1


class Target(nn.Module):
    """A segmentation network as the classifier that Captum expects: one number per image, the target's mean logit."""

    def __init__(self, scene: Scene, target: str) -> None:
        """Wrap the network of a scene."""
        super().__init__()
        self.module, self.scene, self.target = scene.module, scene, target

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *space) to (N,) in float64."""
        return self.scene.number(self.module(x), (self.target,))[:, 0]


def needed(asked: Asked) -> float:
    """Bytes of activations that one copy keeps for its gradient, from a corner of the image."""
    scene, side = asked.scene, 64
    corner = scene.x[(slice(None), slice(None), *(slice(side) for _ in scene.shape))].clone().requires_grad_()
    module = scene.module
    with fast.Peak() as peak:
        module(corner)
    return peak.bytes * scene.size / corner[0, 0].numel()


def fits(asked: Asked, copies: int) -> None:
    """Refuse what would take more memory than there is.

    Raises:
        Skip: it would.
    """
    if (bytes_ := copies * needed(asked)) > MOST:
        raise Skip(
            f"{copies} copies of {'×'.join(map(str, asked.scene.shape))} at once take about {bytes_ / GIB:.0f} GiB"
        )


def once(attribute: Callable[[Target, Tensor], Tensor], copies: int = 1) -> Callable[[Asked], Go]:
    """A method that takes a fixed number of copies, all at once.

    What others are compared with is its answer in double precision: in single, a ReLU whose input is zero up to
    rounding lets a gradient pass or not as the layout of the moment has it.
    """

    def contender(asked: Asked) -> Go:
        fits(asked, copies)
        wrapped = Target(asked.scene, asked.question.target)

        def go() -> Outcome:
            found = attribute(wrapped, asked.scene.x)
            return Outcome(1, 1, shown(found), exactly=exactly if asked.scene.size <= EXACT else None)

        def exactly() -> dict[str, NDArray[Any]]:
            return shown(attribute(wrapped.double(), asked.scene.x.double()))

        return go

    return contender


def many(attribute: Callable[[Target, Tensor, int, int], Tensor], *, few: bool, exact: bool) -> Callable[[Asked], Go]:
    """A method that averages over copies.

    Args:
        attribute: of the network, the image, copies, and copies at a time.
        few: a few at a time, and where time is short not all of them; else all at once, as it is by default.
        exact: whether others can answer the same, as nothing is drawn at random.
    """

    def contender(asked: Asked) -> Go:
        total = asked.total
        if few:
            batch = max(1, min(FEW, int(MOST / needed(asked))))
            # a gradient costs about as much as three forwards
            count = max(batch, min(total, int(asked.affordable / 3) // batch * batch))
        else:
            batch = count = total
        fits(asked, batch)
        wrapped = Target(asked.scene, asked.question.target)

        def go() -> Outcome:
            torch.manual_seed(0)
            found = attribute(wrapped, asked.scene.x, count, batch)
            compared = shown(found) if exact and count == total else {}
            again = exactly if compared and not few and asked.scene.size <= EXACT else None
            return Outcome(count, total, compared, {"at once": batch}, exactly=again)

        def exactly() -> dict[str, NDArray[Any]]:
            return shown(attribute(wrapped.double(), asked.scene.x.double(), count, FEW))

        return go

    return contender


def shown(found: Tensor) -> dict[str, NDArray[Any]]:
    """The sum over channels of (1, C, *space), as our maps show it."""
    return {"image": found.detach().sum(1)[0].cpu().numpy()}


def saliency(target: Target, x: Tensor) -> Tensor:
    """The gradient with its sign."""
    from captum.attr import Saliency

    return Saliency(target).attribute(x, abs=False)


def integrated(target: Target, x: Tensor, count: int, batch: int) -> Tensor:
    """From a black image, by its usual rule (Gauss-Legendre)."""
    from captum.attr import IntegratedGradients

    return IntegratedGradients(target).attribute(x, 0.0, n_steps=count, internal_batch_size=batch)


def smoothed(target: Target, x: Tensor, count: int, batch: int) -> Tensor:
    """The mean gradient of noisy images."""
    from captum.attr import NoiseTunnel, Saliency

    tunnel = NoiseTunnel(Saliency(target))
    return tunnel.attribute(
        x, nt_type="smoothgrad", nt_samples=count, nt_samples_batch_size=batch, stdevs=NOISE, abs=False
    )


def shap(target: Target, x: Tensor, count: int, batch: int) -> Tensor:
    """Towards a black image, in as many calls as it takes: it cannot work in batches by itself."""
    from captum.attr import GradientShap

    method, black = GradientShap(target), torch.zeros_like(x)
    calls = count // batch
    return sum((method.attribute(x, black, n_samples=batch, stdevs=NOISE) for _ in range(calls)), black) / calls


def deep_lift(target: Target, x: Tensor) -> Tensor:
    """Against a black image."""
    from captum.attr import DeepLift

    return DeepLift(target).attribute(x, 0.0)


def guided(target: Target, x: Tensor) -> Tensor:
    """ReLUs let through what is positive."""
    from captum.attr import GuidedBackprop

    return GuidedBackprop(target).attribute(x)


def grad_cam(target: Target, x: Tensor) -> Tensor:
    """At the bottleneck; enlarged and then rectified, as our map is, which shows the edges where they are."""
    from captum.attr import LayerGradCam

    cam = LayerGradCam(target, target.module.get_submodule(LAYER)).attribute(x)
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    return F.interpolate(cam, x.shape[2:], mode=mode, align_corners=False).relu()


def relevance(asked: Asked) -> Go:
    """``LRP``, which has no rule for transposed convolutions and says so."""
    from captum.attr import LRP

    wrapped = Target(asked.scene, asked.question.target)

    def go() -> Outcome:
        try:
            found = LRP(wrapped).attribute(asked.scene.x)
        except TypeError as error:
            raise Skip(f"it refuses this network: {str(error).split(' has ')[0]} has no rule") from error
        return Outcome(1, 1, shown(found))

    return go


def loop_gradient(asked: Asked) -> Go:
    """The straight way: one image, one backward pass, default layout."""
    numbers = score(asked.scene, (asked.question.target,))

    def go() -> Outcome:
        x = asked.scene.x.clone().requires_grad_()
        (found,) = torch.autograd.grad(numbers(x).sum(), x)
        return Outcome(1, 1, shown(found))

    return go


GRADIENTS: dict[str, Callable[[Asked], Go]] = {
    "captum Saliency": once(saliency),
    "captum IntegratedGradients": many(integrated, few=False, exact=True),
    "captum IntegratedGradients, few at once": many(integrated, few=True, exact=True),
    "captum NoiseTunnel": many(smoothed, few=False, exact=False),
    "captum NoiseTunnel, few at once": many(smoothed, few=True, exact=False),
    "captum GradientShap": many(shap, few=False, exact=False),
    "captum GradientShap, few at once": many(shap, few=True, exact=False),
    "captum DeepLift": once(deep_lift, 4),
    "captum GuidedBackprop": once(guided),
    "captum LayerGradCam": once(grad_cam),
    "captum LRP": relevance,
}
