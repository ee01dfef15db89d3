"""A tiled model draws what tiled prediction draws, and its tile bounds what a window can change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hand import small_image, wrap
from seglens.core.boxes import at_box, moved
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.reach import find_reach
from seglens.engine.resolve import resolve
from seglens.models.nets.unet import UNet
from seglens.models.tiled import TiledModel
from seglens.session import explain, segment

CLASSES = ("background", "cell")


def everywhere(dims=2):
    """Instance norm: a pixel may influence all others."""
    torch.manual_seed(0)
    conv, norm = (nn.Conv2d, nn.InstanceNorm2d) if dims == 2 else (nn.Conv3d, nn.InstanceNorm3d)
    return wrap(nn.Sequential(conv(1, 4, 3, padding=1), norm(4), nn.ReLU(), conv(4, 2, 1)), dims=dims, classes=CLASSES)


def picture(dims=2):
    size = (120, 100) if dims == 2 else (20, 40, 44)
    return Image(np.random.default_rng(0).random(size).astype(np.float32), "ZYX"[-dims:], name="noise")


def painted(dims=2):
    mask = np.zeros(picture(dims).data.shape, bool)
    mask[tuple(slice(6, 12) for _ in range(dims))] = True
    return Target("cell", Painted(mask))


def test_it_draws_what_prediction_draws():
    model, image = everywhere(), picture()
    x = torch.from_numpy(image.data)[None, None]
    with torch.no_grad():
        tiled = TiledModel(model, 48).logits(x)
    drawn = segment(image, model, tile=48, probabilities=True)
    np.testing.assert_allclose(tiled.softmax(1)[0].numpy(), drawn.probabilities, atol=2e-6)


def test_a_tile_alone_answers_its_own_logits():
    """A target of logits is one of logits in tiles, too: of a network that sees as far as the halo it is the same."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.Conv2d(4, 3, 1))
    model = wrap(net, classes=("background", "cell", "other"))
    x = torch.from_numpy(picture().data)[None, None]
    with torch.no_grad():
        tiled, whole = TiledModel(model, 32, 4).logits(x), model.logits(x)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)
    one, many, edge = (
        explain("integrated-gradients", picture(), model, painted(), tile=tile, steps=8) for tile in (None, 32, 512)
    )
    for other in (many, edge):
        np.testing.assert_allclose(other.map.data, one.map.data, rtol=0, atol=1e-5 * np.abs(one.map.data).max())
        for a, b in zip(one.tables[0].columns["value"], other.tables[0].columns["value"], strict=True):
            assert a == pytest.approx(b, abs=1e-4)


def test_one_tile_is_the_model():
    model = everywhere()
    x = torch.from_numpy(small_image().read("CYX"))[None]
    with torch.no_grad():
        torch.testing.assert_close(TiledModel(model, 512).logits(x), model.logits(x))


@pytest.mark.parametrize("dims", [2, 3])
def test_a_pixel_reaches_as_far_as_its_tiles(dims):
    model, shape = TiledModel(everywhere(dims), 24, 2), picture(dims).data.shape
    reach = find_reach(model)
    assert find_reach(model.whole) is None
    x = torch.from_numpy(picture(dims).data)[None, None]
    with torch.no_grad():
        clean = model.logits(x)
        for place in ((5,) * dims, (19,) * dims, tuple(n - 1 for n in shape)):
            y = x.clone()
            y[(0, 0, *place)] += 3
            hit = ((model.logits(y) - clean).abs().amax(1)[0] > 0).nonzero()
            box = reach.influenced(tuple(slice(p, p + 1) for p in place), shape)
            assert [s.start for s in box] == hit.amin(0).tolist()
            assert [s.stop - 1 for s in box] == hit.amax(0).tolist()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("method", ["occlusion", "vanilla-gradient"])
