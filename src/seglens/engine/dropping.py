"""Dropout that stays switched on while everything else is in eval mode: samples of a network's answer (card B/U2)."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

WHOLE = {F.dropout, torch.dropout}
CHANNELS = {F.dropout1d, F.dropout2d, F.dropout3d, torch.feature_dropout}


class Dropping(TorchFunctionMode):
    """While this lasts, every dropout drops, module or function, with the probability that it was made with.

    Nothing of the model is changed, and torch's own random numbers are not touched. Dropout inside TorchScript and
    exported graphs is not seen, and the alpha kind (of self-normalising networks) stays off.

    Args:
        seed: of all masks.
    """

    def __init__(self, seed: int) -> None:
        """Nothing dropped yet."""
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)
        self.seen = 0  # dropouts with a probability above zero

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the function, or drop."""
        if func not in WHOLE and func not in CHANNELS:
            return func(*args, **(kwargs or {}))
        given = dict(zip(("input", "p"), args, strict=False)) | (kwargs or {})
        p = float(given.get("p", _default(func)))
        return self._dropped(given["input"], p, func in CHANNELS)

    def _dropped(self, x: Tensor, p: float, channels: bool) -> Tensor:
        if p == 0:
            return x
        self.seen += 1
        shape = (*x.shape[:2], *(1,) * (x.ndim - 2)) if channels else x.shape
        kept = torch.rand(shape, generator=self._generator) >= p
        return x * (kept.to(x) / (1 - p) if p < 1 else torch.zeros_like(x))


def _default(func: Any) -> float:
    try:
        return float(inspect.signature(func).parameters["p"].default)
    except (ValueError, KeyError, TypeError):
        return 0.5
