"""The JSON beside the weights: which network they belong to, and what the model expects and answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seglens.core.errors import ModelMismatch
from seglens.models.spec import ModelSpec, read_spec

EXAMPLE = '{"network": {"name": "unet", "arguments": {"in_channels": 1, "out_channels": 2}}, …}'

LISTS = ("channels", "classes", "size", "tile", "halo", "pixel_size")
WHOLE = ("divisor", "min_size", "batch")


def beside(weights: Path) -> dict[str, Any]:
    """The description that lies beside a weights file; empty if there is none.

    It is ``<stem>.json``, or ``model.json`` for the ``weights.safetensors`` of a folder.

    Raises:
        ModelMismatch: there is one and it cannot be read.
    """
    names = [f"{weights.stem}.json"] + (["model.json"] if weights.name == "weights.safetensors" else [])
    found = next((p for p in (weights.with_name(name) for name in names) if p.is_file()), None)
    return read_spec(found) if found is not None else {}


def split(description: Mapping[str, Any], where: str) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
    """Name of the network, its arguments, and the entries about the model.

    Raises:
        ModelMismatch: the network is not described as a name and arguments, or an entry is unknown.
    """
    about = {key: value for key, value in description.items() if key != "network"}
    unknown = sorted(set(about) - set(ModelSpec.__dataclass_fields__))
    if unknown:
        raise ModelMismatch(
            f"The description of {where} has unknown entries: {', '.join(unknown)}.",
            fix="Remove them; `docs/models.md` lists what a description may hold.",
        )
    _check_kinds(about, where)
    network = description.get("network")
    if network is None:
        return None, {}, about
    if isinstance(network, str):
        network = {"name": network}
    arguments = network.get("arguments", {}) if isinstance(network, Mapping) else None
    name = network.get("name") if isinstance(network, Mapping) else None
    if not isinstance(name, str) or not isinstance(arguments, Mapping):
        raise ModelMismatch(
            f"The description of {where} names the network as {network!r}.",
            fix=f"Write it as in {EXAMPLE}.",
        )
    return name, dict(arguments), about


def _check_kinds(about: Mapping[str, Any], where: str) -> None:
    for key, value in about.items():
        listed = key in LISTS and (isinstance(value, list | tuple) and len(value) > 0)
        whole = key in WHOLE and isinstance(value, int) and value >= 1
        none = value is None and key not in ("channels", "classes", "divisor", "min_size")
        if key in (*LISTS, *WHOLE) and not (listed or whole or none):
            expected = "a list" if key in LISTS else "a whole number from 1"
            raise ModelMismatch(
                f"The description of {where} gives {key} as {value!r}.", fix=f"Give {expected}, as in `docs/models.md`."
            )


def given_by(spec: ModelSpec | Mapping[str, Any] | None) -> dict[str, Any]:
    """Entries that a caller sets; a whole ``ModelSpec`` leaves nothing to find out but the fingerprint."""
    if spec is None:
        return {}
    if isinstance(spec, ModelSpec):
        spec = {key: value for key, value in spec.to_dict().items() if key != "sha256" or value}
    return split(spec, "the model")[2]
