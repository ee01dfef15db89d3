"""Training of prototype networks: the two terms, push and prune, a whole training, hidden sub-types."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seglens import load_model
from seglens.core.errors import BadParameter, Cancelled
from seglens.core.files import open_image
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.engine.prototypes import PrototypeView, prototypes_of
from seglens.models.nets.proto_unet import ProtoUNet
from seglens.models.nets.unet import UNet
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec, Normalisation, classes_from
from seglens.training import RECIPES, Phase, Recipe, train
from seglens.training.batches import encode
from seglens.training.data import Sample
from seglens.training.evaluate import predict
from seglens.training.prototypes import PrototypeTask, jeffreys, off_class
from seglens.training.pushing import labels_at, look, prune, push, records

from .folders import blobs, write_folder

SPEC = ModelSpec("tiny", "YX", ("grey",), classes_from(("background", "cell")), normalisation=Normalisation("dtype"))
ARGUMENTS = {"in_channels": 1, "out_channels": 2, "features": [4, 8, 8], "width": 6, "per_class": 3}
RECIPE = Recipe(
    SPEC,
    ARGUMENTS,
    "light",
    network="proto-unet",
    border=0,
    crop=32,
    batch=2,
    steps=4,
    phases=(
        Phase("warm-up", 1, 1e-2, only=("decoder", "addon", "head.similarity")),
        Phase("joint", 2, 1e-2, rates={"head.weight": 0.0}),
        Phase("last layer", 1, 1e-2, only=("head.weight",)),
    ),
    task="seglens.training.prototypes.PrototypeTask",
)


def net(seed: int = 0, **more: object) -> ProtoUNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ProtoUNet(**{**ARGUMENTS, **more}).eval()  # type: ignore[arg-type]


def samples(count: int = 7, size: int = 44) -> list[Sample]:
    """Images whose sides are no multiples of the divisor."""
    drawn = [blobs(seed, size) for seed in range(count)]
    return [
        Sample(f"cell{i}", image[:-2, :, None], mask[:-2].astype(np.int32), opened=Image(image[:-2], "YX", name=f"{i}"))
        for i, (image, mask) in enumerate(drawn)
    ]


def question(seed: int = 0, classes: int = 3) -> tuple[torch.Tensor, ...]:
    """Distances, labels, owners and which count, of random prototypes."""
    generator = torch.Generator().manual_seed(seed)
    distances = 3 * torch.rand(2, 7, 6, 5, generator=generator)
    labels = torch.randint(0, classes, (2, 6, 5), generator=generator)
    return distances, labels, torch.tensor([0, 0, 1, 1, 1, 2, 2]), torch.tensor([True] * 4 + [False, True, True])


def plain(distances, labels, owner, active, only: int | None = None) -> list[float]:
    """The term of each two prototypes, from the formula and one after the other."""
    found = []
    for n in range(len(distances)):
        for c in range(3) if only is None else [only]:
            mine = [j for j in range(7) if owner[j] == c and active[j]]
            near = {j: distances[n, j][labels[n] == c].double().softmax(0) for j in mine}
            for i in mine:
                for j in mine:
                    if i < j:
                        kl = (near[i] * (near[i] / near[j]).log()).sum() + (near[j] * (near[j] / near[i]).log()).sum()
                        found.append(math.exp(-0.5 * float(kl)))
    return found


def test_the_term_is_its_formula():
    asked = question()
    assert float(jeffreys(*asked)) == pytest.approx(np.mean(plain(*asked)), abs=1e-5)


def test_permuting_class_numbers_permutes_the_terms():
    """The authors' code compares prototypes of a class on pixels of the one before; this would show it."""
    distances, labels, owner, active = question()
    new = torch.tensor([2, 0, 1])
    assert float(jeffreys(distances, new[labels], new[owner], active)) == pytest.approx(
        float(jeffreys(distances, labels, owner, active)), abs=1e-6
    )
    for c in range(3):
        of_class = torch.where(labels == c, labels, -1)
        term = float(jeffreys(distances, of_class, owner, active))
        # class 1 has two prototypes that count, and a third that does not
        assert term == pytest.approx(np.mean(plain(distances, labels, owner, active, only=c)), abs=1e-5)
        moved = torch.where(of_class >= 0, new[of_class.clamp(min=0)], -1)
        assert float(jeffreys(distances, moved, new[owner], active)) == pytest.approx(term, abs=1e-6)
        shifted = torch.where(of_class >= 0, (of_class + 1) % 3, -1)
        assert abs(float(jeffreys(distances, shifted, owner, active)) - term) > 1e-3


def test_without_two_prototypes_or_a_pixel_there_is_no_term():
    distances, labels, owner, active = question()
    assert float(jeffreys(distances, torch.full_like(labels, -1), owner, active)) == 0
    assert float(jeffreys(distances, labels, owner, torch.zeros_like(active))) == 0


