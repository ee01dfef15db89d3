"""The Segmenter: shapes, places, classes, errors; and it learns, by the same trainer as the U-Net."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from hand import spec
from seglens.core.errors import BadParameter, UnknownName
from seglens.core.run import Run
from seglens.engine.reach import measure_reach
from seglens.models.layers import default_layer, layers
from seglens.models.loaders import load_model
from seglens.models.nets import build_network
from seglens.models.nets.segmenter import Segmenter
from seglens.models.segmentation import SegmentationModel
from seglens.training import RECIPES, data, train
from seglens.training import recipes as recipes_module
from seglens.training import trainer as trainer_module
from seglens.training.evaluate import evaluate

SMALL = {"in_channels": 1, "out_channels": 3, "patch": 4, "width": 16, "depth": 2, "heads": 2, "grid": 4}


@pytest.mark.parametrize("decoder", ["mask", "linear"])
@pytest.mark.parametrize(("dims", "space"), [(2, (16, 28)), (3, (8, 4, 12))])
def test_logits_have_the_space_of_the_image_for_any_multiple_of_the_patch(decoder, dims, space):
    network = build_network("segmenter", {**SMALL, "dims": dims, "decoder": decoder})
    assert network.divisor == 4
    assert network(torch.rand(2, 1, *space)).shape == (2, 3, *space)


def test_places_are_interpolated_only_where_the_grid_is_another():
    torch.manual_seed(0)
    network = Segmenter(**SMALL).eval()
    seen = []
    network.encoder[0].register_forward_pre_hook(lambda _, given: seen.append(given[0] - network.patches(image)))
    with torch.no_grad():
        for side in (16, 32):
            image = torch.rand(1, 1, side, side)
            network(image)
    torch.testing.assert_close(seen[0], network.places)
    stretched = nn.functional.interpolate(network.places, (8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen[1], stretched)


def test_attention_is_that_of_the_formula():
    torch.manual_seed(0)
    attention = Segmenter(**SMALL).encoder[1].attention
    tokens = torch.randn(2, 7, 16)
    with torch.no_grad():
        query, key, value = attention.qkv(tokens).chunk(3, dim=2)
        read = []
        for head in (slice(0, 8), slice(8, 16)):
            weights = (query[..., head] @ key[..., head].transpose(1, 2) / 8**0.5).softmax(-1)
            read.append(weights @ value[..., head])
        torch.testing.assert_close(attention(tokens), attention.out(torch.cat(read, 2)))


def test_the_mask_of_a_class_is_how_alike_its_token_and_the_patch_are():
    """A plain replica of the decoder behind its blocks; logits of one patch have the mean and size of a layer norm."""
    torch.manual_seed(0)
    decoder = Segmenter(**SMALL, decoder_depth=2).decoder.eval()
    patches = torch.randn(1, 16, 2, 3)
    with torch.no_grad():
        masks = decoder(patches)
        tokens = torch.cat([patches.flatten(2).transpose(1, 2), decoder.classes], 1)
        for block in decoder.blocks:
            tokens = block(tokens)
        tokens = decoder.norm(tokens)[0]
        seen, sought = tokens[:6] @ decoder.of_patch.weight.T, tokens[6:] @ decoder.of_class.weight.T
        alike = nn.functional.cosine_similarity(seen[:, None], sought[None], dim=2)
        wanted = 3 * (alike - alike.mean(1, keepdim=True)) / (alike.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(masks[0].flatten(1).T, wanted, rtol=1e-4, atol=1e-4)


def test_it_can_be_built_from_json_is_small_and_has_layers_to_look_at():
    network = build_network("segmenter", json.loads('{"in_channels": 3, "out_channels": 3, "decoder": "mask"}'))
    assert sum(p.numel() for p in network.parameters()) <= 500_000
    names = {name.split(".")[0] for name, _ in network.named_children()}
    assert names == {"patches", "encoder", "decoder"}
    model = SegmentationModel(network, spec(channels=3, classes=("background", "a", "b"), divisor=8))
    found = {layer.name: layer.stride for layer in layers(model)}
    assert found["patches"] == found["encoder.0"] == found["encoder.3"] == 8
    assert default_layer(model) == "encoder.3"


def test_every_pixel_reaches_every_other():
    network = Segmenter(**SMALL).eval()
    assert measure_reach(SegmentationModel(network, spec(classes=("background", "a", "b"), divisor=4))) is None
    x = torch.rand(1, 1, 32, 32)
    y = x.clone()
    y[..., 0, 0] += 10
    with torch.no_grad():
        assert bool(((network(x) - network(y)).abs().amax(1) > 0).all())


def test_wrong_arguments_are_refused_with_a_remedy():
    wrong = (
        {"dims": 1}, {"decoder": "dense"}, {"dropout": 1.0}, {"out_channels": 1}, {"patch": 0}, {"depth": 0},
        {"width": 10, "heads": 4}, {"levels": 3},
    )  # fmt: skip
    for some in wrong:
        with pytest.raises(BadParameter) as caught:
            build_network("segmenter", {**SMALL, **some})
        assert caught.value.fix
    with pytest.raises(UnknownName) as unknown:
        build_network("segmentor", {})
    assert "Did you mean segmenter?" in unknown.value.fix


def test_it_learns_drawn_pictures_by_the_usual_trainer_and_loads_again(tmp_path: Path, monkeypatch) -> None:
    """Fifteen seconds of training: far better than naming everything background, whose Dice is 0."""
    usual = RECIPES["shortcut-synthetic"]
    few = replace(usual, crop=96, steps=60)
    monkeypatch.setattr(recipes_module, "RECIPES", {**RECIPES, "shortcut-synthetic": few})
    names = data.drawn_names(48, 4, 8)
    monkeypatch.setattr(trainer_module, "drawn_names", lambda: names)
    out = train("shortcut-synthetic", None, tmp_path / "out", run=Run(seed=1), epochs=2, network="segmenter")

    stored = json.loads((out / "model.json").read_text())
    assert stored["network"]["name"] == "segmenter"
    assert (stored["divisor"], stored["reach"], stored["tile"]) == (8, None, [96, 96])
    record = json.loads((out / "training.json").read_text())
    assert "--network segmenter" in record["command"]
    assert record["test"]["dice"]["mean"] > 0.6
    again = evaluate(out)
    assert again["dice"] == record["test"]["dice"]
    model = load_model(out)
    assert isinstance(model.module, Segmenter)
    assert default_layer(model) == "encoder.3"


def test_an_unknown_network_is_refused_before_the_data_are_read(tmp_path: Path) -> None:
    with pytest.raises(UnknownName) as caught:
        train("nuclei-fluorescence", tmp_path / "nowhere", tmp_path / "out", run=Run(), network="segmentr")
    assert "Did you mean segmenter?" in caught.value.fix
