"""ProtoSeg: its products are the network's own logit, and it names the prototype that was planted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hand import Deep, cell_target, context_image, small_image, wrap
from prototypes import ConstantPrototypes, PlantedPrototypes, tiny
from seglens.core.errors import MissingNeed
from seglens.core.run import Run
from seglens.core.target import Border, Painted, Point, Predicted, Target
from seglens.engine.prototypes import PrototypeView
from seglens.engine.resolve import resolve
from seglens.session import explain

CLASSES = ("background", "healthy", "infected")
MASK = np.zeros((24, 27), bool)
MASK[5:14, 3:20] = True


@pytest.mark.parametrize("value", ["logit", "margin"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("region", [Painted(MASK), Point((3, 5)), Border(Painted(MASK))])
def test_the_products_add_up_to_the_score(value, reduction, region):
    model, image = tiny(classes=3), small_image()
    target = Target("cell", region, value, reduction)
    answer = explain("proto-seg", image, model, target)
    score = resolve(image, model, target, Run()).clean_score
    columns = answer.tables[0].columns
    assert sum(columns["product"]) == pytest.approx(score, abs=1e-5 * max(1, abs(score)))
    for row in answer.tables[0].rows():
        assert row["product"] == pytest.approx(row["similarity"] * row["weight"], abs=1e-9)


def test_the_planted_prototype_comes_first_and_a_decoy_brings_little():
    image, cell, _ = context_image()
    answer = explain("proto-seg", image, wrap(PlantedPrototypes(), classes=CLASSES), cell_target(cell), maps=2)
    rows = answer.tables[0].rows()
    assert (rows[0]["prototype"], rows[0]["class"]) == (3, "infected")
    assert rows[0]["product"] > 4 * max(abs(r["product"]) for r in rows[1:])
    assert answer.map.data[cell].mean() > 5
    away = np.zeros_like(cell)
    away[30:, :] = True
    assert answer.map.data[away].max() < 1.5
    assert (answer["winning prototype"].data[cell] == 3).mean() > 0.9
    # asked of a healthy cell, it is another
    healthy = np.zeros_like(cell)
    healthy[34:39, 7:12] = True
    other = explain("proto-seg", image, wrap(PlantedPrototypes(), classes=CLASSES), Target("healthy", Painted(healthy)))
    assert other.tables[0].rows()[0]["prototype"] == 2


def test_a_constant_network_gives_constant_maps():
    answer = explain("proto-seg", small_image(), wrap(ConstantPrototypes()), Target("cell", Predicted()))
    assert all(np.ptp(layer.data) == 0 for layer in answer.layers)


def test_a_probability_is_no_sum_and_the_text_says_so():
    answer = explain("proto-seg", small_image(), tiny(), Target("cell", Painted(MASK), "probability"))
    assert "reads a probability" in answer.text
    logit = resolve(small_image(), tiny(), Target("cell", Painted(MASK)), Run()).clean_score
    assert sum(answer.tables[0].columns["product"]) == pytest.approx(logit, abs=1e-5)


def test_dropped_prototypes_are_not_told():
    model = tiny()
    model.module.head.active[1] = False
    answer = explain("proto-seg", small_image(), model, Target("cell", Painted(MASK)))
    assert sorted(answer.tables[0].columns["prototype"]) == [1, 3, 4]


def test_prototypes_of_this_image_are_shown_where_they_were_taken():
    model, image = tiny(), small_image()
    taken = PrototypeView(model, image, Run()).taken((7, 9), "cell")
    model.module.head.provenance = [{**taken.record, "number": 2, "name": "noise"}]
    answer = explain("proto-seg", image, model, Target("cell", Painted(MASK)))
    np.testing.assert_array_equal(answer["prototypes taken here"].data, [[7, 9]])
    assert {r["prototype"]: r["crop"] for r in answer.tables[0].rows()}[2] == "noise at 7,9"
    other = explain("proto-seg", small_image(seed=1), model, Target("cell", Painted(MASK)))
    assert not any(layer.kind == "points" for layer in other.layers)


def test_a_plain_network_is_refused():
    with pytest.raises(MissingNeed, match="hand has no prototype layer"):
        explain("proto-seg", small_image(), wrap(Deep()), Target("cell", Painted(MASK)))


def test_it_leaves_no_hook_and_costs_one_more_forward():
    model = tiny()
    answer = explain("proto-seg", small_image(), model, Target("cell", Painted(MASK)))
    assert answer.record.cost["forwards"] == 2
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.module.modules())
    assert not any(isinstance(v, torch.Tensor) and v.is_inference() for v in model.module.state_dict().values())
