"""Scoring many perturbed copies of an image: batches, memory, progress and cancel in one place."""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from seglens.core.errors import OutOfMemory
from seglens.core.run import Run
from seglens.engine.perturb import Perturbations
from seglens.models.device import free_cache, is_out_of_memory
from seglens.models.segmentation import SegmentationModel

# On a CPU batches of small images pay, batches of large ones only cost memory.
CPU_PIXELS = 128 * 128


def evaluate(
    model: SegmentationModel,
    perturbations: Perturbations,
    score: Callable[[Tensor], Tensor],
    run: Run,
    *,
    text: str = "",
) -> Tensor:
    """Scores of perturbed copies.

    Args:
        model: what they are sent through, without gradients.
        perturbations: made batch by batch.
        score: logits (n, K, *space) to (n, …).
        run: batch size, progress, cancel.
        text: what progress calls them.

    Returns:
        (N, …) on the CPU.

    Raises:
        OutOfMemory: not even one copy fits.
        Cancelled: within one batch of the request.
    """
    total = len(perturbations)
    size = run.batch or default_batch(model, perturbations.batch(0, 1))
    scores: list[Tensor] = []
    done = 0
    run.progress(0, total, text)
    while done < total:
        try:
            with torch.inference_mode():
                batch = perturbations.batch(done, min(done + size, total))
                scores.append(score(model.logits(batch)).float().cpu())
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            free_cache()
            if size == 1:
                raise no_memory(model) from error
            size = max(1, size // 2)
            run.note(f"Memory ran out; went on with batches of {size}.")
            continue
        run.cost.forwards += len(batch)
        done += len(batch)
        run.progress(done, total, text)
    return torch.cat(scores)


def default_batch(model: SegmentationModel, one: Tensor) -> int:
    """Copies per batch for inputs like ``one`` (1, C, *space)."""
    pixels = prod(one.shape[2:])
    return max(1, min(64, (CPU_PIXELS if model.device.type == "cpu" else 64 * CPU_PIXELS) // pixels))


def no_memory(model: SegmentationModel) -> OutOfMemory:
    """The error when not even one image fits."""
    fix = "Choose a smaller region (View or ROI, or --crop)"
    if model.device.type != "cpu":
        fix += ", or run on the CPU with --device cpu"
    return OutOfMemory(f"One image of this size does not fit into the memory of {model.device}.", fix=f"{fix}.")
