"""The dock in a real viewer, used as a person uses it."""

import gc
from functools import partial

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.action_manager import action_manager
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from viewer_help import Driver, blobs, make_model

from seglens.app.napari import commands, jobs, links, words
from seglens.app.napari.viewer_session import State, is_ours, layer_id, session_of
from seglens.core import run


def test_an_empty_viewer_says_what_to_do_first(drive):
    d = drive()
    assert d.dock.footer.state.text() == words.PICK_IMAGE
    assert not d.dock.footer.button.isEnabled()
    assert not d.dock.header.layers.isEnabled()
    d.viewer.add_image(blobs(40, 50), name="mine")
    assert d.dock.header.layers.currentText() == "mine"
    d.use(make_model())
    assert d.dock.footer.state.text() == words.READY
    assert d.dock.footer.button.isEnabled()


def test_segment_then_explain_by_pressing_the_one_button(drive):
    d = drive()
    source = d.viewer.add_image(blobs(64, 80), scale=(0.5, 0.5), translate=(3, 4), rotate=20)
    d.use(make_model())
    d.run()
    prediction, uncertainty = d.named("prediction"), d.named("uncertainty")
    assert prediction.data[32, 40] == 1
    assert prediction.data[20, 20] == 0
    np.testing.assert_allclose(prediction.data_to_world((5, 6)), source.data_to_world((5, 6)))
    assert prediction.locked
    assert not prediction.editable
    assert uncertainty.contrast_limits[1] == pytest.approx(np.log(2))
    assert "ready" in d.say()

    d.dock.tabs.setCurrentIndex(1)
    d.session.question.method = "occlusion"
    d.session.question.of_class = "cell"
    assert "Explain" in d.dock.footer.button.text()
    d.run()
    heat = d.named("Occlusion")
    np.testing.assert_allclose(heat.data_to_world((5, 6)), source.data_to_world((5, 6)))
    assert heat.colorbar.visible
    assert abs(heat.data[32, 40]) > abs(heat.data[20, 70])
    assert heat.metadata["seglens"]["record"]["method"] == "occlusion"
    assert prediction.contour == 1
    assert d.dock.explain.result.current is heat


def test_results_are_never_overwritten(drive):
    d = drive()
    d.viewer.add_image(blobs(40, 50))
    d.use(make_model())
    d.run()
    first = d.named("prediction").data.copy()
    d.use(make_model(pause=0.01))
    d.run()
    assert "prediction #2" in d.viewer.layers
    np.testing.assert_array_equal(d.named("prediction").data, first)


@pytest.mark.parametrize(
    ("shape", "rgb", "labels", "channels"),
    [((40, 50, 3), True, None, 3), ((40, 50, 3), True, None, 1), ((2, 40, 50), False, ("c", "y", "x"), 2)],
)
def test_colours_and_channels(drive, shape, rgb, labels, channels):
    d = drive()
    plane = blobs(40, 50)
    data = np.stack([plane] * shape[-1], -1) if rgb else np.stack([plane] * shape[0])
    source = d.viewer.add_image(data, rgb=rgb, axis_labels=labels)
    d.use(make_model(channels))
    d.run()
    prediction = d.named("prediction")
    assert prediction.ndim == source.ndim
    assert np.asarray(prediction.data)[..., 20, 25].all()
    d.dock.tabs.setCurrentIndex(1)
    d.session.question.method = "vanilla-gradient"
    d.run()
    assert not [m for m in [d.session.status.message] if m is not None and m.level == "error"], d.say()


def test_a_stack_is_run_on_the_current_slice_and_on_everything(drive):
    d = drive()
    data = np.full((3, 4, 40, 50), 0.1, np.float32)
    data[..., 0] = 0.2
    data[2, 1, 10:20, 10:20] = 0.9
    d.viewer.add_image(data, scale=(1, 3, 1, 1))
    d.use(make_model())
    d.viewer.dims.set_current_step(0, 2)
    d.viewer.dims.set_current_step(1, 1)
    d.run()
    one = d.named("prediction")
    assert one.data.shape == (1, 1, 40, 50)
    assert one.data[0, 0, 15, 15] == 1
    np.testing.assert_allclose(one.translate, (2, 3, 0, 0))
    d.session.question.scope = "all"
    d.run()
    full = d.named("prediction #2")
    assert full.data.shape == (3, 4, 40, 50)
    assert full.data[2, 1, 15, 15] == 1
    assert full.data[0].sum() + full.data[1].sum() + full.data[2, 0].sum() == 0


