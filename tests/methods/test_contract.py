"""What every method must do, found by crawling the catalogue: one test id per method and property."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
import torch
from scipy import ndimage

import seglens
from asking import NAMES, PLANTS, SHOWN, ask, brought, least, nets, numbers, plant, quick
from hand import cell_target, context_image, small_image
from seglens.core.errors import BadParameter, Cancelled, MissingNeed
from seglens.core.method import Fidelity, Need, Scope, Timing
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.evaluator import MANY
from seglens.session import explain

every = pytest.mark.parametrize("name", NAMES)


def needs_places(name):
    """For what only a map of pixels can be asked; a method without tests the like for objects in its own file."""
    if not seglens.METHODS[name].places:
        pytest.skip(f"{seglens.METHODS[name].title} explains whole objects")


@every
def test_describes_itself(name):
    card = seglens.METHODS[name].card()
    assert card["name"] == name
    assert card["title"]
    assert card["cite"]
    assert card["family"] in ("gradient", "perturbation", "prototype", "counterfactual", "architecture")
    assert card["scope"] in set(Scope)
    assert card["timing"] in set(Timing)
    assert card["fidelity"] in set(Fidelity)
    assert set(card["needs"]) <= set(Need)
    assert all(p["help"].endswith(".") for p in card["parameters"])


@every
def test_its_file_opens_with_what_it_does(name):
    module = inspect.getmodule(seglens.METHODS[name])
    assert (module.__doc__ or "").strip().splitlines()[0].endswith(".")


@every
def test_is_a_value(name):
    one, two = quick(name), quick(name)
    assert one == two
    assert hash(one) == hash(two)
    assert type(one).from_values(one.values()) == one
    with pytest.raises(AttributeError):
        one.title_of_nothing = 1


@every
def test_refuses_what_is_out_of_range_with_a_remedy(name):
    cls = seglens.METHODS[name]
    for parameter in cls.parameters():
        bad = parameter.invalid()
        if bad is None or parameter.param.source:
            continue
        with pytest.raises(BadParameter) as caught:
            cls(**{parameter.name: bad})
        assert str(bad) in caught.value.what
        assert parameter.limits in caught.value.fix


@every
@pytest.mark.parametrize("dims", [2, 3])
def test_runs_fits_the_image_and_is_finite(name, dims):
    _, cell, _ = context_image(dims)
    if dims not in seglens.METHODS[name].dims:
        with pytest.raises(MissingNeed):
            ask(name, dims=dims)
        return
    answer = ask(name, dims=dims)
    assert answer.layers
    assert answer.text
    for layer in answer.layers:
        data = np.asarray(layer.data)
        assert np.isfinite(data).all()
        if layer.kind in ("heat", "signed", "labels"):
            assert data.shape == cell.shape
        low, high = layer.limits()
        assert low < high


@every
def test_same_seed_same_answer(name):
    np.testing.assert_array_equal(numbers(ask(name, seed=3)), numbers(ask(name, seed=3)))


@every
def test_batch_of_one_equals_batch_of_eight(name):
    one, eight = numbers(ask(name, batch=1)), numbers(ask(name, batch=8))
    np.testing.assert_allclose(one, eight, atol=1e-5 * max(1.0, np.abs(one).max()))


@every
def test_short_cuts_change_nothing(name):
    """Crop, packing, prefix cache and layout against whole images, one after the other."""
    fast, plain = ask(name, seed=2), ask(name, run=Run(seed=2, plain=True))
    for a, b in zip(fast.layers, plain.layers, strict=True):
        one, two = np.asarray(a.data, float), np.asarray(b.data, float)
        np.testing.assert_allclose(one, two, rtol=0, atol=1e-5 * np.abs(two).max() + 1e-6)
    evaluations = fast.record.engine.get("evaluations", [])
    assert all("crop" in e for e in evaluations if e["instead of"] >= MANY)
    assert not any("crop" in e for e in plain.record.engine.get("evaluations", []))


@every
def test_leaves_the_model_and_the_dice_as_they_were(name):
    dims = least(name)
    model = plant(name, dims)
    module = model.module.train()
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = copy.deepcopy(module.state_dict())
    image, cell, _ = context_image(dims)
    torch.manual_seed(5)
    dice = torch.get_rng_state()
    numpy_dice = np.random.get_state()[1].copy()
    explain(quick(name), image, model, cell_target(cell), **brought(name, model))
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
    assert all(m.training for m in module.modules())
    assert all(p.requires_grad and bool((p.grad == 1).all()) for p in module.parameters())
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in module.modules())
    assert torch.equal(dice, torch.get_rng_state())
    np.testing.assert_array_equal(numpy_dice, np.random.get_state()[1])


@every
def test_says_what_is_missing(name):
    dims = least(name)
    image, cell, _ = context_image(dims)
    model = plant(name, dims)
    model.layered = False
    if Need.LAYER not in seglens.METHODS[name].needs:
        assert explain(quick(name), image, model, cell_target(cell)).layers
        return
    with pytest.raises(MissingNeed) as caught:
        explain(quick(name), image, model, cell_target(cell), **brought(name, model))
    assert seglens.METHODS[name].title in caught.value.what
    assert caught.value.fix


@every
def test_cancels_within_a_batch(name):
    class Counting(nets(name)[0]):
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            if type(self).calls == 2:
                run.cancel()
            return super().forward(x)

    run = Run(batch=1)
    module = Counting(dims=least(name))
    try:
        ask(name, module=module, run=run)
        # two forwards were all it needed: the answer came before anybody could stop it
        assert Counting.calls <= 2
    except Cancelled:
        assert Counting.calls <= 3
    assert not any(m._forward_hooks for m in module.modules())


@every
def test_constant_model_gives_a_constant_map(name):
    needs_places(name)
    if name in SHOWN:
        pytest.skip("shows what is there, whatever the answer")
    dims = least(name)
    image, cell, _ = context_image(dims)
    if seglens.METHODS[name].class_blind:
        # it shows what is looked at, even if nothing comes of it: then it must be the same whatever class is asked
        healthy, infected = (ask(name, target=Target(c, Painted(cell))).map.data for c in ("healthy", "infected"))
        np.testing.assert_array_equal(healthy, infected)
        return
    module = nets(name)[1](classes=seglens.METHODS[name].min_classes, dims=dims)
    answer = ask(name, module=module, image=image, target=Target("cell", Painted(cell)))
    values = np.asarray(answer.map.data)
    assert np.ptp(values) < 1e-6


@every
def test_changes_when_weights_are_randomised(name):
    needs_places(name)
    dims = least(name)
    image = small_image(side=32, dims=dims)
    mask = np.zeros(image.space("ZYX"[-dims:]), bool)
    mask[(..., slice(10, 20), slice(8, 22)) if dims == 2 else np.s_[2:5, 5:11, 4:13]] = True
    target = Target("cell", Painted(mask))
    classes = seglens.METHODS[name].min_classes
    drawn = (nets(name)[2](seed=s, classes=classes, dims=dims) for s in (1, 2))
    one, two = (ask(name, module=net, image=image, target=target).map.data.ravel() for net in drawn)
    if np.ptp(one) and np.ptp(two):
        assert abs(np.corrcoef(one, two)[0, 1]) < 0.9
    else:
        # what is rectified may vanish for one network, not for both
        assert np.ptp(one) != np.ptp(two)


def finds(values: np.ndarray, zone: np.ndarray) -> bool:
    """Whether the strongest positive value and half of all positive evidence lie in the zone."""
    positive = np.clip(values, 0, None)
    if positive.max() <= 0:
        return False
    return bool(zone[np.unravel_index(positive.argmax(), zone.shape)] and positive[zone].sum() > 0.5 * positive.sum())


@every
@pytest.mark.parametrize("dims", [2, 3])
def test_finds_planted_evidence(name, dims):
    needs_places(name)
    cls = seglens.METHODS[name]
    if dims not in cls.dims or name in SHOWN:
        pytest.skip(f"{cls.title} is for {cls.dims}" if dims not in cls.dims else "shows what is there")
    _, cell, zone = context_image(dims)
    if cls.locates:
        assert finds(ask(name, dims=dims, module=PLANTS.get(name, nets(name)[0])(dims=dims)).map.data, zone)
        return
    # what answers with an edited image must change the cell by editing the marker, and not by editing nothing
    by_marker = ask(name, dims=dims, target=Target("infected", Painted(zone)))
    aside = np.roll(zone, 30, axis=-2)
    by_nothing = ask(name, dims=dims, target=Target("infected", Painted(aside)))
    assert by_marker.map.data[cell].mean() > 0.5
    assert abs(by_nothing.map.data[cell].mean()) < 0.05


@pytest.mark.parametrize("dims", [2, 3])
def test_controls_do_not_find_planted_evidence(dims):
    image, cell, zone = context_image(dims)
    pixels = image.read(image.kept)
    edges = ndimage.generic_gradient_magnitude(pixels, ndimage.sobel)
    rng = np.random.default_rng(0)
    assert not any(finds(rng.random(cell.shape), zone) for _ in range(20))
    assert not finds(cell.astype(float), zone)
    assert not finds(edges, zone)
    assert finds(pixels > 0.8, zone)
