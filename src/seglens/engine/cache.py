"""Scores that are known: the same copies of the same image through the same model are not scored twice."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from seglens.core.run import Run
from seglens.engine.perturb import Perturbations
from seglens.engine.target import FrozenTarget
from seglens.models.segmentation import SegmentationModel

ROOM = 32 * 2**20  # bytes of scores

_lock = threading.Lock()
_scores: OrderedDict[tuple[bytes, bytes], Tensor] = OrderedDict()


def key(model: SegmentationModel, perturbations: Perturbations, run: Run) -> bytes | None:
    """What tells a set of copies and how they are scored from others; ``None``: not to be kept."""
    parts = perturbations.parts()
    if parts is None:
        return None
    # weights that are changed in place count up their version
    versions = [(id(p), p._version) for p in model.module.parameters() if not p.is_inference()]
    digest = hashlib.sha256(
        f"{model.fingerprint()} {model.variant} {versions} {run.batch} {run.precision} {model.device}".encode()
    )
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
        else:
            digest.update(f"{tuple(part.shape)} {part.dtype}".encode())
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
    return digest.digest()


def find(of: bytes | None, targets: Sequence[FrozenTarget]) -> Tensor | None:
    """Scores (N, targets) if all of them are known."""
    if of is None:
        return None
    with _lock:
        columns = [_scores.get((of, t.key)) for t in targets]
    known = [c for c in columns if c is not None]
    return torch.stack(known, 1) if len(known) == len(columns) else None


def keep(of: bytes | None, targets: Sequence[FrozenTarget], scores: Tensor) -> None:
    """Remember scores (N, targets); the oldest go when there is no room."""
    if of is None:
        return
    with _lock:
        for t, column in zip(targets, scores.T, strict=True):
            _scores[of, t.key] = column.clone()
        while sum(c.nbytes for c in _scores.values()) > ROOM and len(_scores) > 1:
            _scores.popitem(last=False)


def clear() -> None:
    """Forget everything."""
    with _lock:
        _scores.clear()