def test_a_volume_model_on_a_time_series(drive):
    d = drive()
    data = np.full((2, 8, 24, 26), 0.1, np.float32)
    data[1, 2:6, 8:16, 8:16] = 0.9
    d.viewer.add_image(data)
    d.use(make_model(dims=3))
    d.viewer.dims.set_current_step(0, 1)
    d.run()
    assert d.named("prediction").data.shape == (1, 8, 24, 26)
    assert d.named("prediction").data[0, 4, 12, 12] == 1


def test_the_prediction_fills_in_and_cancel_stops_within_a_tile(drive):
    d = drive()
    d.viewer.add_image(blobs(256, 256))
    model = make_model(pause=0.1)
    d.use(model)
    d.session.question.tile, d.session.question.halo = 32, 0
    d.press()
    assert d.session.status.state is State.RUNNING
    assert d.dock.footer.button.text() == "Cancel"
    d.wait(lambda: "prediction" in d.viewer.layers and d.session.status.done >= 3)
    assert 3 <= d.session.status.done < d.session.status.total
    assert "tiles" in d.dock.footer.state.text()
    passes = model.module.passes
    d.press()
    assert d.dock.footer.button.text().startswith("Cancelling")
    assert not d.dock.footer.button.isEnabled()
    d.wait()
    assert model.module.passes <= passes + 1
    assert "kept" in d.say()
    assert d.named("prediction").data[:20, :20].any()
    assert d.dock.footer.button.isEnabled()


def test_cancel_of_an_explanation_leaves_nothing(drive, monkeypatch):
    # one copy a pass, and stopped before there was anything to keep
    monkeypatch.setattr(jobs, "Run", partial(run.Run, batch=1))
    monkeypatch.setattr(run, "PAUSE", 1e9)
    d = drive()
    d.viewer.add_image(blobs(64, 64))
    model = make_model(pause=0.1)
    d.use(model)
    d.dock.tabs.setCurrentIndex(1)
    d.session.question.method = "occlusion"
    d.press()
    d.wait(lambda: d.session.status.done >= 1)
    passes = model.module.passes
    d.qtbot.keyClick(d.dock.footer.button, Qt.Key.Key_Escape)
    d.wait()
    assert model.module.passes <= passes + 2
    assert len(d.viewer.layers) == 1


def test_a_layer_deleted_while_it_is_explained(drive, monkeypatch):
    monkeypatch.setattr(jobs, "Run", partial(run.Run, batch=1))
    d = drive()
    source = d.viewer.add_image(blobs(128, 128), name="doomed")
    d.use(make_model(pause=0.1))
    d.session.question.tile, d.session.question.halo = 32, 0
    d.press()
    d.wait(lambda: d.session.status.done >= 1)
    d.viewer.layers.remove(source)
    d.wait()
    assert "doomed was deleted" in d.say()
    assert d.dock.footer.state.text() == words.PICK_IMAGE
    source = d.viewer.add_image(blobs(64, 64), name="doomed too")
    d.dock.tabs.setCurrentIndex(1)
    d.session.question.method = "occlusion"
    d.use(make_model(pause=0.1))
    count = len(d.viewer.layers)
    d.press()
    d.wait(lambda: d.session.status.done >= 1)
    d.viewer.layers.remove(source)
    d.wait()
    assert len(d.viewer.layers) == count - 1


def test_a_deleted_result_stops_its_run(drive):
    d = drive()
    d.viewer.add_image(blobs(128, 128))
    d.session.question.uncertainty = False
    d.use(make_model(pause=0.1))
    d.session.question.tile, d.session.question.halo = 32, 0
    d.press()
    d.wait(lambda: "prediction" in d.viewer.layers)
    d.viewer.layers.remove(d.named("prediction"))
    d.wait()
    assert "prediction" not in d.viewer.layers


