"""Gradient descent against a frozen model: of an edit of the input, or of a small network that makes one.

One loop for all: progress, cancel, cost, chunks that fit into memory. The model is never changed and keeps no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from seglens.core.run import Run
from seglens.engine.fast import kept_memory
from seglens.models.device import free_cache, is_out_of_memory, no_memory
from seglens.models.segmentation import SegmentationModel

if TYPE_CHECKING:
    from seglens.engine.case import Case

BACKWARD = 1.2  # what a backward pass costs, in forward passes: gradients of the input only, not of weights
PIXELS = {"cpu": 2**19}  # of a chunk; more pays only on a GPU
MOST_PIXELS = 2**23


@dataclass(frozen=True, eq=False)
class Step:
    """One step, told before its update is made: the parameters are still those of the losses.

    Args:
        number: from 0.
        losses: of the items (items,), float64 on the CPU.
        last: whether this is the last one that was asked for.
    """

    number: int
    losses: Tensor
    last: bool


def logits(model: SegmentationModel, x: Tensor, run: Run) -> Tensor:
    """Logits (N, K, *space) with a graph back to ``x``, counted as a forward and a backward per sample.

    Raises:
        Cancelled: somebody asked to stop.
    """
    run.check()
    out = model.logits(x)
    run.cost.forwards += len(x)
    run.cost.backwards += len(x) if out.requires_grad else 0
    return out


def descend(
    case: Case,
    optimiser: torch.optim.Optimizer,
    loss: Callable[[int, int], Tensor],
    *,
    steps: int,
    items: int = 1,
    start: int = 0,
    pixels: int = 1,
    project: Callable[[], None] | None = None,
    text: str = "steps",
) -> Generator[Step, None, None]:
    """Minimise a sum of losses step by step; whoever iterates may look, keep and stop.

    Args:
        case: whose run tells progress and cancels, and whose model takes part.
        optimiser: made over the leaves to change.
        loss: losses (n,) of the items from a start to a stop; what is minimised is the sum over all items. Items are
            sent through in chunks, so they must not depend on each other.
        steps: when to end, counted from 0.
        items: how many items there are.
        start: the first step's number, to go on with what was interrupted.
        pixels: of one item, to choose the size of chunks.
        project: puts the leaves back into what is allowed, after each update.
        text: what a step is called.

    Raises:
        Cancelled: within one chunk of the request.
        OutOfMemory: not even one item fits.
    """
    leaves = [p for group in optimiser.param_groups for p in group["params"]]
    size = chunk(case, pixels)
    try:
        for number in range(start, steps):
            case.run.progress(number, steps, text)
            with kept_memory(case.model):
                losses, gradients, size = _gradients(case, leaves, loss, items, size)
            yield Step(number, losses, number == steps - 1)
            for leaf, gradient in zip(leaves, gradients, strict=True):
                leaf.grad = gradient
            optimiser.step()
            if project is not None:
                with torch.no_grad():
                    project()
        case.run.progress(steps, steps, text)
    finally:
        optimiser.zero_grad(set_to_none=True)


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best that was found, for each of several problems (rows) that were solved at once.

    Args:
        values: (rows, …), the parameters with the lowest loss.
        losses: theirs (rows,), float64 on the CPU.
        history: per step the losses (rows,) at that step.
    """

    values: Tensor
    losses: Tensor
    history: list[Tensor] = field(default_factory=list)


def minimise(
    case: Case,
    start: Tensor,
    loss: Callable[[Tensor, int, int], Tensor],
    *,
    steps: int,
    rate: float,
    momentum: float = 0.0,
    copies: int = 1,
    pixels: int = 1,
    project: Callable[[Tensor], Tensor] | None = None,
    seen: Callable[[Optimum], bool | None] | None = None,
    text: str = "steps",
) -> Optimum:
    """Projected gradient descent with momentum on independent problems, keeping the best that each has seen.

    Args:
        case: whose run tells progress and cancels.
        start: where to begin, (rows, …).
        loss: of (parameters, start, stop): the losses (n,) of some items. Item ``i`` belongs to row ``i // copies``,
            and a row's loss is the mean of its items.
        steps, rate, momentum: of the descent.
        copies: items per row, such as noisy copies.
        pixels: of one item.
        project: parameters to the nearest ones that are allowed.
        seen: looks at the best so far after each step; true ends the descent.
        text: what a step is called.

    Raises:
        Cancelled, OutOfMemory: as :func:`descend`.
    """
    leaf = start.detach().clone().requires_grad_(True)
    rows = len(leaf)
    best = Optimum(leaf.detach().clone(), torch.full((rows,), torch.inf, dtype=torch.float64))

    def back() -> None:
        if project is not None:
            leaf.copy_(project(leaf))

    walk = descend(
        case,
        torch.optim.SGD([leaf], lr=rate, momentum=momentum),
        lambda a, b: loss(leaf, a, b) / copies,
        steps=steps,
        items=rows * copies,
        pixels=pixels,
        project=back,
        text=text,
    )
    for step in walk:
        losses = step.losses.reshape(rows, copies).sum(1)
        better = losses < best.losses
        best.values[better.to(leaf.device)] = leaf.detach()[better.to(leaf.device)]
        best.losses[better] = losses[better]
        best.history.append(losses)
        if seen is not None and seen(best):
            walk.close()
            break
    return best


def chunk(case: Case, pixels: int) -> int:
    """Items that go through forward and backward at once."""
    if case.run.batch is not None:
        return case.run.batch
    return max(1, PIXELS.get(case.model.device.type, MOST_PIXELS) // max(1, pixels))


def share(case: Case) -> float:
    """The part of the image that its field is."""
    return float(prod(s.stop - s.start for s in case.field) / prod(case.shape))


def _gradients(
    case: Case, leaves: list[Tensor], loss: Callable[[int, int], Tensor], items: int, size: int
) -> tuple[Tensor, list[Tensor], int]:
    """Losses (items,), the gradient of their sum for each leaf, and the size of chunks that went through."""
    losses: list[Tensor] = []
    sums = [torch.zeros_like(leaf) for leaf in leaves]
    done = 0
    while done < items:
        stop = min(done + size, items)
        try:
            with torch.enable_grad():
                part = loss(done, stop)
                # a model that does not look at its input leaves no graph
                if part.requires_grad:
                    made = torch.autograd.grad(part.sum(), leaves, allow_unused=True)
                    sums = [s if g is None else s + g for s, g in zip(sums, made, strict=True)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            free_cache()
            if size == 1:
                raise no_memory(case.model.device) from error
            size = max(1, min(size, items) // 2)
            case.run.note(f"Memory ran out; went on with {size} at a time.")
            continue
        losses.append(part.detach().cpu().double())
        done = stop
        case.run.check()
    return torch.cat(losses), sums, size
