"""Nearest examples: itself at distance 0, groups left out, brute force, other classes, other weights (card B/B6)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from banks import attribute_image
from hand import wrap
from seglens.core.errors import BadParameter, MissingNeed
from seglens.core.run import Run
from seglens.core.target import Object, Painted, Target
from seglens.engine.features import FeatureBank, build_bank, region_vector
from seglens.engine.resolve import resolve
from seglens.methods.prototype._neighbours import vote_entropy
from seglens.session import as_cli, as_python, explain, explain_each
from seglens.session_live import LiveQuestion

CLASSES = ("background", "plain", "marked")


class Drawn(nn.Module):
    """Cells of channel 0, *marked* by channel 1; features of random weights that the classes do not read."""

    def __init__(self, seed: int = 0) -> None:
        """Draw the weights of the features."""
        super().__init__()
        self.features, self.head = nn.Conv2d(3, 12, 3, padding=1), nn.Conv2d(12, 3, 1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.features.weight.copy_(torch.randn(self.features.weight.shape, generator=generator))
            self.head.weight.zero_()
            self.head.bias.zero_()

    def forward(self, x):
        """(N, 3, *space) to (N, 3, *space)."""
        cell, mark = x[:, :1] - 0.5, x[:, 1:2] - 0.5
        scores = torch.cat([-20 * cell, 20 * cell - 20 * mark, 20 * cell + 20 * mark], 1)
        return scores + self.head(torch.relu(self.features(x)))


def build(folder, seed=0, images=5, masks=None):
    model = wrap(Drawn(seed), channels=3, classes=CLASSES)
    shown = [attribute_image(n)[0] for n in range(images)]
    return model, build_bank(model, shown, folder / f"drawn{seed}.bank", layer="features", masks=masks)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A model and its bank of five images, nine cells each."""
    model, bank = build(tmp_path_factory.mktemp("nearest"))
    yield model, bank
    bank.close()


def ask(built, image=0, number=1, **parameters):
    model, bank = built
    return explain("nearest-examples", attribute_image(image)[0], model, Target(None, Object(number)), bank=bank,
                   **parameters)  # fmt: skip


def query(built, image, number):
    model, _ = built
    picture, numbers, *_ = attribute_image(image)
    case = resolve(picture, model, Target(1, Painted(numbers == number)), Run())
    return region_vector(case, "features", numbers == number)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_an_object_of_the_bank_is_its_own_nearest_example(built, metric):
    answer = ask(built, metric=metric)
    first = answer.tables[0].rows()[0]
    assert first["distance"] == 0
    assert first["image"] == "attributes 0"
    assert first["box"] == "Y 3:9, X 3:9"
    assert first["itself"] is True
    assert "its own nearest example; it has no vote" in answer.text


def test_leaving_its_group_out_removes_it_and_says_so(built):
    answer = ask(built, own_group=True)
    group = next(g for g in built[1].groups() if g.endswith("attributes 0"))
    rows = answer.tables[0].rows()
    assert all(row["distance"] > 0 and row["group"] != group for row in rows)
    assert not any(row["itself"] for row in rows)
    assert answer.tables[2].rows() == [{"group": group, "entries": 9}]
    assert f"Left out: 9 entries of {group}." in answer.text


def test_groups_can_be_left_out_by_name(built):
    answer = ask(built, leave_out="attributes [0-2]$")
    assert {row["image"] for row in answer.tables[0].rows()} <= {"attributes 3", "attributes 4"}
    assert [row["entries"] for row in answer.tables[2].rows()] == [9, 9, 9]
    with pytest.raises(BadParameter, match="No group of the bank fits"):
        ask(built, leave_out="slide 7")
    with pytest.raises(BadParameter, match="regular expression"):
        ask(built, leave_out="(")
    with pytest.raises(MissingNeed, match="All examples of the bank are left out"):
        ask(built, leave_out=".")


def test_an_image_that_is_not_in_the_bank_leaves_nothing_out(built):
    answer = ask(built, image=40, own_group=True)
    assert len(answer.tables) == 2
    assert any("belongs to no group" in note for note in answer.record.notes)
    assert answer.tables[0].rows()[0]["distance"] > 0


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbours_are_those_of_brute_force(built, metric):
    own, every = query(built, 40, 3).astype(float), built[1].vectors().astype(float)
    if metric == "cosine":
        far = 1 - every @ own / np.linalg.norm(every, axis=1) / np.linalg.norm(own)
    else:
        far = np.linalg.norm(every - own, axis=1)
    found = ask(built, image=40, number=3, metric=metric, k=7).tables[0].columns
    assert found["row"] == np.argsort(far)[:7].tolist()
    # the query is rounded as the bank is
    np.testing.assert_allclose(found["distance"], np.sort(far)[:7], rtol=2e-2, atol=2e-3)


