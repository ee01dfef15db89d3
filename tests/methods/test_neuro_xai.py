"""NeuroXAI: the tests of its card (B/B16), on volumes of four modalities of which each class needs one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hand import Deep, small_image, wrap
from seglens.core.errors import BadParameter, UnknownName
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Predicted, Target
from seglens.engine.paths import Noisy
from seglens.session import estimate, explain

MODALITIES = ("flair", "t1", "t1ce", "t2")
METHODS = [
    "vanilla gradient", "guided backpropagation", "integrated gradients", "guided integrated gradients",
    "SmoothGrad²", "Grad-CAM", "guided Grad-CAM",
]  # fmt: skip
CLASSES = ("background", "edema", "tumour")


class Brain(nn.Module):
    """Edema where flair is light, tumour where t1ce is; the other modalities count for almost nothing."""

    def __init__(self, dims: int = 3) -> None:
        super().__init__()
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        self.features, self.head = conv(4, 8, 3, padding=1), conv(8, 3, 1)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            weight = torch.rand(self.features.weight.shape, generator=generator)
            relevance = torch.full((8, 4), 0.01)
            relevance[:4, 0] = relevance[4:, 2] = 1
            self.features.weight.copy_(weight * relevance.reshape(8, 4, *(1,) * dims))
            self.features.bias.fill_(-0.6 * 3**dims * 0.5)
            self.head.weight.zero_()
            self.head.weight[1, :4], self.head.weight[2, 4:] = 1.0, 1.0
            self.head.bias.copy_(torch.tensor([0.5, 0.0, 0.0]))

    def forward(self, x):
        return self.head(F.relu(self.features(x)))


def brain(dims: int = 3) -> Image:
    """A light ball in flair, another in t1ce, and edges of the same kind in the two others."""
    size = (12, 24, 26)[-dims:]
    grid = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    rng = np.random.default_rng(0)
    pixels = 0.2 * rng.random((4, *size))
    centres = {0: 7, 1: 12, 2: 18, 3: 10}
    for channel, x in centres.items():
        centre = (*(6,) * (dims - 2), 11, x)
        pixels[channel] += 0.9 * (sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= 16)
    return Image(pixels.astype(np.float32), "C" + "ZYX"[-dims:], name="brain")


def model_of(module, dims=3):
    from seglens.models.segmentation import SegmentationModel
    from seglens.models.spec import ModelSpec, Normalisation, classes_from

    spec = ModelSpec("brain", "ZYX"[-dims:], MODALITIES, classes_from(CLASSES), normalisation=Normalisation("none"))
    return SegmentationModel(module.eval(), spec)


def rows(answer):
    return {(r["class"], r["method"]): r for r in answer.tables[0].rows()}


@pytest.mark.parametrize("dims", [2, 3])
def test_the_modality_that_a_class_needs_has_most_of_every_map(dims):
    answer = explain("neuro-xai", brain(dims), model_of(Brain(dims), dims), Target("edema"), classes="all", steps=10,
                     layer="features")  # fmt: skip
    table = rows(answer)
    assert [m for c, m in table if c == "edema"] == METHODS
    for method in METHODS:
        if method == "Grad-CAM":
            # it weighs a layer's channels and not the image's: it says so instead of sharing out what it cannot tell
            assert table["edema", method]["flair"] == "–"
            continue
        assert table["edema", method]["flair"] > 0.8
        assert table["tumour", method]["t1ce"] > 0.8
    assert "6 of 6 that tell channels apart find most in flair" in answer.text
    assert [layer.name for layer in answer.layers] == METHODS + [f"tumour: {m}" for m in METHODS]
    other = explain("neuro-xai", brain(dims), model_of(Brain(dims), dims), Target("tumour"), steps=10, layer="features")
    for method in METHODS:
        scale = np.abs(other[method].data).max()
        np.testing.assert_allclose(answer[f"tumour: {method}"].data, other[method].data, atol=1e-5 * scale)


def test_each_map_is_that_of_its_own_method():
    image, model, target = brain(2), model_of(Brain(2), 2), Target("edema", Predicted())
    answer = explain(
        "neuro-xai",
        image,
        model,
        target,
        steps=6,
        path_steps=9,
        samples=4,
        smoothed="vanilla gradient",
        layer="features",
    )
    alone = {
        "vanilla gradient": ("vanilla-gradient", {}),
        "guided backpropagation": ("guided-backprop", {}),
        "integrated gradients": ("integrated-gradients", {"steps": 6}),
        "guided integrated gradients": ("guided-integrated-gradients", {"steps": 9}),
        "SmoothGrad²": ("smooth-grad", {"samples": 4, "form": "square"}),
        "Grad-CAM": ("seg-grad-cam", {"layer": "features", "normalise": False}),
        "guided Grad-CAM": ("guided-grad-cam", {"layer": "features"}),
    }
    for name, (method, parameters) in alone.items():
        other = explain(method, image, model, target, run=Run(), **parameters).layers[0]
        assert answer[name].kind == other.kind
        np.testing.assert_allclose(answer[name].data, other.data, atol=1e-5 * np.abs(other.data).max(), err_msg=name)
        assert np.abs(other.data).max() > 0
    rows = answer.tables[1].rows()
    assert [(row["class"], row["method"]) for row in rows] == [
        ("edema", "integrated gradients"), ("edema", "guided integrated gradients"),
    ]  # fmt: skip
    for row in rows:
        method, parameters = alone[row["method"]]
        table = explain(method, image, model, target, **parameters).tables[0].columns
        told = dict(zip(table["quantity"], table["value"], strict=True))
        for name in ("difference", "sum of the map", "gap", "gap / difference"):
            assert row[name] == pytest.approx(told[name], abs=1e-4)


class Steep(nn.Module):
    """Half of the score comes within a hair's breadth of the path, so few steps miss it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 2, 1, bias=False)
        with torch.no_grad():
            self.features.weight.fill_(1)

    def forward(self, x):
        own = torch.tanh(60 * (self.features(x)[:, :1] - 0.5)) + 1
        return torch.cat([0.5 + 0 * own, own, 2 * own - 1.2], 1)


