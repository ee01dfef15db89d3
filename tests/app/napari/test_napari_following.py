"""Explain where I click: the newest pixel counts, the layer changes in place, and the window never waits."""

import threading

import numpy as np
import pytest
from qtpy.QtCore import Qt
from viewer_help import blobs, make_model

from seglens.app.napari import following, words
from seglens.app.napari.viewer_session import State, is_ours
from seglens.core.explanation import Explanation, Layer
from seglens.core.method import Method
from seglens.core.target import Point, Target
from seglens.session import explain


class Told(Method):
    """Says where it was asked; waits until it is let go on, if it is told to."""

    name = "told"
    family = "gradient"
    title = "Told"
    wait = False
    go = threading.Semaphore(0)
    asked = []

    def run(self, case):
        where = tuple(int(n) for n in np.argwhere(case.target.region)[0])
        Told.asked.append(where)
        while Told.wait and not self.go.acquire(timeout=0.02):
            case.run.progress(1, 2, "rows")
        values = np.zeros(case.shape, np.float32)
        values[where] = 1 + where[1]
        return Explanation((Layer("told", "heat", values, resolution=(8, 8)),), text=f"Asked at {where}.")


class Press:
    """A mouse that is held down: press, moves, release, as napari tells them."""

    def __init__(self, d, at, modifiers=()):
        self.type, self.button, self.modifiers, self.position = "mouse_press", 1, modifiers, self._world(d, at)
        self._d = d
        self._steps = [one for c in list(d.viewer.mouse_drag_callbacks) if (one := c(d.viewer, self)) is not None]
        self._go()

    def move(self, at):
        self.type, self.position = "mouse_move", self._world(self._d, at)
        self._go()

    def release(self):
        self.type = "mouse_release"
        self._go()

    def _go(self):
        for one in self._steps:
            next(one, None)

    def _world(self, d, at):
        return tuple(d.session.image_layer.data_to_world(at))


@pytest.fixture
def follow(drive, monkeypatch):
    """A dock that explains the pixel under each click."""
    monkeypatch.setattr(Told, "wait", False)
    monkeypatch.setattr(Told, "asked", [])
    monkeypatch.setattr(Told, "go", threading.Semaphore(0))
    d = drive()
    d.viewer.add_image(blobs(64, 80), scale=(2, 2), translate=(5, 6))
    d.use(make_model())
    d.dock.tabs.setCurrentIndex(1)
    d.session.engine.methods = (*d.session.engine.methods, Told)
    d.session.question.method = "told"
    d.session.question.region = "point"
    d.dock.explain.target.follow.click()
    settle(d)
    return d


def settle(d):
    """Wait until nobody asks any more."""
    follower = d.dock.follower
    d.wait(lambda: follower._job is None and not follower._waiting and d.session.status.state is State.IDLE)


def click(d, at):
    """Press and release at one pixel, and wait for the answer."""
    press = Press(d, at)
    press.release()
    settle(d)


def maps(d):
    """The saliency maps in the viewer."""
    return [x for x in d.viewer.layers if is_ours(x, "heat")]


@pytest.mark.parametrize("method", ["seg-grad-cam", "vanilla-gradient"])
def test_each_click_is_answered_in_one_layer(follow, method):
    d = follow
    d.session.question.method = method
    click(d, (30, 40))
    (layer,) = maps(d)
    assert layer.name.endswith(words.REGIONS["point"][0].lower())
    for at in ((33, 41), (5, 6)):
        click(d, at)
        assert maps(d) == [layer]
        made = d.session.made[str(layer.unique_id)]
        assert made.record["target"]["region"] == {"kind": "point", "at": list(at)}
        alone = explain(method, made.image, d.session.model.loaded, Target(None, Point(at)))
        np.testing.assert_allclose(layer.data, alone.map.data, atol=1e-6)
        np.testing.assert_allclose(layer.contrast_limits, alone.map.limits(), rtol=1e-5)
    np.testing.assert_allclose(layer.data_to_world((3, 4)), d.session.image_layer.data_to_world((3, 4)))
    assert d.session.shown is made
    assert f"--point {at[0]},{at[1]}" in d.dock.copied("cli")
    # one mark, moved
    np.testing.assert_allclose(d.named("picked").data, [at])
    assert sum(is_ours(x, "spot") for x in d.viewer.layers) == 1