def test_weights_for_other_classes_are_summed():
    weight = torch.tensor([[1.0, -2.0], [3.0, 4.0], [-5.0, 6.0]])
    assert float(off_class(weight, torch.tensor([0, 1]))) == 3 + 5 + 2 + 6


def test_labels_at_a_lower_resolution_are_those_in_the_middle():
    labels = torch.arange(8 * 6).reshape(1, 8, 6)
    assert torch.equal(labels_at(labels, (4, 3)), labels[:, 1::2, 1::2])
    assert torch.equal(labels_at(labels, (2, 6)), labels[:, 2::4])


@pytest.mark.parametrize("level", [0, 1])
def test_after_the_push_a_prototype_is_a_training_pixel_of_its_class(level):
    network, drawn = net(level=level), samples()
    before = network.head.prototypes.detach().clone()
    told = push(network, drawn, RECIPE, Run())
    by_name = {s.name: s for s in drawn}
    owner = network.head.owner.tolist()
    network.head.provenance = records(network, told["pushed"], drawn, RECIPE)
    model = SegmentationModel(network, SPEC.with_(divisor=network.divisor))
    assert [one["number"] for one in told["pushed"]] == [1, 2, 3, 4, 5, 6]
    for one in told["pushed"]:
        sample, at = by_name[one["image"]], tuple(one["position"])
        j = one["number"] - 1
        assert (sample.truth[at] > 0) == owner[j]
        assert all(5 <= p < n - 5 for p, n in zip(at, sample.truth.shape, strict=True))
        seen = look(network, sample, RECIPE)
        stored = seen.features.flatten(1)[:, seen.place(at)]
        assert torch.equal(stored, network.head.prototypes[j])
        # as the finished model sees the image, padded by itself
        view = PrototypeView(model, sample.opened, Run())
        place = tuple(p >> level for p in at)
        assert float(view.similarities[(j, *place)]) == pytest.approx(math.log(1e4), abs=1e-3)
        assert one["moved"] == pytest.approx(float((stored - before[j]).square().sum()), abs=1e-4)
        # none of its class is nearer, of those that are not at an edge
        for other in (look(network, s, RECIPE) for s in drawn):
            own = other.features[:, (other.labels == owner[j]) & ~other.edge]
            assert float((own - before[j][:, None]).square().sum(0).min()) >= one["moved"] - 1e-4
    shown = {p.number: p for p in prototypes_of(model)}
    for number, prototype in shown.items():
        one = told["pushed"][number - 1]
        sample = by_name[one["image"]]
        assert prototype.image == sample.opened.fingerprint()
        (top, bottom), (left, right) = prototype.box
        np.testing.assert_array_equal(prototype.crop, sample.image[top:bottom, left:right, 0])
        assert top <= prototype.position[0] < bottom
        assert left <= prototype.position[1] < right


def test_a_class_that_is_only_at_the_edge_is_still_found():
    network, drawn = net(), samples(1)
    truth = np.zeros_like(drawn[0].truth)
    truth[:3] = 1
    told = push(network, [replace(drawn[0], truth=truth)], RECIPE, Run())
    cells = [one for one in told["pushed"] if one["number"] > 3]
    assert cells
    assert all(one["position"][0] < 3 and one["moved"] < 100 for one in cells)


def test_prototypes_that_become_the_same_pixel_are_one():
    network, drawn = net(), samples(3)
    with torch.no_grad():
        network.head.prototypes[4] = network.head.prototypes[3] + 1e-4
    plain_copy = net()
    told = push(network, drawn, RECIPE, Run())
    assert 5 in told["duplicates"]
    assert not network.head.active[4]
    torch.testing.assert_close(network.head.weight[:, 3], plain_copy.head.weight[:, 3] + plain_copy.head.weight[:, 4])
    # the logits are those of all prototypes where they are now
    x = encode(drawn[0], RECIPE, 4).image
    with torch.inference_mode():
        now = network(x)
        network.head.active.fill_(True)
        network.head.weight.copy_(plain_copy.head.weight)
        torch.testing.assert_close(network(x), now)


def test_prototypes_of_the_wrong_kind_are_pruned_and_one_of_a_class_stays():
    network, drawn = net(), samples()
    seen = [look(network, s, RECIPE) for s in drawn]
    cell = torch.cat([s.features.flatten(1)[:, s.labels.flatten() == 1] for s in seen], 1).mean(1)
    with torch.no_grad():
        push(network, drawn, RECIPE, Run())
        network.head.active.fill_(True)
        network.head.prototypes[:] = cell  # most like cells, though the first three are said to be background
    told = prune(network, drawn, RECIPE, Run())
    assert told["own"][3:] == [6, 6, 6] or min(told["own"][3:]) >= 3
    assert max(told["own"][:3]) < 3
    assert told["pruned"] == [2, 3]
    assert network.head.active.tolist() == [True, False, False, True, True, True]


