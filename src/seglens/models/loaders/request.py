"""What a loader is asked for and what it hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seglens.models.trust import Trust

# what code that we did not write (a network, a factory, a bundle) may raise
FOREIGN_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    torch.jit.Error,
)


@dataclass(frozen=True)
class Request:
    """A model that somebody wants to load.

    Args:
        path: the file or folder.
        name: short name, for people.
        trust: whether files that run code may be loaded.
        device: where the model will run.
        member: the function to call, for ``file.py:function``.
        weights: a second file with weights, for a factory.
        network: name of the network that weights belong to, ``unet`` or ``monai:BasicUNet``.
        arguments: arguments of that network or factory.
        given: entries of the description that the caller knows better than the file.
    """

    path: Path
    name: str
    trust: Trust
    device: str = "cpu"
    member: str = ""
    weights: Path | None = None
    network: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Loaded:
    """What a loader found.

    Args:
        module: the network with its weights.
        described: entries of the description that the file knows; the rest is found out by trying.
        sha256: fingerprint of the weights.
        layered: whether modules inside can be tapped.
        shape: input shape (N, C, *space) of an exported graph, ``None`` where any size goes.
    """

    module: nn.Module
    described: Mapping[str, Any]
    sha256: str
    layered: bool = True
    shape: tuple[int | None, ...] | None = None


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without a closing full stop; its kind if it says nothing."""
    text = str(error).strip().splitlines()
    return (text[0].strip().rstrip(".:") if text else "") or type(error).__name__
