"""A map grows while it is made, and what was paid for is kept when somebody stops it."""

import threading
from typing import Annotated

import numpy as np
import pytest
from viewer_help import blobs, make_model

from seglens.app.napari import sofar
from seglens.app.napari.viewer_session import is_ours
from seglens.core import run as core_run
from seglens.core.errors import BadParameter
from seglens.core.explanation import Explanation, Figure, Layer
from seglens.core.method import Method
from seglens.core.param import Param


class Growing(Method):
    """A map that grows row by row and tells so."""

    name = "growing"
    family = "perturbation"
    title = "Growing"

    go = threading.Semaphore(0)  # one step each time it is released
    at = 0  # steps that are made

    steps: Annotated[int, Param("How many steps.", ge=1, le=1000)] = 6
    fail_at: Annotated[int, Param("Where it breaks.", ge=0, le=1000)] = 0

    def run(self, case):
        values = np.zeros(case.shape, np.float32)
        for step in range(1, self.steps + 1):
            while not self.go.acquire(timeout=0.05):
                case.run.check()
            values[: 2 * step] = step
            case.run.progress(step, self.steps, "rows")
            if step == self.fail_at:
                raise BadParameter("It broke.", fix="Mend it.")
            case.run.partial(lambda: self.answer(values, step))  # noqa: B023 - called at once
            Growing.at = step
        return self.answer(values, self.steps, "all")

    def answer(self, values, step, also=""):
        figure = Figure("rows", "line", [0, step], {"rows": [0, step]})
        layers = (Layer("rows", "heat", values, "rows"), Layer("edge", "labels", (values > 0).astype(np.uint8)))
        return Explanation(layers, figures=(figure,), text=f"{step} rows {also}")


@pytest.fixture
def growing(drive, monkeypatch):
    """A dock on the Explain tab with a method that takes its time."""
    monkeypatch.setattr(core_run, "PAUSE", 0.0)
    monkeypatch.setattr(sofar, "PAUSE", 0.0)
    monkeypatch.setattr(Growing, "go", threading.Semaphore(0))
    d = drive()
    d.viewer.add_image(blobs(64, 80), scale=(2, 2))
    d.use(make_model())
    d.dock.tabs.setCurrentIndex(1)
    d.session.engine.methods = (*d.session.engine.methods, Growing)
    d.session.question.method = "growing"
    return d


def names(d):
    return [x.name for x in d.viewer.layers]


def start(d, steps=1):
    """Run until the map shows some steps."""
    Growing.at = 0
    d.press()
    return more(d, steps)


def more(d, steps):
    """Let some more steps be made, and wait until the map shows them."""
    Growing.go.release(steps)
    goal = Growing.at + steps
    d.wait(lambda: "Growing (so far)" in names(d) and d.named("Growing (so far)").data.max() == goal)
    return d.named("Growing (so far)")


def finish(d):
    """Let it come to its end."""
    Growing.go.release(100)
    d.wait()
    d.qtbot.wait(50)


def test_the_map_grows_in_one_layer_and_gives_way_to_the_answer(growing):
    d = growing
    layer = start(d)
    np.testing.assert_allclose(layer.data_to_world((1, 1)), (2, 2))
    assert is_ours(layer, "heat")
    for step in (2, 3):
        assert more(d, 1) is layer
        assert layer.data.max() == layer.contrast_limits[1] == step
        np.testing.assert_array_equal(layer.data[:, 0] > 0, np.arange(64) < 2 * step)
    finish(d)
    assert names(d) == ["Image", "Growing · edge", "Growing · rows"]
    final = d.named("Growing · rows")
    # removing a layer would block the window for a third of a second
    assert final is layer
    assert final.visible
    assert final.data.max() == final.contrast_limits[1] == 6
    assert d.dock.explain.result.current is final
    assert d.session.shown.text == "6 rows all"
    assert d.dock._made() is d.session.shown


def test_older_maps_make_room(growing):
    d = growing
    old = d.viewer.add_image(np.zeros((64, 80)), name="old", metadata={"seglens": {"role": "heat", "kind": "heat"}})
    start(d)
    assert not old.visible
    finish(d)
    assert not old.visible
    assert sum("Growing" in n for n in names(d)) == 2


def test_a_person_who_sets_the_contrast_keeps_it(growing):
    d = growing
    layer = start(d)
    layer.contrast_limits = (0, 100)
    more(d, 2)
    assert tuple(layer.contrast_limits) == (0, 100)
    assert tuple(layer.contrast_limits_range) == (0, 100)
    assert "to 100" in d.dock.explain.result.unit.text()
    finish(d)
    assert tuple(layer.contrast_limits) == (0, 100)


def test_what_was_paid_for_is_kept_on_cancel(growing):
    d = growing
    start(d, 3)
    d.press()
    d.wait()
    assert names(d) == ["Image", "Growing (stopped early)"]
    kept = d.named("Growing (stopped early)")
    assert kept.data.max() == 3
    assert "stopped early" in d.say()
    # its plot is there; a run that never ended cannot be copied
    assert d.session.shown.figures[0].x[1] == 3
    assert d.dock.explain.result.plot.isVisibleTo(d.dock)
    assert d.dock.copied("cli") == ""
    # the next run is another layer
    d.press()
    finish(d)
    assert {"Growing (stopped early)", "Growing · rows"} <= set(names(d))


def test_what_was_found_before_an_error_is_kept(growing):
    d = growing
    d.session.values["growing"] = {"fail_at": 4}
    start(d, 2)
    finish(d)
    assert "It broke." in d.say()
    assert names(d) == ["Image", "Growing (stopped early)"]


def test_a_map_that_the_person_deletes_does_not_come_back(growing):
    d = growing
    layer = start(d, 2)
    d.qtbot.wait(80)
    layer.locked = False
    d.viewer.layers.remove(layer)
    Growing.go.release(2)
    d.wait(lambda: Growing.at == 4)
    d.qtbot.wait(50)
    assert names(d) == ["Image"]
    finish(d)
    assert names(d) == ["Image", "Growing · edge", "Growing · rows"]


@pytest.mark.parametrize("pause", [0, 80])
def test_without_its_image_nothing_stays(growing, pause):
    d = growing
    d.press()
    Growing.go.release()
    d.wait(lambda: "Growing (so far)" in names(d))
    # with and without the time to finish putting the layer in
    d.qtbot.wait(pause)
    d.viewer.layers.remove(d.session.image_layer)
    d.wait()
    d.qtbot.wait(80)
    assert names(d) == []
    assert "was deleted" in d.say()


def test_pictures_come_at_most_about_twice_a_second(growing, monkeypatch):
    d = growing
    layer = start(d)
    monkeypatch.setattr(sofar, "PAUSE", 1000.0)
    more(d, 1)
    Growing.go.release(3)
    d.wait(lambda: Growing.at == 5)
    d.qtbot.wait(50)
    assert layer.data.max() == 2
    # what waited is not lost
    d.press()
    d.wait()
    assert layer.data.max() == 5