def test_a_class_without_a_training_pixel_loses_its_prototypes():
    three = replace(RECIPE, spec=SPEC.with_(classes=classes_from(("background", "cell", "other"))))
    network = net(out_channels=3)
    told = push(network, samples(2), three, Run())
    assert told["duplicates"][-3:] == [7, 8, 9]
    prune(network, samples(2), three, Run())
    assert not network.head.active[6:].any()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("proto")
    data = write_folder(folder, 8)
    return data, train(RECIPE, data, folder / "model", run=Run())


def test_a_training_goes_through_its_steps_and_leaves_a_model(made):
    data, folder = made
    record = json.loads((folder / "training.json").read_text())
    warm, joint, last = record["phases"]
    assert "after" not in warm
    assert "after" not in last
    told = joint["after"]
    assert told["prototypes"] == 6
    model = load_model(folder)
    prototypes = prototypes_of(model)
    gone = {*told["duplicates"], *told["pruned"]}
    assert {p.number for p in prototypes} == set(range(1, 7)) - gone
    assert sum(told["kept"].values()) == len(prototypes)
    assert 0 <= told["likeness"]["after"] <= 1
    card = (folder / "CARD.md").read_text()
    assert f"{len(prototypes)} of 6 were kept" in card
    # the last phase moved weights, and nothing else after the push
    for prototype in prototypes:
        file = next((data / "images").glob(f"{prototype.name}*"))
        image = open_image(file)
        assert prototype.image == image.fingerprint()
        view = PrototypeView(model, image, Run())
        y, x = (p // 2 for p in prototype.position)
        assert float(view.similarities[prototype.number - 1, y, x]) == pytest.approx(math.log(1e4), abs=1e-3)
    fresh = PrototypeTask(RECIPE, Run())
    assert "0 of 0 were kept" in fresh.describe()


def test_a_training_that_was_stopped_after_the_push_goes_on(made, tmp_path):
    data, whole = made
    run = Run()
    # in the last phase, behind push and prune
    run.on_progress = lambda done, total, text: run.cancel() if text.startswith("last layer") else None
    with pytest.raises(Cancelled):
        train(RECIPE, data, tmp_path / "out", run=run)
    train(RECIPE, data, tmp_path / "out", run=Run(), resume=True)
    for name in ("weights.safetensors", "prototypes.json", "prototypes.safetensors"):
        assert (tmp_path / "out" / name).read_bytes() == (whole / name).read_bytes()


def test_only_a_prototype_network_can_be_trained_so():
    task = PrototypeTask(RECIPE, Run())
    with pytest.raises(BadParameter, match="proto-unet"):
        task.loss(UNet(1, 2, [4, 8]), encode(samples(1)[0], RECIPE, 4), "joint")


def test_a_recipe_without_a_joint_phase_is_refused(tmp_path):
    with pytest.raises(BadParameter, match="'joint'"):
        train(replace(RECIPE, phases=()), write_folder(tmp_path, 4), tmp_path / "out", run=Run())


def test_the_benchmark_counts_and_times(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    from benchmarks.prototypes import miou, plain_recipe, speed

    model = SegmentationModel(net(), SPEC.with_(divisor=4))
    sample = samples(1)[0]
    found = predict(model, sample.image)
    half = np.where(np.arange(found.shape[1]) % 2, 1 - found, found)
    same = [((found == k) & (half == k)).sum() / ((found == k) | (half == k)).sum() for k in (0, 1)]
    assert miou(model, [replace(sample, truth=half, classes=True)]) == pytest.approx(same)
    assert len(speed(model, side=32, repeats=1)) == 7
    assert plain_recipe().network == "unet"
    assert [phase.epochs for phase in plain_recipe().plan()] == [p.epochs for p in RECIPES["proto-histology"].plan()]


@pytest.mark.parametrize("name", ["proto-histology", "proto-superalloy"])
def test_the_recipes_have_the_four_steps(name):
    recipe = RECIPES[name]
    assert [phase.name for phase in recipe.plan()] == ["warm-up", "joint", "last layer"]
    _, joint, last = recipe.plan()
    assert joint.rate_of("head.weight") == 0
    assert last.rate_of("head.similarity.vectors") == 0
    assert len(recipe.spec.classes) == recipe.arguments["out_channels"]


def test_with_the_term_both_hidden_sub_types_have_a_prototype(monkeypatch):
    """Plant P6 over five seeds: without the term they often do not."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    from benchmarks.prototypes import planted

    rates = {
        weight: sum(planted(seed, weight, steps=160).covered == {1, 2} for seed in range(5)) for weight in (0.0, 0.25)
    }
    assert rates[0.25] >= 4
    assert rates[0.25] > rates[0.0] + 1
