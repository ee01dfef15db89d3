"""The one definition of an embedding: the mean of a layer's map over the pixels of a region.

The map is enlarged to the image so that each of its cells covers the pixels that it stands for; so a region of any
size has an embedding, and no large map is ever made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from seglens.core.errors import ImageMismatch, MissingNeed, ModelMismatch, NoSuchRegion
from seglens.models.layers import default_layer, layers
from seglens.models.segmentation import SegmentationModel

if TYPE_CHECKING:
    from seglens.engine.case import Case
    from seglens.engine.features.bank import FeatureBank

Sizes = tuple[int, ...]


def region_vector(case: Case, layer: str, mask: NDArray[Any]) -> NDArray[np.float32]:
    """The embedding (D,) of one region.

    Args:
        case: the image and the model.
        layer: dotted name of a layer; see :func:`feature_layer`.
        mask: (*space), not 0 in the region.

    Raises:
        NoSuchRegion: the region is empty.
        ImageMismatch: the mask has another shape.
        UnknownName, MissingNeed: no such layer, or layers cannot be reached.
    """
    vector: NDArray[np.float32] = region_vectors(case, layer, np.asarray(mask) != 0)[0]
    return vector


def region_vectors(case: Case, layer: str, regions: NDArray[Any]) -> NDArray[np.float32]:
    """The embeddings (n, D) of regions numbered 1 to n in one map (*space), in one forward pass.

    Raises:
        NoSuchRegion: one of the numbers has no pixel, or there is none.
        ImageMismatch: the map has another shape.
        UnknownName, MissingNeed: no such layer, or layers cannot be reached.
    """
    numbers = np.asarray(regions).astype(np.int64)
    if numbers.shape != case.shape:
        raise ImageMismatch(
            f"The mask has shape {numbers.shape}, the image {case.shape}.",
            fix="Paint the region on this image, or crop the mask to it.",
        )
    count = int(numbers.max(initial=0))
    pixels = np.bincount(numbers.ravel(), minlength=count + 1)[1:]
    if not count or not pixels.all():
        raise NoSuchRegion("The region to look up is empty.", fix="Paint at least one pixel.")
    sums = sums_over(case.activation(layer), numbers, count, case.model.padded(case.shape))
    return (sums / pixels[:, None]).astype(np.float32)


def sums_over(activation: Tensor, regions: NDArray[Any], count: int, padded: Sizes) -> NDArray[np.float64]:
    """The sum of a layer's map over the pixels of each region, (count, D).

    Args:
        activation: (1, D, *s), the layer's map.
        regions: (*space) numbers from 1 to ``count``; 0 is none.
        count: how many regions.
        padded: the size at which the network saw this space.
    """
    s = tuple(activation.shape[2:])
    at = np.nonzero(regions)
    cell = np.zeros(len(at[0]), np.int64)
    for place, cells, size in zip(at, s, padded, strict=True):
        cell = cell * cells + np.minimum(cells - 1, (2 * place + 1) * cells // (2 * size))
    used, column = np.unique(cell, return_inverse=True)
    ones = np.ones(len(cell))
    weights = sparse.csr_array((ones, (regions[at] - 1, column)), shape=(count, len(used)))
    values = activation[0].flatten(1)[:, torch.from_numpy(used).to(activation.device)].T
    return np.asarray(weights @ values.cpu().double().numpy())


def feature_layer(model: SegmentationModel) -> str:
    """The layer that embeddings come from when nobody says: what the head reads, the penultimate of the decoder.

    The head is the last module that has weights and answers a map of the classes. Where none is found, it is
    :func:`~seglens.models.layers.default_layer`.

    Raises:
        MissingNeed: the model is an exported graph or TorchScript, or none of its layers answers a map.
    """
    classes = len(model.spec.classes)
    answers = {classes, classes - 1} if model.spec.multilabel else {classes}
    modules = dict(model.module.named_modules())
    every = layers(model)
    heads = [one for one in every if one.channels in answers and _own_weights(modules[one.name])]
    before = [one for one in every if heads and one.order < heads[-1].order]
    return before[-1].name if before else default_layer(model)


def check_bank(bank: FeatureBank | None, case: Case) -> None:
    """Check that a bank can be asked about a case.

    Raises:
        MissingNeed: there is no bank, or it is empty.
        ModelMismatch: it is of another model.
    """
    if bank is None or not len(bank):
        raise MissingNeed(
            "There is no feature bank to look examples up in." if bank is None else f"{bank.folder} is empty.",
            fix="Build one from a folder of images: "
            f"seglens gallery bank IMAGES --model {case.model.source} --out DIR, and give it with --bank DIR.",
        )
    info = bank.info
    if info.model_sha256 != case.model.fingerprint() or info.axes != case.model.spec.axes:
        raise ModelMismatch(
            f"The feature bank {bank.folder} is of the model {info.model}, not of this {case.model.spec.name}: "
            "embeddings of two models cannot be compared.",
            fix=f"Use the model {info.model_source or info.model}, or build a bank of this one: "
            f"seglens gallery bank IMAGES --model {case.model.source} --out DIR",
        )


def _own_weights(module: torch.nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))
