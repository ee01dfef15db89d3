"""Targets: what is frozen, and what the numbers mean (cards A/K1, B/B0)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hand import Linear, Threshold, small_image, spec, wrap
from seglens.core.errors import ImageMismatch, NoSuchRegion, UnknownName
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Border, Box, Object, Painted, Point, Predicted, Target, describe_region, read_region
from seglens.engine.resolve import resolve
from seglens.engine.target import freeze, objects
from seglens.models import classes
from seglens.session import segment


def blocks() -> torch.Tensor:
    """Logits (1, 2, 12, 12) with two separate squares of class 1."""
    cell = torch.full((12, 12), -3.0)
    cell[1:4, 1:4] = 3.0
    cell[6:10, 5:9] = 2.0
    return torch.stack([torch.zeros(12, 12), cell])[None]


def test_regions():
    logits, plain = blocks(), spec()
    assert freeze(Target("cell"), logits, plain).pixels == 9 + 16
    assert freeze(Target("cell", Point((2, 2))), logits, plain).pixels == 1
    assert freeze(Target(None, Object(2)), logits, plain).pixels == 16
    assert freeze(Target(None, Object(at=(2, 2))), logits, plain).pixels == 9
    assert freeze(Target("cell", Box((0, 0), (3, 12))), logits, plain).pixels == 6
    assert freeze(Target("cell", Box((0, 0), (3, 12), False)), logits, plain).pixels == 36
    rim = freeze(Target("cell", Border(Object(2), width=1)), logits, plain).weights
    assert int((rim > 0).sum()) == 12
    assert int((rim < 0).sum()) == 16
    assert objects(logits[0].argmax(0).numpy()).max() == 2


def test_values_and_reductions():
    logits, plain = blocks(), spec()
    square = Object(1)
    assert float(freeze(Target(1, square), logits, plain)(logits)) == pytest.approx(3)
    assert float(freeze(Target(1, square, reduction="sum"), logits, plain)(logits)) == pytest.approx(27)
    assert float(freeze(Target(1, square, "margin"), logits, plain)(logits)) == pytest.approx(3)
    p = 1 / (1 + np.exp(-3))
    assert float(freeze(Target(1, square, "probability"), logits, plain)(logits)) == pytest.approx(p)
    assert float(freeze(Target(1, square, "log-probability"), logits, plain)(logits)) == pytest.approx(np.log(p))
    sure = 20 * logits
    assert float(freeze(Target(1, Predicted(), "dice"), logits, plain)(sure)) == pytest.approx(1)


def test_one_logit_network_explains_both_classes():
    class OneLogit(torch.nn.Module):
        def forward(self, x):
            return x - 0.5

    model = wrap(OneLogit(), multilabel=True)
    image = Image(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8), "YX")
    for name, sign in (("cell", 1), ("background", -1)):
        case = resolve(image, model, Target(name, reduction="sum"), Run())
        np.testing.assert_allclose(case.gradient()[0, 0], sign * case.target.weights)
    torch.testing.assert_close(case.logits.softmax(1)[:, 1], torch.sigmoid(case.x[:, 0] - 0.5))


def test_region_stays_when_the_prediction_moves():
    model = wrap(Threshold())
    image = Image(np.eye(8, dtype=np.float32), "YX")
    case = resolve(image, model, Target("cell"), Run())
    assert case.target.pixels == 8
    assert float(case.score(case.forward(torch.zeros_like(case.x)))) == pytest.approx(-10)


def test_gradient_of_one_convolution_is_the_transposed_convolution():
    module = Linear(2, 3)
    model = wrap(module, channels=2, classes=("a", "b", "c"))
    mask = np.zeros((24, 27), bool)
    mask[5:9, 4:20] = True
    case = resolve(small_image(2), model, Target("b", Painted(mask), reduction="sum"), Run())
    kernel = module.conv.weight[1:2].detach()
    expected = F.conv_transpose2d(torch.from_numpy(mask).float()[None, None], kernel, padding=2)
    torch.testing.assert_close(case.gradient(), expected)


def test_gradients_of_disjoint_regions_add_up():
    model = wrap(Linear(2, 3), channels=2, classes=("a", "b", "c"))
    left, right = np.zeros((2, 24, 27), bool)
    left[2:6, 2:6], right[10:20, 10:20] = True, True

    def gradient(mask):
        return resolve(small_image(2), model, Target(2, Painted(mask), "margin", "sum"), Run()).gradient()

    torch.testing.assert_close(gradient(left) + gradient(right), gradient(left | right))


def test_live_region_follows_the_prediction_and_is_recorded():
    model = wrap(Threshold())
    image = Image(np.eye(8, dtype=np.float32) * 0.9, "YX")
    target = Target("cell", Predicted(live=True), reduction="sum")
    case = resolve(image, model, target, Run())
    half = case.x.clone()
    half[..., 4:, :] = 0
    assert case.clean_score == pytest.approx(8 * 8, rel=1e-5)
    assert float(case.score(case.forward(half))) == pytest.approx(4 * 8, rel=1e-5)
    assert target.describe()["region"] == {"kind": "predicted", "live": True}


def test_permuting_classes_permutes_results():
    logits = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    order = [2, 0, 1]
    box = Box((2, 2), (9, 9), predicted_only=False)
    three = spec(classes=("a", "b", "c"))
    for value in ("logit", "probability", "margin", "dice"):
        for new, old in enumerate(order):
            one = freeze(Target(old, box, value), logits, three)(logits)
            two = freeze(Target(new, box, value), logits[:, order], three)(logits[:, order])
            torch.testing.assert_close(one, two)


def test_an_image_too_large_to_explain_at_once_names_a_crop():
    class Slide:
        shape, dtype = (20_000, 20_000), np.dtype(np.uint8)

    with pytest.raises(ImageMismatch) as caught:
        resolve(Image(Slide(), "YX"), wrap(Threshold()), Target("cell"), Run())
    assert "20000×20000" in caught.value.what
    assert "--crop Y=9488:10512,X=9488:10512" in caught.value.fix


def test_signed_painting_subtracts():
    model = wrap(Linear(1, 2))
    paint = np.zeros((24, 27), int)
    paint[2, 2], paint[9, 9] = 1, -1
    case = resolve(small_image(), model, Target(1, Painted(paint), reduction="sum"), Run())
    expected = case.logits[0, 1, 2, 2] - case.logits[0, 1, 9, 9]
    assert float(case.score(case.logits)) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("target", "error", "word"),
    [
        (Target("cell", Painted(np.zeros((12, 12)))), NoSuchRegion, "empty"),
        (Target("cell", Painted(np.ones((5, 5)))), ImageMismatch, "(5, 5)"),
        (Target("cell", Point((12, 0))), NoSuchRegion, "(12, 0)"),
        (Target(None, Object(7)), NoSuchRegion, "7"),
        (Target(None, Object(at=(11, 11))), NoSuchRegion, "background"),
        (Target("cell", Box((4, 9), (6, 12))), NoSuchRegion, "box"),
        (Target("cell", Box((6, 9), (4, 12))), NoSuchRegion, "second corner"),
        (Target("cell", Box((20, 0), (30, 5))), NoSuchRegion, "outside"),
        (Target("cell", Box((-9, 0), (-3, 5), False)), NoSuchRegion, "outside"),
        (Target("cll"), UnknownName, "cll"),
    ],
)
def test_refusals_say_what_and_how(target, error, word):
    with pytest.raises(error) as caught:
        freeze(target, blocks(), spec())
    assert word in caught.value.what
    assert caught.value.fix.endswith(".")


def test_regions_survive_a_record():
    mask = np.ones((3, 3), bool)
    for region in (Predicted(), Point((1, 2)), Object(3), Object(at=(1, 1)), Box((0, 0), (2, 2)), Border(Object(1), 3)):
        assert read_region(describe_region(region)) == region
    again = read_region(describe_region(Painted(mask, "m.tif")), mask)
    assert again.source == "m.tif"
    with pytest.raises(NoSuchRegion):
        read_region(describe_region(Painted(mask)))


class Nested(torch.nn.Module):
    """Two sigmoids of one channel: all that is bright is organ, and the brightest of it is tumour as well."""

    def forward(self, x):
        return torch.cat([4 * x - 1, 8 * x - 4], 1)


def nested():
    ramp = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    return wrap(Nested(), classes=("background", "organ", "tumour"), multilabel=True), Image(ramp, "YX")


def test_classes_that_overlap_are_each_asked_by_themselves():
    model, image = nested()
    x = torch.from_numpy(image.data)
    drawn = {"organ": (4 * x > 1), "tumour": (8 * x > 4), "background": (4 * x <= 1)}
    logits = {"organ": 4 * x - 1, "tumour": 8 * x - 4}
    for name, own in drawn.items():
        case = resolve(image, model, Target(name, value="probability"), Run())
        np.testing.assert_array_equal(case.target.region, own.numpy())
        p = logits[name].sigmoid() if name in logits else (-logits["organ"]).sigmoid() * (-logits["tumour"]).sigmoid()
        assert case.clean_score == pytest.approx(float(p[own].mean()), abs=1e-6)
        told = resolve(image, model, Target(name, value="log-probability"), Run()).clean_score
        assert told == pytest.approx(float(p[own].log().mean()), abs=1e-5)
        if name in logits:  # nothing but the class's own answer counts
            for value in ("logit", "margin"):
                lead = resolve(image, model, Target(name, value=value), Run())
                assert lead.clean_score == pytest.approx(float(logits[name][own].mean()), abs=1e-5)
    against = resolve(image, model, Target("background"), Run())
    lead = -torch.maximum(*logits.values())[drawn["background"]].mean()
    assert against.clean_score == pytest.approx(float(lead), abs=1e-5)


def test_a_box_and_the_live_region_know_classes_that_overlap():
    model, image = nested()
    box = resolve(image, model, Target("organ", Box((6, 0), (9, 10))), Run())
    assert box.target.pixels == 30  # half of them are shown as tumour
    live = resolve(image, model, Target("organ", Predicted(live=True), reduction="sum"), Run())
    assert float(live.score(live.logits)) == pytest.approx(float((live.logits[:, 1] * (live.logits[:, 1] > 0)).sum()))


def test_prediction_of_classes_that_overlap():
    model, image = nested()
    made = segment(image, model, probabilities=True)
    x = image.data
    organ, tumour = (1 / (1 + np.exp(-z)) for z in (4 * x - 1, 8 * x - 4))
    np.testing.assert_allclose(made.probabilities, [(1 - organ) * (1 - tumour), organ, tumour], atol=1e-6)
    np.testing.assert_array_equal(made.labels, np.where(x <= 0.25, 0, np.where(8 * x - 4 > 4 * x - 1, 2, 1)))
    both = [-(p * np.log(p) + (1 - p) * np.log(1 - p)) for p in (organ, tumour)]
    np.testing.assert_allclose(made.entropy, np.mean(both, 0), atol=1e-5)
    assert model.spec.choices == 2


def test_entropy_and_drawn_classes_of_both_kinds():
    z = torch.tensor([0.0, 1.5, -0.5]).reshape(1, 3, 1, 1)
    p = z.softmax(1)
    assert float(classes.entropy(p, False)) == pytest.approx(float(-(p * p.log()).sum()))
    own = classes.probabilities(z, True)[:, 1:]
    both = -(own * own.log() + (1 - own) * (1 - own).log())
    assert float(classes.entropy(classes.probabilities(z, True), True)) == pytest.approx(float(both.mean()))
    model, image = nested()
    case = resolve(image, model, Target("organ"), Run())
    np.testing.assert_array_equal(case.drawn(), image.data > 0.25)
    np.testing.assert_array_equal(case.drawn(-case.logits), image.data < 0.25)
    assert (case.labels == 1).sum() < case.drawn().sum()