def test_renaming_changes_nothing(drive):
    d = drive()
    source = d.viewer.add_image(blobs(64, 64), name="one")
    d.use(make_model(pause=0.05))
    d.session.question.tile = 32
    d.press()
    source.name = "two"
    d.wait()
    assert d.dock.header.layers.currentText() == "two"
    d.named("prediction").name = "my prediction"
    commands.toggle(d.viewer, "prediction")
    assert not d.named("my prediction").visible


def test_two_viewers_do_not_know_each_other(drive):
    one, two = drive(), drive()
    one.viewer.add_image(blobs(40, 50), name="left")
    two.viewer.add_image(blobs(30, 30), name="right")
    one.use(make_model())
    two.use(make_model())
    one.press()
    two.press()
    one.wait()
    two.wait()
    assert one.named("prediction").data.shape == (40, 50)
    assert two.named("prediction").data.shape == (30, 30)
    assert one.session is not two.session


def test_painting_a_target_loses_no_stroke(drive):
    d = drive()
    d.viewer.add_image(blobs(64, 80))
    d.use(make_model(pause=0.05))
    d.dock.tabs.setCurrentIndex(1)
    d.session.values["occlusion"] = {"window": 24}
    d.session.question.method = "occlusion"
    d.dock.explain.target.new.click()
    target = d.named("target")
    assert d.viewer.layers.selection.active is target
    assert target.mode == "paint"
    assert d.session.question.region == "painted"
    assert d.dock.footer.button.isEnabled()
    d.press()
    assert "Nothing is painted" in d.say()
    target.paint((32, 40), 1)
    commands.register(d.session, d.dock)
    d.dock.jobs.toggle_sign()
    assert target.selected_label == 2
    target.paint((10, 70), 2)
    d.press()
    d.wait(lambda: d.session.status.done >= 1)
    target.paint((50, 10), 1)
    painted = target.data.copy()
    d.wait(timeout=40_000)
    np.testing.assert_array_equal(target.data, painted)
    assert d.viewer.layers.selection.active is target
    assert target.mode == "paint"
    target.undo()
    assert target.data[50, 10] == 0
    assert target.data[32, 40] == 1
    record = d.named("Occlusion").metadata["seglens"]["record"]
    assert record["target"]["region"]["kind"] == "painted"


class Click:
    """A mouse event as napari hands it to callbacks."""

    def __init__(self, position):
        self.position, self.type, self.modifiers = position, "mouse_press", ()


def click(viewer, position, drag=False):
    """Press, perhaps move, and release."""
    event = Click(position)
    for callback in list(viewer.mouse_drag_callbacks):
        steps = callback(viewer, event)
        if steps is None:
            continue
        next(steps, None)
        kinds = ["mouse_move"] * drag + ["mouse_release"]
        for kind in kinds:
            event.type = kind
            next(steps, None)


def test_picking_an_object_never_paints(drive):
    d = drive()
    d.viewer.add_image(blobs(64, 80), scale=(2, 2))
    mine = d.viewer.add_labels(np.zeros((64, 80), int), scale=(2, 2), name="mine")
    mine.mode = "paint"
    d.use(make_model())
    d.dock.tabs.setCurrentIndex(1)
    question = d.session.question
    question.region, question.method = "object", "region-replacement"
    assert d.dock.footer.state.text() == words.PICK_SPOT
    d.dock.explain.target.pick_button.click()
    assert mine.mode == "pan_zoom"
    click(d.viewer, (64, 80), drag=True)
    assert question.spot is None
    click(d.viewer, (-5, 80))
    assert question.spot is None
    assert d.say() == " ".join(words.OUTSIDE)
    click(d.viewer, (64, 80))
    assert d.say() == ""
    assert question.spot == (64, 80)
    assert mine.mode == "paint"
    assert not mine.data.any()
    assert "y 32, x 40" in d.dock.explain.target.picked.text()
    np.testing.assert_allclose(d.named("picked").data, [[32, 40]])
    d.run()
    made = [x for x in d.viewer.layers if "record" in x.metadata.get("seglens", {})]
    assert made, d.say()
    assert made[0].metadata["seglens"]["record"]["target"]["region"] == {
        "kind": "object", "number": None, "at": [32, 40]
    }  # fmt: skip


