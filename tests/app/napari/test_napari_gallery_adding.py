"""What is added to a gallery: painted regions, objects, and what the network makes of them; images that are gone."""

import numpy as np
import pytest
import tifffile
from gallery_help import LIGHT, MIDDLE, gallery_of, shades, squares
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication
from viewer_help import make_model

from seglens.app.napari import adapt, results
from seglens.app.napari.commands import add_to_gallery
from seglens.app.napari.gallery import layers, texts
from seglens.app.napari.viewer_session import MARK, layer_id
from seglens.engine.features import region_vector
from seglens.workspace.gallery import Gallery


@pytest.fixture
def ready(gallery_dock, tmp_path):
    """A network that does not know the middle shade for a cell, and its gallery."""
    d = gallery_dock()
    d.model = shades(values=(0.1, LIGHT), owners=(0, 1))
    d.layer = d.image(squares(), name="squares", scale=(2, 2))
    d.use(d.model)
    gallery = Gallery.create(
        tmp_path / "two.gallery", title="two", classes=["background", "cell"], model="shades", model_source="shades",
        model_sha256=d.model.fingerprint(),
    )  # fmt: skip
    d.gallery = gallery
    d.open(gallery)
    return d


def paint(d, where, value=1):
    """Paint on a target layer of the image's grid."""
    target = results.target_layer(d.viewer, d.layer, "YX")
    target.data[where] = value
    results.add(d.viewer, target)
    d.session.question.target_id = layer_id(target)
    return target


def difference(d):
    """The layer with what an edit changed."""
    return next((x for x in d.viewer.layers if x.metadata.get(MARK, {}).get("gallery") == layers.DIFFERENCE), None)


def test_a_painted_region_becomes_a_prototype_at_once(ready):
    d = ready
    assert d.session.model.loaded is d.model
    paint(d, np.s_[42:54, 50:62])
    d.session.question.of_class = "cell"
    d.dock.adder.painted()
    d.settle()
    item = d.gallery.item(1)
    assert item.label == "cell"
    assert item.prototype is None
    assert item.box == ((42, 54), (50, 62))
    assert 42 <= item.position[0] < 54
    assert item.image == adapt.image_of(d.layer, "YX").fingerprint()
    np.testing.assert_allclose(d.gallery.vector(1), [MIDDLE], atol=1e-6)
    assert d.gallery.crop(1).dtype == np.uint8
    # the middle square is a cell now, and it is said how much that is
    assert (difference(d).data[42:54, 50:62] == 1).all()
    assert d.says().startswith(texts.ADDED.format(id=1, label="cell"))
    assert "more" in d.says()
    assert d.state.selected == (1,)
    assert {part.item for part in d.state.measured_now.parts} >= {1}
    # what it explains, and where else it fires
    d.dock.looker.show_map(d.wall.items.item(0))
    d.settle()
    shown = next(x for x in d.viewer.layers if x.metadata.get(MARK, {}).get("gallery") == layers.MAP)
    assert shown.data[48, 56] > 9
    # taken back, the mask is as it was
    d.dock.act("undo")
    d.settle()
    assert d.shown() == []
    assert not difference(d).data.any()


def test_a_clicked_object_is_added_with_its_class(ready):
    d = ready
    d.dock.adder.click()
    assert d.says() == texts.CLICK_OBJECT
    picker = d.dock.adder.picker
    assert picker.take(d.layer.data_to_world((16, 16)))
    picker.pointed.emit(False)
    d.settle()
    assert not picker.active
    item = d.gallery.item(1)
    assert item.label == "cell"
    # edges of the mask are those of the layer's half resolution
    assert np.abs(np.array(item.box) - ((8, 24), (8, 24))).max() <= 2
    # a click beside every object says so
    d.dock.adder.click()
    picker.take(d.layer.data_to_world((4, 70)))
    picker.pointed.emit(False)
    d.settle()
    assert len(d.gallery) == 1
    assert "background" in d.says().lower() or "no object" in d.says().lower()
    # outside of the image nothing happens
    d.dock.adder.click()
    assert not picker.take((-500.0, -500.0))
    d.qtbot.keyClick(d.dock, Qt.Key.Key_Escape)
    assert not picker.active


def test_the_shortcut_adds_what_is_under_the_cursor(ready):
    d = ready
    target = paint(d, np.s_[42:54, 50:62])
    d.viewer.cursor.position = tuple(d.layer.data_to_world((16, 16)))
    add_to_gallery()
    d.settle()
    assert d.gallery.item(1).position[0] < 24  # the object, since the cursor is beside the paint
    d.viewer.cursor.position = tuple(d.layer.data_to_world((48, 56)))
    add_to_gallery()
    d.settle()
    assert d.gallery.item(2).box == ((42, 54), (50, 62))
    assert target in d.viewer.layers


def test_the_menu_of_adding(ready):
    d = ready
    d.wall.setFocus()
    d.qtbot.keyClick(d.dock.wall, Qt.Key.Key_A)
    menu = QApplication.activePopupWidget()
    assert [a.text() for a in menu.actions()] == [texts.ADD_PAINTED, texts.ADD_OBJECT]
    menu.actions()[0].trigger()
    menu.close()
    d.settle()
    assert d.says().startswith(texts.NOTHING_PAINTED)
    paint(d, np.s_[0:0, 0:0])
    d.dock.adder.painted()
    d.settle()
    assert "Nothing is painted" in d.says()
    assert len(d.gallery) == 0


