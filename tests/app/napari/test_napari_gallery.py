"""The gallery in a real viewer: thumbnails, keys, edits, undo, what they do to the mask, and two viewers."""

import numpy as np
import pytest
from gallery_help import DARK, MIDDLE, PLACES, gallery_of, many, shades, squares
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import QApplication

from seglens.app.napari import links
from seglens.app.napari.gallery import docking, layers, texts
from seglens.app.napari.viewer_session import MARK, layer_id
from seglens.workspace.gallery import Gallery

SHIFT = Qt.KeyboardModifier.ShiftModifier


@pytest.fixture
def empty(gallery_dock):
    """The dock without a gallery."""
    return gallery_dock()


@pytest.fixture
def ready(gallery_dock, tmp_path):
    """The gallery of a network over an image that has all its prototypes."""
    d = gallery_dock()
    d.model = shades()
    layer = d.image(squares(), scale=(2, 2), rotate=10, translate=(3, 4))
    d.use(d.model)
    from seglens.app.napari import adapt

    image = adapt.image_of(layer, "YX")
    d.gallery = gallery_of(d.model, tmp_path / "shades.gallery", image.fingerprint())
    d.open(d.gallery)
    return d


def ours(d, role):
    """The layer that the gallery made in this role."""
    return next((x for x in d.viewer.layers if x.metadata.get(MARK, {}).get("gallery") == role), None)


def test_the_empty_gallery_says_what_to_do(empty):
    d = empty
    assert d.dock.stack.currentWidget() is d.dock.empty
    assert d.dock.empty.text() == texts.EMPTY
    assert not any(b.isEnabled() for verb, b in d.dock.verbs.buttons.items() if verb != "why")
    # wrong keys and buttons say what is missing, and break nothing
    for verb in ("drop", "keep", "merge", "relabel", "undo", "redo", "add"):
        d.dock.act(verb)
        d.settle()
        assert d.says() in (texts.OPEN_FIRST, texts.SELECT_FIRST), verb
    d.dock.files.ask_new()
    assert d.says() == texts.NEEDS_DOCK
    d.dock.files.ask_export("html")
    assert d.says() == texts.OPEN_FIRST


def test_items_are_shown_with_class_source_and_activation(ready):
    d = ready
    assert d.shown() == [1, 2, 3]
    assert d.dock.stack.currentWidget() is d.wall
    item = d.wall.items.item(1)
    told = texts.about(item)
    assert "cell" in told
    assert "squares" in told
    assert "activation 0.2" in told
    assert texts.caption(item) == "P2 squares"
    d.wait(lambda: d.dock.thumbs.decoded == 3)
    assert d.dock.thumbs.get(2) is not None
    # the colour of a class is the model's; a clear background becomes grey
    spec = d.session.model.spec
    assert d.dock.colour("cell") == spec.classes[1].color
    assert d.dock.painter.most == pytest.approx(0.3)


def test_dropping_changes_the_mask_and_undo_brings_it_back(ready):
    d = ready
    passes = d.model.module.passes
    assert ours(d, layers.AFTER) is None
    d.choose(2)
    assert d.state.selected == (3,)
    d.key(Qt.Key.Key_Delete)
    after, difference = ours(d, layers.AFTER), ours(d, layers.DIFFERENCE)
    assert [after.name, difference.name] == [texts.AFTER, texts.DIFFERENCE]
    lost = np.zeros((64, 80), bool)
    lost[40:56, 48:64] = True
    inner = np.s_[42:54, 50:62]
    assert (difference.data[inner] == 2).all()
    assert not difference.data[:36].any()
    assert not after.data[inner].any()
    assert (after.data[10:22, 10:22] == 1).all()
    # no pass through the network, and it lies on the image wherever that is
    assert d.model.module.passes == passes
    image = d.session.image_layer
    np.testing.assert_allclose(after.data_to_world((5, 6)), image.data_to_world((5, 6)))
    assert not after.editable
    assert "fewer" in d.says()
    assert d.says().startswith("Dropped item 3.")
    assert d.shown() == [1, 2]
    assert d.wall.current.id == 2  # the next Del goes on where one was
    # layers change in place
    d.key(Qt.Key.Key_Z, SHIFT)
    assert d.shown() == [1, 2, 3]
    assert ours(d, layers.AFTER) is after
    assert not difference.data.any()
    d.key(Qt.Key.Key_Y, SHIFT)
    assert d.shown() == [1, 2]
    assert (difference.data[inner] == 2).all()
    assert [e.kind for e in d.gallery.history()] == ["redo", "undo", "edit", "edit"]


