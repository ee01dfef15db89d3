"""Concept vectors: planted attributes that drive the target or not, by rows, clusters and paint (card B/R7)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from banks import Attributes, attribute_bank, attribute_image, attribute_model
from seglens.core.errors import BadParameter, MissingNeed
from seglens.core.run import Run
from seglens.core.target import Object, Predicted, Target
from seglens.engine.features.concepts import concept_of_mask, concept_of_rows
from seglens.engine.resolve import resolve
from seglens.session import explain


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A bank with attributes, and its model."""
    model = attribute_model()
    bank, first, second = attribute_bank(tmp_path_factory.mktemp("concepts"), model)
    yield model, bank, first, second
    bank.close()


def rows_of(chosen):
    return ",".join(map(str, np.flatnonzero(chosen)))


def asked(model, bank, **parameters):
    image = attribute_image(0)[0]
    return explain("concept-vectors", image, model, Target("cell", Object(1)), bank=bank, **parameters)


def test_what_drives_the_target_is_significant_and_what_does_not_is_greyed(planted):
    model, bank, first, second = planted
    yes, no = (asked(model, bank, rows=rows_of(of)).tables[0].rows()[0] for of in (first, second))
    assert yes["score"] == 1
    assert yes["p (Bonferroni)"] < 0.01
    assert yes["significant"]
    # the attribute's size is 1 and its weight 2, over the sum of the region's mean
    assert yes["effect"] == pytest.approx(2, abs=0.3)
    assert no["accuracy"] > 0.95
    assert not no["significant"]
    answer = asked(model, bank, rows=rows_of(second))
    assert answer.figures[0].series["greyed"] == [True, True]
    assert answer.layers[0].name == "chosen rows (not significant)"
    assert "none" in answer.text
    assert "All have the same sensitivity" in answer.text  # the head is linear
    assert asked(model, bank, rows=rows_of(first)).figures[0].series["greyed"] == [False, True]


def test_direction_is_the_hand_wired_one(planted):
    model, bank, first, second = planted
    for of, direction in zip((first, second), model.module.basis[1:].numpy(), strict=True):
        assert concept_of_rows(bank, np.flatnonzero(of)).vector @ direction > 0.99


def test_chance_is_about_one_half(planted):
    model, bank, first, _ = planted
    scores = []
    for seed in range(4):
        figure = asked(model, bank, rows=rows_of(first), run=Run(seed=seed), examples=2).figures[0]
        assert figure.x[-1] == "random"
        scores.append(figure.series["score"][-1])
    assert np.mean(scores) == pytest.approx(0.5, abs=0.12)


def test_clusters_are_concepts_and_those_with_the_attribute_speak_for_it(planted):
    model, bank, first, _ = planted
    answer = asked(model, bank, k=4)
    concepts, examples = answer.tables[0].rows(), answer.tables[2].rows()
    assert len(concepts) == len(answer.layers) == 4
    for concept in concepts:
        rows = [e["row"] for e in examples if e["concept"] == concept["concept"]]
        share = first[rows].mean()
        assert concept["effect"] * (share - 0.5) > 0
    assert any(c["significant"] for c in concepts)


def test_map_is_the_layer_along_the_vector(planted):
    model, bank, first, _ = planted
    answer = asked(model, bank, rows=rows_of(first))
    concept = concept_of_rows(bank, np.flatnonzero(first))
    image = attribute_image(0)[0]
    with torch.no_grad():
        features = model.module.features(torch.from_numpy(image.data)[None])[0].numpy()
    wanted = np.einsum("cyx,c->yx", features, concept.vector) - concept.offset
    np.testing.assert_allclose(answer.layers[0].data, wanted, atol=1e-4)


def test_sensitivity_is_the_change_when_the_vector_is_added(planted):
    model, bank, first, _ = planted
    answer = asked(model, bank, rows=rows_of(first), examples=1)
    concept = concept_of_rows(bank, np.flatnonzero(first))
    told = answer.tables[1].rows()
    assert [row["region"] for row in told] == ["asked region"]
    region = torch.from_numpy(attribute_image(0)[1] == 1)
    x = torch.from_numpy(attribute_image(0)[0].data)[None]
    step = 1e-2 * torch.from_numpy(concept.directions.mean(0)).float()
    with torch.no_grad():
        features = model.module.features(x)
        change = model.module.head(features + step[:, None, None]) - model.module.head(features)
    assert told[0]["chosen rows"] == pytest.approx(float(change[0, 1][region].mean()) / 1e-2, rel=1e-3)


