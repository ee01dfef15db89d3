"""Plots and tables of an answer: shown, sorted, copied, saved, and a row leads to its place."""

import csv
import gc
import math
import weakref

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Picture
from napari.utils.theme import get_theme
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import QFileDialog
from viewer_help import blobs, make_model

from seglens.app.napari import commands, drawing, going, plots, tables, words
from seglens.app.napari.results import Frame
from seglens.app.napari.viewer_session import Made, layer_id
from seglens.core.explanation import Figure, Table

INK = drawing.Ink("#222222", "#eeeeee", "#777777", "#4060c0")
TABLE = Table("windows", {"name": ["b", "a", "c"], "value": [2.5, -1.0, math.nan], "n": [9, 10, 2]})
LINE = Figure(
    "curve", "line", [0, 1, 2], {"score": [1, 2, 4], "score standard error": [0.1, 0.2, 0.5], "chance": [0, 0, 0]},
    "pixels", "logit",
)  # fmt: skip
TREE = Figure(
    "tree", "tree", ["all", "tissue", "background", "gland", "stroma"],
    {"parent": [-1, 0, 0, 1, 1], "probability": [1.0, 0.8, 0.2, 0.7, 0.1], "on path": [True, True, False, True, False]},
)  # fmt: skip


def drawn(figure):
    axes = Picture().add_subplot()
    drawing.draw(figure, axes, INK)
    return axes


def test_a_line_has_its_band_and_its_names():
    axes = drawn(LINE)
    assert [line.get_label() for line in axes.lines] == ["score", "chance"]
    (band,) = axes.collections
    y = band.get_paths()[0].vertices[:, 1]
    assert (y.min(), y.max()) == pytest.approx((0.9, 4.5))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("pixels", "logit")
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["score", "chance"]


def test_bars_stand_side_by_side_with_their_errors():
    series = {"a": [1, -2], "a standard error": [0.5, 0.5], "b": [3, None]}
    axes = drawn(Figure("f", "bar", ["x", "y"], series, "class", "drop"))
    heights = [patch.get_height() for patch in axes.patches]
    assert heights[:3] == [1, -2, 3]
    assert math.isnan(heights[3])
    assert len({round(patch.get_x(), 3) for patch in axes.patches}) == 4
    assert [t.get_text() for t in axes.get_xticklabels()] == ["x", "y"]


def test_bars_that_chance_reaches_stand_back():
    series = {"score": [0.9, 0.5], "score standard error": [0.1, 0.1], "greyed": [False, True]}
    axes = drawn(Figure("f", "bar", ["x", "y"], series))
    assert [patch.get_height() for patch in axes.patches] == [0.9, 0.5]
    colours = [to_hex(patch.get_facecolor()) for patch in axes.patches]
    assert colours == [drawing.CYCLE[0], INK.line]
    assert axes.get_legend() is None


def test_a_map_is_a_picture_with_gaps_and_the_lowest_row_below():
    axes = drawn(Figure("f", "map", [0.5, 1.5, 2.5], {"10": [0.1, None, 0.3], "20": [0.4, 0.5, 0.6]}, "a", "b"))
    (picture,) = axes.images
    assert picture.get_extent() == [0, 3, 5, 25]
    assert picture.origin == "lower"
    shown = picture.get_array()
    assert shown[1].tolist() == [0.4, 0.5, 0.6]
    assert np.ma.getmaskarray(shown)[0].tolist() == [False, True, False]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "b")
    assert len(axes.figure.axes) == 2  # and the bar of its colours


def test_points_lie_where_the_data_says():
    axes = drawn(Figure("f", "scatter", [1.0, 2.0], {"y": [3.0, 5.0]}))
    np.testing.assert_allclose(axes.collections[0].get_offsets(), [[1, 3], [2, 5]])
    assert axes.get_legend() is None


def test_many_names_are_thinned_out():
    axes = drawn(Figure("f", "bar", [f"channel {n}" for n in range(512)], {"w": list(range(512))}))
    assert len(axes.get_xticks()) <= drawing.MOST_TICKS
    assert len(axes.patches) == 512


def test_a_figure_without_values_says_so():
    axes = drawn(Figure("f", "line", [1], {"y": [None]}))
    assert [t.get_text() for t in axes.texts] == [words.FIGURE_EMPTY]
    assert not axes.lines


def test_a_tree_stands_on_its_leaves_and_lights_its_path():
    places = drawing.top_down(TREE.series["parent"])
    assert {n: d for n, (_, d) in places.items()} == {0: 0, 1: 1, 2: 1, 3: 2, 4: 2}
    assert places[1][0] == (places[3][0] + places[4][0]) / 2
    assert len({places[n][0] for n in (2, 3, 4)}) == 3
    axes = drawn(TREE)
    bold = [t.get_text() for t in axes.texts if t.get_fontweight() == "bold"]
    assert bold == ["all\n1", "tissue\n0.8", "gland\n0.7"]
    assert sum(line.get_color() == INK.highlight for line in axes.lines) == 2
    # parents that go round in a circle hang on no root, and must not hang the window
    assert drawing.top_down([1, 0, -1]) == {2: (0.0, 0)}


