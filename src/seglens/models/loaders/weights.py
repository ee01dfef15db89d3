"""Weights alone: a state dict (``.pt``, ``.pth``) or safetensors, put into a network that is named."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from seglens.core.errors import ModelMismatch
from seglens.models.loaders.description import beside, split
from seglens.models.loaders.networks import fill, make_network
from seglens.models.loaders.request import FOREIGN_ERRORS, Loaded, Request, first_line
from seglens.models.trust import Trust, sha256_of

UNPICKLING_ERRORS = (*FOREIGN_ERRORS, EOFError, struct.error)
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights")


def load(request: Request) -> Loaded:
    """Load weights and the network that ``request`` or the description beside them names.

    Raises:
        ModelMismatch: not weights, no network is named, or they do not fit.
        UntrustedModel: the file is a pickled Python object.
    """
    path = request.path
    name, arguments, about = split(beside(path), path.name)
    stored = read_weights(path, request.trust)
    if isinstance(stored, nn.Module):
        return Loaded(stored, about, sha256_of(path))
    name = request.network or name
    if name is None:
        raise ModelMismatch(
            f"{path.name} holds weights, and the network they belong to is not known.",
            fix=f"Write its name and arguments into {path.stem}.json beside it, as `docs/models.md` shows; "
            "or name it with --network (unet, monai:BasicUNet).",
        )
    network = make_network(name, {**arguments, **request.arguments})
    fill(network, stored, path.name)
    return Loaded(network, about, sha256_of(path))


def read_weights(path: Path, trust: Trust) -> dict[str, Tensor] | nn.Module:
    """Names to tensors; or the module itself, where somebody pickled one and it is trusted.

    Raises:
        ModelMismatch: the file cannot be read or holds something else.
        UntrustedModel: the file is a pickled Python object.
    """
    if _is_pickle(path):
        found = _unpickle(path, trust)
        return found if isinstance(found, nn.Module) else _tensors(found, path)
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError, MemoryError) as error:
        raise _unreadable(path, error) from error


def _is_pickle(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(2).startswith((b"PK", b"\x80"))
    except OSError as error:
        raise _unreadable(path, error) from error


def _unpickle(path: Path, trust: Trust) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        pass
    except UNPICKLING_ERRORS as error:
        raise _unreadable(path, error) from error
    trust.ask(
        path.name,
        sha256_of(path),
        "is a pickled Python object and no mere weights (save model.state_dict() or torch.export instead); "
        "loading it can run any code",
    )
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except (pickle.UnpicklingError, *UNPICKLING_ERRORS) as error:
        raise ModelMismatch(
            f"{path.name} is a pickled object that cannot be put together here: {first_line(error)}.",
            fix="Where it was made, save torch.save(model.state_dict(), …) or an exported .pt2 instead.",
        ) from error


def _tensors(found: Any, path: Path) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        inner = found.get(wrapper) if isinstance(found, Mapping) else None
        if isinstance(inner, Mapping):
            found = inner
            break
        if isinstance(inner, nn.Module):
            return inner.state_dict()
    tensors = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not tensors:
        told = (
            f"a dict with {', '.join(map(str, list(found)[:5]))}"
            if isinstance(found, Mapping)
            else type(found).__name__
        )
        raise ModelMismatch(
            f"{path.name} holds no weights but {told}.",
            fix="Save model.state_dict(), or a dict with it as `state_dict`.",
        )
    return tensors


def _unreadable(path: Path, error: Exception) -> ModelMismatch:
    return ModelMismatch(
        f"The weights in {path.name} cannot be read: {first_line(error)}.",
        fix="The file is damaged, unfinished or no weights at all; fetch it again.",
    )
