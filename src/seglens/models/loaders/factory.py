"""A person's own network: ``file.py:build``, a function that returns it, with weights or without."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from seglens.core.errors import ModelMismatch, SegLensError, UnknownName
from seglens.models.loaders.description import beside, split
from seglens.models.loaders.networks import fill
from seglens.models.loaders.request import FOREIGN_ERRORS, Loaded, Request, first_line
from seglens.models.loaders.weights import read_weights
from seglens.models.trust import Trust, sha256_of

USUAL = "build"


def load(request: Request) -> Loaded:
    """Run the file, call the function, and put the weights in if there are any.

    Raises:
        UntrustedModel: the file is not trusted.
        UnknownName: it has no such function.
        ModelMismatch: running it fails, or it returns no network.
    """
    path = request.path
    description = beside(path) | (beside(request.weights) if request.weights else {})
    _, arguments, about = split(description, path.name)
    network = call_from_file(path, request.member or USUAL, {**arguments, **request.arguments}, request.trust)
    if request.weights is None:
        return Loaded(network, about, sha256_of(path))
    stored = read_weights(request.weights, request.trust)
    fill(network, stored if isinstance(stored, dict) else stored.state_dict(), request.weights.name)
    return Loaded(network, about, sha256_of(request.weights))


def call_from_file(path: Path, name: str, arguments: Mapping[str, Any], trust: Trust) -> nn.Module:
    """The network that a function or class of a Python file makes.

    Raises:
        UntrustedModel: the file is not trusted.
        UnknownName: it has no such function.
        ModelMismatch: running it fails, or it returns no network.
    """
    build = _function(path, name, trust)
    try:
        with _importable(path.parent), torch.random.fork_rng(devices=[]):
            network = build(**arguments)
    except SegLensError:
        raise
    except FOREIGN_ERRORS as error:
        raise ModelMismatch(
            f"{name} in {path.name} fails with {type(error).__name__}: {first_line(error)}.",
            fix="Correct the function, or give the arguments it needs.",
        ) from error
    if not isinstance(network, nn.Module):
        raise ModelMismatch(
            f"{name} in {path.name} returns a {type(network).__name__}, not a network.",
            fix="Return a torch.nn.Module.",
        )
    return network


def _function(path: Path, name: str, trust: Trust) -> Callable[..., Any]:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ModelMismatch(f"{path.name} cannot be read: {error.strerror}.", fix="Check the path.") from error
    fingerprint = hashlib.sha256(source).hexdigest()
    trust.ask(path.name, fingerprint, "is Python code that will be run")
    module = ModuleType(f"seglens_factory_{fingerprint[:12]}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        # the bytes that were asked about, and no cached .pyc that may lie beside them
        with _importable(path.parent):
            exec(compile(source, str(path), "exec"), vars(module))
    except SegLensError:
        raise
    except FOREIGN_ERRORS as error:
        raise ModelMismatch(
            f"{path.name} cannot be run: {type(error).__name__}: {first_line(error)}.",
            fix="Correct the file, or install what it imports.",
        ) from error
    functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    if name not in functions:
        listing = f"{path.name} has {', '.join(functions[:8]) or 'no function'}; give it as {path.name}:NAME."
        raise UnknownName.among(f"function in {path.name}", name, functions, listing=listing)
    found: Callable[..., Any] = vars(module)[name]
    return found


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the file import its neighbours, as it could where it was written."""
    place = str(folder.resolve())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        if place in sys.path:
            sys.path.remove(place)
