"""A feature bank as points: principal components, clusters, and where the IoU is low (card B/P1).

Clusters are looked for among the points as they are shown, so that what a person sees is what was clustered.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.cluster import DBSCAN, KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score

from seglens.core.errors import MissingNeed
from seglens.core.run import Run

if TYPE_CHECKING:
    from seglens.engine.features import FeatureBank

Clusters = Literal["kmeans", "dbscan"]
Floats = NDArray[np.float64]
MOST = 3000  # rows that are read, drawn by the seed where a bank has more
LEAST_POINTS = 5  # of a dense place, itself included
LARGEST_K = 10
BINS = 24
NEIGHBOURS = 10
_SILHOUETTES = 1000  # points that the silhouette is measured on


@dataclass(frozen=True, eq=False)
class Axes:
    """Principal components of standardised vectors.

    Args:
        mean, scale: of every feature (D,); a feature that never varies has scale 1.
        components: unit rows (components, D); the largest loading of each is positive, so that no sign is a matter
            of chance.
        explained: the share of the variance along each (components,).
    """

    mean: Floats
    scale: Floats
    components: Floats
    explained: Floats

    def place(self, vectors: NDArray[np.floating]) -> NDArray[np.float32]:
        """Coordinates of any vectors, (n, D) to (n, components)."""
        return np.asarray((vectors - self.mean) / self.scale @ self.components.T, np.float32)


@dataclass(frozen=True, eq=False)
class Plane:
    """The IoU over the first two components.

    Args:
        x, y: edges of the bins (B + 1,).
        mean: mean IoU of the points in each bin (B, B), rows along y; NaN where there is none.
        count: how many points of known IoU are in each.
        smooth: at each bin's middle the mean IoU of the nearest points, however far (B, B).
    """

    x: Floats
    y: Floats
    mean: Floats
    count: NDArray[np.int64]
    smooth: Floats

    @property
    def middles(self) -> tuple[Floats, Floats]:
        """Middles of the bins along x and y (B,)."""
        return (self.x[1:] + self.x[:-1]) / 2, (self.y[1:] + self.y[:-1]) / 2


@dataclass(frozen=True, eq=False)
class Projection:
    """Rows of a bank as points.

    Args:
        rows: row numbers in the bank (n,).
        points: coordinates (n, components).
        axes: how any vector gets its place.
        labels: number of the cluster from 0, by size; -1 for what DBSCAN calls noise (n,).
        how: how the clusters were found.
        k: how many clusters there are.
        eps: the distance that DBSCAN looked around; ``None`` for k-means.
        iou: with the truth (n,), NaN where no mask is known.
        plane: the IoU over the plane; ``None`` where no IoU is known.
        total: rows that there were to choose from.
    """

    rows: NDArray[np.int64]
    points: NDArray[np.float32]
    axes: Axes
    labels: NDArray[np.int64]
    how: Clusters
    k: int
    eps: float | None
    iou: NDArray[np.float32]
    plane: Plane | None
    total: int

    def place(self, vectors: NDArray[np.floating]) -> NDArray[np.float32]:
        """Coordinates of any vectors, (q, D) to (q, components)."""
        return self.axes.place(vectors)

    def cluster_at(self, points: NDArray[np.floating]) -> NDArray[np.int64]:
        """The cluster of new points (q, components): that of the nearest middle, or for DBSCAN of a point in reach."""
        if self.how == "kmeans":
            return np.asarray(cKDTree(self.middles()).query(points)[1], np.int64)
        far, near = cKDTree(self.points).query(points)
        return np.where(far <= (self.eps or 0.0) * (1 + 1e-6), self.labels[near], -1).astype(np.int64)

    def middles(self) -> Floats:
        """Mean of each cluster (k, components)."""
        return np.array([self.points[self.labels == c].mean(0, dtype=np.float64) for c in range(self.k)])

    def iou_at(self, points: NDArray[np.floating]) -> Floats:
        """Mean IoU of the known rows nearest to new points (q,); NaN where none is known."""
        known = np.isfinite(self.iou)
        return nearest_mean(self.points[known], self.iou[known], points)

    def examples(self, cluster: int, count: int) -> NDArray[np.int64]:
        """Row numbers of a cluster, those nearest to its middle first."""
        inside = np.flatnonzero(self.labels == cluster)
        far = np.linalg.norm(self.points[inside] - self.points[inside].mean(0), axis=1)
        return self.rows[inside[np.argsort(far, kind="stable")[:count]]]


def project(
    bank: FeatureBank,
    *,
    components: int = 2,
    clusters: Clusters = "kmeans",
    k: int | None = None,
    eps: float | None = None,
    seed: int = 0,
    most: int = MOST,
    rows: NDArray[Any] | None = None,
    run: Run | None = None,
) -> Projection:
    """Rows of a bank as points, with clusters and the IoU over the plane.

    Args:
        bank: where the vectors are.
        components: 2 or 3.
        clusters: how they are found.
        k: clusters of k-means; ``None`` chooses by the silhouette.
        eps: how far DBSCAN looks around; ``None`` takes the knee of the distances to the fourth neighbour.
        seed: of k-means, and of the draw where there are more than ``most`` rows.
        most: how many rows are read.
        rows: the rows to choose from; by default all.
        run: progress, cancel.

    Raises:
        MissingNeed: fewer than three rows.
        Cancelled: the person stopped it.
    """
    run = run or Run()
    every = np.arange(len(bank)) if rows is None else np.unique(np.asarray(rows, np.int64))
    if len(every) < 3:
        raise MissingNeed(
            f"A projection needs 3 entries or more, and there are {len(every)}.", fix="Add images to the bank."
        )
    chosen = every
    if len(every) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(every, most, replace=False))
    run.progress(0, 3, "reading the bank")
    vectors = bank.vectors(chosen)
    iou = np.array([np.nan if e.iou is None else e.iou for e in bank.entries(chosen)], np.float32)
    run.progress(1, 3, "principal components")
    axes = principal_axes(vectors, components)
    points = axes.place(vectors)
    run.progress(2, 3, "clusters")
    if clusters == "kmeans":
        labels, eps = k_means(points, k, seed, run), None
    else:
        eps = knee(points) if eps is None else eps
        labels = density(points, eps)
    labels = _by_size(labels)
    known = np.isfinite(iou)
    plane = iou_plane(points[known], iou[known], points) if known.any() else None
    run.progress(3, 3, "clusters")
    return Projection(
        chosen, points, axes, labels, clusters, int(labels.max()) + 1, eps, iou, plane, len(every)
    )  # fmt: skip


def principal_axes(vectors: NDArray[np.floating], components: int) -> Axes:
    """Principal components of (n, D), standardised; what n or D does not give is zero."""
    exact = np.asarray(vectors, np.float64)
    mean, scale = exact.mean(0), exact.std(0)
    # what varies by rounding alone does not vary
    scale[scale <= 1e-6 * np.maximum(1.0, np.abs(mean))] = 1.0
    _, sizes, rows = np.linalg.svd((exact - mean) / scale, full_matrices=False)
    rows, variance = rows[:components], sizes**2
    rows = rows * np.sign(np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1))
    lacking = components - len(rows)
    rows = np.pad(rows, ((0, lacking), (0, 0)))
    share = np.pad(variance[:components], (0, max(0, components - len(variance)))) / max(variance.sum(), 1e-30)
    return Axes(mean, scale, rows, share)


def k_means(points: NDArray[np.floating], k: int | None, seed: int, run: Run | None = None) -> NDArray[np.int64]:
    """Clusters of (n, d) points; without a number, the one from 2 to 10 of the largest silhouette."""
    run = run or Run()
    distinct = len(np.unique(points, axis=0))
    if distinct < 3 or (k is not None and k < 2):
        return np.zeros(len(points), np.int64)
    if k is not None:
        return _fitted(points, min(k, distinct), seed)
    best, found = -np.inf, np.zeros(len(points), np.int64)
    drawn = np.random.default_rng(seed).permutation(len(points))[:_SILHOUETTES]
    for number in range(2, min(LARGEST_K, distinct - 1, len(drawn) - 1) + 1):
        run.check()
        labels = _fitted(points, number, seed)
        seen = len(np.unique(labels[drawn]))
        score = silhouette_score(points[drawn], labels[drawn]) if 1 < seen < len(drawn) else -1.0
        if score > best:
            best, found = score, labels
    return found


def density(points: NDArray[np.floating], eps: float) -> NDArray[np.int64]:
    """DBSCAN of (n, d) points: clusters from 0, -1 for points that lie alone."""
    return np.asarray(DBSCAN(eps=max(eps, 1e-12), min_samples=LEAST_POINTS).fit_predict(points), np.int64)


def knee(points: NDArray[np.floating]) -> float:
    """Where the sorted distances to the fourth neighbour begin to rise: farthest below the line from first to last."""
    order = min(LEAST_POINTS, len(points))
    far = np.sort(cKDTree(points).query(points, order)[0][:, -1])
    rise = far[-1] - far[0]
    if rise <= 0:
        return float(far[-1])
    along = np.linspace(0, 1, len(far))
    return float(far[(along - (far - far[0]) / rise).argmax()])


def iou_plane(known: NDArray[np.floating], iou: NDArray[np.floating], every: NDArray[np.floating]) -> Plane:
    """Mean IoU over the plane of the first two components.

    Args:
        known: points (n, components) whose IoU is known.
        iou: theirs (n,).
        every: the points that the plane has to hold (m, components).
    """
    edges = [_edges(every[:, a]) for a in (1, 0)]
    at = [known[:, a].astype(np.float64) for a in (1, 0)]
    count = np.histogram2d(at[0], at[1], edges)[0]
    sums = np.histogram2d(at[0], at[1], edges, weights=iou.astype(np.float64))[0]
    mean = np.divide(sums, count, out=np.full_like(sums, np.nan), where=count > 0)
    y, x = (((e[1:] + e[:-1]) / 2) for e in edges)
    grid = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2)
    smooth = nearest_mean(known[:, :2], iou, grid).reshape(BINS, BINS)
    return Plane(edges[1], edges[0], mean, count.astype(np.int64), smooth)


def nearest_mean(
    known: NDArray[np.floating], values: NDArray[np.floating], at: NDArray[np.floating], count: int = NEIGHBOURS
) -> Floats:
    """Mean value of the nearest known points (n, d) at places (q, d); NaN where nothing is known."""
    if not len(known):
        return np.full(len(at), np.nan)
    near = cKDTree(known).query(at, list(range(1, min(count, len(known)) + 1)))[1]
    found: Floats = values.astype(np.float64)[near].mean(1)
    return found


def _edges(values: NDArray[np.floating]) -> Floats:
    low, high = float(values.min()), float(values.max())
    margin = 0.02 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, BINS + 1)


def _fitted(points: NDArray[np.floating], k: int, seed: int) -> NDArray[np.int64]:
    with warnings.catch_warnings():
        # fewer places than clusters: some stay empty, which is as it should be
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(KMeans(k, n_init=10, random_state=seed).fit_predict(points), np.int64)


def _by_size(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Clusters numbered anew without gaps, the largest first; noise stays -1."""
    numbers, counts = np.unique(labels[labels >= 0], return_counts=True)
    new = {int(old): place for place, old in enumerate(numbers[np.argsort(-counts, kind="stable")])}
    return np.array([new.get(int(n), -1) for n in labels], np.int64)
