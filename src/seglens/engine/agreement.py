"""How alike two maps are: by rank, by structure, and in their strongest places.

A map that is the same everywhere has no order, no structure and no strongest place: beside one, all these are NaN.
"""

from __future__ import annotations

from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from skimage.metrics import structural_similarity

Map = NDArray[Any]
WINDOW = 7  # pixels, of the structural similarity
NARROW = 3  # pixels that the smallest window needs
FLAT = 1e-6  # of the largest size: a map that varies less is the same everywhere, but for rounding


def flat(values: Map) -> bool:
    """Whether a map is the same everywhere."""
    return float(np.ptp(values)) <= FLAT * float(np.abs(values).max())


def rank_correlation(one: Map, other: Map) -> float:
    """Spearman's, over all pixels."""
    if flat(one) or flat(other):
        return nan
    return float(np.corrcoef(rankdata(one.ravel()), rankdata(other.ravel()))[0, 1])


def structure(one: Map, other: Map) -> float:
    """Structural similarity of two maps, each divided by its largest size; in 2-D or 3-D, from -1 to 1.

    Along an axis of fewer than three pixels no window moves: it is the mean over the slices there.
    """
    if flat(one) or flat(other):
        return nan
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
    if flat(one) or flat(other):
        return nan
    count = max(1, round(share * one.size))
    tops = [m >= np.partition(m.ravel(), m.size - count)[m.size - count] for m in (one, other)]
    return float((tops[0] & tops[1]).sum() / (tops[0] | tops[1]).sum())


def inside(values: Map, mask: Map) -> float:
    """The part of a map from 0 upwards that lies in a mask; 0 for a zero map."""
    total = float(values.sum(dtype=np.float64))
    return float(values[mask].sum(dtype=np.float64)) / total if total else 0.0
