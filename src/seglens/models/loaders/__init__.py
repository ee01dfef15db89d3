"""Loading a model from whatever a person has: a zoo name, a file, a folder, an archive.

A loader is one file here with ``load(request) -> Loaded``; :mod:`.detect` chooses it by what the file holds, and
:mod:`.infer` finds out by trying what no description says.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seglens.core.errors import BadParameter, OutOfMemory
from seglens.models.device import choose_device, is_out_of_memory
from seglens.models.loaders.description import given_by
from seglens.models.loaders.detect import kind_of, locate
from seglens.models.loaders.infer import check, complete
from seglens.models.loaders.request import Loaded, Request
from seglens.models.segmentation import SegmentationModel, settle
from seglens.models.spec import ModelSpec
from seglens.models.trust import Trust

__all__ = ["load_model"]

TAKES_WEIGHTS = ("factory", "folder")


def load_model(
    source: str | Path,
    *,
    weights: str | Path | None = None,
    network: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    spec: ModelSpec | Mapping[str, Any] | None = None,
    trust: Trust = Trust.never(),  # noqa: B008 - a frozen value
    device: str = "auto",
) -> SegmentationModel:
    """Load a segmentation model.

    Args:
        source: a name of the zoo, a path, or ``file.py:function``.
        weights: weights for a function or folder that comes without.
        network: the network that a weights file belongs to: ``unet``, or ``monai:`` and a class of MONAI.
        arguments: keyword arguments of that network or function.
        spec: what is known about the model; entries win over those beside the file, the rest is found out.
        trust: whether files that run code may be loaded.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        UnknownName: no such file, zoo model, network or function.
        ModelMismatch: it is no model, is damaged, or contradicts its description.
        UntrustedModel: loading would run code that nobody has allowed.
        BadParameter: the network does not take these arguments, or there is no such device.
        OutOfMemory: it does not fit on the device.
    """
    path, member = locate(source)
    kind = kind_of(path)
    if weights is not None and kind not in TAKES_WEIGHTS:
        raise BadParameter(
            f"The weights {Path(weights).name} were given for {path.name}, which brings its own.",
            fix="Leave the weights out, or give file.py:build as the model.",
        )
    request = Request(
        path=path,
        name=path.name if path.is_dir() else path.stem,
        trust=trust,
        device=choose_device(device).name,
        member=member,
        weights=None if weights is None else locate(weights)[0],
        network=network,
        arguments=arguments or {},
        given=given_by(spec),
    )
    try:
        loaded = importlib.import_module(f"{__name__}.{kind}").load(request)
        return _finished(loaded, request, str(source))
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or isinstance(error, OutOfMemory):
            raise
        raise OutOfMemory(
            f"{path.name} does not fit into the memory of {request.device}.",
            fix="Close other programs, or load it with --device cpu.",
        ) from error


def _finished(loaded: Loaded, request: Request, source: str) -> SegmentationModel:
    module = loaded.module.to(request.device)
    # half-precision weights would refuse single-precision images; graphs have their types written in
    if loaded.shape is None:
        module = module.float()
    settle(module)
    described = {"name": request.name, **loaded.described, **request.given}
    spec = complete(module, described, device=request.device, shape=loaded.shape)
    spec = replace(spec, sha256=loaded.sha256)
    said = {"weights": request.weights, "network": request.network}
    model = SegmentationModel(
        module,
        spec,
        device=request.device,
        source=source,
        layered=loaded.layered,
        options={name: str(value) for name, value in said.items() if value is not None},
    )
    check(model)
    return model
