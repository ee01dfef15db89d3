"""What other formats say about preprocessing and axes, in our words."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from model_files import picture, run, settled
from torch import nn

from seglens.core.errors import ModelMismatch
from seglens.models.loaders.affine import Chain
from seglens.models.loaders.monai_config import Config
from seglens.models.loaders.monai_meta import describe
from seglens.models.loaders.networks import make_network
from seglens.models.loaders.turn import Transposed, reverse, turned
from seglens.models.spec import Normalisation


def apply(norm: Normalisation, x: np.ndarray) -> np.ndarray:
    """The normalisation by its definition, for channels first."""
    axes = tuple(range(1, x.ndim)) if norm.per_channel else None
    if norm.kind == "zscore":
        x = (x - x.mean(axes, keepdims=True)) / x.std(axes, keepdims=True)
    elif norm.kind == "percentile":
        low, high = (np.percentile(x, q, axes, keepdims=True) for q in (norm.low, norm.high))
        x = (x - low) / (high - low)
    elif norm.kind == "fixed":
        column = (-1,) + (1,) * (x.ndim - 1)
        x = (x - np.reshape(norm.mean, column)) / np.reshape(norm.std, column)
    return (x - norm.then_mean) / norm.then_std


def test_linear_steps_add_up() -> None:
    x = np.random.default_rng(0).random((2, 4, 4)) * 255
    chain = Chain("test")
    chain.linear((1 / 255,), (0.0,))
    chain.linear((2.0, 4.0), (-1.0, 0.5))
    wanted = x / 255 * np.array([2, 4]).reshape(2, 1, 1) + np.array([-1, 0.5]).reshape(2, 1, 1)
    np.testing.assert_allclose(apply(chain.result, x), wanted, atol=1e-9)


@pytest.mark.parametrize("kind", ["zscore", "percentile"])
def test_linear_steps_before_and_after_statistics(kind: str) -> None:
    x = np.random.default_rng(0).random((2, 4, 4))
    chain = Chain("test")
    chain.linear((1 / 255,), (3.0,))
    chain.zscore(per_channel=True) if kind == "zscore" else chain.percentile(2, 98, per_channel=False)
    plain = apply(chain.result, x)
    chain.linear((2.0,), (-1.0,))
    chain.linear((0.5,), (4.0,))
    np.testing.assert_allclose(apply(chain.result, x), (plain * 2 - 1) * 0.5 + 4, atol=1e-9)


def test_steps_that_cannot_be_put_together() -> None:
    for first, then in (
        (lambda c: c.zscore(per_channel=True), lambda c: c.percentile(1, 99, per_channel=True)),
        (lambda c: c.zscore(per_channel=True), lambda c: c.linear((1.0, 2.0), (0.0, 0.0))),
        (lambda c: c.linear((1.0, 2.0), (0.0, 0.0)), lambda c: c.zscore(per_channel=False)),
        (lambda c: None, lambda c: c.linear((0.0,), (1.0,))),
    ):
        chain = Chain("test")
        first(chain)
        with pytest.raises(ModelMismatch) as caught:
            then(chain)
        assert "test" in caught.value.what
        assert "model.json" in caught.value.fix


def bundle(tmp_path, *steps: dict) -> dict:
    config = {"preprocessing": {"transforms": list(steps)}, "postprocessing": {"transforms": []}}
    return describe(tmp_path / "none.json", Config(tmp_path / "inference.json", config), "test")


def test_monai_intensities(tmp_path) -> None:
    x = np.random.default_rng(0).random((1, 4, 4)) * 300 - 100
    hounsfield = {
        "_target_": "ScaleIntensityRanged",
        "a_min": -57,
        "a_max": 164,
        "b_min": 0.0,
        "b_max": 1.0,
        "clip": True,
    }
    about = bundle(tmp_path, hounsfield)
    np.testing.assert_allclose(apply(Normalisation(**about["normalisation"]), x), (x + 57) / 221, atol=1e-9)
    assert "clips" in about["description"]
    z = bundle(tmp_path, {"_target_": "monai.transforms.NormalizeIntensityd", "channel_wise": True})
    assert (z["normalisation"]["kind"], z["normalisation"]["per_channel"]) == ("zscore", True)
    unit = bundle(tmp_path, {"_target_": "ScaleIntensityd"}, {"_target_": "Spacingd", "pixdim": [1.0, 2.0, 3.0]})
    assert (unit["normalisation"]["kind"], unit["normalisation"]["high"]) == ("percentile", 100.0)
    fixed = bundle(tmp_path, {"_target_": "NormalizeIntensityd", "subtrahend": 10, "divisor": 2})
    np.testing.assert_allclose(apply(Normalisation(**fixed["normalisation"]), x), (x - 10) / 2, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "arguments", "shape"),
    [
        ("monai:BasicUNet", {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "features": [4] * 6}, (32, 48)),
        (
            "monai:DynUNet",
            {
                "spatial_dims": 3,
                "in_channels": 1,
                "out_channels": 2,
                "kernel_size": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
                "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
                "upsample_kernel_size": [[1, 2, 2], [2, 2, 2]],
                "filters": [4, 4, 4],
            },
            (8, 16, 32),
        ),
    ],
)
def test_turned_networks_answer_the_same_the_other_way_round(
    name: str, arguments: dict, shape: tuple[int, ...]
) -> None:
    network = settled(make_network(name, arguments))
    other = turned(network)
    assert other is not None
    x = picture(1, 1, *shape)
    wanted = run(network, reverse(x))
    torch.testing.assert_close(run(other, x), reverse(wanted), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(run(Transposed(network), x), reverse(wanted))
    assert list(other.state_dict()) == list(network.state_dict())


def test_what_cannot_be_turned() -> None:
    class Slope(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).cumsum(2)

    assert turned(settled(Slope())) is None
    assert turned(nn.Linear(1, 1)) is None
