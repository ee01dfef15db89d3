"""One method at every depth as one layer: the slider, the words, the limits, and what stays when it is stopped."""

import threading

import numpy as np
import pytest
import torch
from viewer_help import blobs

from seglens.app.napari import results, strip, words
from seglens.app.napari.viewer_session import State
from seglens.core.explanation import Explanation, Layer
from seglens.core.target import Predicted, Target
from seglens.engine.channels import LayerMethod
from seglens.models.nets.unet import UNet
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec, Normalisation, classes_from
from seglens.session import explain

DEPTHS = ["encoder.0", "encoder.1", "bottleneck", "decoder.0", "decoder.1"]


class Slow(LayerMethod):
    """Answers at a layer each time it is let go on: a map as bright as the layer is deep."""

    name = "slow"
    family = "gradient"
    title = "Slow"
    go = threading.Semaphore(0)

    def run(self, case):
        while not self.go.acquire(timeout=0.05):
            case.run.check()
        values = np.full(case.shape, DEPTHS.index(self.layer) + 1, np.float32)
        return Explanation((Layer("slow", "heat", values, resolution=case.activation(self.layer).shape[2:]),))


def unet(channels=1):
    """A U-Net with five depths; everything is a cell."""
    torch.manual_seed(0)
    names = tuple(f"c{i}" for i in range(channels))
    more = {"normalisation": Normalisation("none"), "divisor": 4}
    module = UNet(channels, 2, (4, 6, 8), 2)
    with torch.no_grad():
        module.head.bias.copy_(torch.tensor([0.0, 9.0]))
    spec = ModelSpec("small", "YX", names, classes_from(["background", "cell"]), **more)
    return SegmentationModel(module.eval(), spec, source="small")


@pytest.fixture
def ready(drive, monkeypatch):
    """A dock on the Explain tab with a network that has depths."""
    monkeypatch.setattr(Slow, "go", threading.Semaphore(0))
    d = drive()
    d.viewer.add_image(blobs(64, 80), scale=(2, 2), rotate=10, translate=(3, 4))
    d.use(unet())
    d.dock.tabs.setCurrentIndex(1)
    d.session.engine.methods = (*d.session.engine.methods, Slow)
    d.session.question.method = "seg-grad-cam"
    return d


def choose(d, number):
    """Take an entry of the button's menu."""
    d.dock.explain.method.strip.menu().actions()[number].trigger()


def reached(d, count):
    """Wait until the strip has so many maps."""
    d.wait(lambda: (layer := made(d)) is not None and sum(one is not None for one in strip.depths_of(layer)) == count)
    return made(d)


def made(d):
    """The strip, if it is in the viewer."""
    return next((x for x in d.viewer.layers if strip.depths_of(x)), None)


def test_a_slider_goes_through_all_depths(ready):
    d = ready
    box = d.dock.explain.method
    assert box.strip.isVisibleTo(d.dock)
    texts = [a.text() for a in box.strip.menu().actions()]
    assert texts == [words.STRIPS["depths"].format(count=5), words.STRIPS["all"].format(count=41)]
    d.session.values["seg-grad-cam"] = {"normalise": False}
    choose(d, 0)
    assert not box.strip.isEnabled()
    d.wait()
    d.qtbot.wait(50)
    layer = d.named("Seg-Grad-CAM: every depth")
    assert layer.data.shape == (5, 64, 80)
    assert [one["layer"] for one in strip.depths_of(layer)] == DEPTHS
    assert "5 layers" in d.say()
    # it lies on the image, whatever the place
    np.testing.assert_allclose(layer.data_to_world((3, 10, 20))[1:], d.session.image_layer.data_to_world((10, 20)))
    assert d.viewer.dims.axis_labels[0] == "layer"
    plan_image = d.session.made[str(layer.unique_id)].image
    for at, name in enumerate(DEPTHS):
        d.viewer.dims.set_current_step(0, at)
        alone = explain(
            "seg-grad-cam", plan_image, d.session.model.loaded, Target(None, Predicted()), layer=name, normalise=False
        )
        np.testing.assert_allclose(layer.data[at], alone.map.data, atol=1e-5)
        np.testing.assert_allclose(layer.contrast_limits, alone.map.limits(), rtol=1e-4)
        text = d.viewer.canvas.overlays[strip.OVERLAY].text
        assert text.startswith(f"{name} ({at + 1} of 5)")
        assert alone.map.enlarged() in text
        assert text in d.dock.explain.result.unit.text()
    assert "--all-depths" in d.dock.copied("cli")
    assert "at='depths'" in d.dock.copied("python")


