"""Exported graphs: ``.pt2`` files, as ``torch.export.save`` writes them.

They need trust. ``torch.export.load`` unpickles the sample inputs in the file (when the safe way fails it falls back
to ``weights_only=False``), pickled weights and opaque constants, and loads compiled libraries that lie in the archive.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from seglens.core.errors import ModelMismatch
from seglens.models.loaders.description import beside, split
from seglens.models.loaders.request import FOREIGN_ERRORS, Loaded, Request, first_line
from seglens.models.trust import sha256_of


def load(request: Request) -> Loaded:
    """Load an exported graph; its layers cannot be tapped, and it may take one size only.

    Raises:
        UntrustedModel: the file is not trusted; it may hold pickled objects.
        ModelMismatch: it cannot be read, or takes more than one image.
    """
    path = request.path
    about = split(beside(path), path.name)[2]
    fingerprint = sha256_of(path)
    request.trust.ask(path.name, fingerprint, "is an exported graph, which PyTorch unpickles; that can run code")
    program = _read(request)
    shape = _input_shape(program, path.name)
    return Loaded(_module(program, request.device), about, fingerprint, layered=False, shape=shape)


def _read(request: Request) -> ExportedProgram:
    try:
        # through a buffer, because torch complains about names that do not end in .pt2
        with request.path.open("rb") as file, _hushed():
            return torch.export.load(file)
    except (*FOREIGN_ERRORS, EOFError) as error:
        raise ModelMismatch(
            f"The exported graph in {request.path.name} cannot be read: {first_line(error)}.",
            fix="Export it again with this version of PyTorch "
            f"({torch.__version__}), or give the weights with --network instead.",
        ) from error


def _module(program: ExportedProgram, device: str) -> nn.Module:
    if device != "cpu":
        # tensors that the graph makes itself have their device written into it
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    module: nn.Module = program.module()
    return module


def _input_shape(program: ExportedProgram, name: str) -> tuple[int | None, ...]:
    wanted = program.graph_signature.user_inputs
    values = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in wanted]
    if len(values) != 1 or not isinstance(values[0], Tensor):
        raise ModelMismatch(
            f"The graph in {name} takes {len(values)} inputs, and a segmentation model takes one image.",
            fix="Export a module whose forward takes the image alone.",
        )
    return tuple(size if isinstance(size, int) else None for size in values[0].shape)


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep torch's own warnings about a broken file off the screen; the error tells it."""
    loggers = [logging.getLogger(name) for name in ("torch.export", "torch.export.pt2_archive._package")]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, state in zip(loggers, before, strict=True):
            logger.disabled = state
