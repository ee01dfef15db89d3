"""Parameters: one declaration, read by everything."""

from typing import Annotated, Literal

import pytest

from seglens.core.configured import Configured
from seglens.core.errors import BadParameter, SegLensError, UnknownName
from seglens.core.param import Param, parameters

Count = Annotated[int, Param("How many.", ge=1, le=9, quick=2)]
Share = Annotated[float, Param("How much.", gt=0, lt=1, step=0.1)]
Side = Annotated[int | None, Param("How wide.", ge=1, unit="px")]
Kind = Annotated[Literal["one", "two"], Param("Which.")]
Flag = Annotated[bool, Param("Whether.")]
Free = Annotated[str, Param("Any text.")]


class Recipe(Configured):
    """A configured thing."""

    count: Count = 3
    share: Share = 0.5
    side: Side = None
    kind: Kind = "one"
    flag: Flag = False
    free: Free = "a"


def test_declarations_are_read():
    count, share, side, kind, flag, _ = Recipe.parameters()
    assert (count.type, count.default, count.param.ge, count.quick) == (int, 3, 1, 2)
    assert (share.type, share.limits) == (float, "a number above 0 below 1")
    assert (side.optional, side.type, side.default) == (True, int, None)
    assert kind.choices == ("one", "two")
    assert flag.type is bool
    assert Recipe.quick().count == 2


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"count": 0}, ["count=0", "whole number from 1 to 9"]),
        ({"count": 2.5}, ["count=2.5"]),
        ({"count": True}, ["count=True"]),
        ({"share": 1}, ["share=1"]),
        ({"share": float("nan")}, ["share=nan"]),
        ({"side": "wide"}, ["side='wide'"]),
        ({"kind": "tow"}, ["kind='tow'", "Did you mean two?"]),
        ({"flag": "perhaps"}, ["flag='perhaps'", "yes or no"]),
    ],
)
def test_refusals_tell_value_and_remedy(values, words):
    with pytest.raises(BadParameter) as caught:
        Recipe(**values)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_texts_are_parsed_as_typed():
    made = Recipe.from_values({"count": "7", "share": "0.25", "side": "auto", "kind": "two", "flag": "yes"})
    assert made == Recipe(count=7, share=0.25, kind="two", flag=True)
    assert Recipe.from_values({"side": "12"}).side == 12
    with pytest.raises(UnknownName, match="Did you mean count"):
        Recipe.from_values({"cuont": 1})


def test_values_round_trip_and_are_frozen():
    made = Recipe(count=4)
    assert Recipe(**made.values()) == made
    with pytest.raises(AttributeError):
        made.count = 5


def test_each_parameter_knows_a_value_that_it_refuses():
    for parameter in Recipe.parameters():
        bad = parameter.invalid()
        if bad is not None:
            with pytest.raises(BadParameter):
                Recipe(**{parameter.name: bad})


def test_an_author_who_forgets_the_declaration_is_told():
    class Careless(Configured):
        count: int = 3

    with pytest.raises(TypeError, match=r"Careless\.count needs Annotated"):
        parameters(Careless)


def test_an_error_cannot_be_written_without_a_remedy():
    with pytest.raises(TypeError):
        SegLensError("It broke.")
    error = UnknownName.among("layer", "botleneck", ["bottleneck", "head"], listing="There are two.")
    assert str(error) == "There is no layer called 'botleneck'.\nDid you mean bottleneck? There are two."
    assert isinstance(error, LookupError)
