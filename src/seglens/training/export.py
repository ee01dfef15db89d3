"""A trained model as a folder: ``weights.safetensors``, ``model.json``, ``training.json``."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from seglens.models.spec import ModelSpec

WEIGHTS, MODEL, TRAINING = "weights.safetensors", "model.json", "training.json"


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
