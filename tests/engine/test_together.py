"""Gradients of many targets: one pass forth, and one pass back for all that lie far apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hand import wrap
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Predicted, Target
from seglens.engine.reach import find_reach
from seglens.models.nets.unet import UNet
from seglens.session import explain, explain_each

SIDE = 96


def unet(norm=True):
    torch.manual_seed(3)
    net = UNet(1, 2, (4, 6)).eval()
    if not norm:
        net.bottleneck.norm1 = torch.nn.InstanceNorm2d(net.bottleneck.norm1.num_features)
    return wrap(net, classes=("background", "cell"), divisor=2)


def image(side=SIDE):
    return Image(np.random.default_rng(0).random((side, side)).astype(np.float32), "YX")


def spots(step=12, size=3, side=SIDE):
    for top in range(4, side - size, step):
        for left in range(4, side - size, step):
            mask = np.zeros((side, side), bool)
            mask[top : top + size, left : left + size] = True
            yield Target("cell", Painted(mask))


METHODS = {
    "vanilla-gradient": {"show": "signed"},
    "input-x-gradient": {},
    "seg-grad-cam": {"normalise": False, "layer": "bottleneck"},
    "hires-cam": {"normalise": False, "layer": "encoder.0"},
    "seg-layer-cam": {"normalise": False},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("local", [True, False], ids=["local", "global"])
def test_each_answer_is_that_of_a_target_asked_alone(method, local):
    model, targets = unet(local), list(spots())
    assert (find_reach(model) is not None) is local
    run = Run()
    many = list(explain_each(method, image(), model, targets, run=run, **METHODS[method]))
    told = next(t for t in run.engine["gradients"] if "passes back" in t)
    assert told["targets"] == len(targets)
    assert 1 < told["passes back"] < len(targets) / 2 if local else told["passes back"] == len(targets)
    assert run.cost.backwards == told["passes back"]
    for target, answer in list(zip(targets, many, strict=True))[::9]:
        alone = explain(method, image(), model, target, run=Run(plain=True), **METHODS[method])
        largest = max(1e-6, float(np.abs(alone.map.data).max()))
        np.testing.assert_allclose(answer.map.data, alone.map.data, rtol=0, atol=1e-5 * largest)


def test_few_small_targets_of_a_large_image_are_asked_on_crops():
    model = unet()
    find_reach(model)
    run, far = Run(), [t for n, t in enumerate(spots(90, side=320)) if n in (0, 5)]
    list(explain_each("vanilla-gradient", image(320), model, far, run=run))
    assert all("passes back" not in told for told in run.engine["gradients"])
    assert run.engine["crop"]


def test_plain_runs_and_whole_classes_beside_spots():
    model, targets = unet(), [*spots(), Target("cell", Predicted())]
    find_reach(model)
    run = Run()
    *_, last = explain_each("vanilla-gradient", image(), model, targets, run=run, show="signed")
    alone = explain("vanilla-gradient", image(), model, targets[-1], show="signed")
    np.testing.assert_allclose(last.map.data, alone.map.data, rtol=0, atol=1e-6 * np.abs(alone.map.data).max())
    plain = Run(plain=True)
    list(explain_each("vanilla-gradient", image(), model, targets[:3], run=plain))
    assert plain.cost.backwards == 3


def test_a_reach_that_is_wrong_is_found_and_given_up(monkeypatch):
    model, targets = unet(), list(spots(24))
    found = find_reach(model)
    near = type(found)(tuple((1, 1) for _ in found.before), tuple((1, 1) for _ in found.after))
    monkeypatch.setattr("seglens.engine.evaluator.find_reach", lambda *_: near)
    run = Run()
    many = list(explain_each("vanilla-gradient", image(), model, targets, run=run, show="signed"))
    assert any("reach" in note or "crop" in note for note in run.notes)
    alone = explain("vanilla-gradient", image(), model, targets[5], run=Run(plain=True), show="signed")
    largest = float(np.abs(alone.map.data).max())
    np.testing.assert_allclose(many[5].map.data, alone.map.data, rtol=0, atol=1e-5 * largest)


def test_where_memory_runs_out_each_is_asked_alone(monkeypatch):
    model, targets = unet(), list(spots(24))
    find_reach(model)
    usual, calls = torch.autograd.grad, []

    def grad(*args, **more):
        calls.append(more.get("retain_graph"))
        if more.get("retain_graph"):
            raise MemoryError
        return usual(*args, **more)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    monkeypatch.setattr("seglens.engine.together.MORE", 2**20)  # so that together is thought to be cheaper
    run = Run()
    many = list(explain_each("vanilla-gradient", image(), model, targets, run=run, show="signed"))
    assert calls.count(True) == 1
    assert any("Memory ran out for passes of all" in note for note in run.notes)
    monkeypatch.undo()
    alone = explain("vanilla-gradient", image(), model, targets[3], show="signed")
    largest = float(np.abs(alone.map.data).max())
    np.testing.assert_allclose(many[3].map.data, alone.map.data, rtol=0, atol=1e-5 * largest)
