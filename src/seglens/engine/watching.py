"""Layers looked at while they pass: one forward pass for all of them, and the memory of one at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from seglens.engine import gradients
from seglens.engine.case import Case
from seglens.models.layers import find_layer

Look = Callable[[str, Tensor], None]


def watch(case: Case, names: Sequence[str], look: Look, x: Tensor | None = None) -> Tensor:
    """Show layers' answers to ``look`` as they are made, nothing of them is kept.

    Args:
        case: image and network.
        names: of the layers; one that is called more than once is shown as often.
        look: gets the layer's name and its answer (1, K, *s); must not change it.
        x: another input (1, C, *space); by default the clean image.

    Returns:
        The logits (1, K, *space).

    Raises:
        MissingNeed: the model is an exported graph or TorchScript.
        UnknownName: there is no such layer.
    """

    def shown(name: str) -> Any:
        def hook(module: Any, inputs: Any, out: Any) -> None:
            if isinstance(out, Tensor):
                case.run.check()
                look(name, out)

        return hook

    with gradients.guarded(case.model), torch.no_grad(), ExitStack() as stack:
        for name in names:
            stack.callback(find_layer(case.model, name).register_forward_hook(shown(name)).remove)
        logits = case.model.logits(case.x if x is None else x)
    case.run.cost.forwards += 1
    return logits
