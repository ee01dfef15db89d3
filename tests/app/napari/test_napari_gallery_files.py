"""Galleries as files from the dock's menu: made, opened, copied, exported, imported; rows of a bank; the bank's row."""

import csv
from pathlib import Path

import numpy as np
import pytest
import tifffile
from gallery_help import gallery_of, shades, squares
from qtpy.QtWidgets import QFileDialog
from viewer_help import blobs, make_model

from seglens.app.napari import asking, words
from seglens.app.napari.gallery import texts
from seglens.app.napari.gallery.state import GalleryState, state_of
from seglens.core.run import Run
from seglens.engine.features import FeatureBank, build_bank
from seglens.workspace.gallery import Gallery


@pytest.fixture
def answers(monkeypatch):
    """What file dialogs answer: set ``answers["path"]``."""
    told = {"path": ""}
    for name in ("getSaveFileName", "getOpenFileName"):
        monkeypatch.setattr(QFileDialog, name, lambda *_, **__: (told["path"], ""))
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_, **__: told["path"])
    return told


@pytest.fixture
def bank(tmp_path):
    """A bank of the objects of three images in files."""
    folder = tmp_path / "images"
    folder.mkdir()
    for n in range(3):
        tifffile.imwrite(folder / f"i{n}.tif", np.roll(blobs(64, 80), n, 1).astype(np.float32))
    made = build_bank(make_model(), folder, tmp_path / "small.bank", run=Run())
    yield made
    made.close()


def pick(d, key):
    """Choose an entry of the menu and wait."""
    d.dock.filters.entries[key].trigger()
    d.settle()


def test_a_gallery_of_the_chosen_network(gallery_dock, tmp_path, answers):
    d = gallery_dock()
    model = shades()
    model.module.head.provenance = [
        {"number": n, "image": "", "name": "squares", "source": "", "position": [8, 8], "box": [[0, 16], [0, 16]],
         "crop": np.full((16, 16), 40 * n, np.uint8)} for n in (1, 2, 3)
    ]  # fmt: skip
    pick(d, "model")
    assert d.says() == texts.NEEDS_DOCK
    d.image(squares())
    d.use(model)
    pick(d, "model")  # the dialog is cancelled
    assert d.state.gallery is None
    answers["path"] = str(tmp_path / "mine")
    pick(d, "model")
    assert d.says() == texts.OPENED.format(title="mine", count=3)
    assert d.state.folder == tmp_path / "mine.gallery"
    assert [i.prototype for i in d.state.gallery.items()] == [1, 2, 3]
    assert d.dock.filters.menu_button.text() == "mine"
    # the same name again opens what is there
    first = d.state.gallery
    d.state.select([2])
    d.dock.act("drop")
    d.settle()
    pick(d, "model")
    assert d.state.gallery is not first
    assert d.state.gallery.item(2).status == "dropped"
    # but not for another network
    d.use(shades(values=(0.2, 0.8, 0.5)))
    pick(d, "model")
    assert "not of shades" in d.says()
    pick(d, "close")
    assert d.dock.empty.text() == texts.EMPTY
    answers["path"] = str(tmp_path / "mine.gallery")
    pick(d, "open")
    assert d.shown() == [1, 3]
    answers["path"] = str(tmp_path)
    pick(d, "open")
    assert d.state.message.level == "error"


def test_activation_is_measured_once_and_when_asked(gallery_dock, tmp_path):
    d = gallery_dock()
    model = shades()
    d.image(squares())
    d.use(model)
    made = gallery_of(model, tmp_path / "g.gallery", activity=False)
    d.open(made)
    first = {item.id: item.activity for item in made.items()}
    assert first[1] > 0.8
    assert first[2] == pytest.approx(256 / 5120, abs=0.02)
    assert d.dock.painter.most == pytest.approx(first[1])
    assert [e.kind for e in made.history()] == ["measure", "edit"]
    # another image changes nothing by itself, and nobody takes it for an edit of others
    light = np.full((64, 80), 0.9, np.float32)
    light[0] = 0.8
    d.image(light)
    d.settle()
    d.qtbot.wait(800)
    assert {item.id: item.activity for item in made.items()} == first
    assert "elsewhere" not in d.says()
    pick(d, "activity")
    assert made.item(2).activity == pytest.approx(1)


