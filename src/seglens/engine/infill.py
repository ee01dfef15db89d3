"""What replaces the pixels that are taken away (card A/K3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.restoration import inpaint_biharmonic
from torch import Tensor

from seglens.core.boxes import Box
from seglens.core.errors import BadParameter
from seglens.core.param import FillName
from seglens.engine.perturb import gaussian_blur
from seglens.models.device import fine, finest
from seglens.models.intake import Intake

if TYPE_CHECKING:
    from seglens.engine.units import Units

MARGIN = 4  # pixels around a hole from which it is continued


def fill(
    name: FillName, x: Tensor, intake: Intake, *, generator: torch.Generator, without: Tensor | None = None
) -> Tensor:
    """A whole image of what replaces covered pixels, the same wherever they are.

    Args:
        name: ``mean`` (of each channel) · ``rest-mean`` (of the pixels outside ``without``) · ``blur`` ·
            ``noise`` (mean and deviation of each channel) · ``permutation`` (the image's own pixels, shuffled) ·
            ``black``, ``grey``, ``white`` (in intensities of the image, not of the normalised input) ·
            ``zero`` (of the normalised input: what Captum takes).
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
    if name == "zero":
        return torch.zeros_like(x)
    if name in ("black", "grey", "white"):
        level = {"black": intake.low, "white": intake.high, "grey": (intake.low + intake.high) / 2}[name]
        values = intake.to_input(np.full((x.shape[1], *tail), level))
        return torch.from_numpy(values).to(x).unsqueeze(0).expand_as(x)
    flat = x.flatten(2)
    if name == "permutation":
        order = torch.randperm(flat.shape[2], generator=generator).to(x.device)
        return flat[:, :, order].reshape(x.shape)
    if name == "rest-mean" and without is not None and not bool(without.all()):
        flat = flat[:, :, ~without.flatten()]
    mean = flat.mean(2).reshape(1, -1, *tail)
    if name == "noise":
        deviation = flat.std(2).reshape(1, -1, *tail)
        draw = torch.randn(x.shape, generator=generator).to(x)
        return mean + deviation * draw
    return mean.expand_as(x)


def own_fill(name: FillName, x: Tensor) -> Callable[[Box], Tensor] | None:
    """Fills that depend on the window: a function from a box to (C, *box); ``None`` for all others."""
    if name == "unit-mean":
        return lambda box: _at(x, box).mean(tuple(range(1, x.ndim - 1)), keepdim=True).expand_as(_at(x, box))
    if name == "inpaint":
        return lambda box: _continued(x, box)
    return None


def unit_fill(name: FillName, x: Tensor, units: Units) -> Tensor | None:
    """An image (1, C, *space) in which each unit is replaced on its own; ``None`` if the fill is one for all.

    Raises:
        BadParameter: channels cannot be continued from around.
    """
    if name not in ("unit-mean", "inpaint"):
        return None
    if name == "inpaint" and not units.spatial:
        raise BadParameter(
            "A channel cannot be continued from what lies around it (fill=inpaint, units=channels).",
            fix="Use another fill, for example mean or permutation.",
        )
    out = x.clone()
    labels = units.labels.expand(x.shape[1], *x.shape[2:])
    if name == "inpaint":
        for unit in range(len(units)):
            hole = (labels[0] == unit).cpu().numpy()
            out[0] = torch.where(labels == unit, torch.from_numpy(_inpainted(x, hole)).to(x), out[0])
        return out
    for channel, where in zip(out[0], labels, strict=True):
        flat, index = channel.flatten(), where.flatten()
        inside = index >= 0
        size = torch.bincount(index[inside], minlength=len(units)).clamp(min=1)
        total = torch.zeros(len(units), dtype=finest(x.device), device=x.device)
        total.index_add_(0, index[inside], fine(flat[inside]))
        channel.copy_(torch.where(inside, (total / size).to(x)[index.clamp(min=0)], flat).reshape(channel.shape))
    return out


def _at(x: Tensor, box: Box) -> Tensor:
    return x[0][(slice(None), *box)]


def _continued(x: Tensor, box: Box) -> Tensor:
    around = tuple(
        slice(max(0, s.start - MARGIN), min(n, s.stop + MARGIN)) for s, n in zip(box, x.shape[2:], strict=True)
    )
    hole = np.zeros([s.stop - s.start for s in around], bool)
    inner = tuple(slice(s.start - a.start, s.stop - a.start) for s, a in zip(box, around, strict=True))
    hole[inner] = True
    filled = _biharmonic(_at(x, around).cpu().numpy(), hole)
    return torch.from_numpy(filled[(slice(None), *inner)]).to(x)


def _inpainted(x: Tensor, hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    """(C, *space) with a hole of any shape continued from around it."""
    spans = [np.flatnonzero(hole.any(tuple(b for b in range(hole.ndim) if b != a))) for a in range(hole.ndim)]
    box = tuple(
        slice(max(0, s[0] - MARGIN), min(n, s[-1] + 1 + MARGIN)) for s, n in zip(spans, hole.shape, strict=True)
    )
    out = x[0].cpu().numpy().copy()
    out[(slice(None), *box)] = _biharmonic(out[(slice(None), *box)], hole[box])
    return out


def _biharmonic(pixels: NDArray[np.float32], hole: NDArray[np.bool_]) -> NDArray[np.float32]:
    if hole.all():
        # nothing around it: its own mean is all there is
        mean = pixels.mean(tuple(range(1, pixels.ndim)), keepdims=True)
        return np.broadcast_to(mean, pixels.shape).astype(np.float32)
    low, high = pixels.min(), pixels.max()
    span = high - low if high > low else np.float32(1)
    out = inpaint_biharmonic((pixels - low) / span, hole, channel_axis=0)
    return np.asarray(out * span + low, dtype=np.float32)
