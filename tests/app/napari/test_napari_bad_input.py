"""Bad input: a sentence and a remedy above the footer, a notification, and nothing changed."""

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from viewer_help import blobs, make_model

from seglens.app.napari.viewer_session import State, layer_id


def nan():
    data = blobs(40, 50)
    data[3, 3] = np.nan
    return data


def empty_target(d):
    d.dock.jobs.new_target()


def foreign_target(d):
    far = d.viewer.add_labels(np.ones((5, 5), int), translate=(500, 500))
    d.session.question.target_id = layer_id(far)
    d.session.question.region = "painted"


def point_outside(d):
    d.session.question.region, d.session.question.spot = "point", (500.0, 3.0)


def on_background(d):
    d.session.question.region, d.session.question.spot = "object", (20.0, 3.0)


def wrong_class(d):
    d.session.question.of_class = "unicorn"


def wrong_layer(d):
    d.session.question.method = "seg-grad-cam"
    d.session.values["seg-grad-cam"] = {"layer": "no.such.layer"}


def out_of_range(d):
    d.session.values["vanilla-gradient"] = {"show": "sideways"}


def nothing(d):
    pass


def away(d):
    d.session.question.scope = "view"
    source = d.session.image_layer
    source.corner_pixels = np.array([[39, 49], [39, 49]])


CASES = [
    ("constant image", np.full((40, 50), 7, np.uint8), nothing, "constant"),
    ("not a number", nan(), nothing, "not numbers"),
    ("one pixel", np.ones((1, 1), np.uint8), nothing, "1×1"),
    ("empty target", blobs(40, 50), empty_target, "Nothing is painted"),
    ("target elsewhere", blobs(40, 50), foreign_target, "Nothing is painted"),
    ("point outside", blobs(40, 50), point_outside, "No pixel"),
    ("no object there", blobs(40, 50), on_background, ""),
    ("unknown class", blobs(40, 50), wrong_class, "unicorn"),
    ("unknown layer", blobs(40, 50), wrong_layer, "no.such.layer"),
    ("parameter out of range", blobs(40, 50), out_of_range, "sideways"),
    ("nothing in view", blobs(40, 50), away, "in view"),
]


@pytest.fixture
def seen(monkeypatch):
    """Notifications as they arrive."""
    told = []
    notification_manager.notification_ready.connect(told.append)
    yield told
    notification_manager.notification_ready.disconnect(told.append)


def test_bad_questions(drive, seen):
    d = drive()
    d.use(make_model())
    d.dock.tabs.setCurrentIndex(1)
    for name, data, spoil, word in CASES:
        d.viewer.layers.clear()
        seen.clear()
        d.session.values.clear()
        question = d.session.question
        question.scope, question.region, question.of_class, question.spot = "slice", "predicted", None, None
        question.method = "vanilla-gradient"
        source = d.viewer.add_image(data)
        spoil(d)
        before = list(d.viewer.layers)
        kept = np.array(source.data)
        d.press()
        d.wait()
        message = d.session.status.message
        assert message is not None, name
        assert message.level in ("error", "warning"), name
        assert message.fix, name
        assert word in message.what, (name, message)
        assert "does not know" not in message.what, (name, message)
        assert seen, name
        assert list(d.viewer.layers) == before, name
        np.testing.assert_array_equal(source.data, kept)
        assert d.session.status.state is State.IDLE, name


def test_bad_images_are_refused_by_segmentation_too(drive, seen):
    d = drive()
    d.use(make_model())
    for name, data, _, word in CASES[:3]:
        d.viewer.layers.clear()
        seen.clear()
        d.viewer.add_image(data)
        d.press()
        d.wait()
        assert word in d.say(), name
        assert len(d.viewer.layers) == 1, name
        assert seen, name


def test_bad_models(drive, seen, tmp_path):
    d = drive()
    d.viewer.add_image(blobs(40, 50))
    truncated = tmp_path / "package.zip"
    truncated.write_bytes(b"PK\x03\x04 and then nothing")
    text = tmp_path / "weights.pt"
    text.write_text("these are no weights")
    for source in (str(tmp_path / "nowhere.pt2"), str(truncated), str(text), "nuclei-unicorn"):
        seen.clear()
        d.dock.jobs.choose_model(source)
        d.wait(lambda: not d.session.model.loading)
        assert d.session.status.message is not None, source
        assert d.session.status.message.fix, source
        assert "does not know" not in d.say(), (source, d.say())
        assert seen, source
        assert d.session.model.loaded is None
        assert not d.dock.footer.button.isEnabled()
        assert len(d.viewer.layers) == 1


def test_too_many_axes_are_said_in_the_header(drive):
    d = drive()
    d.viewer.add_image(np.zeros((1, 1, 1, 1, 8, 9), np.uint8))
    d.use(make_model())
    assert "axes" in d.dock.footer.state.text()
    assert not d.dock.footer.button.isEnabled()


def test_missing_channels_are_said(drive):
    d = drive()
    d.viewer.add_image(blobs(40, 50))
    d.use(make_model(dims=3))
    assert "Z" in d.dock.footer.state.text()
    d.dock.jobs.segment()
    assert d.session.status.message is not None
    assert len(d.viewer.layers) == 1