def test_the_edited_network_is_saved(gallery_dock, tmp_path, answers):
    from prototypes import tiny
    from seglens.models.loaders import load_model

    d = gallery_dock()
    model = tiny()
    d.image(squares())
    d.use(model)
    answers["path"] = str(tmp_path / "tiny.gallery")
    pick(d, "model")
    assert d.state.gallery is not None, d.says()
    d.state.select([1])
    d.dock.act("drop")
    d.settle()
    answers["path"] = str(tmp_path / "edited")
    pick(d, "network")
    assert d.says() == texts.SAVED.format(path=tmp_path / "edited")
    assert load_model(tmp_path / "edited").module.head.active.tolist() == [False, True, True, True]


def test_out_and_back_in(gallery_dock, tmp_path, answers):
    d = gallery_dock()
    d.open(gallery_of(shades(), tmp_path / "g.gallery"))
    answers["path"] = str(tmp_path / "page")
    pick(d, "html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "data:image/" in page
    answers["path"] = str(tmp_path / "items.csv")
    pick(d, "table")
    assert d.says() == texts.SAVED.format(path=tmp_path / "items.csv")
    with (tmp_path / "items.csv").open(encoding="utf-8") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["background", "cell", "cell"]
    answers["path"] = str(tmp_path / "out")
    pick(d, "folder")
    answers["path"] = str(tmp_path / "copied")
    pick(d, "save")
    assert len(Gallery.open(tmp_path / "copied.gallery")) == 3
    # into the open gallery
    answers["path"] = str(tmp_path / "out" / "items.csv")
    pick(d, "import")
    assert d.says() == texts.IMPORTED.format(count=3)
    assert len(d.state.gallery) == 6
    assert d.wall.items.rowCount() == 6
    # where it cannot be written, that is said
    answers["path"] = str(tmp_path / "nowhere" / "page.html")
    pick(d, "html")
    assert d.state.message.level == "error"
    assert "written" in d.says()
    # without an open gallery the import becomes one
    pick(d, "close")
    answers["path"] = str(tmp_path / "out" / "items.csv")
    monkey = d.dock.files._name
    d.dock.files._name = lambda name: str(tmp_path / "fresh.gallery")
    pick(d, "import")
    d.dock.files._name = monkey
    assert d.shown() == [1, 2, 3]


def test_history_is_read_beside_the_thumbnails(gallery_dock, tmp_path):
    d = gallery_dock()
    d.open(gallery_of(shades(), tmp_path / "g.gallery"))
    pick(d, "history")
    panel = d.dock.history
    assert panel.isVisibleTo(d.dock)
    assert panel.list.count() == 1
    d.state.select([1])
    d.dock.act("drop")
    d.settle()
    assert "dropped item 1" in panel.list.item(0).text()
    panel.closed.emit()
    assert panel.isHidden()


def test_rows_of_a_bank(gallery_dock, tmp_path, answers, bank):
    d = gallery_dock()
    told = []
    d.state.selection_changed.connect(lambda: told.append(d.state.selected_rows))
    answers["path"] = str(bank.folder)
    pick(d, "bank")
    count = len(bank)
    assert d.wall.items.rowCount() == count
    assert d.state.gallery is None
    assert not d.dock.filters.status.isEnabled()
    d.wait(lambda: d.dock.thumbs.decoded == count)
    assert d.dock.thumbs.get(0) is not None
    # they can be chosen and gone to, but not edited
    d.choose(1, 2)
    assert told[-1] == (1, 2)
    d.dock.act("drop")
    assert d.says() == texts.BANK_ONLY
    d.dock.jumper.go(d.wall.items.item(0))
    d.settle()
    assert d.session.image_layer.name == "i0"
    # and kept as a gallery
    answers["path"] = str(tmp_path / "kept")
    pick(d, "rows")
    assert len(d.state.gallery) == 2
    assert d.state.gallery.info.layer == "features"
    assert d.dock.filters.status.isEnabled()


def test_others_can_show_rows(gallery_dock, bank):
    d = gallery_dock()
    state_of(d.viewer).show_rows(bank, [3, 1], "two points")
    d.settle()
    assert d.shown() == [3, 1]
    assert d.dock.filters.menu_button.text() == "two points"
    # a selection from outside is shown, one in here is told
    d.state.select([1])
    assert [item.id for item in d.wall.chosen] == [1]
    d.click(0)
    assert d.state.selected_rows == (3,)
    d.wall._timer.stop()
    state_of(d.viewer).show_rows(bank, [0], "one")
    d.settle()
    assert d.shown() == [0]


def test_rows_wait_for_the_dock(bank):
    state = GalleryState()
    state.show_rows(bank, np.array([2]), "one")
    assert state.rows == (2,)
    assert state.bank is bank


def test_a_method_that_needs_a_bank_has_a_row_for_it(drive, tmp_path, answers, bank):
    d = drive()
    d.viewer.add_image(blobs(64, 80))
    d.use(make_model())
    row = d.dock.explain.method.bank
    d.session.question.method = "vanilla-gradient"
    assert row.isHidden()
    d.session.question.method = "nearest-examples"
    assert not row.isHidden()
    assert row.told.text() == words.BANK_EMPTY
    assert asking.why_not(d.session, "explain") == words.PICK_BANK
    answers["path"] = str(bank.folder)
    row.open.click()
    assert f"{len(bank)} examples (object) of 3 images" in row.told.text()
    assert asking.why_not(d.session, "explain") == ""
    d.dock.tabs.setCurrentIndex(1)
    d.run()
    assert d.session.shown is not None, d.say()
    record = d.session.shown.record
    assert record["asked"]["bank"] == str(bank.folder)
    # a folder that is no bank is said at once
    answers["path"] = str(tmp_path)
    row.open.click()
    assert "There is no feature bank" in row.told.text()


def test_a_bank_is_built_from_the_row(drive, tmp_path, answers):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for n in range(3):
        tifffile.imwrite(folder / f"p{n}.tif", np.roll(blobs(64, 80), n, 1).astype(np.float32))
    d = drive()
    d.viewer.add_image(blobs(64, 80))
    d.use(make_model())
    d.session.question.method = "nearest-examples"
    row = d.dock.explain.method.bank
    row.build.click()
    builder = row.builder
    assert not builder.isHidden()
    assert not builder.start.isEnabled()
    answers["path"] = str(folder)
    builder.images_button.click()
    assert builder.images_button.text() == "pictures"
    assert [builder.layer.itemText(n) for n in range(builder.layer.count())] == [words.BANK_LAYER_AUTO, "features"]
    assert builder.start.isEnabled()
    wish = builder.wish()
    builder.start.click()
    d.wait()
    assert builder.isHidden()
    assert d.session.question.bank == wish.out
    assert Path(wish.out).name == "pictures-bright-object.bank"
    with_bank = FeatureBank.open(wish.out)
    assert len(with_bank.images()) == 3
    with_bank.close()
    assert "6 examples" in d.say()
    # cancelled, it goes on where it was
    slow = make_model(pause=0.3)
    d.use(slow)
    builder.kind.setCurrentIndex(1)
    builder.start.click()
    d.wait(lambda: d.session.status.done > 0)
    d.press()
    d.wait()
    assert d.say() == words.stopped(words.BANK_BUILDING)
    builder.start.click()
    d.wait()
    assert "patch" in d.say()


def test_a_folder_without_images_is_said(drive, tmp_path):
    d = drive()
    d.viewer.add_image(blobs(64, 80))
    d.use(make_model())
    builder = d.dock.explain.method.bank.builder
    builder.set_folder("images", str(tmp_path / "home"))
    builder.start.click()
    d.wait()
    assert d.session.status.message.level == "error"
    assert d.session.question.bank == ""
