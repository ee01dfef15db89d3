"""Concept relevance (L-CRP): the tests of its card (B/B10)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hand import Context, cell_target, context_image, small_image, wrap
from rule_nets import Functional, case_of
from seglens.core.image import Image
from seglens.core.target import Painted, Target
from seglens.engine.rules import COMPOSITES, Trace
from seglens.methods.gradient._concepts import alone, beginning, context, shares
from seglens.session import explain

AWAY = 9  # pixels from the object to its cue


class Planted(nn.Module):
    """Channel 0 of ``seen`` reads the object, channel 1 a cue that lies further right; both make class 1."""

    def __init__(self):
        super().__init__()
        self.seen = nn.Conv2d(2, 4, 1, bias=False)
        self.head = nn.Conv2d(4, 2, 1)
        with torch.no_grad():
            self.seen.weight.zero_()
            self.seen.weight[0, 0], self.seen.weight[1, 1], self.seen.weight[2, 0] = 1.0, 1.0, 0.01
            self.head.weight.zero_()
            self.head.weight[1, 0], self.head.weight[1, 1] = 1.0, 2.0
            self.head.bias.copy_(torch.tensor([0.5, 0.0]))

    def forward(self, x):
        near = F.relu(self.seen(x))
        cue = F.pad(near[:, 1:2], (-AWAY, AWAY))
        return self.head(torch.cat([near[:, :1], cue, near[:, 2:]], 1))


def scene(object_at=(10, 6), cue=True, size=4):
    """Channel 0: an object; channel 1: its cue."""
    data = np.zeros((2, 24, 32), np.float32)
    y, x = object_at
    data[0, y : y + size, x : x + size] = 1
    if cue:
        data[1, y : y + size, x + AWAY : x + AWAY + size] = 1
    mask = data[0] > 0
    return Image(data, "CYX", name=f"{'with' if cue else 'without'} a cue"), Target(1, Painted(mask))


def asked(**more):
    image, target = scene()
    return explain("concept-relevance", image, wrap(Planted(), channels=2), target, layer="seen", concepts=2, **more)


def concepts(answer):
    return {row["concept"]: row for row in next(t for t in answer.tables if t.name == "concepts").rows()}


def test_an_object_concept_has_no_context_and_a_cue_is_all_context():
    answer = asked()
    found = concepts(answer)
    assert list(found) == [1, 0]
    assert found[0]["context"] == 0
    assert found[1]["context"] == 1
    assert found[1]["share"] == pytest.approx(2 / 3, abs=1e-4)
    assert found[0]["share"] == pytest.approx(1 / 3, abs=1e-4)
    inside = scene()[1].region.mask
    assert answer["concept 0"].data[inside].sum() == pytest.approx(1 / 3, abs=1e-4)
    assert not answer["concept 0"].data[~inside].any()
    assert not answer["concept 1"].data[inside].any()
    assert answer["concept 1"].data[np.roll(inside, AWAY, 1)].sum() == pytest.approx(2 / 3, abs=1e-4)


def test_the_best_references_of_the_cue_all_contain_it_and_those_of_the_object_need_not():
    references = [scene((3 + 4 * i, 2 + i), cue=i % 2 == 0)[0] for i in range(4)]
    image, target = scene()
    model = wrap(Planted(), channels=2)
    answer = explain(
        "concept-relevance", image, model, target, layer="seen", concepts=2, examples=2, reference=tuple(references)
    )
    rows = next(t for t in answer.tables if t.name == "references").rows()
    assert [row["image"] for row in rows if row["concept"] == 1] == ["with a cue"] * 2
    assert all(row["context"] == 1 for row in rows if row["concept"] == 1)
    assert rows[0]["where"] == f"Y {3}:{7}, X {2 + AWAY}:{6 + AWAY}"
    assert [row["image"] for row in rows if row["concept"] == 0] == ["without a cue"] * 2
    found = concepts(answer)
    assert found[0]["context, references"] == 0
    assert found[1]["context, references"] == 1


def test_a_reference_without_the_class_is_left_out_with_a_note():
    nothing = Image(np.zeros((2, 24, 32), np.float32) + np.eye(24, 32, dtype=np.float32) * 0.1, "CYX", name="empty")
    image, target = scene()
    answer = explain(
        "concept-relevance", image, wrap(Planted(), channels=2), target, layer="seen", reference=(nothing, scene()[0])
    )
    assert any("empty" in note for note in answer.record.notes)
    assert {row["image"] for row in next(t for t in answer.tables if t.name == "references").rows()} == {"with a cue"}


def test_switching_off_what_made_the_mask_changes_the_mask():
    answer = asked()
    found = concepts(answer)
    # the cue alone is 2 where the object is 1, and background 0.5: without the object's channel the mask stays
    assert found[0]["Dice without"] == 1
    image, cell, _ = context_image()
    model = wrap(Context(), classes=("background", "healthy", "infected"))
    marker = explain("concept-relevance", image, model, cell_target(cell), layer="features", concepts=1)
    row = concepts(marker)[0]
    assert row["Dice without"] < 0.5
    assert row["pixels changed"] > cell.sum() / 2
    assert "Dice without" not in concepts(explain("concept-relevance", image, model, cell_target(cell), off=False))[0]


@pytest.mark.parametrize(("layer", "cut"), [("three", True), ("up", False), ("two", False)])
def test_all_channels_together_are_the_whole_at_a_cut_and_not_at_a_bypassed_layer(layer, cut):
    case = case_of(Functional(bias=False), small_image(), Target(1, Painted(np.ones((24, 27), bool))), divisor=2)
    trace = Trace(case, COMPOSITES["epsilon-plus"])
    start = beginning(trace, "logit")
    whole, came = trace.back(start).values, trace.at(layer, start)
    each = sum(trace.below(layer, alone(came, k)).values for k in range(came.shape[1]))
    away = float((each - whole).abs().max()) / float(whole.abs().max())
    assert (away < 1e-4) == cut
    answer = explain(
        "concept-relevance", small_image(), case.model, Target(1, Painted(np.ones((24, 27), bool))),
        layer=layer, begin="logit", composite="epsilon-plus",
    )  # fmt: skip
    assert ("All relevance passes" in answer.text) == cut


def test_shares_add_up_to_one_and_a_channel_that_nothing_comes_to_has_a_map_of_zeros():
    image, target = scene()
    case = case_of(Planted(), image, target, channels=2)
    trace = Trace(case, COMPOSITES["epsilon-plus"])
    start = beginning(trace, "positive-logit")
    assert float(start.sum()) == pytest.approx(1)
    came = trace.at("seen", start)
    assert float(shares(came).abs().sum()) == pytest.approx(1)
    assert float(shares(came)[3]) == 0
    assert not trace.below("seen", alone(came, 3)).values.any()


def test_every_beginning_sums_to_one_and_looks_at_the_region_alone():
    image, target = scene()
    case = case_of(Planted(), image, target, channels=2)
    trace = Trace(case, COMPOSITES["epsilon-plus"])
    for begin in ("positive-logit", "logit", "probability", "one"):
        start = beginning(trace, begin)
        assert float(start.sum()) == pytest.approx(1)
        assert not start[:, 0].any()
        assert not start[0, 1][~torch.from_numpy(target.region.mask)].any()


def test_of_the_region_only_pixels_of_the_class_start_and_the_text_counts_them():
    image, _ = scene()
    model, wide = wrap(Planted(), channels=2), np.zeros((24, 32), bool)
    wide[10:14, 4:12] = True  # the object, and as much beside it, of which the model draws no pixel
    case = case_of(Planted(), image, Target(1, Painted(wide)), channels=2)
    start = beginning(Trace(case, COMPOSITES["epsilon-plus"]), "positive-logit")
    drawn = (case.labels == 1) & wide
    assert 0 < drawn.sum() < wide.sum()
    np.testing.assert_array_equal(start[0, 1].numpy() > 0, drawn)
    answer = explain("concept-relevance", image, model, Target(1, Painted(wide)), layer="seen")
    assert f"over {wide.sum()} pixels, of which {drawn.sum()} count" in answer.text


class Weak(Planted):
    """Class 1 has a logit above 0 and is drawn nowhere."""

    def forward(self, x):
        out = super().forward(x)
        return torch.cat([out[:, :1] + 100, out[:, 1:]], 1)


def test_where_the_model_draws_nothing_of_the_class_all_is_zero_and_context_is_not_known():
    image, target = scene()
    answer = explain("concept-relevance", image, wrap(Weak(), channels=2), target, layer="seen")
    assert "of which 0 count" in answer.text
    assert not answer.map.data.any()
    assert all(np.isnan(row["context"]) for row in concepts(answer).values())


def test_a_concept_that_references_do_not_show_has_no_context_there():
    references = [scene((3, 2), cue=False)[0]]
    image, target = scene()
    answer = explain("concept-relevance", image, wrap(Planted(), channels=2), target, layer="seen", concepts=2,
                     reference=tuple(references))  # fmt: skip
    found = concepts(answer)
    assert np.isnan(found[1]["context, references"])
    assert found[0]["context, references"] == 0
    row = next(r for r in next(t for t in answer.tables if t.name == "references").rows() if r["concept"] == 1)
    assert np.isnan(row["context"])
    assert row["where"] == "–"


def test_context_is_that_of_the_map_summed_over_channels():
    values, region = torch.zeros(1, 2, 4, 4), torch.zeros(4, 4, dtype=torch.bool)
    region[0, 0] = True
    values[0, :, 0, 0] = 1
    values[0, :, 3, 3] = torch.tensor([5.0, -5.0])  # the channels cancel there
    assert context(values, region) == 0


def test_logits_that_cancel_do_not_blow_the_start_up():
    image, _ = scene()
    case = case_of(Planted(), image, Target(1, Painted(np.ones((24, 32), bool))), channels=2)
    trace = Trace(case, COMPOSITES["epsilon-plus"])
    trace.logits[:, 1] -= trace.logits[:, 1].mean()
    start = beginning(trace, "logit")
    assert float(start.abs().sum()) == pytest.approx(1)


def test_where_nothing_speaks_for_the_class_the_answer_says_so():
    class Against(Planted):
        def forward(self, x):
            return -super().forward(x) - 1

    image, target = scene()
    answer = explain("concept-relevance", image, wrap(Against(), channels=2), target, layer="seen")
    assert "Nothing in the region speaks for it" in answer.text
    assert not answer.map.data.any()


class Skipped(nn.Module):
    """What is seen goes on over a skip; of what a coarse layer sees little is used."""

    def __init__(self, share):
        super().__init__()
        self.down, self.mix, self.head = nn.Conv2d(1, 3, 1), nn.Conv2d(4, 5, 1), nn.Conv2d(5, 2, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.fill_(0.0 if parameter.ndim == 1 else 1.0)
            self.mix.weight[:, 1:] = share
            self.head.weight[0] = 0

    def forward(self, x):
        coarse = F.interpolate(self.down(F.avg_pool2d(x, 2)), scale_factor=2.0)
        return self.head(F.relu(self.mix(torch.cat([x, coarse], 1))))


@pytest.mark.parametrize(("share", "told"), [(0.01, True), (1.0, False)])
def test_where_next_to_nothing_passes_a_layer_another_one_is_named(share, told):
    target = Target(1, Painted(np.ones((24, 28), bool)))
    image = Image(np.random.default_rng(0).random((1, 24, 28), np.float32), "CYX")
    answer = explain("concept-relevance", image, wrap(Skipped(share), divisor=2), target, layer="down")
    assert "of the relevance passes down; the rest" in answer.text
    assert ("100% passes mix: try that layer." in answer.text) == told
