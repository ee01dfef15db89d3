"""How much memory a network's passes take, measured once on a small picture."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import torch

from seglens.core.run import Run
from seglens.engine import fast
from seglens.engine.folding import lean
from seglens.engine.gradients import forward_backward
from seglens.models.device import room
from seglens.models.segmentation import SegmentationModel
from seglens.models.tiled import TiledModel

PROBE = {2: 64, 3: 32}  # side of the picture on which memory is measured
GUESS = 8192  # bytes per pixel that hardly any network needs; where these fit, nothing is measured
ABOUT = 1.3  # times what a forward pass takes: no more than that for a pass back and forth is no reason to save

Under = Callable[[], AbstractContextManager[Any]]

_BYTES: dict[tuple[Any, ...], float] = {}


def back_and_forth(model: SegmentationModel, shape: tuple[int, ...], run: Run, under: Under = nullcontext) -> float:
    """Bytes per pixel that a forward and a backward pass take at most.

    Args:
        model: in tiles, all that its tiles read counts.
        shape: of the image.
        run: cancel.
        under: a context in which the passes run.
    """
    key = (model.fingerprint(), model.variant, model.device.type, under is nullcontext)
    if key not in _BYTES:
        base, more = model, 1.0
        if isinstance(model, TiledModel):
            base, read = model.whole, sum(prod(s.stop - s.start for s in t.read) for t in model.grid(shape))
            more = read / prod(shape)
        x = _picture(base)
        with lean(base):
            pass  # looking for what can be folded takes memory of its own, once
        with fast.Peak() as peak, under():
            forward_backward(base, x, lambda logits: logits.flatten(1).sum(1), run)
        _BYTES[key] = more * peak.bytes / x[0, 0].numel()
    return _BYTES[key]


def forth(model: SegmentationModel) -> float:
    """Bytes per pixel that a forward pass takes at most."""
    key = (model.fingerprint(), model.variant, model.device.type, "forth")
    if key not in _BYTES:
        x = fast.arranged(_picture(model))
        with fast.Peak() as peak, lean(model), torch.inference_mode():
            model.logits(x)
        _BYTES[key] = peak.bytes / x[0, 0].numel()
    return _BYTES[key]


def fits(model: SegmentationModel, shape: tuple[int, ...], run: Run) -> bool:
    """Whether an image may go back and forth in one piece: there is room, or it takes little more than going forth."""
    most = fast.SHARE * room(model.device, run) / prod(shape)
    if most >= GUESS:
        return True
    taken = back_and_forth(model, shape, run)
    return taken <= most or taken <= ABOUT * forth(model)


def _picture(model: SegmentationModel) -> torch.Tensor:
    """Nothing, in the size of the probe (1, C, *space)."""
    spec = model.spec
    side = max(PROBE[spec.ndim], 2 * spec.divisor, spec.min_size)
    sides = spec.size or (-(-side // spec.divisor) * spec.divisor,) * spec.ndim
    return torch.zeros(1, len(spec.channels), *sides, device=model.device)