def test_while_the_pointer_drags_only_the_newest_pixel_is_asked(follow, monkeypatch):
    d = follow
    monkeypatch.setattr(Told, "wait", True)
    monkeypatch.setattr(following, "LIVE", 1000.0)
    press = Press(d, (1, 0))
    d.wait(lambda: Told.asked == [(1, 0)])
    for x in range(1, 30):
        press.move((1, x))
    d.qtbot.wait(60)
    # nothing piles up while one is answered
    assert Told.asked == [(1, 0)]
    Told.go.release()
    d.wait(lambda: len(Told.asked) == 2)
    assert Told.asked[1] == (1, 29)
    press.move((1, 30))
    press.release()
    Told.go.release(9)
    settle(d)
    assert Told.asked[2:] == [(1, 30)]
    (layer,) = maps(d)
    assert layer.data.max() == 31
    assert layer.metadata["seglens"]["told"] == "8×8 map shown at 64×80"
    assert d.say() == "Asked at (1, 30)."


def test_a_slow_method_does_not_follow_but_answers_the_release(follow):
    d = follow
    click(d, (1, 1))
    d.dock.follower.seconds = following.LIVE + 1
    press = Press(d, (2, 2))
    press.move((2, 3))
    d.qtbot.wait(60)
    # press and release of one click are one question
    assert Told.asked == [(1, 1)]
    press.release()
    settle(d)
    assert Told.asked == [(1, 1), (2, 3)]
    assert d.session.shown.record["target"]["region"]["at"] == [2, 3]
    # another method may be quick
    d.dock.follower.seconds = following.LIVE + 1
    d.session.question.method = "vanilla-gradient"
    assert d.dock.follower.seconds == 0


def test_long_work_is_shown_and_gives_way_to_the_next_click(follow, monkeypatch):
    d = follow
    monkeypatch.setattr(Told, "wait", True)
    press = Press(d, (1, 1))
    press.release()
    assert d.session.status.state is State.IDLE
    d.wait(lambda: d.session.status.state is State.RUNNING)
    assert d.dock.footer.button.text() == "Cancel"
    d.wait(lambda: d.session.status.total == 2)
    press = Press(d, (1, 2))
    press.release()
    d.wait(lambda: Told.asked == [(1, 1), (1, 2)])
    d.wait(lambda: d.session.status.state is State.RUNNING)
    d.press()
    settle(d)
    assert maps(d) == []
    assert d.dock.explain.target.follow.isChecked()


def test_what_cannot_be_asked_is_said_and_clicks_go_on(follow):
    d = follow
    d.session.question.region = "object"
    click(d, (40, 2))
    assert "object" in d.say().lower()
    assert maps(d) == []
    click(d, (32, 40))
    (layer,) = maps(d)
    assert layer.name == "Told: one object"
    before = list(Told.asked)
    Press(d, (500, 2)).release()
    settle(d)
    assert d.say() == " ".join(words.OUTSIDE)
    Press(d, (32, 40), modifiers=("Shift",)).release()
    settle(d)
    assert Told.asked in (before, [*before, before[-1]])


def test_the_camera_rests_while_the_button_is_down_and_esc_leaves(follow):
    d = follow
    camera, target = d.viewer.scene.camera, d.dock.explain.target
    assert not target.pick_button.isEnabled()
    assert not d.dock.estimator._active
    press = Press(d, (1, 1))
    assert not camera.mouse_pan
    press.move((1, 2))
    assert not camera.mouse_pan
    press.release()
    assert camera.mouse_pan
    settle(d)
    callbacks = len(d.viewer.mouse_drag_callbacks)
    d.qtbot.keyClick(d.dock, Qt.Key.Key_Escape)
    assert not target.follow.isChecked()
    assert len(d.viewer.mouse_drag_callbacks) == callbacks - 1
    assert target.pick_button.isEnabled()
    assert d.dock.estimator._active
    assert d.dock.follower._live is None
    # the map stays, and a click is a click again
    assert len(maps(d)) == 1
    target.follow.click()
    d.session.question.region = "predicted"
    assert not target.follow.isChecked()


def test_limits_that_the_person_set_stay(follow):
    d = follow
    click(d, (1, 9))
    (layer,) = maps(d)
    assert layer.contrast_limits[1] == 10
    click(d, (1, 19))
    assert layer.contrast_limits[1] == 20
    assert layer.contrast_limits_range == [0, 20]
    layer.contrast_limits = (0, 3)
    click(d, (1, 29))
    assert layer.contrast_limits[1] == 3
    # but the slider reaches what is there now
    assert layer.contrast_limits_range == [0, 30]


