"""TorchScript: a network and its code in one file, as ``torch.jit.save`` writes it."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from seglens.core.errors import ModelMismatch
from seglens.models.loaders.description import beside, split
from seglens.models.loaders.request import FOREIGN_ERRORS, Loaded, Request, first_line
from seglens.models.trust import Trust, sha256_of


def load(request: Request) -> Loaded:
    """Load TorchScript; its layers cannot be tapped.

    Raises:
        UntrustedModel: the file is not trusted; it holds code.
        ModelMismatch: it cannot be read.
    """
    about = split(beside(request.path), request.path.name)[2]
    fingerprint = sha256_of(request.path)
    module = read_script(request.path, request.trust, fingerprint, request.device)
    return Loaded(module, about, fingerprint, layered=False)


def read_script(path: Path, trust: Trust, fingerprint: str, device: str) -> nn.Module:
    """The module of a TorchScript file.

    Raises:
        UntrustedModel: the file is not trusted.
        ModelMismatch: it cannot be read.
    """
    trust.ask(path.name, fingerprint, "is TorchScript, which holds code and runs it")
    try:
        with warnings.catch_warnings():
            # torch calls TorchScript deprecated; the models people have do not go away
            warnings.simplefilter("ignore")
            module: nn.Module = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    except FOREIGN_ERRORS as error:
        raise ModelMismatch(
            f"The TorchScript in {path.name} cannot be read: {first_line(error)}.",
            fix="Save it again with torch.jit.save, or with torch.export.save as .pt2.",
        ) from error
    return module
