"""The U-Net: shapes, reach, size, errors."""

from __future__ import annotations

import json

import pytest
import torch

from hand import spec
from seglens.core.errors import BadParameter, UnknownName
from seglens.engine.reach import measure_reach
from seglens.models.nets import NETWORKS, build_network
from seglens.models.segmentation import SegmentationModel


@pytest.mark.parametrize(("dims", "space"), [(2, (32, 48)), (3, (8, 16, 8))])
def test_logits_have_the_space_of_the_image(dims: int, space: tuple[int, ...]) -> None:
    network = build_network("unet", {"in_channels": 2, "out_channels": 3, "features": [4, 8, 16], "dims": dims})
    assert network.divisor == 4
    assert network(torch.zeros(2, 2, *space)).shape == (2, 3, *space)


def test_it_can_be_built_from_json_and_is_small() -> None:
    arguments = json.loads('{"in_channels": 3, "out_channels": 3, "features": [16, 32, 64, 128], "dropout": 0.1}')
    assert sum(p.numel() for p in build_network("unet", arguments).parameters()) <= 2_000_000


def test_layers_have_names_to_choose_from() -> None:
    names = {
        name.split(".")[0] for name, _ in build_network("unet", {"in_channels": 1, "out_channels": 2}).named_children()
    }
    assert names == {"encoder", "pool", "bottleneck", "decoder", "head"}


def hand(network, divisor: int, dims: int = 2) -> SegmentationModel:
    return SegmentationModel(network, spec(divisor=divisor, dims=dims))


@pytest.mark.parametrize("dims", [2, 3])
def test_the_reach_is_finite_and_exact(dims: int) -> None:
    network = build_network("unet", {"in_channels": 1, "out_channels": 2, "features": [2, 3], "dims": dims})
    # By hand: two convolutions (2), pooling and unpooling (1), two below (4), two above (2).
    assert measure_reach(hand(network, 2, dims)).widest == 9
    assert network.training


def test_nothing_outside_the_reach_changes() -> None:
    network = build_network("unet", {"in_channels": 1, "out_channels": 2, "features": [2, 3, 4]}).eval()
    reach = measure_reach(hand(network, 4)).widest
    x = torch.randn(1, 1, 128, 128)
    y = x.clone()
    y[..., 60, 60] += 10
    with torch.inference_mode():
        changed = ((network(x) - network(y)).abs().amax(1)[0] > 0).nonzero()
    assert 0 < int((changed - 60).abs().max()) <= reach


def test_unknown_networks_and_wrong_arguments() -> None:
    with pytest.raises(UnknownName, match="unett") as caught:
        build_network("unett", {})
    assert "Did you mean unet?" in caught.value.fix
    for arguments in ({}, {"in_channels": 1, "out_channels": 2, "levels": 3}):
        with pytest.raises(BadParameter):
            build_network("unet", arguments)
    for wrong in ({"dims": 4}, {"features": [8]}, {"dropout": 1.0}, {"in_channels": 0}, {"features": [0, 8]}):
        with pytest.raises(BadParameter):
            build_network("unet", {"in_channels": 1, "out_channels": 2, **wrong})
    assert {"unet", "segmenter"} <= set(NETWORKS)
