"""Overlap of a predicted foreground with the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def overlap(predicted: Any, truth: Any) -> dict[str, float]:
    """Dice and IoU of two masks (arrays or tensors of bool, same shape); two empty masks agree fully."""
    both, total = float((predicted & truth).sum()), float(predicted.sum()) + float(truth.sum())
    if total == 0:
        return {"dice": 1.0, "iou": 1.0}
    return {"dice": 2 * both / total, "iou": both / (total - both)}


def means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each measure."""
    return {measure: float(np.mean([one[measure] for one in scores])) for measure in ("dice", "iou")}


def summary(images: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Mean and median of Dice and IoU over images, and the five images with the lowest Dice; empty for none."""
    out: dict[str, Any] = {}
    if not images:
        return out
    for measure in ("dice", "iou"):
        values = [scores[measure] for scores in images.values()]
        out[measure] = {"mean": round(float(np.mean(values)), 4), "median": round(float(np.median(values)), 4)}
    out["worst"] = sorted(images, key=lambda name: images[name]["dice"])[:5]
    return out