def test_what_an_integral_leaves_out_is_said_with_class_and_method():
    pixels = np.full((12, 14), 0.1, np.float32)
    pixels[3:6, 3:6], pixels[8:10, 8:12] = 0.9, 0.5
    asked = {"fill": "black", "layer": "features", "classes": "all", "samples": 2}
    model = wrap(Steep(), classes=("nothing", "grey", "light"))
    mask = np.zeros(pixels.shape, bool)
    mask[3:6, 3:6] = True
    notes = []
    run = Run(on_note=notes.append)
    image, target = Image(pixels, "YX"), Target("light", Painted(mask))
    answer = explain("neuro-xai", image, model, target, run=run, steps=2, path_steps=3, **asked)
    for about in ("light", "grey"):
        for method in ("integrated gradients", "guided integrated gradients"):
            told = [note for note in answer.record.notes if note.startswith(f"{about}, {method}: The map adds up to")]
            assert len(told) == 1
    assert notes == answer.record.notes
    fine = explain("neuro-xai", image, model, target, steps=400, path_steps=400, **asked)
    assert not any("adds up" in note for note in fine.record.notes)
    assert max(map(abs, fine.tables[1].columns["gap / difference"])) < 0.05


def test_smooth_grad_of_guided_signals_is_the_mean_square_over_noisy_images():
    image, model, mask = brain(2), model_of(Brain(2), 2), np.zeros((24, 26), bool)
    mask[6:14, 4:12] = True
    target = Target("edema", Painted(mask))
    answer = explain("neuro-xai", image, model, target, spread=0.3, samples=3, layer="features", steps=3, path_steps=3)
    x = torch.from_numpy(image.data)[None]
    copies = Noisy.of(x, 0.3 * float(x.max() - x.min()), 3, 0).batch(0, 3)
    assert float((copies - x).std()) > 0.2
    squares = []
    for copy in copies:
        noisy = Image(copy.numpy(), image.axes)
        maps = explain("guided-backprop", noisy, model, target, channels=True, show="signed")
        squares.append(np.stack([maps[f"guided backpropagation: {m}"].data for m in MODALITIES]) ** 2)
    expected = np.mean(squares, 0).max(0)
    np.testing.assert_allclose(answer["SmoothGrad²"].data, expected, atol=1e-5 * expected.max())
    clean = answer["guided backpropagation"].data ** 2
    assert np.abs(expected - clean).max() > 0.05 * clean.max()


def test_smooth_grad_of_guided_signals_without_noise_is_their_square():
    answer = explain("neuro-xai", brain(2), model_of(Brain(2), 2), Target("edema"), spread=0, layer="features", steps=3)
    guided = answer["guided backpropagation"].data
    np.testing.assert_allclose(answer["SmoothGrad²"].data, guided**2, atol=1e-6 * guided.max() ** 2)


