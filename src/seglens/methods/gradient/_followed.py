"""Objects followed while the image changes, and what a person would measure of them: light, texture, size, shape."""

from collections.abc import Sequence
from math import gamma, pi

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from seglens.core.boxes import Box
from seglens.engine.case import Case
from seglens.engine.target import objects

MOST = 20  # objects that are followed, the largest
LEVELS = 8  # of intensity, for the entropy of pairs of neighbours
RIM = 3  # pixels around an object
ENOUGH = 3  # objects from which a deviation is taken

Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]


def features(
    mask: Mask,
    pixels: Numbers,
    channels: Sequence[str],
    limits: tuple[float, float],
    spacing: Sequence[float] | None = None,
) -> list[float]:
    """Numbers of one object, in the order of :func:`names`.

    Args:
        mask: where it is (*space), at least one pixel.
        pixels: intensities (*space, C).
        channels: their names.
        limits: lowest and highest intensity that textures tell apart.
        spacing: size of a pixel along each axis, for shapes; by default pixels are as long as wide.
    """
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    around = tuple(slice(max(0, s.start - RIM), s.stop + RIM) for s in box)
    mask, pixels = mask[around], pixels[around]
    inside, grey = pixels[mask], pixels.mean(-1)
    rim = ndimage.binary_dilation(mask, iterations=RIM) & ~mask
    contrast = grey[mask].mean() - grey[rim].mean() if rim.any() else 0.0
    means = [float(inside[:, c].mean()) for c in range(len(channels))]
    shape = _shape(mask, np.ones(mask.ndim) if spacing is None else np.asarray(spacing, float))
    return [*means, float(contrast), float(grey[mask].std()), _entropy(mask, grey, limits), *shape]


def names(channels: Sequence[str], dims: int) -> list[str]:
    """What :func:`features` tells."""
    light = ["mean intensity"] if len(channels) == 1 else [f"mean {one}" for one in channels]
    size = "area" if dims == 2 else "volume"
    return [
        *light,
        "contrast to the rim",
        "deviation of intensity",
        "entropy of texture",
        size,
        "elongation",
        "roundness",
    ]


def _entropy(mask: Mask, grey: Numbers, limits: tuple[float, float]) -> float:
    """Of the levels of neighbouring pixels that are both inside, in bits."""
    low, high = limits
    levels = np.clip((grey - low) / max(high - low, 1e-12) * LEVELS, 0, LEVELS - 1).astype(int)
    counts = np.zeros((LEVELS, LEVELS))
    for axis in range(mask.ndim):
        one, two = (tuple(slice(a, b) if i == axis else slice(None) for i in range(mask.ndim)) for a, b in
                    ((0, -1), (1, None)))  # fmt: skip
        both = mask[one] & mask[two]
        np.add.at(counts, (levels[one][both], levels[two][both]), 1)
    share = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(share * np.log2(share)).sum())


def _shape(mask: Mask, spacing: Numbers) -> list[float]:
    """Pixels; longest by shortest axis; second moment of a ball of this size by the object's own, 1 for a ball."""
    places, dims = np.argwhere(mask) * spacing, mask.ndim
    # a pixel is a box with sides, not a point
    own = np.diag(spacing**2) / 12
    moments = np.cov(places.T, bias=True) + own if len(places) > 1 else own
    axes = np.linalg.eigvalsh(moments)
    volume = len(places) * float(spacing.prod())
    radius = (volume * gamma(dims / 2 + 1) / pi ** (dims / 2)) ** (1 / dims)
    ball = dims / (dims + 2) * radius**2
    return [float(len(places)), float(np.sqrt(axes[-1] / axes[0])), float(ball / axes.sum())]


class Followed:
    """The objects of the target's class that its region meets.

    Where the model draws none there, the region itself is the object.

    Args:
        case: the question.
        box: the part of the image that is looked at.
    """

    def __init__(self, case: Case, box: Box) -> None:
        """Find them in the clean image."""
        self._case, self._box = case, box
        region = case.target.region[box]
        drawn = case.drawn()[box]
        numbered = objects(drawn.astype(np.uint8))
        sizes = np.bincount(numbered[region & drawn])
        sizes[:1] = 0
        largest = [int(n) for n in sizes.argsort()[::-1][:MOST] if sizes[n]]
        self.masks: list[Mask] = [numbered == n for n in largest] or [region]
        self.drawn = bool(largest)
        self._channels = case.model.spec.channels
        self.names = names(self._channels, len(box))
        self._limits = self._range()
        self._spacing = case.image.scale(case.model.spec.axes)
        self.lost: set[int] = set()
        self.curves: list[Numbers] = []  # (objects, features) at each look

    def __len__(self) -> int:
        """How many objects."""
        return len(self.masks)

    def measured(self, part: Tensor, logits: Tensor) -> Numbers:
        """(objects, features) in another image (1, C, *box) and its logits; what is lost stays as it was last."""
        rows = self.apart(part, logits)
        gone = np.isnan(rows).all(1)
        self.lost |= {int(i) for i in np.flatnonzero(gone)}
        if gone.any():
            # of the clean image itself, an object on the very border between two classes may be lost by rounding
            first = self.curves or [np.array([self._of(mask, _pixels(self._case, part)) for mask in self.masks])]
            rows[gone] = first[-1][gone]
        return rows

    def apart(self, part: Tensor, logits: Tensor) -> Numbers:
        """The same of an image that is no step of the way: what is lost is not a number, and nothing is kept."""
        pixels, rows = _pixels(self._case, part), []
        numbered = objects(self._case.drawn(logits).astype(np.uint8))
        for mask in self.masks:
            met = np.unique(numbered[mask])
            if not met.any() and self.drawn:
                rows.append([np.nan] * len(self.names))
                continue
            now = np.isin(numbered, met[met > 0]) if met.any() else mask
            rows.append(self._of(now, pixels))
        return np.array(rows)

    def deviation(self) -> Numbers | None:
        """Per feature the deviation over all objects of the class in the clean image; ``None`` if they are few."""
        case = self._case
        numbered = objects(case.drawn().astype(np.uint8))
        pixels = _pixels(case, case.x)
        found = range(1, min(200, int(numbered.max())) + 1)
        if len(found) < ENOUGH:
            return None
        rows = [self._of(numbered == n, pixels) for n in found]
        return np.asarray(np.std(rows, axis=0))

    def _of(self, mask: Mask, pixels: Numbers) -> list[float]:
        return features(mask, pixels, self._channels, self._limits, self._spacing)

    def _range(self) -> tuple[float, float]:
        pixels = _pixels(self._case, self._case.x).mean(-1)
        return float(pixels.min()), float(pixels.max())


def _pixels(case: Case, x: Tensor) -> Numbers:
    """Intensities (*space, C) of an input (1, C, *space)."""
    shown = case.intensities(x)
    return np.asarray(shown if x.shape[1] > 1 else shown[..., None], np.float64)
