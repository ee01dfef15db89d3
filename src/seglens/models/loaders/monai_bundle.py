"""MONAI bundles: a folder or zip with ``configs/metadata.json``, ``configs/inference.json`` and ``models/model.pt``.

A bundle's configuration may hold Python expressions (``$…``) and call any function (``_target_``). Without trust only
constants, references and networks of MONAI are understood; everything else asks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from seglens.core.errors import ModelMismatch, SegLensError
from seglens.models.archives import opened
from seglens.models.loaders.monai_config import CodeNeededError, Config
from seglens.models.loaders.monai_meta import describe, reads_transposed
from seglens.models.loaders.networks import MONAI, fill, make_network
from seglens.models.loaders.request import FOREIGN_ERRORS, Loaded, Request, first_line
from seglens.models.loaders.torchscript import read_script
from seglens.models.loaders.turn import Transposed, turned
from seglens.models.loaders.weights import read_weights
from seglens.models.trust import Trust, sha256_of

NETWORK_IDS = ("network_def", "network", "net", "model")
CONFIGS = ("inference", "evaluate", "train")
SUFFIXES = ("json", "yaml", "yml")


def load(request: Request) -> Loaded:
    """Load a bundle; expressions in its configuration, and TorchScript, need trust.

    Raises:
        ModelMismatch: a file is missing or damaged, or the network cannot be made.
        UntrustedModel: making the network would run code of the bundle.
    """
    with opened(request.path) as place:
        root = _root(place, request.name)
        config = Config.read(_config_file(root, request.name))
        about = describe(root / "configs" / "metadata.json", config, request.name)
        weights, script = root / "models" / "model.pt", root / "models" / "model.ts"
        if not weights.is_file() and script.is_file():
            fingerprint = sha256_of(script)
            module, layered = read_script(script, request.trust, fingerprint, request.device), False
        else:
            fingerprint = sha256_of(weights)
            module, layered = _filled(config, weights, root, request), True
    if reads_transposed(config):
        module, layered = _upright(module, layered=layered)
    return Loaded(module, about, fingerprint, layered=layered)


def _upright(module: nn.Module, *, layered: bool) -> tuple[nn.Module, bool]:
    """MONAI reads images as x, y, z; ours are z, y, x. Turn the kernels, or where that will not do, each image."""
    other = turned(module) if layered else None
    return (other, True) if other is not None else (Transposed(module), False)


def _filled(config: Config, weights: Path, root: Path, request: Request) -> nn.Module:
    network = _network(config, root, request)
    stored = read_weights(weights, request.trust)
    fill(network, stored if isinstance(stored, dict) else stored.state_dict(), f"{request.name}/models/{weights.name}")
    return network


def _network(config: Config, root: Path, request: Request) -> nn.Module:
    key = next((key for key in NETWORK_IDS if key in config.data), None)
    if key is None:
        raise ModelMismatch(
            f"{config.path.name} of {request.name} defines no network_def.",
            fix="Give the weights in models/model.pt with --network and its arguments instead.",
        )
    try:
        name, arguments = config.network(key)
    except CodeNeededError as reason:
        return _evaluated(config, key, root, request.trust, str(reason))
    return make_network(MONAI + name, {**arguments, **request.arguments})


def _evaluated(config: Config, key: str, root: Path, trust: Trust, reason: str) -> nn.Module:
    trust.ask(config.path.name, sha256_of(config.path), f"of {root.name} {reason}, which is code that would be run")
    from monai.bundle import ConfigParser

    parser = ConfigParser({**config.data, "bundle_root": str(root)})
    try:
        with _importable(root):
            network = parser.get_parsed_content(key)
    except SegLensError:
        raise
    except FOREIGN_ERRORS as error:
        raise ModelMismatch(
            f"The network in {config.path.name} cannot be made: {first_line(error)}.",
            fix="Install what the bundle needs (configs/metadata.json lists it), or give the weights with --network.",
        ) from error
    if not isinstance(network, nn.Module):
        raise ModelMismatch(
            f"{key} in {config.path.name} is a {type(network).__name__}, not a network.",
            fix="Give the weights in models/model.pt with --network and its arguments instead.",
        )
    return network


@contextmanager
def _importable(root: Path) -> Iterator[None]:
    """Let the configuration import the bundle's own scripts."""
    before = list(sys.path)
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path[:] = before


def _root(place: Path, name: str) -> Path:
    found = next((p.parent for p in (place / "configs", *sorted(place.glob("*/configs"))) if p.is_dir()), None)
    if found is None:
        raise ModelMismatch(f"{name} holds no configs folder.", fix="Download the whole bundle again.")
    return found


def _config_file(root: Path, name: str) -> Path:
    paths: list[Any] = [root / "configs" / f"{stem}.{suffix}" for stem in CONFIGS for suffix in SUFFIXES]
    found: Path | None = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise ModelMismatch(
            f"{name} has no configs/inference.json.", fix="Download the whole bundle again; it defines the network."
        )
    return found
