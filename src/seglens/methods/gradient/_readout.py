"""A linear read-out of layers: the network's logits as a mix of channels of several resolutions (card B/B14)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seglens.engine.case import Case
from seglens.engine.channels import AT_ONCE, FLAT, answers


@dataclass(frozen=True, eq=False)
class ReadOut:
    """Logits as Σ w (A − mean A), enlarged, and a constant per class.

    Args:
        names: the layers.
        parts: what each layer adds to each class at each pixel, (layers, classes, *space).
        constant: (classes,).
        weights: per layer (channels, classes).
        sizes: the resolution of each layer.
    """

    names: tuple[str, ...]
    parts: Tensor
    constant: Tensor
    weights: tuple[Tensor, ...]
    sizes: tuple[tuple[int, ...], ...]

    def logits(self, without: int | None = None) -> Tensor:
        """(classes, *space); without what one layer adds."""
        kept = [i for i in range(len(self.names)) if i != without]
        return self.parts[kept].sum(0) + self.constant.reshape(-1, *(1,) * (self.parts.ndim - 2))


def fit(case: Case, names: Sequence[str], ridge: float, pixels: int) -> ReadOut:
    """Fit a read-out to the logits of the clean image, by ridge regression on some of its pixels.

    Args:
        case: image, network, seed.
        names: the layers.
        ridge: penalty on the weights of standardised channels, in units of their variance.
        pixels: how many to fit on, drawn at random; all, if there are no more.
    """
    layers, total = answers(case, names), case.x[0, 0].numel()
    at = torch.arange(total)
    if pixels < total:
        at = torch.randperm(total, generator=case.generator())[:pixels].sort().values
    at = at.to(case.x.device)
    columns = []
    for done, layer in enumerate(layers):
        case.run.progress(done, len(layers), "layers")
        columns += [case.enlarged(part)[0].flatten(1)[:, at] for part in torch.split(layer, AT_ONCE, 1)]
    seen = torch.cat(columns).double()
    wanted = case.logits[0].flatten(1)[:, at].double()
    mean, constant = seen.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
    size = seen.std(1, keepdim=True, correction=0)
    # a channel that is the same everywhere explains nothing
    scaled = torch.where(size > FLAT * seen.abs().amax(1, keepdim=True), (seen - mean) / size, 0.0)
    gram = scaled @ scaled.T / len(at) + ridge * torch.eye(len(scaled), dtype=scaled.dtype, device=scaled.device)
    solved = torch.linalg.solve(gram, scaled @ (wanted - constant).T / len(at))
    every = torch.where(size > 0, solved / size.clamp(min=1e-300), 0.0)
    counts = [layer.shape[1] for layer in layers]
    weights = torch.split(every.float(), counts)
    parts = [
        case.enlarged(torch.einsum("kc,k...->c...", w, a[0] - m.reshape(-1, *(1,) * (a.ndim - 2)))[None])[0]
        for w, a, m in zip(weights, layers, torch.split(mean.float(), counts), strict=True)
    ]
    sizes = tuple(tuple(layer.shape[2:]) for layer in layers)
    return ReadOut(tuple(names), torch.stack(parts), constant[:, 0].float(), tuple(weights), sizes)


def followed(wanted: Tensor, found: Tensor) -> float:
    """R²: the share of the variance of one map that another explains; 1 for a constant that is met."""
    left, all_of_it = float(((wanted - found) ** 2).sum()), float(((wanted - wanted.mean()) ** 2).sum())
    if all_of_it <= 1e-12 * max(1.0, float((wanted**2).sum())):
        return 1.0
    return 1 - left / all_of_it
