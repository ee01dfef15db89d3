"""Annotator prototypes: two annotators who were planted, and what is said where they agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from annotating import ConstantAnnotators, PlantedAnnotators
from hand import Context, cell_target, context_image, wrap
from seglens.core.errors import MissingNeed, UnknownName
from seglens.core.target import Painted, Point, Target
from seglens.session import explain

CLASSES = ("background", "healthy", "infected")


def ask(target=None, module=None, dims=2, **more):
    image, cell, _ = context_image(dims)
    model = wrap(module or PlantedAnnotators(dims=dims), dims=dims, classes=CLASSES)
    return explain("annotator-prototypes", image, model, target or cell_target(cell), **more), cell


@pytest.mark.parametrize("dims", [2, 3])
def test_they_disagree_about_what_is_infected_and_each_is_known_by_the_own_mask(dims):
    answer, cell = ask(dims=dims)
    bold, shy = (answer[f"drawn by {name}"].data for name in ("bold", "shy"))
    assert (bold[cell] == 2).all()
    assert (shy[cell] == 1).all()
    differ = bold != shy
    np.testing.assert_array_equal(answer["disagreement"].data > 0, differ)
    np.testing.assert_allclose(answer["disagreement"].data[differ], 1)  # one vote each: a bit
    for number, name in ((1, "bold"), (2, "shy")):
        who = ask(dims=dims, of=name)[0]["who (where they differ)"].data
        assert (who[cell] == number).all()
        assert (who[~differ] == 0).all()


def test_the_tables_tell_who_draws_how_much_and_why():
    answer, cell = ask(of="bold")
    rows = answer.tables[0].rows()
    area = int((answer["drawn by bold"].data == 2).sum())
    assert [row["pixels of infected"] for row in rows] == [area, 0]
    assert rows[1]["less than the network"] == sum(row["less than the network"] for row in rows)
    why = answer.tables[1].rows()
    assert (why[0]["annotator"], why[0]["class"]) == ("bold", "infected")
    assert {row["class"] for row in why} == {"infected"}
    distances = [row["mean squared distance"] for row in why]
    assert distances == sorted(distances)
    assert f"{int(cell.sum())} of them in the region" in answer.text
    assert "the mask of bold is most like what bold drew" in answer.text
    assert "Nobody stands out" not in answer.text
    unsure = PlantedAnnotators()
    with torch.no_grad():
        unsure.head.bank[:] = unsure.head.bank.mean(0)
    assert "Nobody stands out" in ask(module=unsure)[0].text


def test_where_all_agree_nobody_is_named():
    background = np.zeros((48, 56), bool)
    background[40:46, 20:26] = True
    answer, _ = ask(Target("background", Painted(background)))
    assert "nothing tells one from another there" in answer.text
    assert len(answer.tables) == 1
    alike, _ = ask(Target("healthy", Point((3, 3))), module=ConstantAnnotators(classes=3))
    assert not alike["disagreement"].data.any()
    assert not alike["who (where they differ)"].data.any()


def test_another_network_is_refused_in_a_sentence():
    with pytest.raises(MissingNeed, match="was not trained with several annotators") as caught:
        ask(module=Context())
    assert "annotators-phase" in caught.value.fix
    with pytest.raises(UnknownName, match="'bald'") as wrong:
        ask(of="bald")
    assert "bold" in wrong.value.fix
