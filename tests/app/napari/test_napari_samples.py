"""Samples in the viewer: the picture that is seen is the one that is used, with the model that suits it."""

import pytest

from seglens.app.napari import model_source
from seglens.sample_data import SAMPLES, sample_layers


@pytest.mark.parametrize(
    ("source", "model"),
    [
        ("sample:shortcut", "shortcut-synthetic"),
        ("sample:shortcut-moved", "shortcut-synthetic"),
        ("sample:immunohistochemistry", "nuclei-histology"),
        ("sample:retina", ""),
        ("cells.tif", ""),
    ],
)
def test_the_model_that_suits_a_sample(source, model):
    assert model_source.sample_model(source) == model


def test_a_sample_brings_hidden_pictures_and_the_seen_one_is_used(drive):
    d = drive()
    for data, settings, kind in sample_layers("shortcut"):
        getattr(d.viewer, f"add_{kind}")(data, **settings)
    d.viewer.layers.remove("shortcut")
    # the only picture left is hidden: it is used, and choosing it shows it
    header = d.dock.header
    assert header.layers.currentText() == "shortcut moved"
    assert not d.viewer.layers["shortcut moved"].visible
    header.layers.activated.emit(header.layers.currentIndex())
    assert d.viewer.layers["shortcut moved"].visible


def test_a_dock_that_opens_on_a_sample_takes_the_visible_picture(drive, make_napari_viewer):
    from seglens.app.napari import commands

    viewer = make_napari_viewer()
    for data, settings, kind in sample_layers("shortcut"):
        getattr(viewer, f"add_{kind}")(data, **settings)
    dock = commands.dock_of(viewer)
    assert dock.header.layers.currentText() == "shortcut"
    assert set(SAMPLES) >= {"shortcut"}