def test_a_table_sorts_by_value_and_keeps_all_digits(qtbot):
    view = tables.TableView(TABLE)
    qtbot.addWidget(view)
    assert view.rows.order == [0, 1, 2]
    view.sortByColumn(2, Qt.SortOrder.AscendingOrder)
    assert [view.rows.row(n)["n"] for n in range(3)] == [2, 9, 10]
    for order, first in ((Qt.SortOrder.AscendingOrder, "a"), (Qt.SortOrder.DescendingOrder, "b")):
        view.sortByColumn(1, order)
        assert [view.rows.row(n)["name"] for n in range(3)] == [first, "b" if first == "a" else "a", "c"]
    assert view.as_text() == "name\tvalue\tn\nb\t2.5\t9\na\t-1.0\t10\nc\tnan\t2\n"
    assert [tables.told(v) for v in (1 / 3, 7, True, None, math.nan, np.float32(2), "x")] == [
        "0.3333", "7", "yes", "–", "–", "2", "x",
    ]  # fmt: skip


def show(d, table=None, figures=(), axes="YX", **more):
    """An answer as the explain job keeps it."""
    source = d.session.image_layer
    made = Made(
        {}, title="Method", tables=(table,) if table else (), figures=figures,
        frame=Frame.of(source, axes, more.pop("model_axes", "YX"), more.pop("box", {}), more.pop("at", {})),
        source_id=layer_id(source),
    )  # fmt: skip
    d.session.show(made)
    return made


BOXES = Table("drops", {"Y start": [0, 40], "Y stop": [8, 52], "X start": [10, 60], "X stop": [20, 70], "drop": [1, 2]})


def test_the_button_opens_the_dock_of_the_last_answer(drive):
    d = drive(show=True)
    d.viewer.window.resize(1366, 768)
    d.viewer.add_image(blobs(64, 80))
    d.use(make_model())
    d.dock.tabs.setCurrentIndex(1)
    result = d.dock.explain.result
    assert not result.plot.isVisibleTo(d.dock)
    d.session.values["occlusion"] = {"window": 16}
    for name in ("occlusion", "seg-grad-cam"):
        d.session.question.method = name
        d.run()
    assert result.plot.isVisibleTo(d.dock)
    result.plot.click()
    dock = d.viewer.window.dock_widgets[words.PLOTS_TITLE]
    assert dock.title.text() == "Seg-Grad-CAM"
    assert [dock.tabs.tabText(i) for i in range(2)] == ["Channel weights", "Channel weights (table)"]
    page = dock.page
    d.wait(lambda: page.canvas is not None)
    assert page.canvas.figure.axes[0].patches
    # the map that is looked at is the one whose numbers are shown
    (row,) = [i for i in range(result.list.count()) if result.list.item(i).text() == "Occlusion"]
    result.list.setCurrentRow(row)
    assert dock.title.text() == "Occlusion"
    assert isinstance(dock.page, plots.TablePage)
    assert dock.page.view.rows.rowCount() == len(d.session.shown.tables[0].columns["Y start"])
    # opened twice it is still one
    commands.open_plots()
    assert list(d.viewer.window.dock_widgets).count(words.PLOTS_TITLE) == 1


def test_closing_and_opening_again(drive):
    d = drive()
    dock = d.dock.open_plots()
    assert dock.empty.isVisibleTo(dock)
    assert dock.empty.text() == words.PLOTS_EMPTY
    d.viewer.window.remove_dock_widget(dock)
    d.qtbot.wait(30)
    again = d.dock.open_plots()
    assert again is not dock
    d.viewer.add_image(blobs(40, 50))
    show(d)
    assert again.empty.text() == words.PLOTS_NONE.format(title="Method")


def test_figures_follow_the_theme(drive):
    d = drive(show=True)
    d.viewer.add_image(blobs(40, 50))
    show(d, figures=(LINE, TREE))
    dock = d.dock.open_plots()
    d.wait(lambda: dock.page.canvas is not None)
    assert dock.tabs.tabText(0) == "Curve"
    for theme in ("light", "dark"):
        d.viewer.theme = theme
        axes = dock.page.canvas.figure.axes[0]
        assert axes.xaxis.label.get_color() == get_theme(theme).text.as_hex()
        assert axes.get_facecolor()[:3] == pytest.approx([c / 255 for c in get_theme(theme).background.as_rgb_tuple()])
    dock.tabs.setCurrentIndex(1)
    d.wait(lambda: dock.page.canvas is not None)
    assert next(t.get_text() for t in dock.page.canvas.figure.axes[0].texts) == "all\n1"