def test_painted_regions_are_concepts(planted):
    model, bank, _, _ = planted
    image, numbers, with_1, _ = attribute_image(5)
    assert with_1.any()
    assert not with_1.all()
    painted = np.zeros(numbers.shape, int)
    painted[np.isin(numbers, np.flatnonzero(with_1) + 1)] = 1
    painted[numbers == 0] = 2
    answer = explain("concept-vectors", image, model, Target("cell", Object(1)), bank=bank, annotation=painted)
    concepts = {row["concept"]: row for row in answer.tables[0].rows()}
    assert set(concepts) == {"painted 1", "painted 2"}
    assert concepts["painted 1"]["from"] == "painted"
    assert concepts["painted 1"]["embeddings"] == (painted == 1).sum()
    assert concepts["painted 1"]["effect"] > 0 > concepts["painted 2"]["effect"]
    case = resolve(image, model, Target("cell"), Run())
    cells = np.isin(numbers, np.flatnonzero(~with_1) + 1)
    beside = concept_of_mask(case, "features", painted == 1, beside=cells)
    assert beside.vector @ model.module.basis[1].numpy() > 0.98
    with pytest.raises(MissingNeed, match="Nothing is painted"):
        explain("concept-vectors", image, model, bank=bank, annotation=np.zeros_like(painted))


def test_examples_come_from_the_image_the_references_and_the_banks_own_images(tmp_path, planted):
    model, quiet, first, _ = planted
    bank, again, _ = attribute_bank(tmp_path, model, images=4, save=True)
    told = asked(model, bank, rows=rows_of(again), examples=30).tables[1].rows()
    assert len(told) == 9 + 3 * 5  # the asked image is one of the bank's, and is not looked at twice
    assert {row["image"] for row in told} == {"attributes 0", "image1", "image2", "image3"}
    assert [row["region"] for row in told[:3]] == ["asked region", "object 2", "object 3"]
    whole = asked(model, bank, rows=rows_of(again), over="images").tables[1].rows()
    assert [row["region"] for row in whole] == ["asked region", "cell", "cell", "cell"]
    assert whole[1]["pixels"] == 9 * 36
    # a file that has changed is said and left out
    np.save(tmp_path / "image1.npy", attribute_image(77)[0].data)
    answer = asked(model, bank, rows=rows_of(again), over="images")
    assert len(answer.tables[1].rows()) == 3
    assert any("image1.npy is not as the bank knows it" in note for note in answer.record.notes)
    bank.close()
    others = tuple(attribute_image(seed)[0] for seed in (20, 21))
    given = asked(model, quiet, rows=rows_of(first), over="images", reference=others)
    assert [row["image"] for row in given.tables[1].rows()] == ["attributes 0", "attributes 20", "attributes 21"]


def test_rows_are_read_as_a_person_writes_them(planted):
    model, bank, _, _ = planted
    one, other = (asked(model, bank, rows=r, repeats=5, examples=1) for r in ("0-9,12", "0,1, 2,3,4,5-9,12"))
    np.testing.assert_array_equal(one.layers[0].data, other.layers[0].data)
    for wrong in ("a-b", "5-", "-3", "1,,2"):
        with pytest.raises(BadParameter, match="no rows"):
            asked(model, bank, rows=wrong)
    with pytest.raises(BadParameter, match="108 embeddings"):
        asked(model, bank, rows="1-9,500")
    with pytest.raises(MissingNeed, match="6 rows"):
        asked(model, bank, rows="1-5")


def test_another_model_is_refused(planted):
    _, bank, _, _ = planted
    with pytest.raises(ValueError, match="embeddings of two models"):
        asked(attribute_model(seed=1), bank)
    assert Attributes(1).basis.shape == (3, 16)


def test_an_exhausted_class_says_so(planted):
    """One object, no other image: the score is the sign of one number, and the text says that."""
    model, bank, first, _ = planted
    image = attribute_image(3)[0].crop(Y=slice(0, 12), X=slice(0, 12))
    answer = explain(
        "concept-vectors", image, model, Target("cell", Predicted()), bank=bank, rows=rows_of(first), over="images"
    )
    assert len(answer.tables[1].rows()) == 1
    assert "With so few examples" in answer.text