def test_leaving_the_pick_gives_the_brush_back(drive):
    d = drive()
    d.viewer.add_image(blobs(40, 50))
    mine = d.viewer.add_labels(np.zeros((40, 50), int))
    mine.mode = "erase"
    d.session.question.region = "point"
    before = len(d.viewer.mouse_drag_callbacks)
    d.dock.explain.target.pick_button.click()
    d.qtbot.keyClick(d.dock, Qt.Key.Key_Escape)
    assert mine.mode == "erase"
    assert not d.dock.explain.target.pick_button.isChecked()
    assert len(d.viewer.mouse_drag_callbacks) == before


def test_maps_are_compared_in_the_grid_and_put_back(drive):
    d = drive()
    source = d.viewer.add_image(blobs(40, 50))
    d.use(make_model())
    d.run()
    d.dock.tabs.setCurrentIndex(1)
    d.session.values["occlusion"] = {"window": 16}
    for name in ("vanilla-gradient", "seg-grad-cam", "occlusion"):
        d.session.question.method = name
        d.run()
    before = {x: x.visible for x in d.viewer.layers}
    order = list(d.viewer.layers)
    result = d.dock.explain.result
    assert len(result.ticked) == 3
    result.compare.click()
    grid = d.viewer.canvas.grid
    assert grid.enabled
    visible = [x for x in d.viewer.layers if x.visible]
    assert len(visible) == 6
    cells = {grid.position(i, d.viewer.layers) for i, x in enumerate(d.viewer.layers) if x.visible}
    assert len(cells) == 3
    for layer in result.ticked:
        index = d.viewer.layers.index(layer)
        below = d.viewer.layers[index - 1]
        assert below.data is source.data
        assert grid.position(index, d.viewer.layers) == grid.position(index - 1, d.viewer.layers)
    result.compare.click()
    assert not grid.enabled
    assert list(d.viewer.layers) == order
    assert {x: x.visible for x in d.viewer.layers} == before


def test_copy_puts_the_run_on_the_clipboard(drive):
    d = drive()
    d.viewer.add_image(blobs(40, 50))
    d.use(make_model())
    assert d.dock.copied("cli") == ""
    assert words.NOTHING_TO_COPY in d.say()
    d.run()
    d.viewer.layers.selection.active = d.named("prediction")
    d.dock.copy("cli")
    assert QGuiApplication.clipboard().text().startswith("seglens segment ")


def test_axes_are_renamed_by_their_chips(drive):
    d = drive()
    source = d.viewer.add_image(blobs(5, 40, 50))
    chips = d.dock.header.chips
    assert [c.text() for c in chips] == ["Z 5", "Y 40", "X 50"]
    action = next(a for a in chips[0].menu().actions() if a.text().startswith("T"))
    action.trigger()
    assert d.session.axes[layer_id(source)] == "TYX"
    d.qtbot.wait(10)
    assert d.dock.header.chips[0].text() == "T 5"


def test_an_untrusted_file_is_loaded_after_one_press(drive, tmp_path):
    d = drive()
    path = tmp_path / "net.py"
    path.write_text("from torch import nn\ndef build():\n    return nn.Conv2d(1, 2, 1)\n")
    (tmp_path / "net.json").write_text(
        '{"axes": "YX", "channels": ["grey"], "classes": ["background", "cell"], "normalisation": {"kind": "none"}}'
    )
    d.viewer.add_image(blobs(40, 50))
    d.dock.jobs.choose_model(f"{path}:build")
    d.wait(lambda: not d.session.model.loading)
    banner = d.dock.footer.banner
    assert banner.isVisibleTo(d.dock)
    assert banner.button.isVisibleTo(d.dock)
    assert d.dock.footer.state.text() == words.MODEL_UNTRUSTED
    assert d.session.model.loaded is None
    banner.button.click()
    d.wait(lambda: not d.session.model.loading)
    assert d.session.model.loaded is not None, d.say()
    assert not banner.isVisibleTo(d.dock)
    assert str(path) in d.dock.model.source.box.currentData()


