"""Gradients of a target with respect to the image or to a layer, without leaving a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

import torch
from torch import Tensor, nn

from seglens.core.boxes import Box, at_box
from seglens.core.errors import MissingNeed
from seglens.core.run import Run
from seglens.engine import fast
from seglens.engine.folding import lean
from seglens.engine.plan import ALIKE
from seglens.models.device import free_cache, is_out_of_memory, no_memory
from seglens.models.layers import layer_name
from seglens.models.segmentation import SegmentationModel

Score = Callable[[Tensor], Tensor]
Sizes = tuple[int, ...]


@dataclass
class Tap:
    """What passed a layer: activations (N, K, *s), one per call."""

    module: nn.Module
    calls: list[Tensor] = field(default_factory=list)


@contextmanager
def tap(module: nn.Module) -> Iterator[Tap]:
    """Record what a module returns, as a part of a graph or its start; the hook is gone afterwards.

    The network goes on with a clone, so that an in-place operation behind the layer cannot change the record.
    """
    seen = Tap(module)

    def record(_: nn.Module, __: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        # behind another layer that is recorded, too, the graph goes on
        activation = output if output.requires_grad else output.detach().requires_grad_(torch.is_grad_enabled())
        seen.calls.append(activation)
        return activation.clone()

    handle = module.register_forward_hook(record)
    try:
        yield seen
    finally:
        handle.remove()


def forward_backward(
    model: SegmentationModel, x: Tensor, score: Score, run: Run, *, more: bool = False
) -> tuple[Tensor, Tensor]:
    """Scores (n,) of inputs (n, C, *space), and the gradient of each with respect to its own input.

    Every gradient of an input comes through here: what makes a pass cheaper without changing its answer belongs here.
    ``run.plain`` takes no part in it. Where ``more`` passes like it follow, freed memory is kept for these.
    """
    with _leanly(model, (), x, run, more=more), torch.enable_grad():
        run.check()
        # a clone, so that a network that starts with an in-place operation does not touch the leaf
        leaf = (x if run.plain else fast.arranged(x)).detach().clone().requires_grad_(True)
        scores = score(model.logits(leaf.clone()))
        (gradient,) = derivatives(scores.sum(), [leaf])
    run.cost.forwards += len(x)
    run.cost.backwards += len(x)
    return scores.detach(), gradient


def layer_activation(model: SegmentationModel, module: nn.Module, x: Tensor, run: Run) -> Tensor:
    """What a layer answers, (N, K, *s), without gradients.

    Raises:
        MissingNeed: the layer is never called, or returns no tensor.
        OutOfMemory: the image does not fit.
    """
    return layer_activations(model, [module], x, run)[0]


def layer_activations(
    model: SegmentationModel,
    modules: Sequence[nn.Module],
    x: Tensor,
    run: Run,
    seen: Callable[[Tensor], object] | None = None,
) -> list[Tensor]:
    """The same for several layers in one pass; ``seen`` is told the network's logits (N, K, *space)."""
    run.check()
    with guarded(model), _leanly(model, modules, x, run), torch.no_grad(), ExitStack() as stack:
        run.check()  # the first time, the network was looked at for what can be folded
        taps = [stack.enter_context(tap(module)) for module in modules]
        logits = model.logits(fast.arranged(x))
    run.cost.forwards += len(x)
    found = [tapped(one, model, run) for one in taps]
    if seen is not None:
        seen(logits)
    return found


def layer_gradient(
    model: SegmentationModel, module: nn.Module, x: Tensor, score: Score, run: Run
) -> tuple[Tensor, Tensor]:
    """Activations of a layer and the gradient of the summed score with respect to them, both (N, K, *s).

    Raises:
        MissingNeed: the layer is never called, or returns no tensor.
        OutOfMemory: the image does not fit.
    """
    return layer_gradients(model, [module], x, score, run)[0]


def layer_gradients(
    model: SegmentationModel, modules: Sequence[nn.Module], x: Tensor, score: Score, run: Run
) -> list[tuple[Tensor, Tensor]]:
    """The same for several layers, in one forward and one backward pass; it goes back to the first of them."""
    run.check()
    with guarded(model), _leanly(model, modules, x, run), torch.enable_grad(), ExitStack() as stack:
        run.check()
        seen = [stack.enter_context(tap(module)) for module in modules]
        total = score(model.logits(fast.arranged(x.detach()))).sum()
        activations = [tapped(one, model, run) for one in seen]
        found = derivatives(total, activations)
    run.cost.forwards += len(x)
    run.cost.backwards += len(x)
    return [(activation.detach(), gradient) for activation, gradient in zip(activations, found, strict=True)]


def placed(near: tuple[Tensor, Tensor], activation: Tensor, box: Box, full: Sizes, part: Sizes) -> Tensor | None:
    """The gradient at a layer, seen on a crop, in the layer's map of the whole image; zero around it.

    Args:
        near: the layer's activation and gradient on the crop, (1, K, *c).
        activation: on the whole image, (1, K, *s).
        box: the crop.
        full, part: at which sizes the network saw the image and the crop.

    Returns:
        (1, K, *s), or ``None`` if the maps do not lie on each other or the layer answers otherwise on the crop.
    """
    seen, gradient = near
    there, here = [], []
    for s, n, c, whole_map, part_map in zip(box, full, part, activation.shape[2:], gradient.shape[2:], strict=True):
        stride = max(1, n // whole_map)
        if stride * whole_map != n or stride * part_map != c or s.start % stride:
            return None
        first = s.start // stride
        there.append(slice(first, min(whole_map, first + part_map)))
        here.append(slice(0, there[-1].stop - first))
    out = torch.zeros_like(activation)
    out[at_box(there)] = gradient[at_box(here)]
    counts = gradient[at_box(here)] != 0
    off = ((seen[at_box(here)] - activation[at_box(there)]).abs() * counts).max()
    alike = float(off) <= ALIKE * max(1e-12, float(activation.abs().max()))
    return out if alike and int(counts.sum()) == int((gradient != 0).sum()) else None


def _leanly(
    model: SegmentationModel, modules: Sequence[nn.Module], x: Tensor, run: Run, *, more: bool = False
) -> AbstractContextManager[None]:
    if run.plain:
        return fast.kept_memory(model)
    return lean(model, *modules, spare=inf if more else fast.spare(x, run))


def tapped(seen: Tap, model: SegmentationModel, run: Run) -> Tensor:
    """The layer's last answer.

    Raises:
        MissingNeed: there is none.
    """
    if not seen.calls:
        raise MissingNeed(
            f"The network does not call the layer {layer_name(model, seen.module)}, or it returns no tensor.",
            fix="Choose another layer.",
        )
    if len(seen.calls) > 1:
        run.note(
            f"The layer {layer_name(model, seen.module)} is called {len(seen.calls)} times; its last call is shown."
        )
    return seen.calls[-1]


def derivatives(total: Tensor, of: Sequence[Tensor], *, keep: bool = False) -> list[Tensor]:
    """Gradients of a number, zero where it does not depend on a tensor; ``keep`` leaves the graph for further ones."""
    if not total.requires_grad:
        # the score does not depend on them: a constant network, or a layer nobody listens to
        return [torch.zeros_like(one) for one in of]
    found = torch.autograd.grad(total, of, allow_unused=True, retain_graph=keep)
    return [torch.zeros_like(one) if g is None else g.detach() for one, g in zip(of, found, strict=True)]


@contextmanager
def guarded(model: SegmentationModel) -> Iterator[None]:
    """Turn memory errors of the device into :class:`~seglens.core.errors.OutOfMemory`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        free_cache()
        raise no_memory(model.device) from error