def test_the_nearest_of_another_class_are_of_another_class(built):
    answer = ask(built, image=40, k=4)
    asked = answer.record.target["resolved"]["class"]
    contrast = answer.tables[1].rows()
    assert len(contrast) == 4
    assert all(row["predicted"] != asked for row in contrast)
    best = [d for e, d in zip(built[1].entries(range(45)), _distances(built), strict=True) if e.predicted != asked]
    assert contrast[0]["distance"] == pytest.approx(min(best), abs=2e-3)
    assert "the nearest of another class" in answer.text


def _distances(built):
    own, every = query(built, 40, 1).astype(float), built[1].vectors().astype(float)
    return 1 - every @ own / np.linalg.norm(every, axis=1) / np.linalg.norm(own)


def test_the_class_of_an_example_is_that_of_its_mask(tmp_path):
    masks = {f"attributes {n}": np.where(attribute_image(n)[1] > 0, 2, 0) for n in range(5)}
    model, bank = build(tmp_path, masks=masks)
    image, numbers, with_1, _ = attribute_image(0)
    plain = int(np.flatnonzero(~with_1)[0]) + 1
    answer = explain("nearest-examples", image, model, Target("plain", Painted(numbers == plain)), bank=bank)
    # every mask says marked: so all that is near is of another class than the one that was drawn
    assert answer.text.startswith("Of the 4 nearest other examples: 4 marked (vote entropy 0.00 bit)")
    assert [r["row"] for r in answer.tables[1].rows()] == [
        r["row"] for r in explain(
            "nearest-examples", image, model, Target("plain", Painted(numbers == plain)), bank=bank, k=6
        ).tables[0].rows() if not r["itself"]
    ]  # fmt: skip
    bank.close()


def test_vote_entropy_is_in_bits():
    assert vote_entropy(["a"] * 5) == 0
    assert vote_entropy(["a", "b"]) == pytest.approx(1)
    assert vote_entropy(["a", "b", "c", "d"]) == pytest.approx(2)
    assert vote_entropy(["a", "a", "a", "b"]) == pytest.approx(-(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25)))
    assert vote_entropy([]) == 0


def test_other_weights_have_other_neighbours(built, tmp_path):
    """The sanity check of the card: the examples depend on what the network has learnt."""
    other = build(tmp_path, seed=1)
    one, two = (
        [tuple(ask(net, image=40, number=n, k=5).tables[0].columns["row"]) for n in range(1, 10)]
        for net in (built, other)
    )
    shared = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(one, two, strict=True)])
    assert shared < 0.9
    assert sum(a != b for a, b in zip(one, two, strict=True)) >= 7
    other[1].close()


def test_every_object_is_painted_with_the_distance_of_the_nearest_other_example(built):
    answer = ask(built)
    numbers = attribute_image(0)[1]
    far = answer.layers[0].data
    every = built[1].vectors().astype(float)
    unit = every / np.linalg.norm(every, axis=1, keepdims=True)
    for n in range(1, 10):
        (value,) = np.unique(far[numbers == n])
        others = np.delete(1 - unit @ unit[n - 1], n - 1)
        assert value == pytest.approx(others.min(), abs=1e-4)
    assert not far[numbers == 0].any()
    like = answer["likeness to the nearest example"].data
    assert like.max() <= 1 + 1e-6
    assert like[numbers == 1].mean() > like[numbers == 0].mean()


def test_each_object_is_answered_in_one_run_and_the_command_says_the_bank(built):
    model, bank = built
    targets = [Target(None, Object(n)) for n in (1, 2, 3)]
    image = attribute_image(0)[0]
    several = list(explain_each("nearest-examples", image, model, targets, bank=bank.folder))
    for number, answer in enumerate(several, 1):
        assert answer.tables[0].columns == ask(built, 0, number).tables[0].columns
        assert f"--bank {bank.folder}" in as_cli(answer.record)
        assert f"bank={str(bank.folder)!r}" in as_python(answer.record)


def test_a_bank_named_by_its_folder_is_closed_again_and_a_given_one_stays_open(built, monkeypatch):
    model, bank = built
    closed = []
    close = FeatureBank.close
    monkeypatch.setattr(FeatureBank, "close", lambda self: (closed.append(self), close(self))[1])
    image, target = attribute_image(0)[0], Target(None, Object(1))
    explain("nearest-examples", image, model, target, bank=bank)
    assert closed == []
    explain("nearest-examples", image, model, target, bank=bank.folder)
    list(explain_each("nearest-examples", image, model, [target], bank=bank.folder))
    LiveQuestion(image, model).explain("nearest-examples", target, bank=bank.folder)
    assert len(closed) == 3
    assert bank not in closed
    assert len(bank)
