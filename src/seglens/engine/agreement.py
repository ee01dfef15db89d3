"""How alike two maps are: by rank, by structure, and in their strongest places."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from skimage.metrics import structural_similarity

Map = NDArray[Any]
WINDOW = 7  # pixels, of the structural similarity
NARROW = 3  # pixels that the smallest window needs


def rank_correlation(one: Map, other: Map) -> float:
    """Spearman's, over all pixels; of a map that is the same everywhere 1 with itself, 0 with any other."""
    a, b = rankdata(one.ravel()), rankdata(other.ravel())
    if a.std() == 0 or b.std() == 0:
        return float(np.array_equal(one, other))
    return float(np.corrcoef(a, b)[0, 1])


def structure(one: Map, other: Map) -> float:
    """Structural similarity of two maps, each divided by its largest size; in 2-D or 3-D, from -1 to 1.

    Along an axis of fewer than three pixels no window moves: it is the mean over the slices there.
    """
    a, b = (m / max(float(np.abs(m).max()), 1e-12) for m in (one.astype(np.float64), other.astype(np.float64)))
    thin = [axis for axis, n in enumerate(a.shape) if n < NARROW]
    if len(thin) == a.ndim:
        thin, a, b = [], *(np.pad(m, [(0, NARROW - n) for n in m.shape], "symmetric") for m in (a, b))
    rest = [n for axis, n in enumerate(a.shape) if axis not in thin]
    window = min(WINDOW, min(rest) - (min(rest) + 1) % 2)
    slices = (np.moveaxis(m, thin, range(len(thin))).reshape(-1, *rest) for m in (a, b))
    alike = [structural_similarity(x, y, win_size=window, data_range=1.0) for x, y in zip(*slices, strict=True)]
    return float(np.mean(alike))


def top_overlap(one: Map, other: Map, share: float) -> float:
    """Intersection over union of the strongest share (0 to 1) of the pixels of each; ties are all in."""
    count = max(1, round(share * one.size))
    tops = [m >= np.partition(m.ravel(), m.size - count)[m.size - count] for m in (one, other)]
    return float((tops[0] & tops[1]).sum() / (tops[0] | tops[1]).sum())


def inside(values: Map, mask: Map) -> float:
    """The part of a map from 0 upwards that lies in a mask; 0 for a zero map."""
    total = float(values.sum(dtype=np.float64))
    return float(values[mask].sum(dtype=np.float64)) / total if total else 0.0
