"""Gradients of a target with respect to the image or to a layer, without leaving a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from seglens.core.errors import MissingNeed
from seglens.core.run import Run
from seglens.engine import fast
from seglens.engine.evaluator import no_memory
from seglens.models.device import free_cache, is_out_of_memory
from seglens.models.segmentation import SegmentationModel

Score = Callable[[Tensor], Tensor]


@dataclass
class Tap:
    """What passed a layer: activations (N, K, *s), one per call."""

    calls: list[Tensor] = field(default_factory=list)


@contextmanager
def tap(module: nn.Module) -> Iterator[Tap]:
    """Record what a module returns, as the start of a graph; the hook is gone afterwards.

    The network goes on with a clone, so that an in-place operation behind the layer cannot change the record.
    """
    seen = Tap()

    def record(_: nn.Module, __: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        activation = output.detach().requires_grad_(torch.is_grad_enabled())
        seen.calls.append(activation)
        return activation.clone()

    handle = module.register_forward_hook(record)
    try:
        yield seen
    finally:
        handle.remove()


def input_gradient(model: SegmentationModel, x: Tensor, score: Score, run: Run) -> Tensor:
    """Gradient of the summed score with respect to the input, of the input's shape (N, C, *space).

    Raises:
        OutOfMemory: the image does not fit.
    """
    run.check()
    with guarded(model), fast.kept_memory(), torch.enable_grad():
        leaf = fast.arranged(x.detach().clone()).requires_grad_(True)
        # the clone keeps a network that starts with an in-place operation from touching the leaf
        total = score(model.logits(leaf.clone())).sum()
        gradient = _grad(total, leaf)
    run.cost.forwards += len(x)
    run.cost.backwards += len(x)
    return gradient


def layer_activation(model: SegmentationModel, module: nn.Module, x: Tensor, run: Run) -> Tensor:
    """What a layer answers, (N, K, *s), without gradients.

    Raises:
        MissingNeed: the layer is never called, or returns no tensor.
        OutOfMemory: the image does not fit.
    """
    run.check()
    with guarded(model), torch.no_grad(), tap(module) as seen:
        model.logits(x)
    run.cost.forwards += len(x)
    return _last(seen, run)


def layer_gradient(
    model: SegmentationModel, module: nn.Module, x: Tensor, score: Score, run: Run
) -> tuple[Tensor, Tensor]:
    """Activations of a layer and the gradient of the summed score with respect to them, both (N, K, *s).

    Raises:
        MissingNeed: the layer is never called, or returns no tensor.
        OutOfMemory: the image does not fit.
    """
    run.check()
    with guarded(model), torch.enable_grad(), tap(module) as seen:
        total = score(model.logits(x.detach())).sum()
        activation = _last(seen, run)
        gradient = _grad(total, activation)
    run.cost.forwards += len(x)
    run.cost.backwards += len(x)
    return activation.detach(), gradient


def _last(seen: Tap, run: Run) -> Tensor:
    if not seen.calls:
        raise MissingNeed(
            "The network does not call this layer, or the layer returns no tensor.", fix="Choose another layer."
        )
    if len(seen.calls) > 1:
        run.note(f"The layer is called {len(seen.calls)} times; its last call is shown.")
    return seen.calls[-1]


def _grad(total: Tensor, of: Tensor) -> Tensor:
    if not total.requires_grad:
        # the score does not depend on it: a constant network, or a layer nobody listens to
        return torch.zeros_like(of)
    (gradient,) = torch.autograd.grad(total, of, allow_unused=True)
    return torch.zeros_like(of) if gradient is None else gradient.detach()


@contextmanager
def guarded(model: SegmentationModel) -> Iterator[None]:
    """Turn memory errors of the device into :class:`~seglens.core.errors.OutOfMemory`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        free_cache()
        raise no_memory(model) from error
