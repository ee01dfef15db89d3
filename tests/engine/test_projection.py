"""The projection of a bank: components, clusters, knee and the IoU over the plane (card B/P1)."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from seglens.core.errors import Cancelled, MissingNeed
from seglens.core.run import Run
from seglens.engine.features.projection import density, k_means, knee, principal_axes, project


class Rows:
    """As much of a bank as a projection reads."""

    def __init__(self, vectors, iou=None):
        """Keep both."""
        self.kept = np.asarray(vectors, np.float32)
        self.iou = [None] * len(vectors) if iou is None else iou

    def __len__(self):
        """Rows."""
        return len(self.kept)

    def vectors(self, rows):
        """(n, D)."""
        return self.kept[rows]

    def entries(self, rows):
        """With their IoU."""
        return [SimpleNamespace(iou=self.iou[int(r)]) for r in rows]


def modes(n=500, seed=0):
    """Blobs of four planted modes (size × contrast) seen by 12 features; small and dim ones are hard."""
    rng = np.random.default_rng(seed)
    small, dim = rng.random(n) < 0.5, rng.random(n) < 0.5
    mix = rng.normal(size=(2, 12))
    vectors = np.stack([small, dim], 1) * 6.0 @ mix + rng.normal(size=(n, 12))
    hard = small & dim
    iou = np.clip(np.where(hard, 0.35, 0.85) + 0.1 * rng.normal(size=n), 0, 1)
    return vectors, 2 * small + dim, hard, iou


def test_components_are_those_of_the_singular_value_decomposition():
    vectors = modes()[0].astype(np.float32)
    axes = principal_axes(vectors, 3)
    exact = vectors.astype(np.float64)
    standard = (exact - exact.mean(0)) / exact.std(0)
    _, sizes, rows = np.linalg.svd(standard)
    np.testing.assert_allclose(axes.explained, (sizes**2 / (sizes**2).sum())[:3], atol=1e-12)
    np.testing.assert_allclose(np.abs((axes.components * rows[:3]).sum(1)), 1, atol=1e-9)
    largest = np.abs(axes.components).argmax(1)
    assert (axes.components[np.arange(3), largest] > 0).all()


def test_more_components_lose_less():
    vectors = modes()[0]
    lost = []
    for count in range(1, 13):
        axes = principal_axes(vectors, count)
        back = axes.place(vectors) @ axes.components * axes.scale + axes.mean
        lost.append(float(((back - vectors) ** 2).sum()))
    assert all(b < a for a, b in itertools.pairwise(lost))
    assert lost[-1] < 1e-6


def test_planted_modes_come_back_and_the_hard_one_has_the_lowest_iou():
    vectors, mode, hard, iou = modes()
    found = project(Rows(vectors, list(iou)))
    assert found.k == 4
    assert adjusted_rand_score(mode, found.labels) > 0.9
    means = [np.mean(found.iou[found.labels == c]) for c in range(4)]
    worst = int(np.argmin(means))
    assert np.mean(hard[found.labels == worst]) > 0.95
    # and the plane says so, too, where that cluster is
    middles = found.middles()
    assert found.iou_at(middles).argmin() == worst
    assert found.plane.count.sum() == 500
    x, y = (np.searchsorted(edges, middles[worst][a]) - 1 for a, edges in enumerate((found.plane.x, found.plane.y)))
    assert found.plane.smooth[y, x] < 0.5 < np.nanmax(found.plane.smooth)


def test_the_plane_is_the_mean_of_what_lies_in_each_bin():
    vectors, _, _, iou = modes(120)
    found = project(Rows(vectors, list(iou)))
    plane = found.plane
    for y, x in np.argwhere(plane.count > 0):
        inside = (found.points[:, 0] >= plane.x[x]) & (found.points[:, 0] < plane.x[x + 1])
        inside &= (found.points[:, 1] >= plane.y[y]) & (found.points[:, 1] < plane.y[y + 1])
        assert inside.sum() == plane.count[y, x]
        assert plane.mean[y, x] == pytest.approx(iou[inside].mean(), abs=1e-6)
    assert np.isnan(plane.mean[plane.count == 0]).all()
    assert np.isfinite(plane.smooth).all()


def test_places_do_not_depend_on_the_order():
    vectors, _, _, iou = modes(200)
    order = np.random.default_rng(7).permutation(200)
    one, other = project(Rows(vectors, list(iou))), project(Rows(vectors[order], list(iou[order])))
    np.testing.assert_allclose(one.points[order], other.points, atol=1e-4)
    assert adjusted_rand_score(one.labels[order], other.labels) == pytest.approx(1)


def test_what_lies_alone_is_noise_to_dbscan():
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 0.2, (60, 2)), rng.normal(5, 0.2, (60, 2)), [[2.5, 12], [-9, 3]]])
    eps = knee(points)
    assert 0.05 < eps < 3
    labels = density(points, eps)
    assert (labels[-2:] == -1).all()
    assert len(set(labels[:60]) - {-1}) == len(set(labels[60:120]) - {-1}) == 1
    # by the projection as well, whose clusters are numbered by size
    wide = np.concatenate([points[:60], points[60:110], points[-2:]])
    found = project(Rows(np.pad(wide, ((0, 0), (0, 3)))), clusters="dbscan", eps=0.3)
    assert (found.labels[-2:] == -1).all()
    assert found.k == 2
    assert np.bincount(found.labels[:60] + 1).argmax() == 1
    np.testing.assert_array_equal(found.cluster_at(found.points), found.labels)
    assert found.cluster_at(np.array([[100.0, 100.0]])) == -1


def test_number_of_clusters_can_be_given_and_new_points_get_theirs():
    vectors, _, _, _ = modes(100)
    found = project(Rows(vectors), k=3, components=3)
    assert found.k == 3
    assert found.points.shape == (100, 3)
    np.testing.assert_array_equal(found.cluster_at(found.points), found.labels)
    assert found.plane is None
    assert np.isnan(found.iou_at(found.points)).all()
    assert (np.diff(np.bincount(found.labels)) <= 0).all()
    nearest = found.examples(0, 5)
    assert (found.labels[nearest] == 0).all()


def test_only_as_many_rows_are_read_as_asked():
    vectors, _, _, _ = modes(300)
    rows = np.arange(50, 250)
    one, again = (project(Rows(vectors), most=80, seed=1, rows=rows) for _ in range(2))
    assert len(one.rows) == 80
    assert set(one.rows) <= set(rows)
    assert one.total == 200
    np.testing.assert_array_equal(one.rows, again.rows)
    np.testing.assert_array_equal(one.labels, again.labels)
    assert set(project(Rows(vectors), most=80, seed=2, rows=rows).rows) != set(one.rows)


@pytest.mark.parametrize("clusters", ["kmeans", "dbscan"])
def test_points_that_are_all_the_same_are_one_cluster(clusters):
    found = project(Rows(np.ones((20, 4))), clusters=clusters)
    assert found.k == 1
    assert not found.points.any()
    assert not found.axes.explained.any()


def test_fewer_features_than_components_leave_zeros():
    found = project(Rows(np.arange(9.0).reshape(9, 1)), components=3)
    assert not found.points[:, 1:].any()
    assert found.axes.explained == pytest.approx([1, 0, 0])


def test_few_distinct_places_make_few_clusters():
    assert set(k_means(np.repeat([[0.0], [1.0], [5.0]], 4, axis=0), 8, 0)) == {0, 1, 2}
    assert not k_means(np.repeat([[0.0], [1.0]], 4, axis=0), None, 0).any()


def test_too_few_rows_are_refused_and_work_can_be_stopped():
    with pytest.raises(MissingNeed, match="there are 2"):
        project(Rows(np.ones((2, 3))))
    seen = []

    def stop(done, total, text):
        seen.append(text)
        if done == 1:
            run.cancel()

    run = Run(on_progress=stop)
    with pytest.raises(Cancelled):
        project(Rows(modes(50)[0]), run=run)
    assert seen == ["reading the bank", "principal components"]
