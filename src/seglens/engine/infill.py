"""What replaces the pixels that are taken away (card A/K3)."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from seglens.core.param import FillName
from seglens.engine.perturb import gaussian_blur
from seglens.models.intake import Intake

AnyFill = FillName | Literal["rest-mean"]


def fill(
    name: AnyFill, x: Tensor, intake: Intake, *, generator: torch.Generator, without: Tensor | None = None
) -> Tensor:
    """A whole image of what replaces covered pixels.

    Args:
        name: ``mean`` (of each channel) · ``rest-mean`` (of the pixels outside ``without``) · ``blur`` ·
            ``noise`` (mean and deviation of each channel) · ``black``, ``grey``, ``white`` (in intensities
            of the image, not of the normalised input).
        x: clean input (1, C, *space).
        intake: the frozen normalisation.
        generator: source of random numbers, on the CPU.
        without: (*space) boolean, the region that is taken away.

    Returns:
        (1, C, *space).
    """
    tail = (1,) * (x.ndim - 2)
    if name == "blur":
        return gaussian_blur(x, sigma=max(2.0, min(x.shape[2:]) / 16))
    if name in ("black", "grey", "white"):
        level = {"black": intake.low, "white": intake.high, "grey": (intake.low + intake.high) / 2}[name]
        values = intake.to_input(np.full((x.shape[1], *tail), level))
        return torch.from_numpy(values).to(x).unsqueeze(0).expand_as(x)
    flat = x.flatten(2)
    if name == "rest-mean" and without is not None:
        flat = flat[:, :, ~without.flatten()]
    mean = flat.mean(2).reshape(1, -1, *tail)
    if name == "noise":
        deviation = flat.std(2).reshape(1, -1, *tail)
        draw = torch.randn(x.shape, generator=generator).to(x)
        return mean + deviation * draw
    return mean.expand_as(x)
