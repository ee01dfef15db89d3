"""Cross-model CAM: the tests of its card (B/B23)."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity
from torch import nn

import seglens
from hand import CONV, small_image, wrap
from seglens.core.errors import BadParameter, ImageMismatch, MissingNeed, UnknownName
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Predicted, Target
from seglens.models.nets.unet import UNet
from seglens.session import explain

BOTH = pytest.mark.parametrize("dims", [2, 3])
ASK = pytest.mark.parametrize("by", ["grad-cam", "grad-cam++"])


def unet(seed=0, dims=2, width=4):
    torch.manual_seed(seed)
    return UNet(1, 2, (width, 8, 12), dims=dims).eval()


def model_of(net, dims=2, classes=("background", "cell")):
    return wrap(net, dims=dims, divisor=net.divisor, classes=classes)


def question(dims=2):
    image = small_image(dims=dims, side=32)
    mask = np.zeros(image.space("ZYX"[-dims:]), bool)
    mask[(slice(2, 6),) * (dims - 2) + (slice(4, 12), slice(5, 14))] = True
    return image, mask


def told(answer):
    return dict(zip(*answer.tables[0].columns.values(), strict=True))


@BOTH
@ASK
def test_identical_models_agree_wholly(dims, by):
    image, mask = question(dims)
    one, two = model_of(unet(dims=dims), dims), model_of(unet(dims=dims), dims)
    answer = explain("cross-model-cam", image, one, Target(0, Painted(mask)), second_model=two, by=by)
    values = told(answer)
    assert np.ptp(answer.layers[0].data) > 0
    assert [values[k] for k in list(values)[:3]] == pytest.approx([1, 1, 1])
    np.testing.assert_allclose(answer.layers[2].data, 0, atol=1e-6)
    assert values["first: part in the region"] == pytest.approx(values["second: part in the region"])


@BOTH
@ASK
def test_each_map_is_that_of_its_model_alone(dims, by):
    image, mask = question(dims)
    one, two = model_of(unet(dims=dims), dims), model_of(unet(1, dims, 6), dims)
    target = Target(0, Painted(mask))
    answer = explain(
        "cross-model-cam", image, one, target, second_model=two, by=by, layer="encoder.1", second_layer="decoder.0"
    )
    method = {"grad-cam": "seg-grad-cam", "grad-cam++": "seg-grad-cam-plus-plus"}[by]
    for layer, model, name in zip(answer.layers, (one, two), ("encoder.1", "decoder.0"), strict=False):
        alone = explain(method, image, model, target, layer=name).map.data
        np.testing.assert_allclose(layer.data, alone, atol=1e-5)
    np.testing.assert_allclose(answer.layers[2].data, answer.layers[0].data - answer.layers[1].data)
    assert answer.layers[0].resolution == tuple(-(-n // 4) * 2 for n in mask.shape)
    assert "encoder.1 (8 channels" in answer.text
    assert "decoder.0 (8 channels" in answer.text


class Shared(torch.nn.Module):
    """A head of its own on an encoder that may be another's."""

    divisor = 1

    def __init__(self, encoder: int, head: int, dims: int = 2) -> None:
        super().__init__()
        torch.manual_seed(encoder)
        self.features = CONV[dims](1, 6, 5, padding=2)
        self.seen = torch.nn.ReLU()
        torch.manual_seed(100 + head)
        self.head = CONV[dims](6, 2, 3, padding=1)
        with torch.no_grad():
            self.head.weight.abs_()

    def forward(self, x):
        return self.head(self.seen(self.features(x)))


def test_models_with_a_shared_encoder_agree_more_than_with_another():
    image, mask = question()
    target = Target(1, Painted(mask))

    def ranks(encoder, head):
        first, second = model_of(Shared(0, 0)), model_of(Shared(encoder, head))
        answer = explain(
            "cross-model-cam", image, first, target, second_model=second, layer="seen", second_layer="seen"
        )
        return told(answer)["rank correlation"]

    shared = [ranks(0, head) for head in range(1, 6)]
    others = [ranks(encoder, encoder) for encoder in range(1, 6)]
    assert min(shared) > max(others)


def test_both_are_asked_about_the_same_pixels_wherever_the_second_draws_the_class():
    """The second model draws no cell at all, and is asked about the first one's cell all the same."""
    image, _ = question()
    one, two = unet(), unet(1)
    with torch.no_grad():
        two.head.bias[1] -= 1000
    first, x = model_of(one), torch.from_numpy(image.read("CYX"))[None]
    with torch.no_grad():
        logits = first.logits(x)[0]
        one.head.bias[0] += (logits[1] - logits[0]).median()
    target = Target("cell", Predicted())
    answer = explain("cross-model-cam", image, first, target, second_model=model_of(two))
    with torch.no_grad():
        drawn = first.logits(x)[0].argmax(0).numpy() == 1
    assert 0.4 < drawn.mean() < 0.6
    alone = explain("seg-grad-cam", image, model_of(two), Target(1, Painted(drawn))).map.data
    np.testing.assert_allclose(answer.layers[1].data, alone, atol=1e-5)


@pytest.mark.parametrize("channels", [(1, 3), (3, 1)])
def test_models_of_other_channels_are_told_apart_before_the_image_is_blamed(channels):
    nets = [wrap(CONV[2](n, 2, 3, padding=1), channels=n) for n in channels]
    nets[1].spec = nets[1].spec.with_(name="other")
    image, mask = small_image(side=32), np.ones((32, 32), bool)
    with pytest.raises(ImageMismatch) as caught:
        explain("cross-model-cam", image, nets[0], Target(1, Painted(mask)), second_model=nets[1])
    told = [f"{n} channel{'s' if n > 1 else ''}" for n in channels]
    assert f"hand expects YX with {told[0]} and other YX with {told[1]}." in caught.value.what
    assert caught.value.fix == "Choose a second model that takes the images of hand."


