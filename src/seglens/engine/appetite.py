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
    if isinstance(model, TiledModel):
        read = sum(prod(s.stop - s.start for s in t.read) for t in model.grid(shape))
        return float(read / prod(shape) * back_and_forth(model.whole, shape, run, under))

    def measure() -> float:
        x = picture(model)
        with lean(model):
            pass  # looking for what can be folded takes memory of its own, once
        with fast.Peak() as peak, under():
            forward_backward(model, x, lambda logits: logits.flatten(1).sum(1), run)
        return float(peak.bytes / x[0, 0].numel())

    return measured(model, ("back", under is nullcontext), measure)


def forth(model: SegmentationModel) -> float:
    """Bytes per pixel that a forward pass takes at most."""

    def measure() -> float:
        x = fast.arranged(picture(model))
        with fast.Peak() as peak, lean(model), torch.inference_mode():
            model.logits(x)
        return float(peak.bytes / x[0, 0].numel())

    return measured(model, ("forth",), measure)


def fits(model: SegmentationModel, shape: tuple[int, ...], run: Run) -> bool:
    """Whether an image may go back and forth in one piece: there is room, or it takes little more than going forth."""
    most = fast.SHARE * room(model.device, run) / prod(shape)
    if most >= GUESS:
        return True
    taken = back_and_forth(model, shape, run)
    return taken <= most or taken <= ABOUT * forth(model)


def measured(model: SegmentationModel, what: tuple[Any, ...], measure: Callable[[], float]) -> float:
    """What ``measure`` tells about a model and some passes, asked for once."""
    key = (model.fingerprint(), model.variant, model.device.type, *what)
    if key not in _BYTES:
        _BYTES[key] = measure()
    return _BYTES[key]


def picture(model: SegmentationModel) -> torch.Tensor:
    """Nothing, in the size of the probe (1, C, *space)."""
    spec = model.spec
    side = max(PROBE[spec.ndim], 2 * spec.divisor, spec.min_size)
    sides = spec.size or (-(-side // spec.divisor) * spec.divisor,) * spec.ndim
    return torch.zeros(1, len(spec.channels), *sides, device=model.device)
