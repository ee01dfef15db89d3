"""A linear read-out of layers: the network's logits as a mix of channels of several resolutions (card B/B14)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor

from seglens.core.image import Image
from seglens.core.target import Painted, Target
from seglens.engine.case import Case
from seglens.engine.channels import AT_ONCE, FLAT, answers
from seglens.engine.resolve import resolve
from seglens.models.device import fine

BLOCK = 4  # places of the coarsest layer along a block, so that few pixels have neighbours in the next one


@dataclass(frozen=True, eq=False)
class ReadOut:
    """Logits as Σ w (A − mean A), enlarged, and a constant per class.

    Args:
        names: the layers.
        parts: what each layer adds to each class at each pixel, (layers, classes, *space).
        constant: (classes,).
        weights: per layer (channels, classes).
        sizes: the resolution of each layer.
        at: pixels of this image that it was fitted on (n,), in reading order.
        held: logits there (classes, n) of read-outs that were fitted on the other half of the blocks.
    """

    names: tuple[str, ...]
    parts: Tensor
    constant: Tensor
    weights: tuple[Tensor, ...]
    sizes: tuple[tuple[int, ...], ...]
    at: Tensor
    held: Tensor

    def logits(self, without: int | None = None) -> Tensor:
        """(classes, *space); without what one layer adds."""
        kept = [i for i in range(len(self.names)) if i != without]
        return self.parts[kept].sum(0) + self.constant.reshape(-1, *(1,) * (self.parts.ndim - 2))


@dataclass(frozen=True, eq=False)
class _Places:
    """Some pixels of an image: what layers and the network answer there.

    Args:
        at: which (n,).
        seen: channels of all layers (K, n).
        wanted: logits (classes, n).
        second: those in the second half of the blocks (n,).
    """

    at: Tensor
    seen: Tensor
    wanted: Tensor
    second: Tensor


def fit(case: Case, names: Sequence[str], ridge: float, pixels: int) -> ReadOut:
    """Fit a read-out to the logits of the clean image and of the references, by ridge regression on some pixels.

    It is fitted three times: to all of these pixels, and to each half of their blocks, to be told by the other half.

    Args:
        case: images, network, seed.
        names: the layers.
        ridge: penalty on the weights of standardised channels, in units of their variance.
        pixels: how many of each image to fit on, drawn at random; all, if there are no more.
    """
    layers = answers(case, names)
    own = _places(case, layers, pixels)
    more = [_places(one, answers(one, names), pixels) for one in (_about(case, image) for image in case.reference)]
    seen, wanted, second = (
        torch.cat([getattr(one, part) for one in (own, *more)], -1) for part in ("seen", "wanted", "second")
    )
    if len(seen) >= len(second):
        case.run.note(
            f"The read-out has {len(seen)} channels and {len(second)} pixels to be fitted on, and follows anything "
            "there. Take more pixels or reference images, or a larger ridge."
        )
    weights, mean, constant = _solved(seen, wanted, ridge)
    held = torch.empty_like(own.wanted)
    for told, kept in ((own.second, ~second), (~own.second, second)):
        w, m, c = _solved(seen[:, kept], wanted[:, kept], ridge)
        held[:, told] = w.T @ (own.seen[:, told] - m) + c
    counts = [layer.shape[1] for layer in layers]
    by_layer = torch.split(weights.float(), counts)
    parts = [
        case.enlarged(torch.einsum("kc,k...->c...", w, a[0] - m.reshape(-1, *(1,) * (a.ndim - 2)))[None])[0]
        for w, a, m in zip(by_layer, layers, torch.split(mean.float(), counts), strict=True)
    ]
    sizes = tuple(tuple(layer.shape[2:]) for layer in layers)
    return ReadOut(
        tuple(names), torch.stack(parts), constant[:, 0].float(), tuple(by_layer), sizes, own.at, held.float()
    )


def _about(case: Case, image: Image) -> Case:
    """The same network's answers to another image, all of it."""
    everywhere = Painted(np.ones(image.space(case.model.spec.axes), bool))
    return resolve(image, case.model, Target(case.target.name, everywhere), case.run, later=True)


def _places(case: Case, layers: Sequence[Tensor], pixels: int) -> _Places:
    total = case.x[0, 0].numel()
    at = torch.arange(total)
    if pixels < total:
        at = torch.randperm(total, generator=case.generator())[:pixels].sort().values
    at = at.to(case.x.device)
    columns = []
    for done, layer in enumerate(layers):
        case.run.progress(done, len(layers), "layers")
        columns += [case.enlarged(part)[0].flatten(1)[:, at] for part in torch.split(layer, AT_ONCE, 1)]
    stride = max(ceil(n / size) for layer in layers for n, size in zip(case.shape, layer.shape[2:], strict=True))
    second = blocks(case.shape, BLOCK * stride).to(at.device).flatten()[at]
    return _Places(at, fine(torch.cat(columns)), fine(case.logits[0].flatten(1)[:, at]), second)


def blocks(shape: Sequence[int], side: int) -> Tensor:
    """Every other block of an image (*space), as on a chessboard; the longest axis has two blocks at least."""
    longest = max(range(len(shape)), key=shape.__getitem__)
    sides = [min(side, ceil(n / 2)) if axis == longest else side for axis, n in enumerate(shape)]
    numbers = torch.meshgrid(*(torch.arange(n) // s for n, s in zip(shape, sides, strict=True)), indexing="ij")
    return torch.stack(numbers).sum(0) % 2 == 1


def _solved(seen: Tensor, wanted: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (K, classes), means of the channels (K, 1), and constants (classes, 1) for channels (K, n)."""
    mean, constant = seen.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
    size = seen.std(1, keepdim=True, correction=0)
    # a channel that is the same everywhere explains nothing
    scaled = torch.where(size > FLAT * seen.abs().amax(1, keepdim=True), (seen - mean) / size, 0.0)
    count = seen.shape[1]
    gram = scaled @ scaled.T / count + ridge * torch.eye(len(scaled), dtype=scaled.dtype, device=scaled.device)
    solved = torch.linalg.solve(gram, scaled @ (wanted - constant).T / count)
    return torch.where(size > 0, solved / size.clamp(min=1e-300), 0.0), mean, constant


def followed(wanted: Tensor, found: Tensor) -> float:
    """R²: the share of the variance of one map that another explains; 1 for a constant that is met."""
    left, all_of_it = float(((wanted - found) ** 2).sum()), float(((wanted - wanted.mean()) ** 2).sum())
    if all_of_it <= 1e-12 * max(1.0, float((wanted**2).sum())):
        return 1.0
    return 1 - left / all_of_it
