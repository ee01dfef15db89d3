"""Questions one after another: the same answers as one by one, and the image goes through the network once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hand import wrap
from seglens.core.catalogue import METHODS
from seglens.core.errors import BadParameter, Cancelled, MissingNeed, NoSuchRegion
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Object, Point, Target
from seglens.models.nets.unet import UNet
from seglens.session import explain
from seglens.session_live import LiveQuestion

QUICK = ("vanilla-gradient", "seg-grad-cam")


def network(seed: int = 0):
    """A U-Net of two levels: its reach is far smaller than the images here."""
    torch.manual_seed(seed)
    return wrap(UNet(1, 2, (4, 6), 2), divisor=2)


def picture(side: int = 96, seed: int = 0) -> Image:
    """Smooth random spots."""
    from scipy import ndimage

    data = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 3)
    return Image((data / data.std()).astype(np.float32), "YX")


@pytest.mark.parametrize("method", [*QUICK, "seg-eigen-cam", "occlusion"])
def test_answers_are_those_of_explain(method):
    image, model = picture(), network()
    live = LiveQuestion(image, model)
    for at in ((40, 50), (2, 90), (41, 50)):
        for of_class in (None, 1):
            target = Target(of_class, Point(at), value="margin")
            one, other = live.explain(method, target), explain(method, image, model, target)
            np.testing.assert_allclose(
                one.map.data, other.map.data, atol=1e-6 * max(1e-9, np.abs(other.map.data).max())
            )
            assert one.record.target == other.record.target
            assert one.record.image == other.record.image
            assert one.record.parameters == other.record.parameters


@pytest.mark.parametrize("method", QUICK)
def test_only_the_first_question_sees_the_whole_image(method, monkeypatch):
    image, model = picture(), network()
    seen = []
    logits = type(model).logits
    monkeypatch.setattr(type(model), "logits", lambda self, x: seen.append(tuple(x.shape[2:])) or logits(self, x))
    live = LiveQuestion(image, model)
    live.warm()
    live.explain(method, Target(None, Point((40, 50))))
    assert (96, 96) in seen
    seen.clear()
    answer = live.explain(method, Target(None, Point((30, 60))))
    assert seen
    assert all(max(shape) < 60 for shape in seen)
    assert answer.record.engine["crop"]
    assert answer.record.cost["backwards"] == 1


@pytest.mark.parametrize("method", QUICK)
def test_nor_does_the_first_once_it_was_told_what_will_be_asked(method, monkeypatch):
    image, model = picture(), network()
    live, recipe = LiveQuestion(image, model), METHODS[method]()
    live.warm(method=recipe)
    seen = []
    logits = type(model).logits
    monkeypatch.setattr(type(model), "logits", lambda self, x: seen.append(tuple(x.shape[2:])) or logits(self, x))
    answer = live.explain(recipe, Target(None, Point((40, 50))))
    assert seen
    assert all(max(shape) < 60 for shape in seen)
    np.testing.assert_allclose(
        answer.map.data, explain(recipe, image, model, Target(None, Point((40, 50)))).map.data, atol=1e-6
    )


def test_a_changed_image_is_noticed():
    data = picture().data.copy()
    image, model, target = Image(data, "YX"), network(), Target(None, Point((40, 50)))
    live = LiveQuestion(image, model)
    before = live.explain("vanilla-gradient", target).map.data
    data[:] = picture(seed=5).data
    after = live.explain("vanilla-gradient", target).map.data
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, explain("vanilla-gradient", image, model, target).map.data, atol=1e-7)


def test_what_layers_answer_is_kept_within_memory():
    image, model, target = picture(), network(), Target(None, Point((40, 50)))
    live = LiveQuestion(image, model)
    small = Run(memory=1000)
    one = live.explain("seg-grad-cam", target, run=small, layer="encoder.0")
    assert live._case.kept == {}
    other = live.explain("seg-grad-cam", target, layer="encoder.0")
    assert list(live._case.kept) == ["encoder.0"]
    np.testing.assert_array_equal(one.map.data, other.map.data)
    live.explain("seg-grad-cam", target, layer="bottleneck")
    assert list(live._case.kept) == ["encoder.0", "bottleneck"]


def test_errors_are_those_of_explain_and_the_next_question_is_answered():
    image, model = picture(), network()
    live = LiveQuestion(image, model)
    with pytest.raises(NoSuchRegion):
        live.explain("vanilla-gradient", Target(None, Point((40, 500))))
    with pytest.raises(NoSuchRegion):
        live.explain("vanilla-gradient", Target(1, Object(99)))
    with pytest.raises(BadParameter):
        live.explain("occlusion", Target(None, Point((4, 5))), window=0)
    with pytest.raises(MissingNeed):
        live.explain("neural-backed-tree", Target(None, Point((4, 5))))
    run = Run()
    run.cancel()
    with pytest.raises(Cancelled):
        live.explain("occlusion", Target(None, Point((4, 5))), run=run)
    assert live.explain("vanilla-gradient", Target(None, Point((4, 5)))).map.data.any()


def test_the_model_is_left_as_it_was():
    image, model = picture(), network()
    model.module.train()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    LiveQuestion(image, model).explain("seg-grad-cam", Target(None, Point((40, 50))))
    assert model.module.training
    assert all(p.requires_grad and p.grad is None for p in model.module.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.module.state_dict().items())
