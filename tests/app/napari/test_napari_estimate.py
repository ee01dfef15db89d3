"""What it will take is told before Run; labels as units, and fills compared."""

import re
import threading
import time

import numpy as np
import pytest
from qtpy.QtGui import QGuiApplication
from viewer_help import blobs, make_model

import seglens.session
from seglens.app.napari import asking, estimating, words
from seglens.app.napari.jobs import Job, alone
from seglens.app.napari.viewer_session import State, layer_id
from seglens.core.errors import NoSuchRegion


@pytest.fixture
def explain(drive):
    """A dock on the Explain tab with Occlusion of a few windows."""
    d = drive()
    d.viewer.add_image(blobs(64, 80))
    d.use(make_model())
    d.session.values["occlusion"] = {"window": 16}
    d.session.question.method = "occlusion"
    d.dock.tabs.setCurrentIndex(1)
    return d


def told(d):
    return d.dock.footer.cost.text()


def settle(d):
    """Wait until something is told."""
    d.wait(lambda: told(d) not in ("", words.ESTIMATING))
    return told(d)


def test_the_cost_stands_under_the_form(explain):
    d = explain
    sentence = settle(d)
    assert re.match(r"About [\d.]+ forward passes", sentence)
    # right above the button that starts it, where no scrolling hides it
    footer = d.dock.footer
    places = [footer.layout().indexOf(w) for w in (footer.state, footer.cost, footer.button)]
    assert places == sorted(places)
    assert not footer.cost.isHidden()
    passes = float(re.findall(r"[\d.]+", sentence)[0])
    d.run()
    made = d.named("Occlusion").metadata["seglens"]["record"]["cost"]
    assert made["in forwards of the whole image"] >= 0.5 * passes


@pytest.fixture
def counted(explain, monkeypatch):
    """The questions that are estimated, each with what was asked, and the sentences that come back."""
    asked, answers = [], []

    def estimate(method, image, model, target, *, run, annotation):
        asked.append((method, image.space("YX"), target, annotation))
        return seglens.session.Estimate(1, 1, 1.0, answers.pop(0) if answers else f"answer {len(asked)}")

    monkeypatch.setattr(seglens.session, "estimate", estimate)
    monkeypatch.setattr(estimating, "WAIT", 60)
    explain.dock.estimator._timer.setInterval(60)
    settle(explain)
    asked.clear()
    return explain, asked


def test_it_is_worked_out_once_after_the_last_change(counted):
    d, asked = counted
    form = d.dock.explain.method.form
    for window in (8, 12, 20):
        form.fields["window"].set(window)
    assert told(d) == ""
    assert settle(d) == "answer 1"
    ((method, _, target, _),) = asked
    assert method.window == 20
    d.session.question.value = "probability"
    assert settle(d) == "answer 2"
    assert asked[-1][2].value == "probability"
    assert target.value == "logit"
    d.use(make_model())
    assert settle(d).startswith("answer")


def test_painting_changes_the_question(counted):
    d, asked = counted
    d.dock.jobs.new_target()
    d.qtbot.wait(150)
    # nothing is painted: nothing to say, and no error
    assert told(d) == ""
    assert d.session.status.message is None
    d.named("target").paint((32, 40), 1)
    settle(d)
    assert asked[-1][2].region.mask.sum() > 0


def test_only_where_somebody_looks_and_never_beside_a_run(counted):
    d, asked = counted
    d.dock.tabs.setCurrentIndex(0)
    d.session.question.value = "margin"
    d.qtbot.wait(150)
    assert not asked
    d.dock.tabs.setCurrentIndex(1)
    settle(d)
    asked.clear()
    d.session.status.state = State.RUNNING
    d.session.question.value = "logit"
    d.qtbot.wait(150)
    assert not asked
    d.session.status.state = State.IDLE
    settle(d)
    assert len(asked) == 1


@pytest.mark.parametrize("error", [NoSuchRegion("No.", fix="Yes."), ZeroDivisionError("oops")])
def test_an_error_leaves_the_line_empty(explain, monkeypatch, error):
    d = explain
    settle(d)
    asked = []

    def estimate(*args, **kwargs):
        asked.append(1)
        raise error

    monkeypatch.setattr(seglens.session, "estimate", estimate)
    d.session.question.value = "margin"
    d.wait(lambda: asked and told(d) == "" and d.dock.estimator._job is None)
    assert d.session.status.message is None


def test_a_run_goes_first(explain, monkeypatch):
    d = explain
    began, seen = threading.Event(), []

    def estimate(method, image, model, target, *, run, annotation):
        began.set()
        try:
            while True:
                time.sleep(0.01)
                run.check()
        finally:
            seen.append(d.session.status.state)

    monkeypatch.setattr(seglens.session, "estimate", estimate)
    d.wait(began.is_set)
    assert told(d) == words.ESTIMATING
    d.run()
    assert "Occlusion" in d.viewer.layers
    assert State.RUNNING in seen