def test_words_and_limits_follow_what_is_seen(ready):
    d = ready
    choose(d, 0)
    d.wait()
    d.qtbot.wait(50)
    layer, overlay = made(d), d.viewer.canvas.overlays[strip.OVERLAY]
    assert overlay.visible
    layer.visible = False
    assert not overlay.visible
    layer.visible = True
    assert overlay.visible
    layer.contrast_limits = (0, 0.123)
    d.viewer.dims.set_current_step(0, 1)
    # what the person set stays
    np.testing.assert_allclose(layer.contrast_limits, (0, 0.123))
    layer.locked = False
    d.viewer.layers.remove(layer)
    assert not overlay.visible
    assert d.viewer.dims.ndim == 2


def test_it_grows_and_the_persons_place_stays(ready):
    d = ready
    d.session.question.method = "slow"
    choose(d, 0)
    Slow.go.release(2)
    layer = reached(d, 2)
    d.wait(lambda: d.viewer.dims.ndim == 3 and d.viewer.dims.current_step[0] == 1)
    assert d.session.status.total == 5
    assert d.session.status.done <= 2
    assert [layer.data[n].max() for n in range(5)] == [1, 2, 0, 0, 0]
    d.viewer.dims.set_current_step(0, 0)
    Slow.go.release(1)
    reached(d, 3)
    assert d.viewer.dims.current_step[0] == 0
    Slow.go.release(9)
    d.wait()
    assert layer.data.shape[0] == 5
    assert layer.data[4].max() == 5
    assert strip.depths_of(layer)[2]["told"] == "16×20 map shown at 64×80"


def test_what_was_reached_is_kept_when_it_is_stopped(ready):
    d = ready
    d.session.question.method = "slow"
    choose(d, 0)
    Slow.go.release(3)
    layer = reached(d, 3)
    d.press()
    assert d.session.status.state is State.CANCELLING
    d.wait()
    assert layer.name == "Slow: every depth (stopped early)"
    assert layer.data.shape == (3, 64, 80)
    assert [one["layer"] for one in strip.depths_of(layer)] == DEPTHS[:3]
    assert "is kept" in d.say()


def test_nothing_stays_of_an_image_that_is_gone(ready):
    d = ready
    d.session.question.method = "slow"
    choose(d, 0)
    Slow.go.release(1)
    reached(d, 1)
    d.viewer.layers.remove(d.session.image_layer)
    d.wait()
    d.wait(lambda: made(d) is None)


def test_channels_of_the_image_show_the_same_strip(drive):
    d = drive()
    d.viewer.add_image(blobs(3, 64, 80))
    d.session.set_axes(d.session.image_layer, "CYX")
    d.use(unet(3))
    d.dock.tabs.setCurrentIndex(1)
    d.session.question.method = "seg-grad-cam"
    choose(d, 0)
    d.wait()
    layer = made(d)
    assert layer.data.shape == (5, 3, 64, 80)
    np.testing.assert_array_equal(layer.data[2, 0], layer.data[2, 2])


def test_only_where_there_are_layers(ready):
    d = ready
    d.session.question.method = "occlusion"
    assert not d.dock.explain.method.strip.isVisibleTo(d.dock)
    d.session.question.method = "seg-eigen-cam"
    assert d.dock.explain.method.strip.isVisibleTo(d.dock)
    d.session.model.layers = d.session.model.depths = ()
    d.dock.explain.method._show_form()
    assert not d.dock.explain.method.strip.isVisibleTo(d.dock)


@pytest.mark.parametrize("shear", [[0.1], [[1.0, 0.1], [0.0, 1.0]]])
def test_a_placement_with_a_further_axis_is_undone_by_without_first(shear):
    where = {
        "scale": np.array([2.0, 3.0]), "translate": np.array([4.0, 5.0]), "rotate": np.array([[0.0, -1], [1, 0]]),
        "shear": np.array(shear), "affine": np.diag([1.0, 2.0, 1.0]), "units": ("um", "um"), "axis_labels": ("y", "x"),
    }  # fmt: skip
    wider = results.with_first(where, "layer")
    assert wider["axis_labels"] == ("layer", "y", "x")
    again = results.without_first(wider)
    for name, value in where.items():
        if isinstance(value, tuple):
            assert again[name] == value
        else:
            np.testing.assert_allclose(again[name], value)
