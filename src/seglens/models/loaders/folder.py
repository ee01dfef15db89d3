"""Our own folders, as ``seglens train`` and the zoo have them: ``model.json`` and ``weights.safetensors``."""

from __future__ import annotations

from pathlib import Path

from seglens.core.errors import ModelMismatch
from seglens.models.archives import opened
from seglens.models.loaders.description import split
from seglens.models.loaders.networks import fill, make_network
from seglens.models.loaders.request import Loaded, Request
from seglens.models.loaders.weights import read_weights
from seglens.models.spec import read_spec
from seglens.models.trust import sha256_of

MARKER = "model.json"
WEIGHTS = ("weights.safetensors", "weights.pt")


def load(request: Request) -> Loaded:
    """Load a folder, a zip of one, or its ``model.json``. Runs no code, so it needs no trust.

    Raises:
        ModelMismatch: the description or the weights are missing, or they do not fit each other.
    """
    with opened(request.path.parent if request.path.name == MARKER else request.path) as place:
        folder = _with_marker(place, request.path.name)
        name, arguments, about = split(read_spec(folder / MARKER), request.name)
        name = request.network or name
        if name is None:
            raise ModelMismatch(
                f"The model.json of {request.name} does not say which network the weights belong to.",
                fix='Add an entry "network" with its name and arguments; `docs/models.md` has an example.',
            )
        path = request.weights or _weights(folder, request.name)
        stored = read_weights(path, request.trust)
        network = make_network(name, {**arguments, **request.arguments})
        fill(network, stored if isinstance(stored, dict) else stored.state_dict(), path.name)
        return Loaded(network, about, sha256_of(path))


def _with_marker(place: Path, name: str) -> Path:
    for marker in (place / MARKER, *sorted(place.glob(f"*/{MARKER}"))):
        if marker.is_file():
            return marker.parent
    raise ModelMismatch(f"{name} holds no model.json.", fix="Zip the folder that `seglens train` wrote, whole.")


def _weights(folder: Path, name: str) -> Path:
    found = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    if found is None:
        raise ModelMismatch(
            f"{name} has a model.json and no weights.safetensors.",
            fix="Put the weights beside model.json, or give them with --weights.",
        )
    return found
