"""SegNBDT: the tests of its card (A12); those of the tree alone are in tests/engine/test_class_tree.py."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from hand import Context, Linear, cell_target, context_image, small_image, wrap
from seglens.core.errors import MissingNeed, UnknownName
from seglens.core.files import open_image
from seglens.core.target import Border, Box, Painted, Point, Predicted, Target
from seglens.engine.class_tree import ward
from seglens.models.loaders import load_model
from seglens.models.nets.unet import UNet
from seglens.sample_data import sample_layers
from seglens.session import explain

CLASSES = ("background", "nucleus", "cytoplasm", "vessel", "fat")
INFECTION = ("background", "healthy", "infected")


class Tissue(torch.nn.Module):
    """Features and a 1×1 head of five rows in two planted clusters; ``after`` is what follows the head."""

    def __init__(self, after=lambda out, x: out, stride=1):
        super().__init__()
        torch.manual_seed(0)
        self.features = torch.nn.Conv2d(1, 6, 3, padding=1, stride=stride)
        self.head = torch.nn.Conv2d(6, 5, 1)
        self.after = after
        with torch.no_grad():
            # nucleus and cytoplasm together; the last three features are against them, so that others win too
            self.head.weight[[1, 2]] += torch.tensor([2.0, 2, 2, -2, -2, -2])[:, None, None]

    def forward(self, x):
        return self.after(self.head(F.relu(self.features(x))), x)


def enlarge(out, x):
    return F.interpolate(out, x.shape[2:], mode="bilinear", align_corners=True)


def ask(module, target=None, image=None, classes=CLASSES, more=None, **parameters):
    model = wrap(module, classes=classes, **(more or {}))
    return explain("neural-backed-tree", image or small_image(), model, target or Target(1), **parameters)


def region(shape=(24, 27)):
    mask = np.zeros(shape, np.int8)
    mask[5:9, 6:12] = 1
    return Painted(mask)


def logits_of(module, image=None):
    image = image or small_image()
    with torch.no_grad():
        return module(torch.from_numpy(image.read("CYX"))[None])


def test_planted_rows_are_the_first_decision():
    answer = ask(Tissue(), Target("nucleus", region()))
    path = answer.tables[0].rows()
    assert (path[0]["towards"], path[0]["rather than"]) == ("nucleus + cytoplasm", "background + vessel + fat")
    assert (path[1]["towards"], path[1]["rather than"]) == ("nucleus", "cytoplasm")


def test_a_points_path_is_what_its_own_logits_say():
    module, at = Tissue(), (7, 9)
    path = ask(module, Target("nucleus", Point(at))).tables[0].rows()
    z = logits_of(module)[0, :, 7, 9].double().numpy()
    pair, rest = z[[1, 2]].mean(), z[[0, 3, 4]].mean()
    expected = (1 / (1 + np.exp(rest - pair)), 1 / (1 + np.exp(z[2] - z[1])))
    np.testing.assert_allclose([row["probability"] for row in path], expected, atol=1e-6)
    assert [row["share of pixels"] for row in path] == [float(p > 0.5) for p in expected]


def test_a_regions_path_is_the_mean_over_its_pixels_that_count():
    module, mask = Tissue(), np.zeros((24, 27), np.int8)
    mask[5:9, 6:12], mask[15:20, 3:9] = 1, -1
    found = ask(module, Target("nucleus", Painted(mask))).tables[0].rows()[0]["probability"]
    z = logits_of(module)[0].double().numpy()[:, mask > 0]
    expected = 1 / (1 + np.exp(z[[0, 3, 4]].mean(0) - z[[1, 2]].mean(0)))
    assert found == pytest.approx(expected.mean(), abs=1e-6)


def test_gradpam_in_closed_form():
    module, image = Tissue(), small_image()
    answer = ask(module, Target("nucleus", region()), layer="features")
    with torch.no_grad():
        activation = module.features(torch.from_numpy(image.read("CYX"))[None])[0]
        rows = module.head.weight[:, :, 0, 0].detach()
    inside = torch.from_numpy(region().mask)
    for name, side in (("nucleus + cytoplasm, not background + vessel + fat", [1, 2]), ("nucleus, not cytoplasm", [1])):
        # relu passes the gradient where the activation is positive
        expected = torch.einsum("k,kyx->yx", rows[side].mean(0), activation.relu()).relu() * inside / inside.sum()
        np.testing.assert_allclose(answer[f"GradPAM: {name}"].data, expected.numpy(), atol=1e-4 * float(expected.max()))


def test_the_first_map_is_of_the_clearest_decision():
    module = Tissue()
    answer = ask(module, Target("nucleus", region()))
    z = logits_of(module)[0][:, region().mask > 0].mean(1).numpy()
    margins = {"nucleus + cytoplasm": z[[1, 2]].mean() - z[[0, 3, 4]].mean(), "nucleus": z[1] - z[2]}
    clearest = max(margins, key=margins.get)
    assert answer.map.name.startswith(f"GradPAM: {clearest}, not ")
    assert [layer.kind for layer in answer.layers] == ["heat", "heat", "labels", "labels", "labels"]
    fewer = ask(module, Target("nucleus", region()), maps=1)
    assert [layer.name for layer in fewer.layers if layer.kind == "heat"] == [answer.map.name]


@pytest.mark.parametrize("decision", ["soft", "hard"])
def test_the_trees_mask_and_where_it_differs(decision):
    module = Tissue()
    answer = ask(module, Target("nucleus", region()), decision=decision)
    logits = logits_of(module)
    tree, network = ward(module.head.weight.flatten(1)), logits.argmax(1)[0].numpy()
    expected = (tree.greedy(logits) if decision == "hard" else tree.log_probabilities(logits).argmax(1))[0].numpy()
    np.testing.assert_array_equal(answer["class by the tree"].data, expected)
    np.testing.assert_array_equal(answer["tree and network differ"].data, expected != network)
    assert 0 < (expected != network).mean() < 1
    assert f"{(expected == network).mean():.1%} of all pixels" in answer.text
    counts = answer.tables[1].columns
    assert counts["network"] == np.bincount(network.ravel(), minlength=5).tolist()
    assert counts["tree"] == np.bincount(expected.ravel(), minlength=5).tolist()
    assert sum(counts["both"]) == (expected == network).sum()


def test_the_figure_is_a_tree_whose_probabilities_flow_down():
    figure = ask(Tissue(), Target("cytoplasm", region())).figures[0]
    parents, probability = figure.series["parent"], figure.series["probability"]
    assert figure.kind == "tree"
    assert len(set(figure.x)) == len(figure.x) == 9
    assert parents[0] == -1
    for number in range(9):
        below = [probability[n] for n in range(9) if parents[n] == number]
        assert not below or sum(below) == pytest.approx(probability[number], abs=1e-6)
    path = [n for n in range(9) if figure.series["on_path"][n]]
    assert figure.x[path[-1]] == "cytoplasm"
    assert all(parents[below] == above for above, below in pairwise(path))


@pytest.mark.parametrize(
    ("after", "more"),
    [
        (lambda out, x: {"out": out, "aux": out[:, :, ::2, ::2]}, {}),
        (lambda out, x: (out, x), {"output": 0}),
        (lambda out, x: out.softmax(1), {"head": "probabilities"}),
    ],
)
def test_the_head_is_found_whatever_the_answer_is_wrapped_in(after, more):
    plain, wrapped = (ask(Tissue(a), Target(1, region()), more=m) for a, m in ((Tissue().after, {}), (after, more)))
    assert plain.tables[0].columns["towards"] == wrapped.tables[0].columns["towards"]
    np.testing.assert_allclose(
        plain.tables[0].columns["probability"], wrapped.tables[0].columns["probability"], atol=1e-4
    )


def test_a_head_that_is_enlarged_afterwards_is_a_head():
    assert ask(Tissue(enlarge, stride=2), Target("nucleus", region())).tables[0].columns["towards"][1] == "nucleus"


class TwoHeads(Tissue):
    """Two heads whose sum is the answer: neither of them is it."""

    def __init__(self):
        super().__init__()
        self.other = torch.nn.Conv2d(1, 5, 1)

    def forward(self, x):
        return super().forward(x) + self.other(x)


@pytest.mark.parametrize(
    "module", [Linear(1, 5), TwoHeads(), Tissue(lambda out, x: out.relu()), Tissue(lambda out, x: out * x)]
)
def test_refuses_a_network_without_a_row_of_weights_per_class(module):
    with pytest.raises(MissingNeed) as caught:
        ask(module, Target(1, region()))
    assert "hand does not end in a 1×1 convolution" in caught.value.what
    assert caught.value.what.count(". ") == 0
    assert caught.value.fix
    assert not any(m._forward_hooks for m in module.modules())


def test_refuses_classes_that_do_not_compete():
    with pytest.raises(MissingNeed) as caught:
        ask(Tissue(), Target(1, region()), classes=("none", *CLASSES), more={"multilabel": True})
    assert "sigmoid" in caught.value.what


def test_refuses_two_classes_and_says_why():
    with pytest.raises(MissingNeed) as caught:
        explain("neural-backed-tree", open_image("sample:tissue-rgb"), load_model("nuclei-histology"))
    assert "a tree over two classes is the softmax itself" in caught.value.what
    assert "nuclei-histology has 2" in caught.value.what
    assert "more classes" in caught.value.fix


def test_names_a_layer_that_is_not_there():
    with pytest.raises(UnknownName):
        ask(Tissue(), Target(1, region()), layer="featurs")


@pytest.mark.parametrize(
    "where", [Predicted(live=True), Border(Painted(region().mask), 1), Box((2, 2), (9, 9), predicted_only=False)]
)
def test_every_kind_of_region_is_answered(where):
    module = Tissue()
    index = int(logits_of(module).argmax(1).flatten().mode().values)
    answer = ask(module, Target(index, where, value="dice"))
    assert answer.map.data.max() > 0


@pytest.mark.parametrize("dims", [2, 3])
def test_the_infection_is_decided_by_the_marker(dims):
    image, cell, zone = context_image(dims)
    answer = explain(
        "neural-backed-tree", image, wrap(Context(dims=dims), dims=dims, classes=INFECTION), cell_target(cell)
    )
    path = answer.tables[0].rows()
    assert [row["towards"] for row in path] == ["healthy + infected", "infected"]
    assert all(row["probability"] > 0.9 for row in path)
    assert answer.map.name == "GradPAM: infected, not healthy"
    assert answer.map.data[~zone].max() == 0
    shared = answer["decisions shared with infected"].data
    assert (shared[cell] == 2).mean() > 0.9  # its far rim sees only a part of the marker
    assert shared.min() == 0


def test_a_map_of_a_coarse_layer_lies_where_it_was_seen_though_the_network_pads():
    torch.manual_seed(2)
    net = UNet(1, 3, (4, 8, 8, 8)).eval()
    image = small_image(side=33)  # 33×36, seen as 40×40
    model = wrap(net, classes=INFECTION, divisor=8)
    answer = explain("neural-backed-tree", image, model, Target(1, Point((30, 33))), layer="bottleneck", maps=1)
    padded = F.pad(torch.from_numpy(image.read("CYX"))[None], (0, 4, 0, 7), mode="replicate")
    seen = []
    handle = net.bottleneck.register_forward_hook(lambda m, i, out: seen.append(out))
    out = net(padded)
    handle.remove()
    tree, classes = ward(net.head.weight.flatten(1)), answer.map.name.removeprefix("GradPAM: ").split(", not ")[0]
    child = next(n for n in range(5) if tree.name(n, INFECTION) == classes)
    (gradient,) = torch.autograd.grad(tree.score(out, child)[0, 30, 33], seen[0])
    coarse = (seen[0] * gradient).sum(1, keepdim=True).relu()
    expected = F.interpolate(coarse, (40, 40), mode="bilinear", align_corners=False)[0, 0, :33, :36]
    assert expected.max() > 0
    np.testing.assert_allclose(answer.map.data, expected.detach().numpy(), atol=1e-4 * float(expected.max()))


def test_the_shipped_shortcut_model_decides_infected_by_the_rings():
    answer = explain("neural-backed-tree", open_image("sample:shortcut"), load_model("shortcut-synthetic"),
                     Target("infected"))  # fmt: skip
    path = answer.tables[0].rows()
    assert [row["towards"] for row in path] == ["healthy + infected", "infected"]
    assert all(row["probability"] > 0.9 for row in path)
    assert (answer["tree and network differ"].data > 0).mean() < 0.01
    decided = answer["GradPAM: infected, not healthy"].data
    near = ndimage.binary_dilation(sample_layers("shortcut")[2][0] > 0, iterations=8)
    assert near.mean() < 0.1
    assert decided[near].sum() > 0.5 * decided.sum()