def test_toggles_and_shortcuts(drive):
    d = drive()
    d.viewer.add_image(blobs(40, 50))
    d.use(make_model())
    d.run()
    handler = d.viewer.window._qt_viewer._key_map_handler
    handler.press_key("Shift-F")
    assert not d.named("prediction").visible
    handler.press_key("Shift-F")
    assert d.named("prediction").visible
    handler.press_key("Shift-U")
    assert d.named("uncertainty").visible
    # a brush in hand must not swallow them
    d.viewer.add_labels(np.zeros((40, 50), int)).mode = "paint"
    handler.press_key("Shift-S")
    d.wait(lambda: "prediction #2" in d.viewer.layers)
    d.wait()
    for name, key in words.KEYS.items():
        assert f"seglens:{name}" in action_manager._actions
        assert key.startswith("Shift-")


def test_a_closed_dock_hears_nothing_more(drive, qtbot):
    d = drive()
    d.viewer.add_image(blobs(40, 50))
    d.viewer.window.remove_dock_widget(d.dock)
    d.dock.deleteLater()
    session = d.session
    qtbot.wait(50)
    gc.collect()
    session.question.scope = "all"
    session.say("anybody there?")
    d.viewer.add_image(blobs(30, 30), name="later")
    assert session not in commands._DOCKS


def close(viewer, widget, qtbot):
    """Close the dock of a widget as its cross does, and wait until the widget is gone."""
    gone = []
    widget.destroyed.connect(lambda *_: gone.append(True))
    links.dock_around(widget).destroyOnClose()
    qtbot.waitUntil(lambda: bool(gone))


def listeners(viewer):
    """How many listen to a viewer, its layers and what was chosen in it."""
    session = session_of(viewer)
    return [
        len(signal.callbacks if hasattr(signal, "callbacks") else signal)
        for signal in (
            viewer.layers.events.inserted, viewer.layers.events.removed, viewer.dims.events.current_step,
            viewer.mouse_move_callbacks, viewer.mouse_drag_callbacks, session.question.events.method,
            session.values_changed, session.status.events.state,
        )
    ]  # fmt: skip


def opened(viewer, qtbot):
    """The dock, opened and ready."""
    dock = commands.dock_of(viewer)
    assert commands.dock_of(viewer) is dock
    qtbot.waitUntil(dock.isVisible)
    d = Driver(viewer, dock, qtbot)
    d.wait(lambda: d.session.engine.ready, 60_000)
    assert [x for x in viewer.window.dock_widgets if "SegLens" in x] == ["SegLens (seglens)"]
    return d


def closed(d):
    """The session of a dock that was closed; nobody is left to hear it."""
    d.dock.jobs.stop_all()
    d.wait(lambda: d.dock.estimator._job is None)
    d.session.question.of_class = "cell"
    close(d.viewer, d.dock, d.qtbot)
    assert d.session not in commands._DOCKS
    d.session.question.of_class = None
    d.viewer.dims.events.current_step()
    d.viewer.add_image(blobs(8, 8), name="later")