def test_crop_and_packing_with_tiles(dims, method):
    image, model = picture(dims), everywhere(dims)
    more = {"window": 9, "stride": 8} if method == "occlusion" else {"show": "signed"}
    find_reach(model)
    fast = explain(method, image, model, painted(dims), tile=24, **more)
    plain = explain(method, image, model, painted(dims), tile=24, run=Run(plain=True), **more)
    largest = np.abs(plain.map.data).max()
    np.testing.assert_allclose(fast.map.data, plain.map.data, rtol=0, atol=1e-5 * largest + 2e-6)
    assert largest > 1e-4
    if method == "occlusion":
        told = fast.record.engine["evaluations"][0]
        assert told["packed"]
        assert told["crop"][-1][1] < image.data.shape[-1]
        assert fast.record.cost["in forwards of the whole image"] < 0.5 * plain.record.cost["forwards"]
    assert fast.record.asked == {"tile": 24}


def test_a_crop_sees_the_same_tiles():
    # grid saliency works on the field alone: tiles laid anew over the crop would be another model
    mask = np.zeros(picture().data.shape, bool)
    mask[60:66, 50:56] = True
    case = resolve(picture(), TiledModel(everywhere(), 24), Target("cell", Painted(mask)), Run())
    part = case.forward(case.x[at_box(case.field)], case.local)
    assert part.shape[2:] != case.logits.shape[2:]
    inside = moved(case.target.box, [s.start for s in case.field])
    torch.testing.assert_close(part[at_box(inside)], case.logits[at_box(case.target.box)], rtol=0, atol=1e-5)
    anew = case.forward(case.x[at_box(case.field)])
    assert float((anew[at_box(inside)] - case.logits[at_box(case.target.box)]).abs().max()) > 1e-3


def test_whole_class_in_tiles_is_packed():
    image, model = picture(), everywhere()
    one = explain("occlusion", image, model, Target("cell"), tile=32, window=8, stride=8)
    plain = explain("occlusion", image, model, Target("cell"), tile=32, run=Run(plain=True), window=8, stride=8)
    np.testing.assert_allclose(one.map.data, plain.map.data, rtol=0, atol=1e-5 * np.abs(plain.map.data).max() + 2e-6)
    told = one.record.engine["evaluations"][0]
    assert told["passes"] < 0.5 * told["instead of"]


def test_rerun_names_the_tile():
    from seglens.session import as_cli, as_python

    record = explain("occlusion", picture(), everywhere(), painted(), tile=48, window=60).record
    assert "--tile 48" in as_cli(record)
    assert "tile=48" in as_python(record)


def test_a_net_with_reach_and_tiles_takes_the_nearer():
    torch.manual_seed(0)
    model = wrap(UNet(1, 2, (4, 6)), classes=CLASSES, divisor=2)
    inner, tiled = find_reach(model), find_reach(TiledModel(model, 64))
    box = (slice(40, 44), slice(40, 44))
    one, two = inner.influenced(box, (120, 100)), tiled.influenced(box, (120, 100))
    assert all(b.start >= a.start and b.stop <= a.stop for a, b in zip(one, two, strict=True))


def overlapping():
    """Instance norm, two sigmoids: an organ and a tumour within it."""
    torch.manual_seed(1)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)
    return wrap(nn.Sequential(*layers), classes=("background", "organ", "tumour"), multilabel=True)


def test_classes_that_overlap_are_blended_each_by_itself():
    model, image = overlapping(), picture()
    x = torch.from_numpy(image.data)[None, None]
    with torch.no_grad():
        tiled = TiledModel(model, 48).logits(x)
        whole = TiledModel(model, 512).logits(x)
    drawn = segment(image, model, tile=48, probabilities=True)
    assert torch.equal(tiled[:, 0], torch.zeros_like(tiled[:, 0]))
    np.testing.assert_allclose(tiled[0, 1:].sigmoid().numpy(), drawn.probabilities[1:], atol=2e-6)
    np.testing.assert_array_equal(tiled.argmax(1)[0].numpy(), drawn.labels)
    torch.testing.assert_close(whole, model.logits(x))
    assert float((tiled - whole).abs().max()) < 3  # each tile takes its own statistics
