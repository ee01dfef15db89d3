"""What counterfactual methods share: an edited image and its mask, shown beside the image as it was."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from seglens.core.explanation import Layer, Table
from seglens.core.plural import plural
from seglens.engine import masks
from seglens.engine.case import Case
from seglens.models.classes import probabilities


def edited_layers(case: Case, edited: Tensor, after: Tensor) -> tuple[Layer, ...]:
    """The edited image (1, C, *space), and what its logits (1, K, *space) change: mask, pixels, probability."""
    labels = case.classes(after)[0]
    before, now = (probabilities(z, case.model.spec.overlapping)[0, case.target.index] for z in (case.logits, after))
    lost = (before - now).cpu().numpy()
    return (
        Layer("edited image", "image", case.intensities(edited), rgb=edited.shape[1] == 3),
        Layer("mask after", "labels", labels),
        Layer("changed pixels", "labels", (labels != case.labels).astype(np.uint8)),
        Layer("probability lost", "signed", lost, f"probability of {case.target.name}"),
    )


def edited_tables(case: Case, after: Tensor, patch: masks.Mask) -> tuple[Table, Table]:
    """Numbers per class and per object, of an edit inside a patch (*space); ``after``: its logits (1, K, *space)."""
    labels, spec = case.classes(after)[0], case.model.spec
    return masks.class_table(case.labels, labels, spec), masks.object_table(case.labels, labels, patch, spec)


def control(case: Case, patch: masks.Mask, edit: Callable[[masks.Mask], Tensor]) -> str:
    """How many pixels the same patch (*space) changes where the class is not, in words.

    Args:
        case: the question.
        patch: what was edited.
        edit: logits (1, K, *space) of the image with another patch edited in the same way.
    """
    spot = masks.aside(patch, case.drawn())
    if spot is None:
        return "There is no room for the same patch elsewhere as a control."
    changed = int((case.classes(edit(spot))[0] != case.labels).sum())
    return f"The same patch away from the class changes {plural(changed, 'pixel')} (control)."
