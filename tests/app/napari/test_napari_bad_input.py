"""Bad input: a sentence and a remedy above the footer, a notification, and nothing changed.

The table is the one of API and command line. Some rows cannot go wrong in the viewer: channels are mapped, the
current slice is taken, and a mask is read where it lies.
"""

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from viewer_help import blobs, make_model

from bad_input import CASES, net
from seglens.app.napari.viewer_session import State, layer_id
from seglens.core.errors import SegLensError
from seglens.core.files import open_image

RIGHT_HERE = {"wrong channels", "a stack for a 2-D model", "mask of another shape"}
NAPARI_REFUSES = {"missing file", "empty image", "wrong dtype", "truncated image"}
IN_OTHER_WORDS = {"empty region": "Nothing is painted", "point outside": "No pixel", "no such object": ""}


def cases(*parts):
    """Rows of the table."""
    return [case for case in CASES if case.part in parts]


@pytest.fixture
def seen(monkeypatch):
    """Notifications as they arrive."""
    told = []
    notification_manager.notification_ready.connect(told.append)
    yield told
    notification_manager.notification_ready.disconnect(told.append)


def fresh(d, source):
    """A viewer with nothing but one image, and a question about its largest class."""
    d.viewer.layers.clear()
    d.session.say("")
    d.session.values.clear()
    question = d.session.question
    question.scope, question.region, question.of_class, question.spot = "slice", "predicted", None, None
    image = open_image(source)
    d.viewer.add_image(np.asarray(image.data), rgb=image.axes.endswith("C"))


def spoil(d, made):
    """Put the rest of a case where a person would."""
    question = d.session.question
    question.method = made.method
    question.of_class = made.target.get("class")
    d.session.values[made.method] = made.params
    if "region" in made.target:
        mask = np.load(made.target["region"])
        question.region, question.target_id = "painted", layer_id(d.viewer.add_labels(mask, opacity=0.3))
    if "point" in made.target:
        question.region, question.spot = "point", tuple(float(n) for n in made.target["point"])
    if "object" in made.target:
        question.region, question.spot = "object", (0.0, 20.0)


def press(d, seen, case):
    """Press the button; give back the message and check that nothing else happened."""
    seen.clear()
    before = list(d.viewer.layers)
    kept = [np.array(layer.data) for layer in before]
    d.press()
    d.wait()
    assert d.session.status.state is State.IDLE, case
    if case in RIGHT_HERE:
        assert d.session.status.message.level == "note", (case, d.say())
        assert len(d.viewer.layers) > len(before), case
        return
    message = d.session.status.message
    assert message is not None, case
    assert message.level == "error", case
    assert message.fix, case
    assert "does not know" not in message.what, (case, message)
    assert seen, case
    assert list(d.viewer.layers) == before, case
    for layer, data in zip(before, kept, strict=True):
        np.testing.assert_array_equal(layer.data, data, err_msg=case)


def ready(drive, tmp_path):
    """A dock with the table's model, trusted, on the Explain tab."""
    d = drive()
    d.dock.jobs.choose_model(net(tmp_path), trusted=True)
    d.wait(lambda: not d.session.model.loading)
    assert d.session.model.loaded is not None, d.say()
    d.dock.tabs.setCurrentIndex(1)
    return d


@pytest.mark.parametrize("job", ["explain", "segment"])
def test_images(drive, seen, tmp_path, job):
    d = ready(drive, tmp_path)
    d.dock.tabs.setCurrentIndex(job == "explain")
    for case in cases("image"):
        made = case.make(tmp_path)
        if case.name in NAPARI_REFUSES:
            continue
        fresh(d, made.image)
        d.session.question.method = "vanilla-gradient"
        press(d, seen, case.name)
        if case.name not in RIGHT_HERE:
            assert case.what in d.session.status.message.what, case.name


def test_what_napari_refuses_never_reaches_the_button(drive, tmp_path):
    d = ready(drive, tmp_path)
    for case in cases("image"):
        if case.name in NAPARI_REFUSES:
            with pytest.raises((SegLensError, OSError, ValueError, NotImplementedError)):
                d.viewer.open(case.make(tmp_path).image, plugin="napari")
            d.viewer.layers.clear()
            assert not d.dock.footer.button.isEnabled(), case.name