def test_a_class_of_another_name_has_to_be_named():
    image, mask = question()
    one, two = model_of(unet()), model_of(unet(), classes=("rest", "nucleus"))
    target = Target("cell", Painted(mask))
    with pytest.raises(UnknownName, match="cell") as caught:
        explain("cross-model-cam", image, one, target, second_model=two)
    assert caught.value.fix == "hand knows: 0 rest, 1 nucleus. Name one of them with --second-class."
    answer = explain("cross-model-cam", image, one, target, second_model=two, second_class="nucleus")
    assert told(answer)["rank correlation"] == pytest.approx(1)


def test_what_is_wrong_with_the_second_model_is_told():
    image, mask = question()
    one, target = model_of(unet()), Target(1, Painted(mask))
    with pytest.raises(MissingNeed, match="--second-model"):
        explain("cross-model-cam", image, one, target)
    with pytest.raises(UnknownName, match="decoder"):
        explain("cross-model-cam", image, one, target, second_model=model_of(unet()), second_layer="decoder.7")
    closed = model_of(unet())
    closed.layered = False
    with pytest.raises(MissingNeed):
        explain("cross-model-cam", image, one, target, second_model=closed)
    with pytest.raises(BadParameter, match="asks one model"):
        explain("seg-grad-cam", image, one, target, second_model=model_of(unet()))


def test_the_second_model_is_left_as_it_was_and_is_in_the_record():
    image, mask = question()
    second = unet(1).train()
    model = model_of(second)
    second.train()
    before = copy.deepcopy(second.state_dict())
    model.source = "other-model"
    answer = explain(
        "cross-model-cam", image, model_of(unet()), Target(1, Painted(mask)), second_model=model, run=Run()
    )
    assert all(m.training for m in second.modules())
    assert all(p.requires_grad and p.grad is None for p in second.parameters())
    assert all(torch.equal(before[k], v) for k, v in second.state_dict().items())
    assert "--second-model other-model" in seglens.as_cli(answer.record)
    assert "second_model=seglens.load_model('other-model')" in seglens.as_python(answer.record)


def test_a_volume_of_two_slices_is_compared():
    image = Image(np.random.default_rng(0).random((2, 24, 26)).astype(np.float32), "ZYX", name="thin")
    mask = np.zeros((2, 24, 26), bool)
    mask[:, 4:12, 5:14] = True
    one, two = (model_of(Shared(seed, seed, 3), 3) for seed in (0, 1))
    answer = explain("cross-model-cam", image, one, Target(1, Painted(mask)), second_model=two)
    assert -1 <= told(answer)["structural similarity"] < 1


@pytest.mark.parametrize("by", ["grad-cam", "grad-cam++"])
def test_agreement_of_models_that_differ_is_by_hand(by):
    """Second model of another layer and class order; each number by plain numpy, scipy and scikit-image."""
    image, mask = question()
    one, two = model_of(Shared(0, 0)), model_of(Shared(1, 1), classes=("cell", "background"))
    target = Target("cell", Painted(mask))
    answer = explain("cross-model-cam", image, one, target, second_model=two, by=by, top=10)
    method = {"grad-cam": "seg-grad-cam", "grad-cam++": "seg-grad-cam-plus-plus"}[by]
    maps = [explain(method, image, model, target, normalise=False).map.data for model in (one, two)]
    values = told(answer)
    assert values["rank correlation"] == pytest.approx(spearmanr(*(m.ravel() for m in maps)).statistic, abs=1e-4)
    scaled = [m.astype(float) / m.max() for m in maps]
    expected = structural_similarity(*scaled, win_size=7, data_range=1.0)
    assert values["structural similarity"] == pytest.approx(expected, abs=1e-4)
    tops = [m >= np.sort(m.ravel())[-round(m.size / 10)] for m in maps]
    assert values["IoU of the strongest 10 %"] == pytest.approx((tops[0] & tops[1]).sum() / (tops[0] | tops[1]).sum())
    for name, m in zip(("first", "second"), maps, strict=True):
        assert values[f"{name}: part in the region"] == pytest.approx(m[mask].sum() / m.sum(), abs=1e-5)
    assert abs(values["structural similarity"]) < 0.9
    if by == "grad-cam":
        assert abs(values["first: part in the region"] - values["second: part in the region"]) > 1e-3


def test_a_class_of_a_model_of_one_output_may_be_the_second():
    image, mask = question()
    one, single = model_of(Shared(0, 0)), Shared(1, 1)
    with torch.no_grad():
        single.head.weight, single.head.bias = (nn.Parameter(p[1:]) for p in (single.head.weight, single.head.bias))
    second = wrap(single, classes=("rest", "nucleus"), multilabel=True)
    target = Target("cell", Painted(mask))
    answer = explain("cross-model-cam", image, one, target, second_model=second, second_class="nucleus")
    alone = explain("seg-grad-cam", image, second, Target("nucleus", Painted(mask))).map.data
    np.testing.assert_allclose(answer.layers[1].data, alone, atol=1e-6)
    assert np.ptp(alone) > 0
    # its background is a constant, of which nothing speaks
    answer = explain("cross-model-cam", image, one, target, second_model=second, second_class="rest")
    assert not answer.layers[1].data.any()
    values = told(answer)
    assert all(np.isnan(values[k]) for k in list(values)[:3])
    assert "nothing to compare in the map of second: hand (zero everywhere):" in answer.text
    assert "first: hand (" not in answer.text
    assert "nan" not in answer.text
