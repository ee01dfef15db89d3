"""How it looks: texts that can be read on either theme, fields that stand in one line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from napari.utils.theme import get_theme
from qtpy.QtCore import QPoint
from qtpy.QtWidgets import QCheckBox, QSizePolicy, QWidget
from viewer_help import blobs, make_model

from seglens.app.napari import colours, look
from seglens.app.napari.viewer_session import layer_id


def lightness(colour: str) -> float:
    """Relative luminance of a colour, as WCAG defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    """How far two colours differ in lightness, from 1 to 21."""
    low, high = sorted((lightness(one), lightness(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("tone", list(colours.TONES["dark"]))
def test_texts_can_be_read(theme, tone):
    ground = "#" + "".join(f"{int(n):02x}" for n in get_theme(theme).background.as_rgb_tuple()[:3])
    assert contrast(colours.TONES[theme][tone], ground) >= 4.5


def test_texts_follow_the_theme(drive):
    d = drive()
    muted, state = d.dock.explain.target.hint, d.dock.footer.state
    for theme in ("light", "dark", "light"):
        d.viewer.theme = theme
        look.tone(state, "good")
        d.qtbot.wait(20)
        shown = {name: label.palette().color(label.foregroundRole()).name() for name, label in
                 (("muted", muted), ("good", state))}  # fmt: skip
        assert shown == {name: colours.TONES[theme][name] for name in shown}


def test_the_labels_row_stands_in_line_with_the_form(drive):
    d = drive(show=True)
    d.viewer.window._qt_window.resize(1366, 768)
    d.viewer.add_image(blobs(40, 50))
    d.use(make_model())
    d.dock.tabs.setCurrentIndex(1)
    d.session.question.method = "kernel-shap"
    box = d.dock.explain.method
    box.form.fields["units"].set("labels")
    d.session.values["kernel-shap"] = {"units": "labels"}
    d.session.values_changed.emit()
    d.qtbot.wait(50)
    assert box.labels.isVisible()
    lefts = {w.mapTo(d.dock, QPoint(0, 0)).x() for w in (*box.form.fields.values(), box.labels.box)}
    assert len(lefts) == 1
    # the same with the form of another method, made afresh
    d.session.values["lime"] = {"units": "labels"}
    d.session.question.method = "lime"
    d.qtbot.wait(50)
    lefts = {w.mapTo(d.dock, QPoint(0, 0)).x() for w in (*box.form.fields.values(), box.labels.box)}
    assert len(lefts) == 1


def test_of_several_labels_layers_the_one_that_is_seen_on_top_is_taken(drive):
    d = drive()
    d.viewer.add_image(blobs(40, 50))
    d.use(make_model())
    numbers = np.ones((40, 50), int)
    hidden = d.viewer.add_labels(numbers, name="truth", visible=False)
    d.session.values["kernel-shap"] = {"units": "labels"}
    d.session.question.method = "kernel-shap"
    assert d.session.question.annotation_id == layer_id(hidden)
    d.session.question.annotation_id = ""
    d.viewer.add_labels(numbers, name="first")
    last = d.viewer.add_labels(numbers, name="second")
    d.viewer.add_labels(numbers, name="over it", visible=False)
    d.session.question.annotation_id = ""
    assert d.session.question.annotation_id == layer_id(last)


def test_a_hidden_layer_of_ours_goes_without_ending_the_program(tmp_path):
    script = Path(__file__).with_name("removing.py")
    own = os.environ | {"NAPARI_CONFIG": str(tmp_path / "napari.yaml")}
    done = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True, env=own)
    assert done.returncode == 0, done.stderr[-2000:]


def test_texts_without_room_end_with_an_ellipsis(qtbot):
    holder = QWidget()
    layout = look.column(holder)
    box, check, short = look.combo(), QCheckBox("chosen by the silhouette of its clusters"), look.combo()
    check.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    box.addItem("guided backpropagation of everything")
    short.addItem("mean")
    for one in (box, check, short):
        layout.addWidget(one)
    look.calm(holder)
    holder.resize(160, 100)
    qtbot.addWidget(holder)
    holder.show()
    guard = next(x for x in holder.children() if isinstance(x, look.Shorten))
    assert guard._paint(box)
    assert guard._paint(check)
    # a text that fits is Qt's own affair
    assert not guard._paint(short)
    holder.resize(600, 100)
    qtbot.waitUntil(lambda: box.width() > 500)
    assert not guard._paint(box)
    assert not guard._paint(check)
    # the words themselves stay whole
    assert box.currentText() == "guided backpropagation of everything"
