"""Networks that SegLens can train, by name; the name and the arguments are what a ``model.json`` keeps.

Listing the names imports no torch: :data:`NETWORKS` holds dotted paths, resolved when one is built.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from seglens.core.errors import BadParameter, UnknownName

if TYPE_CHECKING:
    from torch import nn

NETWORKS: Mapping[str, str] = {
    "unet": "seglens.models.nets.unet.UNet",
    "proto-unet": "seglens.models.nets.proto_unet.ProtoUNet",
    "annotator-unet": "seglens.models.nets.annotators.AnnotatorUNet",
    "segmenter": "seglens.models.nets.segmenter.Segmenter",
}


def check_name(name: str) -> None:
    """Raise UnknownName if no network is called so."""
    if name not in NETWORKS:
        listing = f"Networks that can be built: {', '.join(sorted(NETWORKS))}."
        raise UnknownName.among("network", name, NETWORKS, listing=listing)


def build_network(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A fresh network with random weights.

    Args:
        name: a key of :data:`NETWORKS`.
        arguments: keyword arguments of its constructor, as JSON would hold them.

    Raises:
        UnknownName: no network has this name.
        BadParameter: the constructor does not take these arguments.
    """
    check_name(name)
    module, _, attribute = NETWORKS[name].rpartition(".")
    constructor = getattr(importlib.import_module(module), attribute)
    try:
        network: nn.Module = constructor(**arguments)
    except TypeError as error:
        raise BadParameter(
            f"The network {name!r} cannot be built from {dict(arguments)}: {error}.",
            fix=f"Give the arguments that {attribute} documents, for example in_channels and out_channels.",
        ) from error
    return network
