"""Guided Grad-CAM: the test of its card (B/B15)."""

from __future__ import annotations

import numpy as np
import torch

from hand import small_image, wrap
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.channels import activation_map
from seglens.engine.resolve import resolve
from seglens.methods.gradient._cams import spatial_mean
from seglens.models.nets.unet import UNet
from seglens.session import explain


def question():
    torch.manual_seed(1)
    net = UNet(2, 2, (4, 8, 12)).eval()
    mask = np.zeros((32, 35), bool)
    mask[5:12, 6:15] = True
    return small_image(2, side=32), wrap(net, divisor=net.divisor, channels=2), Target(1, Painted(mask))


def asked(method, **more):
    return explain(method, *question(), **more)


def test_is_the_enlarged_class_activation_map_times_the_guided_map():
    cam = asked("seg-grad-cam", layer="decoder.1").map.data
    guided = asked("guided-backprop", channels=True, show="signed")
    answer = asked("guided-grad-cam", layer="decoder.1", channels=True, show="signed")
    assert cam.max() == 1
    for ours, fine in zip(answer.layers[:3], guided.layers, strict=True):
        np.testing.assert_allclose(ours.data, cam * fine.data, atol=1e-6 * np.abs(fine.data).max())
    np.testing.assert_array_equal(answer["Seg-Grad-CAM"].data, cam)


def test_is_zero_where_the_class_activation_map_is_below_zero():
    case = resolve(*question(), Run())
    activation, gradient = case.activations("encoder.1")
    raw = activation_map(case, activation, spatial_mean(gradient[0]), rectified=False)
    below = raw < 0
    assert 0.05 < below.mean() < 0.95
    guided, answer = asked("guided-backprop"), asked("guided-grad-cam", layer="encoder.1")
    assert guided.map.data[below].any()
    assert not answer.map.data[below].any()
    assert not answer["Seg-Grad-CAM"].data[below].any()
    assert answer.map.data[~below].any()
