"""Prototype rules: the tests of their card (A/B2)."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch.nn import functional as F

import seglens
from hand import Deep, Threshold, small_image, wrap
from seglens.core.errors import BadParameter, MissingNeed, UnknownName
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.saving import save_explanation
from seglens.core.target import Point, Target
from seglens.engine.printed_rules import read, replay
from seglens.methods.prototype._rules import k_means, updated
from seglens.models.nets.unet import UNet
from seglens.session import explain

LAYER = "decoder.1"


def unet(dims=2, channels=1):
    torch.manual_seed(0)
    net = UNet(channels, 3, (4, 6, 8), dims=dims).eval()
    noise = torch.from_numpy(small_image(channels, dims=dims, side=32).data)[None]
    with torch.no_grad():
        # so that every class is drawn somewhere
        net.head.bias -= net(noise[(..., *(slice(n // 4 * 4) for n in noise.shape[2:]))]).flatten(2).mean(2)[0]
    return wrap(net, dims=dims, channels=channels, classes=("background", 'one "THEN" (two)', "other"), divisor=4)


def features_of(model, image, layer):
    """What a layer answers, enlarged, by hooks of our own: (n, D)."""
    seen = []
    handle = model.module.get_submodule(layer).register_forward_hook(lambda _m, _i, out: seen.append(out))
    x = torch.from_numpy(image.read("C" + model.spec.axes).astype(np.float32))[None]
    with torch.no_grad():
        model.logits(x)
    handle.remove()
    padded, mode = model.padded(tuple(x.shape[2:])), "bilinear" if x.ndim == 4 else "trilinear"
    full = F.interpolate(seen[-1], padded, mode=mode, align_corners=False)
    return full[(0, slice(None), *(slice(0, n) for n in x.shape[2:]))].flatten(1).T.numpy()


def rules_of(answer):
    return next(t for t in answer.tables if t.name == "rules").columns["rule"]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("features", ["intensities", "layer", "intensities and layer"])
def test_printed_rules_alone_give_the_labels_of_all_pixels(features, dims, tmp_path):
    image, model = small_image(2, dims=dims, side=33), unet(dims, 2)
    answer = explain("prototype-rules", image, model, Target(0, Point((3,) * dims)), features=features, layer=LAYER)
    save_explanation(answer, tmp_path / "out", image)
    with (tmp_path / "out" / "table-rules.csv").open(newline="", encoding="utf-8") as file:
        assert next(file).strip() == "rules"
        printed = [row["rule"] for row in csv.DictReader(file)]
    assert printed == rules_of(answer)
    given = []
    if features != "layer":
        given.append(image.read("C" + "ZYX"[-dims:]).reshape(2, -1).T)
    if features != "intensities":
        given.append(features_of(model, image, LAYER))
    names = [c.name for c in model.spec.classes]
    replayed = replay(printed, np.concatenate(given, 1).astype(np.float32))
    drawn = np.array(names)[answer["drawn by the rules"].data.ravel()]
    assert len(np.unique(drawn)) > 1
    assert (replayed == drawn).all()


def test_a_changed_number_changes_the_replay():
    image = small_image(side=40)
    rules = rules_of(explain("prototype-rules", image, wrap(Threshold()), Target("cell"), features="intensities"))
    values = image.read("CYX").reshape(1, -1).T
    _, _, prototypes, classes = read(rules)
    other = next(i for i, name in enumerate(classes) if name != classes[0])
    number = str(np.float32(prototypes[0, 0]))
    changed = [rules[0], rules[1].replace(number, str(np.float32(prototypes[other, 0]))), *rules[2:]]
    assert (replay(changed, values) != replay(rules, values)).any()


def test_what_is_no_rule_is_refused():
    rules = rules_of(
        explain("prototype-rules", small_image(), unet(), Target(0, Point((3, 3))), features="intensities")
    )
    with pytest.raises(BadParameter, match="shape"):
        replay(rules, np.zeros((5, 2), np.float32))
    for wrong in (rules[1:], [rules[0], "IF it rains THEN stay"], []):
        with pytest.raises(BadParameter):
            replay(wrong, np.zeros((5, 1), np.float32))


def test_prototypes_are_real_pixels_of_their_class_and_are_their_own():
    image, model = small_image(side=40), unet()
    reference = small_image(side=48, seed=5)
    reference = Image(reference.data, reference.axes, name="other (one).tif")
    answer = explain(
        "prototype-rules", image, model, Target(0, Point((3, 3))), features="intensities and layer", layer=LAYER,
        reference=(reference,), run=Run(seed=2),
    )  # fmt: skip
    table = answer.tables[0].rows()
    _, _, values, classes = read(rules_of(answer))
    images = {i.name: i for i in (image, reference)}
    assert {row["image"] for row in table} == set(images)
    for row, prototype, name in zip(table, values, classes, strict=True):
        home = images[row["image"]]
        y, x = (int(word.split()[1]) for word in row["position"].split(", "))
        at = y * home.size("X") + x
        assert prototype[0] == np.float32(home.read("CYX")[0, y, x])
        np.testing.assert_allclose(prototype[1:], features_of(model, home, LAYER)[at], rtol=1e-5, atol=1e-6)
        labels = seglens.segment(home, model).labels
        assert model.spec.classes[labels[y, x]].name == name == row["class"]
        if home is image:
            assert (row["Y start"], row["X stop"]) == (y, x + 1)
            assert answer["winning prototype"].data[y, x] == row["prototype"]
            assert [y, x] in answer["prototypes"].data.astype(int).tolist()
        else:
            assert row["Y start"] is None


def test_rules_on_intensities_follow_a_threshold_and_say_how_far():
    image = Image(np.random.default_rng(0).random((60, 60)).astype(np.float32), "YX", name="noise")
    answer = explain("prototype-rules", image, wrap(Threshold()), Target("cell"), features="intensities")
    alike = (answer["drawn by the rules"].data == (image.data > 0.5)).mean()
    assert alike > 0.97
    assert f"{alike:.1%} of the pixels as the network does" in answer.text
    # the sign of the map is the decision
    np.testing.assert_array_equal(answer.map.data > 0, answer["drawn by the rules"].data == 1)
    # of a network that looks at neighbours, one pixel's intensity says little, and that is told
    blind = explain("prototype-rules", small_image(side=40), wrap(Deep(seed=3)), Target(1), features="intensities")
    assert "do not stand for the network" in blind.text


def test_a_prototype_can_be_left_out():
    image = Image(np.random.default_rng(0).random((60, 60)).astype(np.float32), "YX", name="noise")
    ask = {"features": "intensities", "prototypes": 3}
    every = explain("prototype-rules", image, wrap(Threshold()), Target("cell"), **ask)
    some = explain("prototype-rules", image, wrap(Threshold()), Target("cell"), **ask, leave_out="2, 5")
    assert every.tables[0].columns["prototype"] == [1, 2, 3, 4, 5, 6]
    assert some.tables[0].columns["prototype"] == [1, 3, 4, 6]
    assert set(rules_of(some)) < set(rules_of(every))
    for wrong in ("9", "two", "1,2,3,4,5,6"):
        with pytest.raises(BadParameter):
            explain("prototype-rules", image, wrap(Threshold()), Target("cell"), **ask, leave_out=wrong)


def test_layers_that_cannot_be_seen_are_told_before_the_work():
    model = unet()
    with pytest.raises(UnknownName):
        explain("prototype-rules", small_image(), model, Target(0, Point((3, 3))), layer="nowhere")
    model.layered = False
    with pytest.raises(MissingNeed, match="cannot be reached") as caught:
        explain("prototype-rules", small_image(), model, Target(0, Point((3, 3))))
    assert "intensities" in caught.value.fix


def test_one_batch_of_everything_is_a_step_of_lloyd():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 4))
    start = rows[:7].copy()
    nearest = cdist(rows, start).argmin(1)
    lloyd = np.stack([rows[nearest == k].mean(0) for k in range(7)])
    centres, counts = updated(start, np.zeros(7), rows)
    np.testing.assert_allclose(centres, lloyd, atol=1e-12)
    np.testing.assert_array_equal(counts, np.bincount(nearest, minlength=7))


def test_the_online_step_is_the_mean_so_far():
    """The public code of xDNN computes 2c + x/(n+1): (2, .5) here."""
    centres, counts = updated(np.array([[1.0, 0.0]]), np.ones(1), np.array([[0.0, 1.0]]))
    np.testing.assert_array_equal(centres, [[0.5, 0.5]])
    assert counts == [2]
    # a batch is the same as its rows one after the other, where they stay with their centre
    rng = np.random.default_rng(1)
    rows, two = rng.normal(size=(20, 3)) * 0.1, np.array([[0.0, 0, 0], [9, 9, 9]])
    one, seen = two, np.array([3.0, 5.0])
    for row in rows:
        one, seen = updated(one, seen, row[None])
    np.testing.assert_allclose(updated(two, np.array([3.0, 5.0]), rows)[0], one, atol=1e-12)


def test_two_blobs_have_their_centres():
    rng = np.random.default_rng(3)
    blobs = np.concatenate([rng.normal((0, 0), 1, (4000, 2)), rng.normal((12, 5), 1, (4000, 2))])
    centres = k_means(blobs, 2, 1024, 60, rng)
    centres = centres[centres[:, 0].argsort()]
    # as many rows as have been seen, drawn with repetition
    error = np.sqrt(1 / 4000 + 1 / (1024 * 60 / 2))
    np.testing.assert_allclose(centres, [(0, 0), (12, 5)], atol=3 * error)


def test_few_different_pixels_make_few_prototypes():
    pixels = np.zeros((20, 20), np.float32)
    pixels[5:9, 5:9] = 1
    answer = explain("prototype-rules", Image(pixels, "YX", name="two"), wrap(Threshold()), Target("cell"),
                     features="intensities")  # fmt: skip
    assert answer.tables[0].columns["class"] == ["background", "cell"]
    assert answer.tables[0].columns["of these drawn alike"] == [1.0, 1.0]
