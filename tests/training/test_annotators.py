"""Training with several annotators: the tests of its card (A/B3), on annotators who draw larger or smaller (P4)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import seglens
from annotating import changed, learned, recipe_for, samples, together
from seglens.core.errors import BadParameter, ModelMismatch
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Point, Target
from seglens.engine.annotators import RECORDS, Opinions, check_annotators, records_of
from seglens.engine.resolve import resolve
from seglens.models.nets.annotators import AnnotatorUNet
from seglens.session import explain
from seglens.training.annotators import AnnotatorTask, apart, pulled
from seglens.training.batches import encode
from seglens.training.losses import UNKNOWN
from seglens.training.recipe import Phase
from seglens.training.trainer import train

BY = {"bold": 2, "shy": -2}
NAMES = tuple(sorted(BY))


@pytest.fixture(scope="module")
def trained():
    """Five seconds of training, with what was told after it."""
    return learned(BY, 120)


@pytest.fixture(scope="module")
def seen(trained):
    """Images that were not trained on: the sample, what the annotators would draw, and what they drew."""
    model, found = trained[0], []
    for sample in samples(6, BY, seed=99):
        case = resolve(Image(sample.image, "YXC", name=sample.name), model, Target("cell"), Run())
        truth = np.stack([sample.annotators[name] for name in NAMES]).reshape(2, -1)
        found.append((sample, Opinions.of(case), truth))
    return found


def test_areas_are_ordered_and_differ_by_the_perimeter_times_twice_the_radius(seen):
    bold, shy = np.sum([opinions.labels.sum(1).numpy() for _, opinions, _ in seen], 0)
    drawn = np.sum([truth.sum(1) for *_, truth in seen], 0)
    perimeter = sum((changed(sample.truth > 0, 1) & (sample.truth == 0)).sum() for sample, *_ in seen)
    assert bold > shy
    assert bold - shy == pytest.approx(2 * 2 * perimeter, rel=0.2)
    np.testing.assert_allclose([bold, shy], drawn, rtol=0.1)
    # what the network draws is their mean
    answer = np.sum([int(opinions.answer.sum()) for _, opinions, _ in seen])
    assert shy < answer < bold


def test_who_drew_it_is_known_on_the_rim_and_not_inside(seen):
    right, chance, inside = [], [], []
    for _, opinions, truth in seen:
        everywhere = torch.arange(truth.shape[1])
        rim = truth[0] != truth[1]
        for drawn in truth:
            who = opinions.distances(torch.from_numpy(drawn).long(), everywhere).amin(1).argmin(0).numpy()
            good = truth[who, everywhere] == drawn
            right.append(good[rim].mean())
            chance.append((truth == drawn)[:, rim].mean())
            # there all have drawn the same: whoever is named is as right as anybody
            inside.append(good[~rim].mean() - (truth == drawn)[:, ~rim].mean())
        at, shares = opinions.who(opinions.answer)
        assert set(at.tolist()) == set(opinions.disagree.nonzero()[:, 0].tolist())
        torch.testing.assert_close(shares.sum(0), torch.ones(len(at)))
    assert np.mean(chance) == 0.5
    assert np.mean(right) > 0.85
    assert not np.any(inside)


def test_the_answer_says_so(trained, seen):
    model, image = trained[0], Image(seen[0][0].image, "YXC", name="blobs")
    for number, name in enumerate(NAMES, start=1):
        answer = explain("annotator-prototypes", image, model, Target("cell"), of=name)
        who, differ = answer["who (where they differ)"].data, answer["disagreement"].data > 0
        assert (who[~differ] == 0).all()
        assert (who[differ] == number).mean() > 0.85
    assert "bold draws most of cell" in answer.text


def test_prototypes_are_pixels_that_the_annotator_drew_so(trained):
    model, told = trained
    head, by_name = check_annotators(model), {s.name: s for s in samples(24, BY)}
    assert len(told["prototypes"]) == 2 * 2 * 3
    for record, vector in zip(told["prototypes"], head.bank.detach().flatten(0, 2), strict=True):
        sample, at = by_name[record["name"]], tuple(record["position"])
        assert sample.annotators[record["annotator"]][at] == ("background", "cell").index(record["class"])
        with torch.inference_mode():
            features = model.module.body(encode(sample, recipe_for()).image)
        torch.testing.assert_close(features[(0, slice(None), *at)], vector, atol=1e-5, rtol=1e-5)
    assert records_of(model) == told["prototypes"]


def test_identical_annotators_add_nothing_to_the_shared_kernel(trained):
    model, _ = learned({"one": 1, "two": 1}, 15)
    assert float(check_annotators(model).sizes().max()) < 1e-5
    assert float(check_annotators(trained[0]).sizes().min()) > 0.5
    # two alike beside one who is not
    head = check_annotators(learned({"a": 2, "b": 2, "c": -2}, 15)[0])
    weight, _ = head.own()
    torch.testing.assert_close(weight[0], weight[1], atol=1e-5, rtol=0)
    assert float((weight[0] - weight[2]).detach().norm()) > 0.05


def test_pull_is_the_mean_squared_distance_to_the_nearest_prototype_of_the_class_drawn():
    generator = torch.Generator().manual_seed(0)
    distances = torch.rand(2, 3, 4, 5, 5, generator=generator)  # (N, K, M, *s)
    truth = torch.randint(-1, 3, (2, 5, 5), generator=generator)
    by_hand = [
        min(float(distances[n, truth[n, y, x], m, y, x]) for m in range(4))
        for n, y, x in np.ndindex(2, 5, 5)
        if truth[n, y, x] != UNKNOWN
    ]
    assert float(pulled(distances, truth)) == pytest.approx(np.mean(by_hand))
    assert 0 < float(apart(distances, truth)) < 1
    # prototypes that are the same pixel by pixel are wholly alike
    assert float(apart(distances[:, :, :1].expand(-1, -1, 4, -1, -1), truth)) == pytest.approx(1)


def test_who_has_not_seen_an_image_counts_nothing_there():
    recipe, every = recipe_for(), samples(2, {**BY, "third": 0})
    task = AnnotatorTask(recipe, Run())
    torch.manual_seed(0)
    net = AnnotatorUNet(**task.arguments(every)).eval()
    batch = together([encode(s, recipe, 4, net.head.names) for s in every])
    before = float(task.loss(net, batch, ""))
    batch.more["annotators"][:, 2] = UNKNOWN
    two = task.loss(net, batch, "")
    two.backward()
    assert float(two.detach()) != before
    assert not net.head.bank.grad[2].any()
    batch.more["annotators"][:] = UNKNOWN
    assert float(task.loss(net, batch, "").detach()) == 0


def test_annotators_are_chosen_by_a_pattern_and_two_are_needed():
    every = samples(1, {"a_pen": 1, "b_pen": -1, "a_mouse": 0})
    task = AnnotatorTask(recipe_for(options={"annotators": "*_pen"}), Run())
    assert task.arguments(every)["annotators"] == ["a_pen", "b_pen"]
    for found, pattern in ((every, "*_mouse"), ([replace(every[0], annotators={})], "*")):
        with pytest.raises(BadParameter, match="several annotators"):
            AnnotatorTask(recipe_for(options={"annotators": pattern}), Run()).arguments(found)


@pytest.mark.parametrize("names", [["alone"], ["twice", "twice"]])
def test_a_network_of_one_annotator_is_refused(names):
    with pytest.raises(BadParameter, match="annotators"):
        AnnotatorUNet(1, 2, annotators=names)


def test_from_a_folder_of_masks_to_a_model_folder_that_tells_its_annotators(tmp_path: Path):
    data = tmp_path / "data"
    for sample in samples(5, BY):
        for folder, array in {
            "images": sample.image[..., 0],
            **{f"masks/{w}": m for w, m in sample.annotators.items()},
        }.items():
            (data / folder).mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(
                data / folder / f"{sample.name}.tif", array.astype(np.float32 if folder == "images" else np.uint8)
            )
    phases = (Phase("together", 1, 1e-2), Phase("experts", 1, 1e-2, only=("head",), select_best=False))
    recipe = recipe_for(crop=32, batch=2, steps=2, phases=phases)
    out = train(recipe, data, tmp_path / "model", run=Run())
    model = seglens.load_model(out)
    head = check_annotators(model)
    assert head.names == NAMES
    records = records_of(model)
    assert [(r["annotator"], r["class"], r["number"]) for r in records[:4]] == [
        ("bold", "background", 1), ("bold", "background", 2), ("bold", "background", 3), ("bold", "cell", 1)
    ]  # fmt: skip
    assert "bold, shy" in (out / "CARD.md").read_text(encoding="utf-8")
    answer = explain(
        "annotator-prototypes", Image(samples(1, BY)[0].image, "YXC", name="blobs"), model, Target(None, Point((3, 3)))
    )
    assert {"drawn by bold", "drawn by shy"} <= {layer.name for layer in answer.layers}
    told = json.loads((out / RECORDS).read_text(encoding="utf-8"))
    for wrong in (json.dumps({**told, "annotators": ["bold", "other"]}), "{"):
        (out / RECORDS).write_text(wrong, encoding="utf-8")
        with pytest.raises(ModelMismatch, match=r"annotators\.json"):
            records_of(seglens.load_model(out))
