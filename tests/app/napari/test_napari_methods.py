"""The list of methods: by family, found by typing, grey where one cannot run."""

import pytest
from qtpy.QtCore import Qt
from viewer_help import make_model

from seglens.app.napari import method_list, words
from seglens.core.method import Fidelity, Method, Need

FAMILIES = ("gradient", "perturbation", "architecture")


def kind(name: str, family: str = "gradient", **more: object) -> type[Method]:
    """A method that does nothing; its description is that of this file."""
    given = {"family": family, "title": name.title(), "__module__": __name__, "__doc__": f"{name}."}
    made = type("Kind", (Method,), given | more)
    made.name = name.lower().replace(" ", "-")
    return made


MANY = tuple(kind(f"method {i:02d}", FAMILIES[i % 3]) for i in range(60))
CAMS = (
    kind("Guided backprop"),
    kind("Seg-Grad-CAM"),
    kind("CAM of layers"),
    kind("Camera", "perturbation", needs=frozenset({Need.ANNOTATION, Need.TRAINING})),
    kind("Tree", "architecture", min_classes=9),
)


@pytest.fixture
def listed(qtbot):
    made = method_list.MethodList()
    qtbot.addWidget(made)
    return made


def open_families(made):
    groups = [made.topLevelItem(i) for i in range(made.topLevelItemCount())]
    return [g.text(0) for g in groups if g.isExpanded()]


def test_sixty_methods_stay_small(listed):
    listed.fill(MANY, "", "method-00", None, None)
    assert len(listed.shown) == 60
    # the families that answer quickly come first
    assert [listed.topLevelItem(i).text(0) for i in range(3)] == [f"{f} (20)" for f in FAMILIES]
    assert open_families(listed) == ["gradient (20)"]
    row = max(16, listed.sizeHintForRow(0))
    assert listed.height() <= method_list.MOST * row + 8
    listed.select("method-01")
    # what is chosen elsewhere is seen
    assert "perturbation (20)" in open_families(listed)
    assert listed.currentItem().text(0) == "Method 01"
    assert listed.viewport().rect().intersects(listed.visualItemRect(listed.currentItem()))


def test_families_open_and_close_by_a_click_and_stay_so(listed):
    listed.fill(MANY, "", "method-00", None, None)
    group = listed.topLevelItem(1)
    listed.itemClicked.emit(group, 0)
    assert "perturbation (20)" in open_families(listed)
    listed.fill(MANY, "method 03", "method-00", None, None)
    listed.fill(MANY, "", "method-00", None, None)
    assert open_families(listed) == ["gradient (20)", "perturbation (20)"]
    listed.itemClicked.emit(listed.topLevelItem(1), 0)
    assert open_families(listed) == ["gradient (20)"]


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("cam", ["cam-of-layers", "seg-grad-cam", "camera"]),
        ("grad cam", ["seg-grad-cam", "cam-of-layers"]),
        ("Grad-CAM", ["seg-grad-cam", "cam-of-layers"]),
        ("perturb", ["camera"]),
        ("grey where", ["cam-of-layers", "guided-backprop", "seg-grad-cam", "camera", "tree"]),
        ("nothing like it", []),
    ],
)
def test_what_is_typed_is_found_in_names_first(listed, typed, found):
    listed.fill(CAMS, typed, "", None, None)
    assert sorted(listed.shown) == sorted(found)
    if len(found) < 5:
        assert listed.shown[:1] == found[:1]
    assert len(open_families(listed)) == listed.topLevelItemCount()


def test_the_first_that_can_run_is_taken(listed, qtbot):
    told = []
    listed.chosen.connect(told.append)
    listed.fill(CAMS, "tree", "", make_model().spec, None)
    listed.take_first()
    assert told == []
    listed.fill(CAMS, "", "", make_model().spec, None)
    listed.take_first()
    assert told == ["cam-of-layers"]
    tree = next(i for i in listed._methods() if i.text(0) == "Tree")
    assert not tree.flags() & Qt.ItemFlag.ItemIsEnabled
    assert "needs 9 classes" in tree.toolTip(0).lower()


def test_the_tooltip_tells_first_what_it_does_then_what_it_needs(listed):
    lines = method_list.hint(CAMS[3]).splitlines()
    assert lines[0].startswith("By family, found by typing")
    assert lines[1:] == [words.FAMILIES["perturbation"], words.NEEDS["annotation"], words.NEEDS["training"]]
    after = kind("Copy", fidelity=Fidelity.AFTER, cite="somebody2020")
    assert "after Somebody 2020" in method_list.hint(after)


def test_search_and_list_by_keyboard(drive):
    d = drive(show=True)
    d.dock.tabs.setCurrentIndex(1)
    box = d.dock.explain.method
    assert str(len(d.session.engine.methods)) in box.search.placeholderText()
    d.qtbot.keyClicks(box.search, "rise")
    assert box.list.shown[0] == "rise"
    d.qtbot.keyClick(box.search, Qt.Key.Key_Return)
    assert d.session.question.method == "rise"
    box.search.clear()
    d.qtbot.keyClicks(box.search, "sobol")
    d.qtbot.keyClick(box.search, Qt.Key.Key_Down)
    assert d.session.question.method == "sobol"
    box.search.setText("no such thing")
    assert not box.list.isVisibleTo(d.dock)
    assert box.empty.text() == words.NO_MATCH
    # what was chosen stays chosen
    assert d.session.question.method == "sobol"
    box.search.clear()
    assert box.list.currentItem().text(0) == "Sobol indices"


def test_the_first_method_is_a_quick_one(drive):
    d = drive()
    assert d.session.question.method == "seg-grad-cam"
    assert method_list.first(CAMS) == "seg-grad-cam"
    assert method_list.first(MANY) == "method-00"
    assert method_list.first(()) == ""
