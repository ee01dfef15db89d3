"""Layers by name, with the stride that says how coarse their maps are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_files import UNET, UNET_3D
from torch import Tensor, nn

from seglens.core.errors import MissingNeed, UnknownName
from seglens.models.layers import default_layer, find_layer, layers
from seglens.models.loaders.infer import complete
from seglens.models.loaders.networks import make_network
from seglens.models.segmentation import SegmentationModel

NETWORKS: dict[str, tuple[dict[str, Any], str, int]] = {
    "unet": (UNET, "bottleneck", 2),
    "unet ": (UNET_3D, "bottleneck", 2),
    "monai:BasicUNet": (
        {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": [4, 4, 8, 8, 16, 4]},
        "down_4",
        16,
    ),
    "monai:UNet": (
        {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8, 16], "strides": [2, 2]},
        "model.1.submodule.1",
        4,
    ),
    "monai:SegResNet": (
        {"spatial_dims": 2, "in_channels": 2, "out_channels": 1, "init_filters": 8},
        "down_layers.3",
        8,
    ),
}


def model(module: nn.Module) -> SegmentationModel:
    return SegmentationModel(module, complete(module, {"name": "test"}, device="cpu"))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_default_is_the_bottleneck(name: str) -> None:
    arguments, expected, stride = NETWORKS[name]
    face = model(make_network(name.strip(), arguments))
    found = layers(face)
    best = default_layer(face)
    assert best == expected
    assert next(layer for layer in found if layer.name == best).stride == stride == max(layer.stride for layer in found)
    assert [layer.order for layer in found] == list(range(len(found)))
    assert all(find_layer(face, layer.name) is not None for layer in found)
    assert not any(m._forward_hooks for m in face.module.modules())


def test_channels_kinds_and_order_of_the_unet() -> None:
    face = model(make_network("unet", UNET))
    by_name = {layer.name: layer for layer in layers(face)}
    first, deep, head = by_name["encoder.0.conv1"], by_name["bottleneck"], by_name["head"]
    assert (first.kind, first.channels, first.stride, deep.channels) == ("Conv2d", 4, 1, 8)
    assert first.order < deep.order < head.order
    assert head.final
    assert not deep.final


def test_without_downsampling_the_widest_before_the_head() -> None:
    face = model(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 20, 1)))
    assert default_layer(face) == "1"


def test_pooled_branches_and_networks_without_layers() -> None:
    class Squeeze(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.pool, self.gate = nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.conv(x)
            return y * self.gate(self.pool(y))

    assert default_layer(model(Squeeze())) == "conv"
    assert default_layer(model(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1)))) == "0"
    with pytest.raises(MissingNeed) as caught:
        default_layer(model(nn.Conv2d(1, 2, 3, padding=1)))
    assert caught.value.fix


def test_unknown_layers_and_finished_graphs() -> None:
    face = model(make_network("unet", UNET))
    with pytest.raises(UnknownName) as caught:
        find_layer(face, "bottelneck")
    assert "'bottelneck'" in caught.value.what
    assert "Did you mean bottleneck?" in caught.value.fix
    graph = SegmentationModel(face.module, face.spec, layered=False)
    for ask in (layers, default_layer, lambda m: find_layer(m, "head")):
        with pytest.raises(MissingNeed) as missing:
            ask(graph)
        assert "test" in missing.value.what
        assert "--network" in missing.value.fix


def test_looking_leaves_no_trace() -> None:
    face = model(make_network("unet", UNET))
    face.module.train()
    state = torch.get_rng_state()
    before = {k: v.clone() for k, v in face.module.state_dict().items()}
    layers(face)
    assert face.module.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in face.module.state_dict().items())
    assert all(p.requires_grad for p in face.module.parameters())
