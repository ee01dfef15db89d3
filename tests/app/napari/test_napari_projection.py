"""The projection dock: points of a bank, lasso and click, and the links to gallery, layers and tables."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from viewer_help import make_model

from seglens.app.napari import below, plots
from seglens.app.napari.gallery.docking import gallery_of
from seglens.app.napari.gallery.state import state_of
from seglens.app.napari.projection import marks, texts
from seglens.app.napari.projection.colouring import paint
from seglens.app.napari.projection.dock import CONCEPT, LEAST, open_in
from seglens.app.napari.viewer_session import Made, is_ours
from seglens.core.explanation import Table
from seglens.engine.features import BankInfo, Entry, FeatureBank

PER = 12  # points of each of two kinds


def entry(number, kind, source):
    y = 4 * (number % 6)
    return Entry(
        f"image {kind}", f"picture {kind}", source if kind == 0 else "", {}, "object", (y + 1, 10 * kind + 1),
        ((y, y + 3), (10 * kind, 10 * kind + 3)), 9, "cell", "cell" if number % 2 else "background",
        0.9 if kind == 0 else 0.1, f"slide {kind}",
    )  # fmt: skip


@pytest.fixture
def bank(tmp_path):
    """Two kinds of points that lie far apart; those of the first kind come from one open image."""
    rng = np.random.default_rng(0)
    info = BankInfo("features", "object", "YX", 8, ("background", "cell"), model="bright")
    made = FeatureBank.create(tmp_path / "two.bank", info)
    for kind in (0, 1):
        vectors = rng.normal(0, 0.1, (PER, 8)) + 4 * kind
        made.append(vectors, [entry(n, kind, str(tmp_path / "picture.tif")) for n in range(PER)])
    return made


def opened(drive, bank, qtbot):
    """The dock with the bank in it."""
    driver = drive(show=True)
    driver.use(make_model())
    image = driver.viewer.add_image(np.zeros((32, 32), np.float32), name="picture")
    image.metadata["seglens_source"] = bank.entries([0])[0].source
    driver.session.question.layer_id = str(image.unique_id)
    dock = open_in(driver.viewer)
    dock.open_bank(bank.folder)
    qtbot.waitUntil(lambda: dock.shown is not None, timeout=30_000)
    return driver, dock


def around(dock, rows):
    """A lasso around the points of some rows."""
    points = dock.plane._points[dock.shown.places(rows)]
    (left, low), (right, high) = points.min(0) - 0.1, points.max(0) + 0.1
    return [(left, low), (right, low), (right, high), (left, high), (left, low)]


def test_an_empty_dock_says_what_to_do(drive):
    dock = open_in(drive().viewer)
    assert dock.stack.currentWidget() is dock.empty
    assert "Bank" in dock.empty.text()
    assert not dock.show_button.isEnabled()
    assert not dock.concept.isEnabled()


def test_a_lasso_selects_its_points_and_frames_them_in_the_image(drive, bank, qtbot):
    driver, dock = opened(drive, bank, qtbot)
    dock.plane._drawn(around(dock, range(PER)))
    assert sorted(dock.rows) == list(range(PER))
    assert "mean IoU 0.90" in dock.told.text()
    assert "all: 0.50" in dock.told.text()
    frames = [x for x in driver.viewer.layers if is_ours(x, marks.ROLE)]
    assert len(frames) == 1
    assert len(frames[0].data) == 4 * PER
    # the gallery, were it open, would show the same rows
    assert state_of(driver.viewer).rows == dock.rows
    dock.select(())
    assert not [x for x in driver.viewer.layers if is_ours(x, marks.ROLE)]


def test_what_lies_in_other_images_is_not_framed(drive, bank, qtbot):
    driver, dock = opened(drive, bank, qtbot)
    dock.plane._drawn(around(dock, range(PER, 2 * PER)))
    assert sorted(dock.rows) == list(range(PER, 2 * PER))
    assert not [x for x in driver.viewer.layers if is_ours(x, marks.ROLE)]


def test_a_click_selects_one_point_and_goes_there(drive, bank, qtbot):
    driver, dock = opened(drive, bank, qtbot)
    at = dock.plane._points[dock.shown.places([7])[0]]
    dock.plane._drawn([tuple(at)])
    assert dock.rows == (7,)
    qtbot.waitUntil(lambda: any(is_ours(x, "row") for x in driver.viewer.layers), timeout=10_000)
    assert "row 7: cell" in told(dock)


def told(dock):
    dock.plane._hover(int(dock.shown.places([7])[0]))
    return dock.plane.tip.text()


def test_selected_thumbnails_are_ringed_among_the_points(drive, bank, qtbot):
    driver, dock = opened(drive, bank, qtbot)
    state = state_of(driver.viewer)
    state.show_rows(dock.shown.bank, range(2 * PER))
    state.select([3, 20])
    rings = np.asarray(dock.plane._chosen.get_offsets())
    np.testing.assert_allclose(rings, dock.plane._points[dock.shown.places([3, 20])])


def test_the_object_that_is_picked_is_selected(drive, bank, qtbot):
    driver, dock = opened(drive, bank, qtbot)
    driver.session.question.spot = (9.0, 1.0)  # inside the box of the third point
    qtbot.waitUntil(lambda: dock.rows == (2,) or dock.rows == (8,), timeout=10_000)


def test_a_row_of_an_answers_table_is_selected(drive, bank, qtbot):
    driver, dock = opened(drive, bank, qtbot)
    made = Made({}, tables=(Table("neighbours", {"row": [4, 15], "distance": [0.1, 0.2]}),))
    page = plots.TablePage(driver.session, made, made.tables[0])
    page.go(1)
    assert dock.rows == (15,)


def test_the_table_of_objects_sorts_and_goes(drive, bank, qtbot):
    driver, dock = opened(drive, bank, qtbot)
    assert dock.table.rows.rowCount() == 2 * PER
    dock.plane._drawn(around(dock, range(PER)))
    assert dock.table.rows.rowCount() == PER
    assert {dock.table.rows.row(n)["image"] for n in range(PER)} == {"picture 0"}
    dock._table_clicked(dock.table.rows.index(0, 0))
    qtbot.waitUntil(lambda: any(is_ours(x, "row") for x in driver.viewer.layers), timeout=10_000)


def test_a_lasso_becomes_a_concept(drive, bank, qtbot):
    driver, dock = opened(drive, bank, qtbot)
    dock.select(range(LEAST - 1))
    dock.use_as_concept()
    assert str(LEAST) in dock.told.text()
    assert CONCEPT not in driver.session.values
    dock.select([0, 1, 2, 3, 9, 11])
    dock.use_as_concept()
    assert driver.session.question.method == CONCEPT
    assert driver.session.values[CONCEPT]["rows"] == "0-3,9,11"


def test_it_is_drawn_in_other_ways(drive, bank, qtbot):
    _, dock = opened(drive, bank, qtbot)
    for box in (dock.controls.colour, dock.controls.axes):
        for index in range(box.count()):
            box.setCurrentIndex(index)
    dock.controls.axes.setCurrentIndex(0)
    dock.controls.heat.setChecked(True)
    assert dock.plane.figure.axes[0].collections[0].get_array().size == dock.shown.found.plane.smooth.size
    before = dock.shown
    dock.controls.clusters.setCurrentIndex(1)
    qtbot.waitUntil(lambda: dock.shown is not before, timeout=30_000)
    assert dock.shown.found.how == "dbscan"
    assert not dock.controls.k.isEnabled()


def test_colours_say_what_they_mean():
    found = SimpleNamespace(
        rows=np.arange(4), k=2, labels=np.array([0, 0, 1, -1]), iou=np.array([0.0, 1.0, np.nan, 0.5], np.float32)
    )
    entries = [SimpleNamespace(predicted=name, group="") for name in ("a", "a", "b", "b")]
    by_cluster = paint("cluster", found, entries)
    assert [name for name, _ in by_cluster.names] == ["cluster 1", "cluster 2", texts.NOISE]
    assert not np.array_equal(by_cluster.colours[0], by_cluster.colours[2])
    by_iou = paint("iou", found, entries)
    assert by_iou.scale
    assert not np.array_equal(by_iou.colours[0], by_iou.colours[1])
    assert [name for name, _ in paint("group", found, entries).names] == [texts.UNKNOWN]


def test_rows_are_written_short():
    assert texts.rows_text([5, 3, 8, 9, 10, 20]) == "3,5,8-10,20"
    assert texts.rows_text([0]) == "0"


def test_a_folder_that_is_no_bank_is_said(drive, tmp_path, qtbot):
    dock = open_in(drive().viewer)
    dock.open_bank(tmp_path)
    qtbot.waitUntil(lambda: "no feature bank" in dock.told.text(), timeout=10_000)


def test_the_gallery_opens_it_with_its_bank_and_both_are_tabs(drive, bank, qtbot):
    driver = drive(show=True)
    gallery = gallery_of(driver.viewer)
    qtbot.waitUntil(gallery.isVisible)
    qtbot.wait(50)  # it goes below the picture in its first turn
    gallery.files.open_bank(bank.folder)
    qtbot.waitUntil(lambda: gallery.state.bank is not None and gallery.files.job is None, timeout=20_000)
    gallery.filters.entries["points"].trigger()
    dock = open_in(driver.viewer)
    qtbot.waitUntil(lambda: dock.shown is not None, timeout=30_000)
    assert dock.shown.bank.folder == bank.folder
    main = gallery.window()
    holder = dock.parent()
    assert below.lies_there(holder)
    assert len(main.tabifiedDockWidgets(holder)) == 1


def test_work_is_stopped_by_its_button_and_what_was_drawn_stays(drive, bank, qtbot, monkeypatch):
    def slow(run, emit, **_):
        for n in range(10_000):
            run.progress(n, 10_000, "slowly")
            time.sleep(0.01)

    _, dock = opened(drive, bank, qtbot)
    qtbot.waitUntil(dock.stop.isHidden)
    before = dock.shown
    monkeypatch.setattr("seglens.app.napari.projection.work.project", slow)
    dock.controls.clusters.setCurrentIndex(1)
    qtbot.waitUntil(lambda: not dock.stop.isHidden() and "slowly" in dock.told.text())
    dock.stop.click()
    qtbot.waitUntil(dock.stop.isHidden, timeout=5_000)
    assert dock.told.text() == texts.STOPPED
    assert dock.shown is before
    assert dock.job is None
