"""A map that grows from segments: the best of them first, then the best of what is left (XRAI, card B/B15)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import csc_array, csr_array, vstack
from skimage.segmentation import felzenszwalb, slic

from seglens.core.run import Run

Labels = NDArray[Any]
SCALES = (50, 100, 150, 250, 500, 1200)  # of Felzenszwalb's segments, as XRAI has them
BLUR = 0.8  # pixels, before the image is segmented


@dataclass(frozen=True, eq=False)
class Grown:
    """What grew.

    Args:
        values: (*space) float32, per pixel the mean score of the part with which it was added.
        rank: (*space) int32, the part's number, from 1; the best first.
        parts: per part which candidate it came from (-1: what no candidate covers), its mean, and its pixels.
    """

    values: NDArray[np.float32]
    rank: NDArray[np.int32]
    parts: tuple[tuple[int, float, int], ...]


def grow(score: NDArray[Any], candidates: csr_array) -> Grown:
    """Add, again and again, the candidate with the largest mean score over its pixels that are not covered yet.

    Each pixel gets the mean of the part with which it came. What no candidate covers is the last part.

    Args:
        score: (*space).
        candidates: candidates × pixels, not 0 where a candidate has a pixel; see :func:`members`.
    """
    flat = np.asarray(score, float).ravel()
    values, rank = np.zeros(flat.size), np.zeros(flat.size, np.int32)
    owners = csc_array(candidates)
    counts = np.diff(candidates.indptr).astype(float)
    sums = np.add.reduceat(np.append(flat[candidates.indices], 0.0), candidates.indptr[:-1]) * (counts > 0)
    means = np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)
    parts: list[tuple[int, float, int]] = []

    def add(which: int, new: NDArray[Any]) -> None:
        mean = float(flat[new].mean())
        parts.append((which, mean, len(new)))
        values[new], rank[new] = mean, len(parts)

    while means.size and (best := int(means.argmax())) >= 0 and means[best] > -np.inf:
        own = candidates.indices[candidates.indptr[best] : candidates.indptr[best + 1]]
        new = own[rank[own] == 0]
        add(best, new)
        touched, times = _columns(owners, new)
        np.subtract.at(sums, touched, np.repeat(flat[new], times))
        np.subtract.at(counts, touched, 1)
        changed = np.unique(touched)
        left = counts[changed] > 0
        means[changed] = np.where(left, sums[changed] / np.maximum(counts[changed], 1), -np.inf)
    rest = np.flatnonzero(rank == 0)
    if rest.size:
        add(-1, rest)
    shape = np.shape(score)
    return Grown(values.reshape(shape).astype(np.float32), rank.reshape(shape), tuple(parts))


def members(labels: Labels, dilation: int = 0) -> csr_array:
    """Segments × pixels of labels (*space) from 0 upwards, each segment grown by a ball of so many pixels.

    Numbers that no pixel has make no candidate.
    """
    _, compact = np.unique(labels, return_inverse=True)
    compact = compact.reshape(labels.shape)
    count = int(compact.max()) + 1
    if not dilation:
        pixels = np.arange(labels.size)
        return csr_array((np.ones(labels.size, bool), (compact.ravel(), pixels)), shape=(count, labels.size))
    flat = np.arange(labels.size).reshape(labels.shape)
    found = []
    for number, box in enumerate(ndimage.find_objects(compact + 1)):
        wide = tuple(
            slice(max(0, s.start - dilation), min(n, s.stop + dilation)) for s, n in zip(box, labels.shape, strict=True)
        )
        near = ndimage.distance_transform_edt(compact[wide] != number) <= dilation
        found.append(flat[wide][near])
    ends = np.cumsum([0, *map(len, found)])
    return csr_array((np.ones(ends[-1], bool), np.concatenate(found), ends), shape=(count, labels.size))


def oversegmented(
    pixels: NDArray[Any], dims: int, smallest: int, run: Run, scales: Sequence[int] = SCALES, dilation: int = 0
) -> csr_array:
    """Segments of an image at several scales, for :func:`grow`.

    Felzenszwalb's in a plane; it knows no volumes, where they are SLIC's, with about as many voxels as the scale says.

    Args:
        pixels: (*space) or (*space, C), any range.
        dims: axes of space.
        smallest: pixels of a segment, at least.
        run: progress, cancel.
        scales: larger ones make larger segments.
        dilation: see :func:`members`.
    """
    low, high = float(pixels.min()), float(pixels.max())
    scaled = (pixels.astype(float) - low) / (high - low if high > low else 1)
    axis = -1 if pixels.ndim > dims else None
    made = []
    for done, scale in enumerate(scales):
        run.progress(done, len(scales), "segmentations")
        if dims == 2:
            labels = felzenszwalb(scaled, scale=scale, sigma=BLUR, min_size=smallest, channel_axis=axis)
        else:
            count = max(1, round(np.prod(pixels.shape[:dims]) / max(scale, smallest)))
            labels = slic(scaled, count, 0.1, sigma=BLUR, start_label=0, channel_axis=axis, convert2lab=False)
        made.append(members(labels, dilation))
    run.progress(len(scales), len(scales), "segmentations")
    return together(made)


def together(candidates: Sequence[csr_array]) -> csr_array:
    """All candidates of several sets."""
    return csr_array(vstack(list(candidates), format="csr"))


def _columns(owners: csc_array, pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The candidates of pixels, one after the other, and how many each pixel has."""
    starts = owners.indptr[pixels]
    times = owners.indptr[pixels + 1] - starts
    offset = np.repeat(starts - np.concatenate([[0], np.cumsum(times)[:-1]]), times)
    return owners.indices[offset + np.arange(int(times.sum()))], times