def test_copy_and_save(drive, tmp_path, monkeypatch):
    d = drive()
    d.viewer.add_image(blobs(40, 50))
    show(d, TABLE, (LINE,))
    dock = d.dock.open_plots()
    dock.tabs.setCurrentIndex(1)
    dock.page.view.sortByColumn(2, Qt.SortOrder.AscendingOrder)
    dock.copy.click()
    assert QGuiApplication.clipboard().text().split("\n")[1] == "c\tnan\t2"
    assert "3 rows" in d.say()
    answers = [str(tmp_path / "drops"), str(tmp_path / "no" / "folder.csv"), ""]
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a: (answers.pop(0), "CSV (*.csv)"))
    dock.save.click()
    rows = list(csv.DictReader((tmp_path / "drops.csv").open(newline="")))
    assert rows[0] == {"name": "c", "value": "nan", "n": "2"}
    dock.save.click()
    assert "could not be written" in d.say()
    dock.save.click()
    assert not answers
    assert dock.picture.isHidden()
    dock.tabs.setCurrentIndex(0)
    assert not dock.picture.isHidden()
    dock.copy.click()
    assert QGuiApplication.clipboard().text().startswith("pixels\tscore\tscore standard error\tchance\n0\t1\t0.1\t0")


def test_a_row_leads_to_its_place(drive):
    d = drive(show=True)
    d.viewer.add_image(blobs(64, 80), scale=(0.5, 0.5), translate=(3, 4))
    show(d, BOXES, box={"Y": slice(4, 64), "X": slice(2, 80)})
    dock = d.dock.open_plots()
    active = d.viewer.layers.selection.active
    dock.page.view.clicked.emit(dock.page.view.rows.index(1, 0))
    centre = d.session.image_layer.data_to_world((4 + 45.5, 2 + 64.5))
    np.testing.assert_allclose(d.viewer.scene.camera.center[-2:], centre)
    marker = d.named("row of the table")
    ends = marker.data[:, 0] + marker.data[:, 1]
    assert (ends[:, 0].min(), ends[:, 0].max(), ends[:, 1].min(), ends[:, 1].max()) == (43.5, 55.5, 61.5, 71.5)
    np.testing.assert_allclose(marker.data_to_world((0, 0)), d.session.image_layer.data_to_world((0, 0)))
    assert d.viewer.layers.selection.active is active
    # the next row moves the same frame; what is far too small is zoomed to
    d.viewer.scene.camera.zoom = 0.1
    dock.page.view.clicked.emit(dock.page.view.rows.index(0, 0))
    assert d.named("row of the table") is marker
    assert d.viewer.scene.camera.zoom > 1
    d.session.show(None)
    assert "row of the table" not in d.viewer.layers


def test_a_row_of_a_volume_turns_to_its_slice(drive):
    d = drive()
    d.viewer.add_image(np.zeros((2, 3, 8, 40, 50), np.float32), scale=(1, 1, 2, 1, 1))
    boxes = Table("b", {**BOXES.columns, "Z start": [0, 4], "Z stop": [2, 7], "Y stop": [8, 44]})
    made = show(d, boxes, axes="TCZYX", model_axes="ZYX", at={"T": 1})
    d.viewer.dims.set_current_step(1, 2)
    assert going.go(d.session, made, boxes.rows()[1])
    assert d.viewer.dims.point[0] == 1
    assert d.viewer.dims.point[1] == 2
    assert d.viewer.dims.point[2] == 10
    places = d.named("row of the table").data[:, 0]
    assert set(places[:, 2]) == {4, 5, 6}
    assert set(places[:, 0]) == {1}
    assert set(places[:, 1]) == {0, 1, 2}


def test_a_row_of_a_unit_leads_to_that_unit(drive):
    d = drive()
    d.viewer.add_image(blobs(64, 80))
    labels = np.zeros((64, 80), int)
    labels[10:20, 30:50] = 3
    units = d.viewer.add_labels(labels, name="Method · units")
    made = show(d, Table("units", {"unit": [1, 3], "drop": [0.1, 0.2]}))
    d.session.keep(made, [units])
    assert not going.go(d.session, made, {"unit": 1})
    assert going.go(d.session, made, {"unit": 3})
    np.testing.assert_allclose(d.viewer.scene.camera.center[-2:], (14.5, 39.5))
    assert not going.go(d.session, made, {"drop": 3})
    d.viewer.layers.remove(d.session.image_layer)
    assert not going.go(d.session, made, {"unit": 3})


def test_numbers_live_no_longer_than_their_layers(drive):
    d = drive()
    d.viewer.add_image(blobs(64, 80))
    d.use(make_model())
    d.dock.tabs.setCurrentIndex(1)
    d.session.values["occlusion"] = {"window": 16}
    d.session.question.method = "occlusion"
    d.run()
    dock = d.dock.open_plots()
    gone = weakref.ref(d.session.shown)
    layers = [d.session.layer(key) for key in d.session.shown.layer_ids]
    for layer in layers:
        layer.locked = False
        assert d.session.shown is not None
        d.viewer.layers.remove(layer)
    del layers, layer
    assert d.session.shown is None
    assert not d.dock.explain.result.plot.isVisibleTo(d.dock)
    assert dock.empty.isVisibleTo(dock)
    # a worker may still hold it for a moment
    d.wait(lambda: gc.collect() >= 0 and gone() is None)
