"""What can be measured of predicted objects: their size, shape, light, texture and neighbourhood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree
from skimage.measure import regionprops

from seglens.core.errors import NoSuchRegion
from seglens.core.plural import plural
from seglens.engine.case import Case
from seglens.engine.target import objects

LEAST = 4  # objects without which there is no fit

Numbers = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Objects:
    """Predicted objects that are compared.

    Args:
        labels: (*space), 0 where there is none; numbered as ``--object`` counts them.
        numbers: which numbers there are (N,).
        one: the position in ``numbers`` of the object that is explained.
        measured: per descriptor one number for each object (N,).
    """

    labels: NDArray[Any]
    numbers: NDArray[Any]
    one: int
    measured: dict[str, Numbers]

    @property
    def table(self) -> Numbers:
        """All descriptors (N, D)."""
        return np.stack([*self.measured.values()], 1)

    def means(self, values: NDArray[Any]) -> Numbers:
        """Mean over the pixels of each object (N,) of values (*space)."""
        return np.asarray(ndimage.mean(values, self.labels, self.numbers), np.float64)

    def painted(self, values: Numbers) -> NDArray[np.float32]:
        """Per pixel (*space) the number of its object; 0 where there is none."""
        by_number = np.zeros(int(self.labels.max()) + 1, np.float32)
        by_number[self.numbers] = values
        painted: NDArray[np.float32] = by_number[self.labels]
        return painted


def find_objects(case: Case, smallest: int, *, same_class: bool) -> Objects:
    """The object with most pixels of the target's region, and those it is compared with.

    Args:
        case: image and prediction.
        smallest: others of fewer pixels are left out.
        same_class: leave out those of other classes.

    Raises:
        NoSuchRegion: there is no object in the region, or too few to compare.
    """
    labels = objects(case.labels)
    size = np.bincount(labels.ravel())
    inside = np.bincount(labels[case.target.weights.cpu().numpy() > 0], minlength=len(size))
    inside[0] = size[0] = 0
    if not inside.any():
        raise NoSuchRegion(
            "No predicted object lies in the region to explain, and only objects have descriptors.",
            fix="Choose an object, for example with --object or --object-at.",
        )
    explained = int(inside.argmax())
    kept = size >= max(1, smallest)
    if same_class:
        kinds = np.zeros(len(size), np.uint8)
        kinds[labels] = case.labels
        kept &= kinds == kinds[explained]
    kept[explained] = True
    numbers = np.flatnonzero(kept)
    if len(numbers) < LEAST:
        raise NoSuchRegion(
            f"Only {plural(len(numbers), 'object')} can be compared; a fit to descriptors takes {LEAST}, and better "
            "many.",
            fix="Choose a larger part of the image, --among all, or a smaller --smallest.",
        )
    labels = np.where(kept[labels], labels, 0)
    pixels = case.intensities(case.x).astype(np.float64)
    if pixels.ndim == labels.ndim:
        pixels = pixels[..., None]
    spec = case.model.spec
    measured = descriptors(labels, pixels, spec.channels, case.image.scale(spec.axes))
    return Objects(labels, numbers, int((numbers == explained).argmax()), measured)


def descriptors(
    labels: NDArray[Any], pixels: Numbers, channels: Sequence[str], spacing: tuple[float, ...]
) -> dict[str, Numbers]:
    """One number per descriptor and object, objects in the order of their numbers.

    Args:
        labels: (*space), 0 where there is no object.
        pixels: intensities (*space, C).
        channels: their names.
        spacing: size of a pixel along each axis.

    Returns:
        Area or volume, eccentricity (2-D only), the gradient on the object's own rim, mean intensity of each
        channel, texture (standard deviation of intensity), and the distance to the centre of the nearest other
        object. Gradient and texture are of the mean of the channels.
    """
    grey = pixels.mean(-1)
    found = regionprops(labels, grey, spacing=spacing)
    numbers = [one.label for one in found]
    made: dict[str, Any] = {"area" if labels.ndim == 2 else "volume": [one.area for one in found]}
    if labels.ndim == 2:
        made["eccentricity"] = [one.eccentricity for one in found]
    slopes = [np.gradient(grey, s, axis=a) for a, s in enumerate(spacing) if grey.shape[a] > 1]
    cross = ndimage.generate_binary_structure(labels.ndim, 1)
    # where two objects touch, both have a rim
    rim = ndimage.minimum_filter(labels, footprint=cross) != labels
    rim |= ndimage.maximum_filter(labels, footprint=cross) != labels
    made["boundary gradient"] = ndimage.mean(np.sqrt(sum(s**2 for s in slopes)), np.where(rim, labels, 0), numbers)
    for index, name in enumerate(channels):
        words = "mean intensity" if len(channels) == 1 else f"mean {name}"
        made[words] = ndimage.mean(pixels[..., index], labels, numbers)
    made["texture"] = [float(one.image_intensity[one.image].std()) for one in found]
    centres = np.array([one.centroid for one in found])
    made["neighbour distance"] = KDTree(centres).query(centres, k=2)[0][:, 1]
    # an object without a rim fills the image: it has no gradient there
    return {name: np.nan_to_num(np.asarray(values, np.float64)) for name, values in made.items()}
