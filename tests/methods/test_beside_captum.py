"""What Captum covers: one network, one target, every method, and an answer that is Captum's to 1e-5."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import nn
from torch.nn import functional as F

from closed import as_input, everywhere, model_of, noise
from hand import CONV
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.resolve import resolve
from seglens.methods.gradient.gradient_shap import GradientSHAP
from seglens.models.nets.unet import UNet
from seglens.session import explain

SHAPE = (8, 16, 24)
CHANNELS = 2
POOL = {2: nn.AvgPool2d, 3: nn.AvgPool3d}


def unet(dims):
    """A U-Net with batch norm. It pools by means: beside an activation Captum's DeepLift loses its sum at maxima."""
    torch.manual_seed(3)  # guided signals need a head with some weight above zero
    net = UNet(CHANNELS, 2, (4, 8, 12), dims=dims)
    net.pool = POOL[dims](2)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.momentum = None
            nn.init.uniform_(module.bias, -0.3, 0.3)
    net(torch.rand(4, CHANNELS, *SHAPE[-dims:]))  # so that its norms know what comes
    return net.eval()


def chain(dims):
    """What Captum has LRP rules for."""
    torch.manual_seed(0)
    one, two, three = (CONV[dims](a, b, 3, padding=1) for a, b in ((CHANNELS, 6), (6, 6), (6, 2)))
    return nn.Sequential(one, nn.ReLU(), two, nn.ReLU(), three).eval()


class Summed(nn.Module):
    """One number per sample: class 1, summed over the region."""

    def __init__(self, net, mask):
        super().__init__()
        self.net, self.mask = net, torch.from_numpy(mask)

    def forward(self, x):
        return (self.net(x)[:, 1] * self.mask).flatten(1).sum(1)


def region(shape):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(2, n - 3) for n in shape)] = True
    return Target(1, Painted(mask), reduction="sum")


def saliency(ask):
    return captum.attr.Saliency(ask.peer).attribute(ask.x), {"show": "magnitude"}


def input_x_gradient(ask):
    return captum.attr.InputXGradient(ask.peer).attribute(ask.x), {}


def integrated_gradients(ask):
    found = captum.attr.IntegratedGradients(ask.peer).attribute(ask.x, ask.black, n_steps=12, method="gausslegendre")
    return found, {"steps": 12, "fill": "black"}


def deep_lift(ask):
    return captum.attr.DeepLift(ask.peer).attribute(ask.x, ask.black), {"fill": "black"}


def deep_lift_shap(ask):
    starts = torch.cat([as_input(image) for image in ask.references])
    return captum.attr.DeepLiftShap(ask.peer).attribute(ask.x, starts), {"reference": ask.references}


def gradient_shap(ask):
    recipe = GradientSHAP(samples=6, spread=0.1)
    copies = recipe.copies(resolve(ask.image, ask.model, ask.target, Run(), reference=ask.references))
    begin = copies.starts[copies.which]
    noisy = copies.ends.batch(0, 6) - ask.x.detach()
    ask.patch.setattr(torch, "normal", lambda *_: noisy)
    ask.patch.setattr(np.random, "uniform", lambda *_: copies.alphas.numpy())
    ask.patch.setattr(np.random, "choice", lambda *_: np.arange(6))
    found = captum.attr.GradientShap(ask.peer).attribute(ask.x, begin, n_samples=6, stdevs=0.1)
    return found, {"samples": 6, "spread": 0.1, "reference": ask.references}


def guided_backprop(ask):
    return captum.attr.GuidedBackprop(ask.peer).attribute(ask.x), {"show": "signed"}


def deconvolution(ask):
    return captum.attr.Deconvolution(ask.peer).attribute(ask.x), {"show": "signed"}


def lrp(ask):
    """Captum gives each pixel of a sum the whole sum to start with, so it is asked pixel by pixel."""
    found = torch.zeros_like(ask.x)
    for place in np.argwhere(ask.target.region.mask):
        for layer in ask.net[::2]:
            layer.rule = EpsilonRule(1e-6)  # Captum takes it off again
        one = np.zeros_like(ask.target.region.mask)
        one[tuple(place)] = True
        found += captum.attr.LRP(Summed(ask.net, one)).attribute(ask.x)
    return found, {"composite": "epsilon"}


def seg_grad_cam(ask):
    found = captum.attr.LayerGradCam(ask.peer, ask.net.encoder[1]).attribute(ask.x)
    size = tuple(ask.x.shape[2:])
    large = F.interpolate(found, size, mode=("bilinear", "trilinear")[len(size) - 2], align_corners=False)
    return large.relu(), {"layer": "encoder.1", "normalise": False}


PEERS = {
    "vanilla-gradient": saliency,
    "input-x-gradient": input_x_gradient,
    "integrated-gradients": integrated_gradients,
    "deep-lift": deep_lift,
    "deep-lift-shap": deep_lift_shap,
    "gradient-shap": gradient_shap,
    "guided-backprop": guided_backprop,
    "deconvolution": deconvolution,
    "lrp": lrp,
    "seg-grad-cam": seg_grad_cam,
}


class Question:
    """The same for both sides."""

    def __init__(self, method, dims, patch):
        shape = SHAPE[-dims:]
        self.patch = patch
        self.image, self.references = noise(shape, CHANNELS), tuple(noise(shape, CHANNELS, seed=s) for s in (5, 6, 7))
        self.net = chain(dims) if method == "lrp" else unet(dims)
        self.target, self.model = region(shape), model_of(self.net, CHANNELS, dims)
        self.peer = Summed(self.net, self.target.region.mask)
        self.x = as_input(self.image).requires_grad_(True)
        self.black = torch.zeros_like(self.x)


def error(method, dims, patch):
    """The largest difference of the two maps, in parts of the largest value."""
    ask = Question(method, dims, patch)
    theirs, more = PEERS[method](ask)
    # of a magnitude the largest channel counts, of all others the sum
    theirs = (theirs[0].amax(0) if method == "vanilla-gradient" else theirs[0].sum(0)).detach().numpy()
    patch.undo()
    ours = explain(method, ask.image, ask.model, ask.target, **more).map.data
    assert np.abs(theirs).max() > 1e-4
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.filterwarnings("ignore:Setting")
@pytest.mark.filterwarnings("ignore:Input Tensor")
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("method", PEERS)
def test_agrees_with_captum_on_the_same_network_and_target(method, dims, monkeypatch):
    if method == "lrp" and dims == 3:
        pytest.skip("Captum has no LRP rules for volumes.")
    assert error(method, dims, monkeypatch) < 1e-5


def test_one_target_is_not_another():
    net = unet(2)
    image, target = noise(SHAPE[1:], CHANNELS), region(SHAPE[1:])
    one, two = (explain("vanilla-gradient", image, model_of(net, CHANNELS), t) for t in (target, everywhere(SHAPE[1:])))
    assert float(np.abs(one.map.data - two.map.data).max()) > 1e-3 * float(one.map.data.max())