def test_targets_and_parameters(drive, seen, tmp_path):
    d = ready(drive, tmp_path)
    for case in cases("target", "params"):
        made = case.make(tmp_path)
        fresh(d, made.image)
        spoil(d, made)
        press(d, seen, case.name)
        if case.name not in RIGHT_HERE:
            message = d.session.status.message
            assert IN_OTHER_WORDS.get(case.name, case.what) in message.what, (case.name, message)
            if case.name not in IN_OTHER_WORDS:
                assert case.fix in message.fix, (case.name, message)


def test_networks_that_fail_while_they_run(drive, seen, tmp_path):
    d = drive()
    for number, case in enumerate(cases("network")):
        folder = tmp_path / str(number)
        folder.mkdir()
        made = case.make(folder)
        d.dock.jobs.choose_model(made.model, trusted=True)
        d.wait(lambda: not d.session.model.loading)
        for tab in (0, 1):
            d.dock.tabs.setCurrentIndex(tab)
            fresh(d, made.image)
            spoil(d, made)
            press(d, seen, case.name)
            message = d.session.status.message
            assert case.what in message.what, (case.name, message)
            assert case.fix in message.fix, (case.name, message)


def test_models(drive, seen, tmp_path):
    d = drive()
    d.viewer.add_image(blobs(40, 50))
    for case in cases("model"):
        seen.clear()
        made = case.make(tmp_path)
        d.dock.jobs.choose_model(made.model, trusted=made.trust)
        d.wait(lambda: not d.session.model.loading)
        message = d.session.status.message
        assert message is not None, case.name
        assert case.what in message.what, (case.name, message)
        assert case.fix in message.fix, (case.name, message)
        assert d.session.model.loaded is None
        assert not d.dock.footer.button.isEnabled()
        assert len(d.viewer.layers) == 1
        if made.trust:
            assert seen, case.name
        else:
            assert message.action == "trust", case.name
            assert d.dock.footer.banner.button.isVisibleTo(d.dock), case.name


def test_nothing_in_view_and_paint_elsewhere(drive, seen, tmp_path):
    d = drive()
    d.use(make_model())
    d.dock.tabs.setCurrentIndex(1)
    source = d.viewer.add_image(blobs(40, 50))
    d.session.question.method = "vanilla-gradient"
    d.session.question.scope = "view"
    source.corner_pixels = np.array([[39, 49], [39, 49]])
    press(d, seen, "nothing in view")
    assert "in view" in d.say()
    d.session.question.scope = "slice"
    far = d.viewer.add_labels(np.ones((5, 5), int), translate=(500, 500))
    d.session.question.target_id, d.session.question.region = layer_id(far), "painted"
    press(d, seen, "paint elsewhere")
    assert "Nothing is painted" in d.say()


def test_what_is_wrong_with_a_question_goes_when_that_is_asked_anew(drive, seen):
    d = drive()
    d.use(make_model())
    d.dock.tabs.setCurrentIndex(1)
    d.viewer.add_image(blobs(40, 50))
    question = d.session.question
    question.method = "vanilla-gradient"
    far = d.viewer.add_labels(np.zeros((40, 50), int))
    question.target_id, question.region = layer_id(far), "painted"
    for change in (
        lambda: setattr(question, "region", "predicted"),
        lambda: setattr(question, "value", "margin"),
        d.session.values_changed.emit,
    ):
        question.region = "painted"
        press(d, seen, "nothing painted")
        assert "Nothing is painted" in d.say()
        change()
        assert d.session.status.message is None
    d.session.say("The file was saved.")
    question.region = "painted"
    assert "saved" in d.say()


def test_too_many_axes_are_said_before_anything_starts(drive):
    d = drive()
    d.viewer.add_image(np.zeros((1, 1, 1, 1, 8, 9), np.uint8))
    d.use(make_model())
    assert "axes" in d.dock.footer.state.text()
    assert not d.dock.footer.button.isEnabled()


def test_a_missing_axis_is_said_before_anything_starts(drive):
    d = drive()
    d.viewer.add_image(blobs(40, 50))
    d.use(make_model(dims=3))
    assert "Z" in d.dock.footer.state.text()
    d.dock.jobs.segment()
    assert d.session.status.message is not None
    assert len(d.viewer.layers) == 1
