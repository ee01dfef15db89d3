"""Nearest neighbours: exact against brute force, groups left out, memory bounded."""

from __future__ import annotations

import numpy as np
import pytest

from engine.test_features_bank import INFO, entry
from seglens.core.errors import BadParameter
from seglens.engine.features import FeatureBank


@pytest.fixture
def bank(tmp_path):
    """600 embeddings with duplicates, a vector of zeros, and vectors that differ in the last bit only."""
    made = FeatureBank.create(tmp_path / "b.bank", INFO)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((600, 5)).astype(np.float16).astype(np.float32)
    vectors[100:140] = vectors[7]
    vectors[300:320] = 2 * vectors[7]
    vectors[400] = 0
    for i in range(500, 540):
        vectors[i] = np.nextafter(vectors[i - 1].astype(np.float16), np.float16(np.inf)).astype(np.float32)
    made.append(vectors, [entry(i, group=f"slide {i % 4}") for i in range(600)])
    yield made
    made.close()


def brute(vectors, queries, k, metric, allowed=None):
    """Rows and distances by the plain definition, in double precision, ties by row."""
    rows = np.arange(len(vectors)) if allowed is None else np.asarray(allowed)
    v, q = vectors[rows].astype(float)[None], queries.astype(float)[:, None]
    if metric == "euclidean":
        d = np.linalg.norm(v - q, axis=2)
    else:
        lengths = np.linalg.norm(v, axis=2) * np.linalg.norm(q, axis=2)
        d = 1 - np.divide((v * q).sum(2), lengths, out=np.zeros(lengths.shape), where=lengths > 0)
    d = np.round(d, 13)
    order = np.argsort(d, axis=1, kind="stable")[:, :k]
    return rows[order], np.take_along_axis(d, order, 1)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("size", [37, 65536])
def test_it_equals_brute_force_with_ties_and_duplicates(bank, metric, size, monkeypatch):
    plain = FeatureBank.batches
    monkeypatch.setattr(FeatureBank, "batches", lambda self, n=size: plain(self, n))
    queries = np.concatenate([bank.vectors([7, 400, 520, 3]), np.random.default_rng(2).standard_normal((70, 5))])
    queries = queries.astype(np.float16).astype(np.float32)
    found = bank.nearest(queries, 45, metric=metric)
    rows, distances = brute(bank.vectors(), queries, 45, metric)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, atol=2e-7)
    assert found.excluded == ()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_what_is_in_the_bank_finds_itself_at_distance_zero(bank, metric):
    rows = [3, 250, 599]
    found = bank.nearest(bank.vectors(rows), 1, metric=metric)
    assert found.rows[:, 0].tolist() == rows
    assert found.distances.max() == 0


def test_groups_are_left_out_and_told(bank):
    found = bank.nearest(bank.vectors([3]), 5, exclude_groups=["slide 3", "not there"])
    assert found.excluded == ("slide 3",)
    assert found.left_out == 150
    assert all(e.group != "slide 3" for e in bank.entries(found.rows[0]))
    rows, _ = brute(bank.vectors(), bank.vectors([3]), 5, "cosine", [i for i in range(600) if i % 4 != 3])
    np.testing.assert_array_equal(found.rows, rows)


def test_only_among_some_rows_and_fewer_than_asked(bank):
    among = [599, 4, 8, 9]
    found = bank.nearest(bank.vectors([4]), 6, rows=among, exclude_groups=["slide 1"], metric="euclidean")
    assert (
        found.rows[0, :3].tolist()
        == brute(bank.vectors(), bank.vectors([4]), 3, "euclidean", [4, 8, 599])[0][0].tolist()
    )
    assert found.rows[0, 3:].tolist() == [-1] * 3
    assert np.isinf(found.distances[0, 3:]).all()
    assert found.left_out == 1


@pytest.mark.parametrize(
    ("queries", "more", "told"),
    [
        (np.zeros((1, 4)), {"k": 1}, "5 numbers"),
        (np.zeros((1, 5)), {"k": 0}, "k=0"),
        (np.zeros((1, 5)), {"k": 1, "metric": "taxi"}, "taxi"),
        (np.zeros((1, 5)), {"k": 1, "rows": [600]}, "600 is not"),
        (np.full((1, 5), np.nan), {"k": 1}, "nan"),
    ],
)
def test_what_cannot_be_asked_is_refused(bank, queries, more, told):
    with pytest.raises(BadParameter, match=told):
        bank.nearest(queries, **more)


def test_an_empty_bank_answers_nothing(tmp_path):
    bank = FeatureBank.create(tmp_path / "empty", INFO)
    assert bank.nearest(np.ones(5), 2).rows.tolist() == [[-1, -1]]
    bank.close()
