"""A trained model as a folder: ``weights.safetensors``, ``model.json``, ``training.json``."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from seglens.core.errors import ModelMismatch
from seglens.models.segmentation import quiet
from seglens.models.spec import ModelSpec

WEIGHTS, MODEL, TRAINING = "weights.safetensors", "model.json", "training.json"


def measure_reach(network: nn.Module, channels: int, divisor: int, *, dims: int = 2, most: int = 256) -> int:
    """How far one input pixel can influence the output, in pixels along an axis.

    One NaN is sent through the network in eval mode at every alignment with its pooling grid; the largest
    distance to a NaN that comes out is the reach.

    Args:
        network: any network; its mode is put back.
        channels: input channels.
        divisor: alignments to try, and what sizes are multiples of.
        dims: 2 or 3.
        most: give up beyond this.

    Raises:
        ModelMismatch: the influence goes beyond ``most`` pixels.
    """
    half = 4 * divisor
    with torch.inference_mode(), quiet(network):
        # Small first: the picture grows only if the influence touches its edge.
        while half <= 2 * most:
            reach = max(_spread(network, channels, half, shift, dims) for shift in range(divisor))
            if reach < half - divisor:
                return reach
            half *= 2
    raise ModelMismatch(
        f"One pixel influences more than {most} pixels around it.",
        fix="Train a network without global pooling, attention and instance norm, or with fewer levels.",
    )


def _spread(network: nn.Module, channels: int, half: int, shift: int, dims: int) -> int:
    x = torch.zeros(1, channels, *([2 * half] * dims))
    place: tuple[slice | int, ...] = (slice(None), slice(None), *([half + shift] * dims))
    x[place] = torch.nan
    hit = torch.isnan(network(x)).any(1)[0].nonzero()
    return int((hit - half - shift).abs().max()) if len(hit) else 0


def save_model(out: Path, network: nn.Module, description: Mapping[str, Any], spec: ModelSpec) -> ModelSpec:
    """Write weights and ``model.json``; returns the spec with the fingerprint filled in.

    Args:
        out: an existing folder.
        network: what was trained.
        description: ``{"name": …, "arguments": {…}}`` with which the network is built again.
        spec: what it expects and answers.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, out / WEIGHTS)
    spec = spec.with_(sha256=hashlib.sha256((out / WEIGHTS).read_bytes()).hexdigest())
    write_json(out / MODEL, {"network": dict(description), **spec.to_dict()})
    return spec


def write_json(file: Path, data: Any) -> None:
    """JSON that a person can read and a diff can show."""
    file.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def versions() -> dict[str, str]:
    """Versions of what the result of a training depends on."""
    found = {"python": platform.python_version()}
    for package in ("seglens", "torch", "lightning", "numpy", "scipy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
