"""Vanilla gradient: the tests of its card (B/B1)."""

from __future__ import annotations

import numpy as np
import torch
from captum.attr import Saliency

from hand import Deep, cell_target, context_image, small_image, spec, wrap
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.resolve import resolve
from seglens.models.segmentation import SegmentationModel
from seglens.session import explain


def painted(shape):
    mask = np.zeros(shape, bool)
    mask[5:12, 6:15] = True
    return Painted(mask)


def test_agrees_with_finite_differences_in_double_precision():
    module = Deep(2, 3, seed=4).double()
    model = SegmentationModel(module.eval(), spec(2, ("a", "b", "c")))
    image = small_image(2)
    case = resolve_double(model, image, Target("b", painted((24, 27)), "log-probability"))
    gradient = case.gradient()
    rng = np.random.default_rng(0)
    for _ in range(20):
        at = (0, rng.integers(2), rng.integers(4, 14), rng.integers(5, 16))
        step = torch.zeros_like(case.x)
        step[at] = 1e-5
        up, down = (float(case.score(case.forward(case.x + s * step))) for s in (1, -1))
        expected = (up - down) / 2e-5
        assert abs(float(gradient[at]) - expected) <= 1e-5 * max(abs(expected), 1e-4)


def resolve_double(model, image, target):
    # the product computes in single precision; finite differences need double
    class Double(torch.nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

        def forward(self, x):
            return self.module(x.double())

    wrapped = SegmentationModel(Double(model.module).eval(), model.spec)
    case = resolve(image, wrapped, target, Run())
    case.clean.x = case.x.double()
    return case


def test_agrees_with_captum():
    model = wrap(Deep(2, 3, seed=1), channels=2, classes=("a", "b", "c"))
    image = small_image(2)
    region = painted((24, 27))
    answer = explain("vanilla-gradient", image, model, Target("c", region, reduction="sum"))
    x = torch.from_numpy(image.read("CYX"))[None].requires_grad_(True)
    mask = torch.from_numpy(region.mask)
    theirs = Saliency(lambda z: (model.module(z)[:, 2] * mask).sum((1, 2))).attribute(x)
    np.testing.assert_allclose(answer.map.data, theirs[0].amax(0).numpy(), atol=1e-6)


def test_signed_is_the_sum_over_channels_and_magnitude_the_largest():
    model = wrap(Deep(2, 2), channels=2)
    image, target = small_image(2), Target(1, painted((24, 27)))
    gradient = resolve(image, model, target, Run()).gradient()[0].numpy()
    signed = explain("vanilla-gradient", image, model, target, show="signed")
    assert signed.map.kind == "signed"
    np.testing.assert_allclose(signed.map.data, gradient.sum(0), atol=1e-7)
    magnitude = explain("vanilla-gradient", image, model, target)
    np.testing.assert_allclose(magnitude.map.data, np.abs(gradient).max(0), atol=1e-7)


def test_is_exactly_zero_beyond_the_reach():
    model = wrap(Deep())
    answer = explain("vanilla-gradient", small_image(), model, Target(1, painted((24, 27))))
    inside = np.zeros((24, 27), bool)
    inside[3:14, 4:17] = True  # two convolutions of width 3 reach 2 pixels
    assert (answer.map.data[~inside] == 0).all()
    assert (answer.map.data[inside] > 0).mean() > 0.9


def test_batch_norm_answers_in_eval_mode_even_if_the_module_trains():
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1))
    model = wrap(module)
    image, target = small_image(), Target(1, painted((24, 27)))
    first = explain("vanilla-gradient", image, model, target).map.data
    module.train()
    again = explain("vanilla-gradient", image, model, target).map.data
    np.testing.assert_array_equal(first, again)
    assert module.training


def test_a_network_that_starts_in_place_is_no_trouble():
    module = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Conv2d(1, 2, 3, padding=1))
    image, cell, _ = context_image()
    answer = explain("vanilla-gradient", image, wrap(module), Target(1, cell_target(cell).region))
    assert answer.map.data.max() > 0


def test_counts_one_pass_each_way_as_the_target_is_frozen_on_it():
    image, cell, _ = context_image()
    record = explain("vanilla-gradient", image, wrap(Deep()), Target(1, Painted(cell | True))).record
    assert record.cost == {"forwards": 1, "backwards": 1}
    assert isinstance(image, Image)
