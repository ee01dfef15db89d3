"""Where else in an image something like an example is, and where in a region its most typical pixel lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from seglens.core.errors import ModelMismatch, NoSuchRegion
from seglens.core.target import Target
from seglens.engine.target import freeze
from seglens.models.spec import ModelSpec

if TYPE_CHECKING:
    from seglens.engine.case import Case


def likeness(case: Case, layer: str, vector: NDArray[Any]) -> NDArray[np.float32]:
    """Cosine of a layer's map with an embedding at every pixel of the image (*space), from -1 to 1.

    Args:
        case: the image and the model.
        layer: dotted name of the layer that the embedding is of.
        vector: (D,); see :func:`~seglens.engine.features.regions.region_vector`.

    Raises:
        ModelMismatch: the layer has another number of channels.
        UnknownName, MissingNeed: no such layer, or layers cannot be reached.
    """
    activation = case.activation(layer)
    if activation.shape[1] != np.size(vector):
        raise ModelMismatch(
            f"The embedding has {np.size(vector)} numbers, and layer {layer} has {activation.shape[1]} channels.",
            fix="Choose the model that the example was taken with.",
        )
    wanted = torch.as_tensor(np.array(vector, np.float32), device=activation.device)
    similar = torch.nn.functional.cosine_similarity(activation, wanted.reshape(1, -1, *[1] * len(case.shape)), dim=1)
    return case.at_image(similar[:, None])


def region_in(logits: NDArray[Any], target: Target, spec: ModelSpec) -> tuple[NDArray[np.bool_], str]:
    """The pixels (*space) that a target counts, and its class, where the scores (K, *space) are known already.

    Raises:
        NoSuchRegion: the region is empty or outside.
        UnknownName: no such class.
    """
    frozen = freeze(target, torch.from_numpy(logits)[None], spec)
    return frozen.region, frozen.name


def place_of(mask: NDArray[Any]) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...]]:
    """A pixel deep inside a region (of its largest part), and its box: half open, per axis.

    Raises:
        NoSuchRegion: the mask (*space) is empty.
    """
    region = np.asarray(mask) > 0
    if not region.any():
        raise NoSuchRegion("The region is empty.", fix="Paint at least one pixel.")
    where = np.nonzero(region)
    box = tuple((int(i.min()), int(i.max()) + 1) for i in where)
    inner = np.pad(region[tuple(slice(a, b) for a, b in box)], 1)
    deepest = np.unravel_index(int(ndimage.distance_transform_edt(inner).argmax()), inner.shape)
    return tuple(int(p) - 1 + a for p, (a, _) in zip(deepest, box, strict=True)), box