def test_a_gallery_of_a_plain_network_takes_its_layer(gallery_dock, tmp_path):
    d = gallery_dock()
    model = make_model()
    layer = d.image(squares(), name="squares")
    d.use(model)
    d.dock.files._start("", lambda run, emit: None, lambda _: None)
    d.settle()
    from seglens.app.napari.gallery.files import _blank
    from seglens.core.run import Run

    gallery = _blank(Run(), print, model=model, folder=tmp_path / "plain.gallery")
    assert gallery.info.layer == "features"
    d.open(gallery)
    assert d.dock.empty.text() == texts.NO_ITEMS
    d.dock.adder.under(layer.data_to_world((16, 16)))
    d.settle()
    item = gallery.item(1)
    assert item.label == "cell"
    from seglens.core.run import Run
    from seglens.core.target import Object, Target
    from seglens.engine.resolve import resolve

    case = resolve(adapt.image_of(layer, "YX"), model, Target(None, Object(at=(16, 16))), Run())
    np.testing.assert_allclose(gallery.vector(1), region_vector(case, "features", case.target.region), atol=1e-6)
    d.dock.looker.show_map(d.wall.items.item(0))
    d.settle()
    shown = next(x for x in d.viewer.layers if x.metadata.get(MARK, {}).get("gallery") == layers.MAP)
    assert shown.data[16, 16] == pytest.approx(1, abs=1e-4)
    # the bar is about the objects, and all of them are nearest to the only item
    assert [part.item for part in d.state.measured_now.parts] == [1]


def test_an_image_is_opened_and_one_that_is_gone_is_said(gallery_dock, tmp_path):
    file = tmp_path / "there.tif"
    tifffile.imwrite(file, (255 * squares()).astype(np.uint8))
    d = gallery_dock()
    gallery = gallery_of(shades(), tmp_path / "g.gallery", "f" * 64, str(file))
    d.open(gallery)
    d.dock.jumper.go(d.wall.items.item(1))
    d.settle()
    opened = d.session.image_layer
    assert opened.name == "there"
    assert opened.data.shape == (64, 80)
    np.testing.assert_allclose(d.viewer.scene.camera.center[-2:], (15.5, 15.5))
    # it is not opened twice
    d.dock.jumper.go(d.wall.items.item(2))
    d.settle()
    assert [x.name for x in d.viewer.layers if x.metadata.get(MARK) is None] == ["there"]
    # the file and the layer go: nothing is lost, and it is said
    d.viewer.layers.clear()
    file.rename(tmp_path / "elsewhere.tif")
    d.dock.jumper.go(d.wall.items.item(1))
    d.settle()
    assert d.says() == texts.MISSING.format(name="squares", source=file)
    assert d.state.missing == {str(file)}
    assert d.shown() == [1, 2, 3]
    assert d.dock.thumbs.get(2) is not None or d.dock.thumbs.decoded
    # and it can be found again
    d.dock.files._start(texts.SEARCHING, lambda run, emit: _relocate(gallery, tmp_path, run), d.dock.files._relocated)
    d.settle()
    assert d.says() == texts.FOUND.format(count=3, left=0)
    assert d.state.missing == set()
    d.dock.jumper.go(d.wall.items.item(1))
    d.settle()
    assert d.session.image_layer.name == "elsewhere"


def _relocate(gallery, folder, run):
    from seglens.app.napari.gallery.files import _relocate as relocate

    return relocate(run, print, gallery=gallery, folder=str(folder))


def test_an_image_that_never_was_a_file(gallery_dock, tmp_path):
    d = gallery_dock()
    gallery = gallery_of(shades(), tmp_path / "g.gallery", "0" * 64)
    d.open(gallery)
    d.dock.jumper.go(d.wall.items.item(0))
    d.settle()
    assert d.says() == texts.NEVER_A_FILE.format(name="squares")
    # the very pixels are found in an open layer, whatever its name is
    layer = d.image(squares(), name="renamed")
    d.image(np.zeros((64, 80), np.float32), name="other")
    gallery.add(
        label="cell", crop=gallery.crop(2), position=(16, 16), box=((8, 24), (8, 24)),
        image=adapt.image_of(layer, "YX").fingerprint(), name="squares",
    )  # fmt: skip
    d.dock.editor.watch()
    d.dock.jumper.go(gallery.item(4))
    d.settle()
    assert d.session.image_layer is layer


def test_a_gallery_that_is_deleted_is_said_once(gallery_dock, tmp_path):
    import shutil

    d = gallery_dock()
    folder = tmp_path / "g.gallery"
    d.open(gallery_of(shades(), folder))
    d.state.gallery.close()
    shutil.rmtree(folder)
    d.wait(lambda: d.state.gallery is None)
    assert d.says().startswith(texts.GONE.format(name="shades", what="")[:20])
    assert d.dock.empty.text() == texts.EMPTY