def test_slices_of_a_flat_network_are_those_of_the_network_in_the_plane():
    flat = Deep(1, 2, 2, seed=3)
    deep = Deep(1, 2, 3, seed=3)
    deep.features = nn.Conv3d(1, 8, (1, 3, 3), padding=(0, 1, 1))
    deep.mix = nn.Conv3d(8, 3, (1, 3, 3), padding=(0, 1, 1))
    with torch.no_grad():
        for name in ("features", "mix", "head"):
            getattr(deep, name).weight.copy_(getattr(flat, name).weight.unsqueeze(2))
            getattr(deep, name).bias.copy_(getattr(flat, name).bias)
    volume = small_image(1, 3, side=40)
    plane = Image(volume.data[0, 3], "YX")
    mask = np.zeros(volume.data.shape[1:], bool)
    mask[3, 6:11, 7:12] = True
    given = {"layer": "features", "fill": "black", "steps": 6, "spread": 0.0, "samples": 2}
    three = explain("neuro-xai", volume, wrap(deep, dims=3), Target("cell", Painted(mask)), **given)
    two = explain("neuro-xai", plane, wrap(flat), Target("cell", Painted(mask[3])), **given)
    for name in METHODS:
        a, b = three[name].data[3], two[name].data
        # the mean gradient of a channel is over all slices
        a = a * len(mask) if name == "Grad-CAM" else a
        np.testing.assert_allclose(a, b, atol=1e-4 * max(np.abs(b).max(), 1e-3), err_msg=name)
        if name != "Grad-CAM":
            assert not np.delete(three[name].data, 3, 0).any()


def test_each_channel_has_maps_and_other_classes_are_those_the_model_draws():
    image, model = brain(2), model_of(Brain(2), 2)
    answer = explain("neuro-xai", image, model, Target("edema"), channels=True, steps=3, layer="features")
    assert len(answer.layers) == 7 + 6 * 4
    np.testing.assert_allclose(
        sum(answer[f"integrated gradients: {m}"].data for m in MODALITIES),
        answer["integrated gradients"].data,
        atol=1e-5,
    )
    no_tumour = Image(np.concatenate([image.data[:2], 0 * image.data[:1], image.data[3:]]), image.axes)
    answer = explain("neuro-xai", no_tumour, model, Target("edema"), classes="all", steps=3, layer="features")
    assert {c for c, _ in rows(answer)} == {"edema"}
    assert any("tumour" in note for note in answer.record.notes)


def test_grey_images_have_agreement_and_no_shares():
    answer = explain("neuro-xai", small_image(), wrap(Deep(seed=2)), Target("cell", Painted(np.ones((24, 27), bool))),
                     steps=4, layer="features")  # fmt: skip
    assert set(answer.tables[0].columns) == {"class", "method", "agreement with the others"}
    told = answer.tables[0].columns["agreement with the others"]
    assert all(-1 <= a <= 1 for a in told)
    maps = [np.abs(layer.data).ravel() for layer in answer.layers]
    from scipy.stats import spearmanr

    expected = np.mean([spearmanr(maps[0], m).statistic for m in maps[1:]])
    assert told[0] == pytest.approx(expected, abs=1e-3)


def test_progress_is_one_and_wrong_layers_and_fills_are_refused():
    seen = []
    run = Run(on_progress=lambda done, total, text: seen.append((done / total, text)))
    image, model = brain(2), model_of(Brain(2), 2)
    explain("neuro-xai", image, model, Target("edema"), steps=3, samples=2, layer="features", run=run)
    shares = [share for share, text in seen if "," in text or text in METHODS]
    assert shares == sorted(shares)
    assert {text.split(",")[0] for _, text in seen} >= set(METHODS) - {"guided Grad-CAM"}
    with pytest.raises(UnknownName):
        explain("neuro-xai", image, model, Target("edema"), layer="nowhere")
    with pytest.raises(BadParameter):
        explain("neuro-xai", image, model, Target("edema"), fill="inpaint")


def test_what_it_takes_is_told_before():
    image, model = brain(2), model_of(Brain(2), 2)
    asked = {"steps": 5, "path_steps": 7, "samples": 4, "layer": "features"}
    one, both = (estimate("neuro-xai", image, model, Target("edema"), classes=c, **asked) for c in ("target", "all"))
    assert one.plain == 1 + 5 + 7 + 4 + 2
    assert both.plain == 2 * one.plain
    assert both.forwards == pytest.approx(2 * one.forwards)
    answer = explain("neuro-xai", image, model, Target("edema"), **asked)
    assert answer.record.cost["backwards"] <= one.plain
