"""A layer's channels as maps and masks, and a layer's gradient on the part of the image that counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hand import Deep, small_image, wrap
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.channels import (
    Ablated,
    ChannelMasks,
    activation_map,
    busiest,
    cam_layer,
    overlaps,
    principal,
    seen_at,
    stages,
)
from seglens.engine.reach import find_reach
from seglens.engine.resolve import resolve
from seglens.models.nets.unet import UNet
from seglens.models.segmentation import quiet


def painted(shape, *at):
    mask = np.zeros(shape, bool)
    mask[at] = True
    return Target(1, Painted(mask))


def unet(dims=2, features=(4, 8, 12), seed=0):
    torch.manual_seed(seed)
    net = UNet(1, 2, features, dims=dims).eval()
    return wrap(net, dims=dims, divisor=net.divisor)


def case_of(model, image=None, run=None, target=None):
    image = image or small_image(dims=model.spec.ndim)
    shape = image.space(model.spec.axes)
    return resolve(image, model, target or painted(shape, *(slice(2, 6),) * len(shape)), run or Run())


@pytest.mark.parametrize("dims", [2, 3])
def test_a_map_is_the_weighted_sum_enlarged_then_cut_at_zero(dims):
    case = case_of(unet(dims))
    activation = case.activation("bottleneck")
    generator = torch.Generator().manual_seed(0)
    mode = "bilinear" if dims == 2 else "trilinear"
    for weights in (torch.randn(12, generator=generator), torch.randn(activation.shape[1:], generator=generator)):
        tall = weights.reshape(12, *(1,) * dims) if weights.ndim == 1 else weights
        padded = case.model.padded(case.shape)
        full = F.interpolate((tall * activation[0]).sum(0)[None, None], padded, mode=mode, align_corners=False)[0, 0]
        expected = full[tuple(slice(0, n) for n in case.shape)].numpy()
        assert expected.min() < 0
        np.testing.assert_allclose(activation_map(case, activation, weights), expected.clip(0), atol=1e-6)
        np.testing.assert_allclose(activation_map(case, activation, weights, rectified=False), expected, atol=1e-6)


def test_a_map_is_divided_by_its_largest_size_and_a_zero_map_is_left():
    signed = cam_layer("a", np.float32([[1, -4]]), True, "logit", "signed")
    np.testing.assert_array_equal(signed.data, [[0.25, -1]])
    assert signed.unit == "share of the maximum"
    assert cam_layer("a", np.float32([[1, 4]]), False, "logit").unit == "logit"
    np.testing.assert_array_equal(cam_layer("a", np.zeros((2, 2), np.float32), True, "").data, 0)


def test_the_true_resolution_is_told():
    case = case_of(unet())
    assert seen_at(case, case.activation("bottleneck")) == "12 channels, 6×7 map shown at 24×27"
    assert seen_at(case, torch.zeros(1, 3, 24, 27)) == "3 channels, 24×27 map"


@pytest.mark.parametrize("dims", [2, 3])
def test_the_principal_direction_is_that_of_the_singular_value_decomposition(dims):
    activation = case_of(unet(dims)).activation("encoder.0").clone()
    flat = activation[0].flatten(1).double()
    _, sizes, right = torch.linalg.svd((flat - flat.mean(1, keepdim=True)).T, full_matrices=False)
    vector, share = principal(activation)
    assert abs(float(vector @ right[0])) == pytest.approx(1, abs=1e-6)
    assert float(((vector @ (flat - flat.mean(1, keepdim=True))) ** 3).sum()) > 0
    assert share == pytest.approx(float(sizes[0] ** 2 / (sizes**2).sum()), abs=1e-6)


def test_a_constant_layer_has_no_principal_direction_to_tell():
    vector, share = principal(torch.ones(1, 3, 4, 4))
    assert torch.isfinite(vector).all()
    assert share == 0


@pytest.mark.parametrize("dims", [2, 3])
def test_masks_of_channels_go_from_zero_to_one(dims):
    case = case_of(unet(dims))
    activation = case.activation("bottleneck")
    masks = ChannelMasks(case, activation, (3, 0, 7)).batch(1, 3)
    assert masks.shape == (2, 1, *case.shape)
    full = case.at_image(activation[:, 7:8])
    np.testing.assert_allclose(masks[1, 0], (full - full.min()) / (full.max() - full.min()), atol=1e-6)


def test_flat_channels_are_left_out_and_the_budget_takes_the_largest():
    activation = torch.zeros(1, 5, 2, 2)
    activation[0, 1] = torch.tensor([[0.0, 1], [0, 1]])
    activation[0, 2] = 9
    activation[0, 3] = torch.tensor([[0.0, -4], [0, 0]])
    activation[0, 4] = torch.tensor([[0.0, 3], [0, 0]])
    assert busiest(activation) == [1, 3, 4]
    assert busiest(activation, 2) == [3, 4]
    assert busiest(torch.full((1, 2, 3, 3), 7.0)) == []
    assert busiest(torch.full((1, 2, 3, 3), 7.0), flat=True) == [0, 1]
    assert busiest(torch.zeros(1, 2, 3, 3), flat=True) == []


@pytest.mark.parametrize("dims", [2, 3])
def test_the_channel_that_is_the_mask_matches_it_wholly(dims):
    case = case_of(wrap(Deep(dims=dims), dims=dims))
    mask = np.zeros(case.shape, bool)
    mask[(slice(1, 7),) * dims] = True
    generator = torch.Generator().manual_seed(0)
    activation = torch.rand(1, 20, *case.shape, generator=generator)
    activation[0, 17] = torch.from_numpy(mask).float() * 3
    activation[0, 18] = torch.from_numpy(~mask).float()
    means, matches = overlaps(case, activation, mask)
    assert int(matches.argmax()) == 17
    assert float(matches[17]) == 1
    assert float(means[17]) == 3
    assert float(matches[18]) == 0
    torch.testing.assert_close(means[0], activation[0, 0][torch.from_numpy(mask)].mean())
    strong = activation[0, 0] >= activation[0, 0].flatten().sort().values[-int(mask.sum())]
    both, either = (strong & torch.from_numpy(mask)).sum(), (strong | torch.from_numpy(mask)).sum()
    torch.testing.assert_close(matches[0], both / either)


def test_chosen_channels_are_ablated_one_at_a_time():
    activation = torch.arange(12.0).reshape(1, 3, 2, 2)
    change = Ablated(torch.tensor([10.0, 20, 30]), channels=(2, 0))
    assert len(change) == 2
    both = change.batch(activation, 0, 2)
    assert (both[0, 2] == 30).all()
    assert (both[1, 0] == 10).all()
    torch.testing.assert_close(both[0, :2], activation[0, :2])


def test_a_unet_has_a_stage_per_level_down_and_up():
    found = [(layer.name, layer.stride, layer.channels) for layer in stages(unet())]
    assert found == [
        ("encoder.0", 1, 4), ("encoder.1", 2, 8), ("bottleneck", 4, 12), ("decoder.0", 2, 8), ("decoder.1", 1, 4)
    ]  # fmt: skip
    assert [layer.name for layer in stages(wrap(Deep()))] == ["features"]


@pytest.mark.parametrize("dims", [2, 3])
def test_several_layers_in_one_pass_are_as_one_by_one(dims):
    case = case_of(unet(dims))
    names = [layer.name for layer in stages(case.model)]
    before = case.run.cost.backwards
    for name, (activation, gradient) in zip(names, case.activations_at(names), strict=True):
        alone = case.activations(name)
        torch.testing.assert_close(activation, alone[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(gradient, alone[1], rtol=0, atol=1e-7)
        assert float(gradient.abs().max()) > 0
    assert case.run.cost.backwards == before + 1 + len(names)


@pytest.mark.parametrize(("dims", "shape"), [(2, (203, 242)), (3, (22, 90, 75))])
@pytest.mark.parametrize("corner", [True, False])
def test_a_gradient_at_a_layer_looks_at_the_field_alone_and_is_the_same(dims, shape, corner):
    """At the far corner the network pads, and the crop with it."""
    model = unet(dims, (4, 6))
    rng = np.random.default_rng(0)
    image = Image(rng.random(shape).astype(np.float32), "ZYX"[-dims:], name="noise")
    at = [slice(n - 3, n) if corner else slice(n // 2, n // 2 + 4) for n in shape]
    with quiet(model.module):
        plain = case_of(model, image, Run(plain=True), painted(shape, *at))
        names = [layer.name for layer in stages(model)]
        expected = plain.activations_at(names)
        find_reach(model, Run())
        case = case_of(model, image, target=painted(shape, *at))
        found = case.activations_at(names)
    assert "crop" in case.run.engine
    assert "crop" not in plain.run.engine
    for (a, g), (a0, g0) in zip(found, expected, strict=True):
        assert g.shape == g0.shape
        torch.testing.assert_close(a, a0, rtol=0, atol=1e-5 * float(a0.abs().max()))
        torch.testing.assert_close(g, g0, rtol=0, atol=1e-5 * float(g0.abs().max()))


def test_a_layer_whose_map_does_not_lie_on_the_image_is_looked_at_as_a_whole():
    """Convolutions without padding: the layer is smaller than the image by a rim, not by a stride."""

    class Valid(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.inner = torch.nn.Conv2d(1, 4, 5)
            self.head = torch.nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return F.pad(self.head(F.relu(self.inner(x))), (2, 2, 2, 2))

    model = wrap(Valid())
    image = small_image(side=96)
    target = painted((96, 99), slice(40, 44), slice(40, 44))
    with quiet(model.module):
        expected = case_of(model, image, Run(plain=True), target).activations("inner")
        find_reach(model, Run())
        case = case_of(model, image, target=target)
        assert case.evaluator.field != (slice(0, 96), slice(0, 99))
        found = case.activations("inner")
    torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-6)
    assert any("does not lie" in note for note in case.run.notes)
