"""Prototypes and criticisms over a bank: the three lists, the classes and groups, and the objects of an image (B5)."""

from __future__ import annotations

import numpy as np
import pytest

from banks import attribute_image, attribute_model
from seglens.core.errors import BadParameter, MissingNeed
from seglens.core.run import Run
from seglens.core.target import Target
from seglens.engine.features import BankInfo, Entry, FeatureBank, build_bank
from seglens.session import explain


def planted_bank(folder, model, vectors, groups=None, predicted=None):
    """A bank of given vectors (n, 16)."""
    info = BankInfo("features", "object", "YX", 16, ("background", "cell"), model_sha256=model.fingerprint(),
                    precision="float32")  # fmt: skip
    bank = FeatureBank.create(folder / "planted.bank", info)
    entries = [
        Entry("0" * 64, f"image {n}", "", {}, "object", (1, 1), ((0, 2), (0, 2)), 4,
              predicted[n] if predicted else "cell", None, None, groups[n] if groups else "all")
        for n in range(len(vectors))
    ]  # fmt: skip
    bank.append(vectors, entries)
    return bank


def clustered(seed=0):
    """80 about the origin and 12 aside, and one far away, in the plane of the first two features."""
    rng = np.random.default_rng(seed)
    points = np.concatenate([rng.normal(0, 2, (80, 2)), rng.normal(4, 0.2, (12, 2)), [[60.0, -60.0]]])
    return np.pad(points, ((0, 0), (0, 14)))


def ask(model, bank, **parameters):
    return explain("prototypes-and-criticisms", attribute_image(0)[0], model, Target("cell"), bank=bank, **parameters)


def test_three_lists_say_three_things(tmp_path):
    model = attribute_model()
    bank = planted_bank(tmp_path, model, clustered())
    answer = ask(model, bank, prototypes=2, criticisms=3, gamma=0.5, diverse=False)
    chosen, crowd, far = (table.columns for table in answer.tables)
    assert [t.name for t in answer.tables] == ["prototypes", "badly represented density", "far from every prototype"]
    assert sum(chosen["stands for"]) == 93
    # the small cluster has one of two prototypes, for 13 % of all: too many; the outlier is no criticism, but far
    assert all(80 <= row < 92 for row in crowd["row"])
    assert set(crowd["prototypes"]) == {"too many"}
    assert all(w < 0 for w in crowd["witness"])
    assert far["row"][0] == 92
    assert far["distance"][0] > 5 * far["distance"][1]
    assert "badly represented" in answer.text


def test_witness_and_gain_are_those_of_brute_force(tmp_path):
    model, rng = attribute_model(), np.random.default_rng(3)
    vectors = rng.normal(size=(20, 16)).astype(np.float32).astype(float)
    bank = planted_bank(tmp_path, model, vectors)
    answer = ask(model, bank, prototypes=4, criticisms=5, gamma=0.05)
    chosen, crowd = answer.tables[0].columns["row"], answer.tables[1].columns
    kernel = np.exp(-0.05 * ((vectors[:, None] - vectors[None]) ** 2).sum(-1))
    witness = kernel.mean(0) - kernel[chosen].mean(0)
    np.testing.assert_allclose(crowd["witness"], witness[crowd["row"]], atol=1e-9)
    value = 2 * kernel[:, chosen].sum() / (20 * 4) - kernel[np.ix_(chosen, chosen)].sum() / 16
    assert answer.figures[0].series["J"][-1] == pytest.approx(value)
    assert answer.figures[0].series["all examples"][0] == pytest.approx(kernel.mean())
    assert not set(chosen) & set(crowd["row"])


def test_as_many_prototypes_as_entries_leave_nothing(tmp_path):
    model = attribute_model()
    bank = planted_bank(tmp_path, model, np.random.default_rng(3).normal(size=(12, 16)))
    answer = ask(model, bank, prototypes=12)
    assert sorted(answer.tables[0].columns["row"]) == list(range(12))
    assert not answer.tables[1].columns["row"]
    assert not answer.tables[2].columns["row"]
    assert "100.0% of the largest J" in answer.text


def test_doubles_are_chosen_once_among_the_criticisms(tmp_path):
    model = attribute_model()
    half = np.random.default_rng(3).normal(size=(15, 16))
    bank = planted_bank(tmp_path, model, np.concatenate([half, half]))
    rows = ask(model, bank, prototypes=3, criticisms=27).tables[1].columns["row"]
    assert len({row % 15 for row in rows}) == len(rows) > 5


def test_classes_and_groups_limit_the_choice(tmp_path):
    model, vectors = attribute_model(), np.random.default_rng(3).normal(size=(30, 16))
    groups, names = [f"slide {n % 3}" for n in range(30)], ["cell" if n < 20 else "background" for n in range(30)]
    bank = planted_bank(tmp_path, model, vectors, groups, names)
    for parameters, allowed in (
        ({}, set(range(20))),
        ({"of": "all"}, set(range(30))),
        ({"groups": "slide 1"}, {n for n in range(20) if n % 3 == 1}),
    ):
        answer = ask(model, bank, prototypes=30, **parameters)
        assert set(answer.tables[0].columns["row"]) == allowed
    with pytest.raises(BadParameter, match="No group of the bank fits"):
        ask(model, bank, groups="slide 9")
    few = planted_bank(tmp_path / "few", model, vectors[:3], predicted=["cell", "background", "background"])
    with pytest.raises(MissingNeed, match="has 1 entry predicted as cell"):
        ask(model, few)


def test_a_large_bank_is_drawn_from_by_the_seed(tmp_path):
    model = attribute_model()
    bank = planted_bank(tmp_path, model, np.random.default_rng(3).normal(size=(60, 16)))
    one, again = (ask(model, bank, most=20, prototypes=20, run=Run(seed=4)).tables[0].columns["row"] for _ in range(2))
    other = ask(model, bank, most=20, prototypes=20, run=Run(seed=5)).tables[0].columns["row"]
    assert one == again
    assert len(one) == 20
    assert set(one) != set(other)


def test_objects_of_the_image_have_the_distance_to_their_nearest_prototype(tmp_path):
    model = attribute_model()
    bank = build_bank(model, [attribute_image(n)[0] for n in range(4)], tmp_path / "b", layer="features")
    answer = ask(model, bank, prototypes=3)
    numbers, chosen = attribute_image(0)[1], bank.vectors(answer.tables[0].columns["row"])
    own = bank.vectors(range(9))
    far = np.linalg.norm(own[:, None] - chosen[None], axis=2)
    for n in range(9):
        inside = numbers == n + 1
        assert answer.layers[0].data[inside] == pytest.approx(far[n].min(), abs=2e-3)
        assert set(answer.layers[2].data[inside]) == {far[n].argmin() + 1}
    assert not answer.layers[2].data[numbers == 0].any()
    bank.close()
