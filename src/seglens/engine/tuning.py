"""Which layout and batch are fastest for a model on this machine: measured where it pays, and remembered."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from seglens.core.places import recall, remember
from seglens.core.run import Run
from seglens.engine import fast
from seglens.models.device import is_out_of_memory
from seglens.models.segmentation import SegmentationModel

SHELF = "speed"
MANY = 64  # passes from which measuring pays
LARGE = 128 * 128  # pixels of one copy from which it does
FEW = 4
PART = 0.05  # of the passes that follow: what trying may take


@dataclass(frozen=True)
class Setting:
    """How copies go through the model.

    Args:
        arranged: in the layout in which channels lie together.
        batch: copies at a time.
    """

    arranged: bool = True
    batch: int = 1


_known: dict[str, Setting] = {}


def choose(
    model: SegmentationModel, logits: Callable[[Tensor], Tensor], x: Tensor, peak: int, passes: int, run: Run
) -> Setting:
    """The setting for many copies like ``x``.

    Args:
        model: for the key under which it is remembered.
        logits: the model on a batch like ``x``, as it is given.
        x: one copy (1, C, *space).
        peak: bytes that one copy takes.
        passes: how many copies will follow; for few, or small ones, the usual setting is good enough.
        run: memory, a batch that was asked for, cancel.
    """
    pixels = x[0, 0].numel()
    usual = Setting(True, fast.batch_size(model, pixels, peak, run))
    if run.batch is not None or passes < MANY or pixels < LARGE or model.device.type != "cpu":
        return usual
    key = _key(model, x, run)
    if key not in _known:
        _known[key] = _recalled(key) or _measured(logits, x, usual.batch, passes, run)
        remember(SHELF, key, asdict(_known[key]))
    known = _known[key]
    return Setting(known.arranged, min(known.batch, usual.batch))


def _measured(logits: Callable[[Tensor], Tensor], x: Tensor, most: int, passes: int, run: Run) -> Setting:
    """The quickest of a few settings; trying them takes no more than a small part of the work that follows."""
    few = min(FEW, most)
    tried = dict.fromkeys([Setting(True, few), Setting(True, 1), Setting(False, few), Setting(True, most)])
    taken: dict[Setting, float] = {}
    spent = 0
    for setting in tried:
        if taken and spent + 1 + setting.batch > PART * passes:
            continue
        run.check()
        spent += 1 + setting.batch
        batch = x.expand(setting.batch, *x.shape[1:])
        try:
            batch = fast.arranged(batch) if setting.arranged else batch.contiguous()
            logits(batch[:1])  # the first one in a layout prepares it
            start = time.perf_counter()
            logits(batch)
            taken[setting] = (time.perf_counter() - start) / setting.batch
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        run.cost.forwards += 1 + setting.batch
    return min(taken, key=lambda s: taken[s]) if taken else Setting()


def _key(model: SegmentationModel, x: Tensor, run: Run) -> str:
    told = (
        f"{model.fingerprint()} {model.variant} {tuple(x.shape)} {run.precision} {torch.__version__} "
        f"{torch.get_num_threads()} {os.cpu_count()} {platform.machine()} {platform.node()}"
    )
    return hashlib.sha256(told.encode()).hexdigest()


def _recalled(key: str) -> Setting | None:
    try:
        return Setting(**recall(SHELF, key))
    except (KeyError, TypeError):
        return None