def test_work_with_one_lock_never_overlaps(qtbot):
    lock, inside, most = threading.Lock(), [], []

    def work(run, emit):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.03)
        inside.pop()

    made = [Job("test", alone(lock, work)) for _ in range(4)]
    for job in made:
        job.start()
    qtbot.waitUntil(lambda: len(most) == 4, timeout=5000)
    assert most == [1, 1, 1, 1]
    lock.acquire()
    waiting = Job("test", alone(lock, work))
    waiting.start()
    with qtbot.waitSignal(waiting.ended, timeout=2000):
        waiting.cancel()
    assert len(most) == 4
    lock.release()
    qtbot.wait(20)


def test_labels_of_the_person_as_units(counted):
    d, asked = counted
    row = d.dock.explain.method.labels
    assert not row.isVisibleTo(d.dock)
    d.session.question.method = "kernel-shap"
    d.dock.explain.method.form.fields["units"].set("labels")
    assert row.isVisibleTo(d.dock)
    assert row.empty.isVisibleTo(row)
    assert d.dock.footer.state.text() == words.PICK_LABELS
    assert not d.dock.footer.button.isEnabled()
    d.viewer.add_labels(np.ones((20, 20), int), name="another shape")
    ours = d.viewer.add_labels(np.ones((64, 80), int), name="ours", metadata={"seglens": {"role": "prediction"}})
    # a prediction is offered, but never taken by itself
    assert [row.box.itemText(i) for i in range(row.box.count())] == [words.LABELS_NONE, "ours"]
    assert d.session.question.annotation_id == ""
    mine = np.zeros((64, 80), int)
    mine[20:44, 25:55], mine[:10, :10] = 1, 7
    layer = d.viewer.add_labels(mine, name="mine")
    assert row.box.currentText() == "mine"
    assert not row.empty.isVisibleTo(row)
    assert d.dock.footer.button.isEnabled()
    settle(d)
    np.testing.assert_array_equal(asked[-1][3], mine)
    d.session.values["kernel-shap"]["samples"] = 8
    d.run()
    made = [x for x in d.viewer.layers if "record" in x.metadata.get("seglens", {})]
    assert made, d.say()
    text = d.dock.copied("cli")
    assert "--annotation" in text
    np.testing.assert_array_equal(np.load(text.split("--annotation ")[1].split()[0]), mine)
    row.box.activated.emit(1)
    assert d.session.question.annotation_id == layer_id(layer)
    row.box.activated.emit(2)
    assert d.session.question.annotation_id == layer_id(ours)
    d.viewer.layers.remove(layer)
    d.viewer.layers.remove(ours)
    assert d.dock.footer.state.text() == words.PICK_LABELS


def test_labels_are_cut_to_what_is_explained(drive):
    d = drive()
    data = np.stack([blobs(40, 50)] * 3)
    d.viewer.add_image(data, scale=(1, 2, 2))
    d.use(make_model())
    mine = np.zeros((3, 40, 50), int)
    mine[1, 10:20, 5:15] = 4
    layer = d.viewer.add_labels(mine, scale=(1, 2, 2))
    d.viewer.dims.set_current_step(0, 1)
    d.session.question.method = "kernel-shap"
    d.session.values["kernel-shap"] = {"units": "labels"}
    d.session.question.annotation_id = layer_id(layer)
    plan = asking.plan_explain(d.session)
    np.testing.assert_array_equal(plan.annotation, mine[1])
    d.viewer.dims.set_current_step(0, 2)
    with pytest.raises(NoSuchRegion, match="empty in the part"):
        asking.plan_explain(d.session)


def test_fills_are_compared_by_a_button(explain, monkeypatch):
    d = explain
    box = d.dock.explain.method
    settle(d)
    assert box.fills.isVisibleTo(d.dock)
    monkeypatch.setattr("seglens.core.run.PAUSE", 0.0)
    shares, grown = [], []
    d.session.status.events.done.connect(lambda done: shares.append(done / max(1, d.session.status.total)))
    d.viewer.layers.events.inserted.connect(lambda event: grown.append(event.value.name))
    box.fills.click()
    assert not box.fills.isEnabled()
    d.wait(timeout=60_000)
    assert box.fills.isEnabled()
    # one progress over all fills, and the map so far
    assert shares[1:] == sorted(shares[1:])
    assert grown[0] == "Occlusion: fills compared (so far)"
    heat = d.named("Occlusion: fills compared · disagreement of fills")
    assert heat.visible
    names = [x.name for x in d.viewer.layers]
    assert sum("filled with" in n for n in names) >= 5
    assert sum(x.visible for x in d.viewer.layers if "fills compared" in x.name) == 1
    assert d.dock.explain.result.plot.isVisibleTo(d.dock)
    assert "fill" in d.session.shown.tables[0].columns
    assert "--compare-fills" in d.dock.copied("cli")
    d.dock.copy("python")
    assert "seglens.compare_fills('occlusion'" in QGuiApplication.clipboard().text()
    d.session.question.method = "seg-grad-cam"
    assert not box.fills.isVisibleTo(d.dock)