def test_a_deleted_layer_is_made_anew(ready):
    d = ready
    d.choose(2)
    d.key(Qt.Key.Key_D)
    after = ours(d, layers.AFTER)
    after.locked = False
    d.viewer.layers.remove(after)
    d.settle()
    d.key(Qt.Key.Key_Z, SHIFT)
    assert ours(d, layers.AFTER) is not after
    assert ours(d, layers.AFTER) is not None


def test_an_image_that_is_deleted_while_its_mask_is_made(ready):
    d = ready
    d.state.select([3])
    d.dock.act("drop")
    d.viewer.layers.remove(d.session.image_layer)
    d.settle()
    d.dock.act("undo")
    d.settle()
    assert d.state.measured_now is None
    d.dock.looker.ask_why((5.0, 5.0))
    assert d.says() == texts.NEEDS_IMAGE
    d.dock.looker.show_map(d.wall.items.item(0))
    assert d.says() == texts.NEEDS_IMAGE


def test_keys_do_what_the_buttons_say(ready):
    d = ready
    for verb, (label, key, _) in texts.VERBS.items():
        assert d.dock.verbs.buttons[verb].text() == f"{label} [{key}]"
    d.choose(2)
    d.key(Qt.Key.Key_Delete)
    assert d.gallery.item(3).status == "dropped"
    d.dock.filters.status.setCurrentIndex(d.dock.filters.status.findData("dropped"))
    d.dock.filters.status.activated.emit(d.dock.filters.status.currentIndex())
    assert d.shown() == [3]
    d.choose(0)
    d.key(Qt.Key.Key_K)
    assert d.gallery.item(3).status == "kept"
    assert d.dock.empty.text() == texts.NO_MATCH.format(count=3)
    d.dock.filters.status.setCurrentIndex(0)
    d.dock.filters.status.activated.emit(0)
    # merge: the one with the frame takes the others in
    d.choose(1, 2)
    assert d.wall.current.id == 3
    d.key(Qt.Key.Key_M)
    assert d.gallery.item(2).merged_into == 3
    assert d.shown() == [1, 3]
    d.key(Qt.Key.Key_Z, SHIFT)
    # classes in a menu
    d.choose(0)
    d.qtbot.keyClick(d.wall, Qt.Key.Key_L)
    menu = QApplication.activePopupWidget()
    assert [a.text() for a in menu.actions()] == ["&1  background", "&2  cell"]
    menu.actions()[1].trigger()
    menu.close()
    d.settle()
    assert d.gallery.item(1).label == "cell"
    assert "stands for cell" in d.says()
    # the keyboard alone goes through the items
    d.wall.setFocus()
    d.wall.clearSelection()
    d.qtbot.keyClick(d.wall, Qt.Key.Key_Home)
    d.qtbot.keyClick(d.wall, Qt.Key.Key_Right)
    assert len(d.state.selected) == 1
    d.qtbot.keyClick(d.wall, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
    assert len(d.state.selected) == 3
    d.qtbot.keyClick(d.wall, Qt.Key.Key_Escape)
    assert d.state.selected == ()


def test_what_cannot_be_merged_is_said(ready):
    d = ready
    d.choose(0, 1)
    d.key(Qt.Key.Key_M)
    assert d.says() == texts.MERGE_CLASSES
    d.choose(0)
    d.key(Qt.Key.Key_M)
    assert d.says() == texts.SELECT_TWO
    assert [i.status for i in d.gallery.items()] == ["kept"] * 3


def test_a_merged_and_a_relabelled_prototype_change_the_mask(ready):
    d = ready
    d.choose(0)
    d.dock.editor.relabel("cell")
    d.settle()
    difference = ours(d, layers.DIFFERENCE)
    assert (difference.data[30:36, 4:40] == 1).all()  # what was background is cell now
    d.dock.act("undo")
    d.settle()
    assert not difference.data.any()


def test_filters_sort_and_search(ready):
    d = ready
    box = d.dock.filters.classes
    box.setCurrentIndex(box.findData("cell"))
    box.activated.emit(box.currentIndex())
    assert d.shown() == [2, 3]
    d.dock.filters.turn.click()
    assert d.shown() == [3, 2]
    box.setCurrentIndex(0)
    box.activated.emit(0)
    order = d.dock.filters.order
    order.setCurrentIndex(order.findData("activity"))
    order.activated.emit(order.currentIndex())
    assert d.shown() == [3, 2, 1]
    d.gallery.set_note(1, "mitosis")
    d.dock.filters.search.setText("mitosis back")
    d.wait(lambda: d.shown() == [1])
    for text, found in (
        ("activity>0.15", [3, 2]), ("activity<.15", [1]), ("activity>0.15 activity<0.25", [2]), ("age<1", [3, 2, 1]),
        ("age>1", []), ("age<1 cell", [3, 2]),
    ):  # fmt: skip
        d.dock.filters.search.setText(text)
        d.wait(lambda found=found: d.shown() == found)
    d.dock.filters.search.setText("mitosis")
    d.dock.filters.images.showPopup()
    d.dock.filters.images.hidePopup()
    assert d.dock.filters.images.count() == 2


def test_clicks_go_to_the_place(ready):
    d = ready
    d.viewer.scene.camera.center = (0, 0)
    d.click(2)
    d.wait(lambda: any(x.name == "item 3" for x in d.viewer.layers))
    centre = d.session.image_layer.data_to_world((47.5, 55.5))
    np.testing.assert_allclose(d.viewer.scene.camera.center[-2:], centre, atol=1e-6)
    # Enter does the same, and the frame moves instead of multiplying
    d.wall.setCurrentIndex(d.wall.items.index(1, 0))
    d.key(Qt.Key.Key_Return)
    assert [x.name for x in d.viewer.layers if x.name.startswith("item")] == ["item 2"]
    # with Ctrl a click only selects
    d.viewer.scene.camera.center = (0, 0)
    d.click(0, Qt.KeyboardModifier.ControlModifier)
    d.qtbot.wait(QApplication.doubleClickInterval() + 50)
    np.testing.assert_allclose(d.viewer.scene.camera.center[-2:], (0, 0))


def test_a_double_click_shows_where_else_it_fires(ready):
    d = ready
    d.viewer.scene.camera.center = (0, 0)
    d.double_click(2)
    d.settle()
    layer = ours(d, layers.MAP)
    assert layer.data.shape == (64, 80)
    assert layer.data[48, 56] > 9
    assert layer.data[16, 16] < 3
    assert layer.visible
    d.qtbot.wait(QApplication.doubleClickInterval() + 50)
    # it did not jump as well
    np.testing.assert_allclose(d.viewer.scene.camera.center[-2:], (0, 0))
    # Space on another one: the same layer
    d.wall.setCurrentIndex(d.wall.items.index(1, 0))
    d.key(Qt.Key.Key_Space)
    assert ours(d, layers.MAP) is layer
    assert layer.data[16, 16] > 9
    np.testing.assert_allclose(layer.data_to_world((5, 6)), d.session.image_layer.data_to_world((5, 6)))


def test_a_pixel_tells_what_made_it_so(ready):
    d = ready
    d.wall.setFocus()
    d.qtbot.keyClick(d.wall, Qt.Key.Key_W)
    panel = d.dock.why
    assert panel.isVisibleTo(d.dock)
    assert panel.hint.isVisibleTo(panel)
    picker = d.dock.clicks.picker
    assert picker.take(d.session.image_layer.data_to_world(PLACES[3]))
    picker.pointed.emit(False)
    d.settle()
    why = panel.why
    assert why.label == "cell"
    assert why.rows[0].number == 3
    assert why.total == pytest.approx(sum(row.product for row in why.rows))
    seen = d.dock.looker.seen
    logits = seen.view.logits()[:, 48, 56]
    assert why.total == pytest.approx(float(logits[1]), abs=1e-4)
    last = panel.table.rowCount() - 1
    assert panel.table.item(last, 0).text() == texts.WHY_SUM.format(label="cell")
    assert panel.table.item(last, 4).text() == f"{why.total:+.2f}"
    assert f"{why.total:.2f}" in panel.title.text()
    assert not panel.table.item(0, 0).icon().isNull()
    # a row is an item of the gallery
    panel.table.selectRow(0)
    assert d.state.selected == (3,)
    # after an edit the same pixel is explained by what is left
    d.key(Qt.Key.Key_Delete)
    picker.pointed.emit(False)
    d.settle()
    assert panel.why.label == "background"
    assert 3 not in [row.number for row in panel.why.rows]
    d.key(Qt.Key.Key_W)
    assert not panel.isVisibleTo(d.dock)
    assert not picker.active


def test_a_pixel_without_a_gallery_and_a_network_without_prototypes(empty):
    from viewer_help import make_model

    d = empty
    d.image(squares())
    d.use(shades())
    d.dock.looker.ask_why(PLACES[2])
    d.settle()
    assert d.dock.why.why.label == "cell"
    assert [row.item for row in d.dock.why.why.rows] == [None] * 3
    d.use(make_model())
    d.dock.looker.ask_why(PLACES[2])
    d.settle()
    assert d.says() == texts.NO_PROTOTYPES.format(model="bright")


def test_coverage_and_leak(ready):
    d = ready
    known = d.state.measured_now
    shares = {part.item: part.share for part in known.parts}
    assert sum(shares.values()) == pytest.approx(1)
    assert shares[1] > 0.8
    assert shares[2] == pytest.approx(256 / 5120, abs=0.02)
    assert len(d.dock.coverage.parts) == 3
    assert "item 2 (cell)" in d.dock.coverage.parts[1][2] + d.dock.coverage.parts[2][2]
    assert d.dock.leak.text() == texts.LEAK.format(count=3)
    # a click on the bar selects
    bar = d.dock.coverage
    d.qtbot.mouseClick(bar, Qt.MouseButton.LeftButton, pos=QPoint(3, bar.height() // 2))
    assert d.state.selected == (1,)
    # what comes from this image and is dropped leaks no more
    d.state.select([1, 2, 3])
    d.dock.act("drop")
    d.settle()
    assert d.dock.leak.text() == texts.NO_LEAK
    # an image that nothing comes from
    d.dock.act("undo")
    d.settle()
    d.image(np.flipud(squares()).copy(), name="other")
    d.settle()
    assert d.dock.leak.text() == texts.NO_LEAK


def test_what_is_of_another_image_or_model_goes(ready):
    d = ready
    d.choose(2)
    d.key(Qt.Key.Key_Delete)
    assert ours(d, layers.AFTER) is not None
    first = d.session.image_layer
    other = d.image(np.full((64, 80), MIDDLE, np.float32) * np.linspace(0.9, 1.1, 80, dtype=np.float32))
    d.settle()
    # the edit is of the gallery, so the other image is seen with it
    after = ours(d, layers.AFTER)
    assert after.metadata[MARK]["of"][0] == layer_id(other)
    np.testing.assert_allclose(after.data_to_world((5, 6)), other.data_to_world((5, 6)))
    assert d.viewer.layers.index(after) > d.viewer.layers.index(other)
    d.session.question.layer_id = layer_id(first)
    d.settle()
    assert ours(d, layers.AFTER).metadata[MARK]["of"][0] == layer_id(first)
    d.use(shades(values=(DARK, 0.8, 0.3)))
    d.settle()
    assert d.dock.coverage.why_empty == texts.OTHER_MODEL.format(wanted="shades", have="shades")
    assert d.state.measured_now.parts == ()
    # another gallery: nothing of the old one is left in sight
    d.dock.files.close()
    assert not after.visible
    assert not after.data.any()


def test_a_second_viewer_sees_edits(ready, gallery_dock):
    first = ready
    second = gallery_dock()
    second.open(Gallery.open(first.gallery.folder))
    assert second.shown() == [1, 2, 3]
    first.choose(2)
    first.key(Qt.Key.Key_Delete)
    second.wait(lambda: second.shown() == [1, 2])
    assert second.says().startswith("Edited elsewhere: dropped item 3")
    # and the second can take it back
    second.wall.setFocus()
    second.key(Qt.Key.Key_Z, SHIFT)
    first.wait(lambda: first.shown() == [1, 2, 3])
    first.settle()
    assert not ours(first, layers.DIFFERENCE).data.any()


def test_a_closed_gallery_is_gone_and_opens_with_what_it_showed(make_napari_viewer, qtbot, tmp_path):
    viewer = make_napari_viewer(show=True)
    first = docking.gallery_of(viewer)
    first.files.show(gallery_of(shades(), tmp_path / "g.gallery"))
    qtbot.wait(50)
    gone = []
    first.destroyed.connect(lambda: gone.append(True))
    del first
    (holder,) = viewer.window._wrapped_dock_widgets.values()
    holder.destroyOnClose()
    del holder
    qtbot.waitUntil(lambda: bool(gone))
    assert docking.gallery_of(viewer, make=False) is None
    again = docking.gallery_of(viewer)
    assert again.wall.items.rowCount() == 3
    # below the picture, both times
    main = again.window()
    qtbot.waitUntil(lambda: again.isVisible())
    qtbot.wait(50)
    assert main.dockWidgetArea(links.dock_around(again)) == Qt.DockWidgetArea.BottomDockWidgetArea
    qtbot.waitUntil(lambda: not (again.editor.busy or again.looker.busy))
    again.stop()


def test_a_time_lapse_is_seen_slice_by_slice(gallery_dock, tmp_path):
    d = gallery_dock()
    model = shades()
    film = np.stack([squares(), np.flipud(squares()), squares()])
    layer = d.image(film, name="film", scale=(1, 2, 2))
    d.session.set_axes(layer, "TYX")
    d.use(model)
    d.viewer.dims.set_current_step(0, 0)
    gallery = gallery_of(model, tmp_path / "g.gallery")
    d.open(gallery)
    d.state.select([3])
    d.dock.act("drop")
    d.settle()
    difference = ours(d, layers.DIFFERENCE)
    assert difference.data.shape == (1, 64, 80)
    assert (difference.data[0, 42:54, 50:62] == 2).all()
    d.viewer.dims.set_current_step(0, 1)
    d.settle()
    assert ours(d, layers.DIFFERENCE) is difference
    assert (difference.data[0, 10:22, 50:62] == 2).all()
    np.testing.assert_allclose(difference.data_to_world((0, 5, 6)), layer.data_to_world((1, 5, 6)))
    # what is added remembers its time point, and is gone back to
    d.dock.adder.under(layer.data_to_world((1, 48, 16)))
    d.settle()
    item = d.state.gallery.items()[-1]
    assert item.select == {"T": 1}
    d.viewer.dims.set_current_step(0, 2)
    d.settle()
    d.dock.jumper.go(item)
    d.settle()
    assert d.viewer.dims.current_step[0] == 1


def test_a_volume(gallery_dock, tmp_path):
    from prototypes import tiny
    from seglens.workspace.gallery import gallery_of_model

    d = gallery_dock()
    model = tiny(dims=3)
    rng = np.random.default_rng(0)
    layer = d.image(rng.random((6, 20, 24)).astype(np.float32), scale=(3, 1, 1))
    d.use(model)
    d.open(gallery_of_model(model, tmp_path / "g.gallery"))
    assert d.state.measured_now.parts
    d.state.select([d.state.measured_now.parts[0].item])
    d.dock.act("drop")
    d.settle()
    after = ours(d, layers.AFTER)
    assert after is None or after.data.shape == (6, 20, 24)
    d.dock.looker.ask_why(layer.data_to_world((3, 4, 5)))
    d.settle()
    why = d.dock.why.why
    assert why.position == (3, 4, 5)
    assert "z 3, y 4, x 5" in d.dock.why.title.text()
    assert why.total == pytest.approx(sum(row.product for row in why.rows))


def test_one_click_means_one_thing(ready):
    d = ready
    d.dock.clicks.set_active(True)
    d.dock.adder.click()
    assert not d.dock.clicks.active
    d.dock.act("why")
    assert d.dock.clicks.active
    assert not d.dock.adder.picker.active


def test_ten_thousand_items(empty, tmp_path):
    import time

    d = empty
    count = 10_000
    gallery = many(tmp_path / "many.gallery", count)
    begin = time.perf_counter()
    d.dock.files.show(gallery)
    opened = time.perf_counter() - begin
    d.settle()
    assert d.wall.items.rowCount() == count
    assert opened < 2
    bar = d.wall.verticalScrollBar()
    d.wait(lambda: bar.maximum() > 10_000)
    took = []
    for at in np.linspace(0, bar.maximum(), 60).astype(int):
        begin = time.perf_counter()
        bar.setValue(int(at))
        QApplication.processEvents()
        took.append(time.perf_counter() - begin)
    assert np.median(took) < 0.1
    # only what was seen was read and decoded
    d.qtbot.wait(50)
    assert d.wall.items.read <= 24 * 200
    assert d.dock.thumbs.decoded < 4000
    # the last one is there, by number
    assert d.wall.items.item(count - 1) is not None
    # an edit far down keeps the place
    bar.setValue(bar.maximum() // 2)
    before = bar.value()
    row = d.wall.indexAt(QPoint(60, 60)).row()
    key = d.wall.items.item(row).id
    d.state.select([key])
    bar.setValue(before)
    d.dock.act("drop")
    d.settle()
    assert d.wall.items.rowCount() == count - 1
    assert abs(bar.value() - before) < 200