def test_open_close_open_gives_one_dock_that_works(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    d = opened(viewer, qtbot)
    before = listeners(viewer)
    viewer.add_image(blobs(40, 50))
    d.use(make_model())
    d.session.question.method = "vanilla-gradient"
    mine = viewer.add_labels(np.zeros((40, 50), int))
    mine.mode = "paint"
    # closed while it waits for a click
    d.dock.tabs.setCurrentIndex(1)
    d.dock.explain.target.picker.set_active(True)
    assert mine.mode == "pan_zoom"
    closed(d)
    assert mine.mode == "paint"
    # what was chosen is there again
    d = opened(viewer, qtbot)
    assert d.dock.header.layers.currentText() == "Image"
    assert d.session.question.method == "vanilla-gradient"
    d.dock.tabs.setCurrentIndex(1)
    d.run()
    assert sum(is_ours(x, "heat") for x in viewer.layers) == 1
    assert d.dock.explain.result.list.count() == 1
    closed(d)
    d = opened(viewer, qtbot)
    assert listeners(viewer) == before
    d.dock.jobs.stop_all()


def test_a_dock_that_was_opened_meanwhile_stays_the_one(make_napari_viewer, qtbot):
    viewer = make_napari_viewer(show=True)
    first = commands.dock_of(viewer)
    qtbot.waitUntil(first.isVisible)
    gone = []
    first.destroyed.connect(lambda *_: gone.append(True))
    links.dock_around(first).destroyOnClose()
    # before the first is gone
    viewer.window.add_plugin_dock_widget("seglens", "SegLens")
    second = commands._DOCKS[session_of(viewer)]
    assert second is not first
    qtbot.waitUntil(lambda: bool(gone))
    assert commands.dock_of(viewer) is second
    second.jobs.stop_all()


def test_closing_the_viewer_stops_the_work(make_napari_viewer, qtbot):
    from viewer_help import Driver

    from seglens.app.napari.dock import SegLensDock

    viewer = make_napari_viewer()
    dock = SegLensDock(viewer)
    viewer.window.add_dock_widget(dock, name="SegLens")
    d = Driver(viewer, dock, qtbot)
    d.wait(lambda: d.session.engine.ready, 60_000)
    viewer.add_image(blobs(256, 256))
    model = make_model(pause=0.1)
    d.use(model)
    d.session.question.tile = 32
    d.press()
    d.wait(lambda: model.module.passes >= 2)
    run = dock.jobs.job.run
    viewer.window.remove_dock_widget(dock)
    dock.deleteLater()
    qtbot.wait(50)
    assert run.cancelled
    passes = model.module.passes
    qtbot.wait(400)
    assert model.module.passes <= passes + 1


def check_fits(d, tab):
    """Nothing is cut off, and the button is in sight."""
    d.dock.tabs.setCurrentIndex(tab)
    d.dock.parent().resize(300, d.dock.height())
    d.qtbot.wait(80)
    window = d.dock.window()
    assert window.width() <= 1366
    assert window.height() <= 768
    button = d.dock.footer.button
    bottom = button.mapTo(window, button.rect().bottomRight())
    assert bottom.y() < window.height()
    assert bottom.x() < window.width()
    page = d.dock.tabs.widget(tab)
    assert page.horizontalScrollBar().maximum() == 0
    assert page.widget().width() <= page.viewport().width()
    assert page.widget().minimumSizeHint().width() <= 285
    assert page.viewport().height() > 150


def test_everything_fits_a_small_laptop(drive):
    d = drive(show=True)
    d.viewer.window.resize(1366, 768)
    check_fits(d, 0)
    check_fits(d, 1)
    d.viewer.add_image(blobs(3, 40, 50), name="a layer with quite a long name that goes on and on")
    d.use(make_model(3, pixel_size=(0.5, 0.5), licence="BSD-3-Clause", description="What it finds. " * 8))
    check_fits(d, 0)
    for region in words.REGIONS:
        d.session.question.region = region
        check_fits(d, 1)
    d.session.question.region = "predicted"
    for kind in d.session.engine.methods:
        d.session.question.method = kind.name
        check_fits(d, 1)
    for name in ("seg-grad-cam", "vanilla-gradient"):
        d.session.question.method = name
        d.run()
    check_fits(d, 1)
    d.session.question.border_of = "painted"
    d.session.question.region = "border"
    d.session.say("What happened is told at some length, with /a/path/" + "x" * 90, "And what to do. " * 6, "error")
    check_fits(d, 0)
    check_fits(d, 1)


def test_the_palette_command_opens_the_dock(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    dock = commands.dock_of(viewer)
    assert dock is not None
    assert commands.dock_of(viewer) is dock
    qtbot.waitUntil(lambda: dock.session.engine.ready, timeout=60_000)
    commands.new_target()
    assert words.PICK_IMAGE in dock.session.status.message.what
    viewer.add_image(blobs(40, 50))
    commands.new_target()
    assert isinstance(viewer.layers["target"], Labels)


def test_samples_open_and_suggest_their_model(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    dock = commands.dock_of(viewer)
    qtbot.waitUntil(lambda: dock.session.engine.ready, timeout=60_000)
    viewer.open_sample("seglens", "shortcut")
    model = dock.session.model
    if "shortcut-synthetic" in {e.name for e in dock.session.engine.zoo}:
        qtbot.waitUntil(lambda: model.loaded is not None, timeout=20_000)
        assert model.suggested
        assert model.source == "shortcut-synthetic"