def test_the_image_is_looked_at_before_the_first_click(drive):
    d = drive()
    d.viewer.add_image(blobs(64, 80))
    model = make_model()
    d.use(model)
    d.dock.tabs.setCurrentIndex(1)
    d.session.question.region = "point"
    d.session.question.method = "vanilla-gradient"
    d.wait(lambda: d.dock.estimator._job is None)
    assert d.dock.footer.state.text() == words.PICK_SPOT
    d.dock.explain.target.follow.click()
    settle(d)
    # the button that is greyed out now is not what to press
    assert d.dock.footer.state.text() == words.CLICK_SPOT
    assert model.module.passes > 0
    live = d.dock.follower._live
    click(d, (30, 40))
    assert d.dock.follower._live is live
    # another part of the image is another question
    d.viewer.layers.remove(d.session.image_layer)
    d.viewer.add_image(blobs(32, 40))
    click(d, (10, 10))
    assert d.dock.follower._live is not live


@pytest.fixture
def warmed(follow, monkeypatch):
    """The methods that were made ready for since following began."""
    methods, warm = [], following.work.warm

    def count(run, emit, *, live, method):
        methods.append(method)
        warm(run, emit, live=live, method=method)

    monkeypatch.setattr(following.work, "warm", count)
    return follow, methods


def rest(d):
    """Wait until nothing more is to be made ready."""
    d.wait(lambda: not d.dock.follower._changed.isActive() and d.dock.follower._job is None)


def test_another_method_is_made_ready_before_the_next_click(warmed):
    d, methods = warmed
    model = d.session.model.loaded
    click(d, (30, 40))
    sizes = []
    model.module.register_forward_pre_hook(lambda _module, inputs: sizes.append(tuple(inputs[0].shape[2:])))
    d.session.question.method = "seg-grad-cam"
    assert d.dock.follower._job is None
    rest(d)
    assert [m.name for m in methods] == ["seg-grad-cam"]
    assert (64, 80) in sizes
    sizes.clear()
    click(d, (31, 40))
    # no pass over the whole image is left for the click
    assert sizes
    assert (64, 80) not in sizes
    # and after the pause it is not made ready once more
    d.qtbot.wait(following.PAUSE + 100)
    assert len(methods) == 1


def test_not_for_every_keystroke_and_with_what_was_chosen_last(warmed):
    d, methods = warmed
    d.session.question.method = "seg-grad-cam"
    for name in ("f", "fe", "features"):
        d.session.values["seg-grad-cam"] = {"layer": name}
        d.session.values_changed.emit()
        d.qtbot.wait(20)
    rest(d)
    assert [m.layer for m in methods] == ["features"]


def test_a_click_goes_before_what_was_to_be_made_ready(warmed):
    d, methods = warmed
    d.session.question.method = "vanilla-gradient"
    click(d, (30, 40))
    d.qtbot.wait(following.PAUSE + 100)
    assert methods == []
    assert len(maps(d)) == 1


def test_never_beside_an_answer(warmed, monkeypatch):
    d, methods = warmed
    monkeypatch.setattr(Told, "wait", True)
    Press(d, (1, 1)).release()
    d.wait(lambda: Told.asked == [(1, 1)])
    d.session.question.method = "seg-grad-cam"
    d.qtbot.wait(3 * following.PAUSE)
    assert methods == []
    Told.go.release()
    rest(d)
    assert [m.name for m in methods] == ["seg-grad-cam"]


def test_what_is_made_ready_for_an_older_question_is_stopped(follow, monkeypatch):
    d = follow
    runs = []

    def warm(run, emit, *, live, method):
        runs.append(run)
        while len(runs) == 1:
            run.check()

    monkeypatch.setattr(following.work, "warm", warm)
    d.session.question.method = "vanilla-gradient"
    d.wait(lambda: len(runs) == 1)
    d.session.question.method = "seg-grad-cam"
    rest(d)
    assert len(runs) == 2
    assert runs[0].cancelled
    assert d.say() == ""


def test_methods_that_take_long_and_docks_that_do_not_follow_are_left_alone(warmed):
    d, methods = warmed
    d.session.question.method = "occlusion"
    rest(d)
    assert methods == []
    d.dock.explain.target.follow.click()
    d.session.question.method = "seg-grad-cam"
    d.qtbot.wait(following.PAUSE + 100)
    assert methods == []
