"""One method at every depth: the same answers as one by one, in fewer passes, with a record for each and for all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seglens
from hand import Deep, small_image, wrap
from seglens.core.errors import BadParameter, Cancelled, MissingNeed, UnknownName
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.engine.gradients import layer_gradients
from seglens.models.layers import layers
from seglens.models.nets.unet import UNet
from seglens.session import explain
from seglens.session_layers import explain_layers, layers_of, strip_record

CAMS = ("seg-grad-cam", "seg-eigen-cam", "seg-ablation-cam")


def network(dims: int = 2):
    """A U-Net of three levels with weights of a seed."""
    torch.manual_seed(0)
    return wrap(UNet(1, 2, (4, 6, 8), dims), dims=dims, divisor=4)


def question(dims: int = 2):
    """An image and a painted square in it."""
    image = small_image(dims=dims)
    mask = np.zeros(image.space("ZYX"[-dims:]), bool)
    mask[(slice(3, 7),) * dims] = True
    return image, Target(1, Painted(mask))


def depths(answers):
    """The layers that were asked."""
    return [one.record.parameters["layer"] for one in answers]


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize("dims", [2, 3])
def test_answers_are_those_of_one_layer_at_a_time(method, dims):
    model, (image, target) = network(dims), question(dims)
    strip = list(explain_layers(method, image, model, target))
    assert depths(strip) == [info.name for info in layers_of(model)]
    for one in strip:
        alone = explain(method, image, model, target, layer=one.record.parameters["layer"])
        np.testing.assert_allclose(one.map.data, alone.map.data, atol=1e-5)
        assert one.map.resolution == alone.map.resolution
        assert one.text == alone.text
    sizes = [one.map.resolution[-2] for one in strip]
    full = sizes[0]
    assert sizes == [full, full // 2, full // 4, full // 2, full]


def test_one_pass_serves_all_layers_unless_memory_is_short(monkeypatch):
    model, (image, target) = network(), question()
    passes = []

    def counted(model, modules, *more):
        passes.append(len(modules))
        return layer_gradients(model, modules, *more)

    monkeypatch.setattr("seglens.engine.gradients.layer_gradients", counted)
    every = list(explain_layers("seg-grad-cam", image, model, target, at="all"))
    assert passes == [len(layers(model))] == [len(every)]
    passes.clear()
    short = list(explain_layers("seg-grad-cam", image, model, target, at="all", run=Run(memory=2**17)))
    assert len(passes) > 3
    assert sum(passes) == len(every)
    for one, other in zip(every, short, strict=True):
        # other layers are looked at, so other batch norms are folded, which rounds otherwise
        np.testing.assert_allclose(one.map.data, other.map.data, atol=1e-5 * np.abs(other.map.data).max())


def test_named_layers_in_the_order_given():
    model, (image, target) = network(), question()
    strip = list(explain_layers("seg-grad-cam", image, model, target, at=["bottleneck", "encoder.0"]))
    assert depths(strip) == ["bottleneck", "encoder.0"]
    with pytest.raises(UnknownName, match="botleneck"):
        list(explain_layers("seg-grad-cam", image, model, target, at=["botleneck"]))


def test_one_progress_and_cancel_between_layers():
    model, (image, target) = network(), question()
    told = []
    run = Run(on_progress=lambda done, total, text: told.append((done / total, text)))
    answers = explain_layers("seg-ablation-cam", image, model, target, run=run)
    next(answers)
    next(answers)
    assert 1 / len(layers_of(model)) <= told[-1][0] < 1
    run.cancel()
    with pytest.raises(Cancelled):
        next(answers)
    told.clear()
    list(explain_layers("seg-ablation-cam", image, model, target, run=Run(on_progress=run.on_progress)))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_a_record_for_each_and_one_for_all():
    model, (image, target) = network(), question()
    strip = list(explain_layers("seg-grad-cam", image, model, target, normalise=False))
    one = seglens.as_cli(strip[0].record)
    assert f"--layer {depths(strip)[0]}" in one
    assert "all-depths" not in one
    recipe = seglens.METHODS["seg-grad-cam"].from_values({"normalise": False})
    for at, flag in (("depths", "--all-depths"), ("all", "--all-layers")):
        told = strip_record(strip[0].record, recipe, at)
        assert flag in seglens.as_cli(told)
        assert "--layer" not in seglens.as_cli(told).replace("--all-layers", "")
        code = seglens.as_python(told)
        assert "for explanation in seglens.explain_layers('seg-grad-cam', image, model, target, " in code
        assert f", at={at!r}, " in code
        assert "layer=" not in code
        assert "normalise=False" in code
        compile(code, "record", "exec")


def test_what_cannot_be_asked_is_said():
    image, target = question()
    with pytest.raises(BadParameter, match="Occlusion looks at no layer"):
        list(explain_layers("occlusion", image, network(), target))
    with pytest.raises(BadParameter, match=r"layer=encoder\.0 was given"):
        list(explain_layers("seg-grad-cam", image, network(), target, layer="encoder.0"))
    model = network()
    model.layered = False
    with pytest.raises(MissingNeed):
        list(explain_layers("seg-grad-cam", image, model, target))


def test_layers_that_a_method_refuses_are_left_out_with_a_note(monkeypatch):
    image, target = question()
    model = wrap(Deep())
    kind = seglens.METHODS["seg-grad-cam"]
    run_of = kind.run

    def picky(self, case):
        if self.layer != "mix":
            raise BadParameter(f"Not at {self.layer}.", fix="Elsewhere.")
        return run_of(self, case)

    monkeypatch.setattr(kind, "run", picky)
    run = Run()
    assert depths(explain_layers("seg-grad-cam", image, model, target, at="all", run=run)) == ["mix"]
    assert "Left out features: Not at features." in run.notes
    with pytest.raises(BadParameter, match="Not at features"):
        list(explain_layers("seg-grad-cam", image, model, target, at=["features"]))


class Twice(torch.nn.Module):
    """One module after every convolution."""

    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 3, padding=1)
        self.act, self.head = torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(self.act(self.two(self.act(self.one(x)))))


def test_a_layer_that_is_called_more_than_once_is_named():
    image, target = question()
    run = Run()
    list(explain_layers("seg-grad-cam", image, wrap(Twice()), target, at="all", run=run))
    assert run.notes == ["The layer act is called 2 times; its last call is shown."]
