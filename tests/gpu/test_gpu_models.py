"""Models of every sort load onto a GPU and answer there as on the CPU; a short training runs there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from annotating import recipe_for, samples
from hand import Deep
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.models.loaders import load_model
from seglens.models.nets.annotators import AnnotatorUNet
from seglens.models.trust import Trust
from seglens.session import explain, segment
from seglens.training.annotators import AnnotatorTask
from seglens.training.batches import Batch, encode

ABOUT = {"axes": "YX", "channels": ["grey"], "classes": ["background", "cell"]}


def picture():
    return Image(np.random.default_rng(0).random((64, 64)).astype(np.float32), "YX", name="noise")


def script(place):
    torch.jit.trace(Deep().eval(), torch.zeros(1, 1, 64, 64), check_trace=False).save(str(place / "net.pt"))
    return place / "net.pt"


def graph(place):
    torch.export.save(torch.export.export(Deep().eval(), (torch.zeros(1, 1, 64, 64),)), place / "net.pt2")
    return place / "net.pt2"


@pytest.mark.parametrize("make", [script, graph])
def test_closed_graphs_move_there(make, cuda, tmp_path):
    path, mask = make(tmp_path), np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    answers = []
    for device in ("cuda", "cpu"):
        model = load_model(path, spec=ABOUT, trust=Trust.always(), device=device)
        assert model.device.type == device
        told = explain("occlusion", picture(), model, Target("cell", Painted(mask)), window=16, stride=16)
        answers.append((segment(picture(), model, probabilities=True).probabilities, told.map.data))
    for there, here in zip(*answers, strict=True):
        np.testing.assert_allclose(there, here, atol=1e-4 * np.abs(here).max())


@pytest.mark.parametrize("name", ["nuclei-fluorescence", "proto-superalloy"])
def test_shipped_models_answer_alike(name, cuda):
    found = []
    for device in ("cuda", "cpu"):
        model = load_model(name, device=device)
        channels = len(model.spec.channels)
        data = np.random.default_rng(0).random((channels, 96, 96)).astype(np.float32)
        image = Image(data if channels > 1 else data[0], "CYX"[-2 - (channels > 1) :])
        found.append(segment(image, model, probabilities=True).probabilities)
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)


def test_auto_takes_the_gpu(cuda):
    assert load_model("nuclei-fluorescence").device.type == "cuda"


def test_a_network_of_annotators_learns_there(device):
    recipe, train = recipe_for(), samples(4, {"one": 1, "two": -1})
    task = AnnotatorTask(recipe, Run())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = AnnotatorUNet(**task.arguments(train)).to(device)
    one = encode(train[0], recipe, net.divisor, ["one", "two"])
    batch = Batch(one.image.to(device), one.labels.to(device), {k: v.to(device) for k, v in one.more.items()})
    before = [p.detach().cpu().clone() for p in net.parameters()]
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2)
    loss = task.loss(net, batch, "all")
    loss.backward()
    optimiser.step()
    assert bool(torch.isfinite(loss.detach()))
    assert any(not torch.equal(a, p.detach().cpu()) for a, p in zip(before, net.parameters(), strict=True))
