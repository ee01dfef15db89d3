"""A form made from declared parameters."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest

from seglens.app.napari.form import Form, limits
from seglens.core.catalogue import METHODS
from seglens.core.errors import BadParameter
from seglens.core.param import Layer, Param, parameters


@dataclass
class Recipe:
    """One parameter of every kind."""

    samples: Annotated[int, Param("How many.", ge=1, le=50, unit="px")] = 7
    noise: Annotated[float, Param("How loud.", ge=0, le=1)] = 0.25
    strict: Annotated[float, Param("Above zero.", gt=0, lt=1)] = 0.5
    window: Annotated[int | None, Param("Side.", ge=1, le=99, quick=4, empty="1/16")] = None
    fill: Annotated[Literal["mean", "blur"], Param("With what.")] = "mean"
    layer: Layer = None
    of: Annotated[str | None, Param("Which.", source="classes", empty="any")] = None
    sure: Annotated[bool, Param("Really?")] = True
    weight: Annotated[float, Param("How heavy.", ge=0, le=10)] = 0.002


CHOICES = {"layers": ("down.0", "up.1"), "classes": ("cell", "rim")}
DEFAULTS = {
    "samples": 7, "noise": 0.25, "strict": 0.5, "window": None, "fill": "mean", "layer": None, "of": None, "sure": True,
    "weight": 0.002,
}  # fmt: skip


@pytest.fixture
def form(qtbot):
    made = Form(parameters(Recipe), {}, CHOICES, {"layers": "auto: up.1"})
    qtbot.addWidget(made)
    made.show()
    return made


def test_it_shows_the_defaults(form):
    assert form.values() == DEFAULTS
    assert form.changed_values() == {}


def test_values_given_are_shown(qtbot):
    given = {"samples": 3, "window": 12, "fill": "blur", "layer": "down.0", "of": "rim", "sure": False}
    made = Form(parameters(Recipe), given, CHOICES)
    qtbot.addWidget(made)
    assert made.values() == DEFAULTS | given
    made.reset()
    assert made.values() == DEFAULTS


def test_an_open_number_hides_its_box_until_it_is_wanted(form, qtbot):
    field = form.fields["window"]
    assert not field._editor.native.isVisible()
    with qtbot.waitSignal(form.changed):
        field._open.setChecked(False)
    assert field._editor.native.isVisible()
    assert form.values()["window"] == 4


def test_limits_reach_the_widget(form):
    box = form.fields["samples"]._editor
    assert (box.min, box.max) == (1, 50)
    box.native.setValue(5000)
    assert form.values()["samples"] == 50


def test_strict_limits_are_moved_inside():
    strict = next(p for p in parameters(Recipe) if p.name == "strict")
    told = limits(strict)
    strict.check("recipe", told["min"])
    strict.check("recipe", told["max"])
    with pytest.raises(BadParameter):
        strict.check("recipe", 0)


def test_choices_of_the_model(form):
    box = form.fields["layer"]._editor
    assert box.choices == (None, "down.0", "up.1")
    assert box.native.itemText(0) == "auto: up.1"


def test_a_layer_of_another_model_is_not_kept(qtbot):
    made = Form(parameters(Recipe), {"layer": "gone"}, CHOICES)
    qtbot.addWidget(made)
    assert made.values()["layer"] is None


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_has_a_form_that_makes_it_again(name, qtbot):
    kind = METHODS[name]
    made = Form(kind.parameters(), {}, CHOICES)
    qtbot.addWidget(made)
    assert kind.from_values(made.values()) == kind()
    quick = kind.quick()
    made = Form(kind.parameters(), quick.values(), CHOICES)
    qtbot.addWidget(made)
    same = {k: v for k, v in quick.values().items() if k != "layer"}
    assert {k: v for k, v in made.values().items() if k != "layer"} == pytest.approx(same)
    for parameter in kind.parameters():
        assert made.fields[parameter.name]._editor.tooltip.startswith(parameter.param.help)
