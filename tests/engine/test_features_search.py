"""Nearest neighbours: exact against brute force, groups left out, memory bounded."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tracemalloc
import types
from dataclasses import replace

import numpy as np
import pytest

from engine.test_features_bank import INFO, entry
from seglens.core.errors import BadParameter, MissingNeed
from seglens.engine.features import FeatureBank
from seglens.engine.features.index import installed


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
@pytest.mark.parametrize("by", ["disk", "numpy", "sklearn", "faiss"])
def test_it_equals_brute_force_with_ties_and_duplicates(bank, metric, size, by, monkeypatch):
    if by == "faiss":
        pytest.importorskip("faiss")
    by = small(bank, by, size, monkeypatch)
    queries = np.concatenate([bank.vectors([7, 400, 520, 3]), np.random.default_rng(2).standard_normal((70, 5))])
    queries = queries.astype(np.float16).astype(np.float32)
    found = bank.nearest(queries, 45, metric=metric, by=by)
    rows, distances = brute(bank.vectors(), queries, 45, metric)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.distances, distances, atol=2e-7)
    assert found.excluded == ()


@pytest.mark.parametrize("by", ["disk", "numpy", "sklearn"])
@pytest.mark.parametrize("share", [0.1, 0.7])
def test_it_equals_brute_force_among_some_rows(bank, by, share, monkeypatch):
    by = small(bank, by, 50, monkeypatch)
    among = np.flatnonzero(np.random.default_rng(4).random(600) < share)
    queries = bank.vectors([7, 13, 510])
    for metric in ("cosine", "euclidean"):
        found = bank.nearest(queries, 9, metric=metric, rows=among, exclude_groups=["slide 0"], by=by)
        rows, _ = brute(bank.vectors(), queries, 9, metric, [i for i in among if i % 4])
        np.testing.assert_array_equal(found.rows, rows)


def small(bank, by, size, monkeypatch):
    """Search in batches of this size; from disk if nothing may stay in memory."""
    monkeypatch.setattr("seglens.engine.features.search.BATCH", size * 4 * 5)
    if by == "disk":
        bank.memory = 0
    return "auto" if by == "disk" else by


def test_long_and_short_vectors_together_lose_nothing(tmp_path):
    """Rounding is as large as the longest vector makes it, and near ones are short."""
    bank = FeatureBank.create(tmp_path / "wild", INFO)
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((400, 5)) * 10.0 ** rng.uniform(-3, 4, (400, 1))
    bank.append(vectors, [entry(i) for i in range(400)])
    kept = bank.vectors()
    for by in ("numpy", "sklearn"):
        found = bank.nearest(kept[:40], 6, metric="euclidean", by=by)
        np.testing.assert_array_equal(found.rows, brute(kept, kept[:40], 6, "euclidean")[0])
    bank.close()


def test_what_is_added_or_replaced_after_a_search_is_found(tmp_path):
    bank = FeatureBank.create(tmp_path / "growing", INFO)
    bank.append(np.eye(5), [entry(i, image="kept") for i in range(5)])
    bank.table.finish("kept", "one", "/data/one.tif", "slide 1")
    bank.append(np.ones((1, 5)), [entry(5, image="half")])
    assert bank.nearest(np.ones(5), 1).rows[0, 0] == 5
    bank.append(2 * np.eye(5)[:1] + 1, [entry(6, image="half")])
    assert bank.nearest([3, 1, 1, 1, 1], 1).rows[0, 0] == 6
    assert bank.table.drop_unfinished() == 2
    bank.append(-np.ones((2, 5)), [entry(5), entry(6)])
    assert bank.nearest([3, 1, 1, 1, 1], 1).rows[0, 0] == 0
    assert bank.nearest(-np.ones(5), 2).rows[0].tolist() == [5, 6]
    bank.close()


def test_a_bank_larger_than_the_limit_is_searched_in_batches(tmp_path, monkeypatch):
    """8 MB of embeddings, 1 MB allowed: no more than a few chunks of 64 KB are ever there."""
    monkeypatch.setattr("seglens.engine.features.bank.CHUNK", 2**16)
    bank = FeatureBank.create(tmp_path / "large", replace(INFO, dims=64))
    rng = np.random.default_rng(0)
    for _ in range(16):
        bank.append(rng.standard_normal((4096, 64)), [entry(0)] * 4096)
    bank.memory = 2**20
    monkeypatch.setattr("seglens.engine.features.search.BATCH", 2**17)
    query = bank.vectors([40_000])
    bank.nearest(query, 5)  # what is imported and remembered once is not what is measured
    tracemalloc.start()
    found = bank.nearest(query, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.rows[0, 0] == 40_000
    assert bank.index() is None
    assert peak < 2**20 < len(bank) * 64 * 2 / 7
    bank.memory = 2**30
    again = bank.nearest(query, 5)
    assert bank.index() is not None
    np.testing.assert_array_equal(again.rows, found.rows)
    np.testing.assert_array_equal(again.distances, found.distances)
    bank.close()


LIMITED = """
import resource, sys
import numpy as np
from seglens.engine.features import FeatureBank
bank = FeatureBank.open(sys.argv[1])
query = bank.vectors([7777])
bank.memory = 0
bank.nearest(query, 1)  # what is imported and started once
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 100 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    bank.vectors()
    sys.exit("the bank fits, so this tells nothing")
except MemoryError:
    pass
for memory in (0, 2**30):
    bank.memory = memory
    for metric in ("cosine", "euclidean"):
        found = bank.nearest(query, 3, metric=metric)
        assert found.rows[0, 0] == 7777 and found.distances[0, 0] == 0 and found.rows.min() >= 0
    assert bank.index() is None
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are set as on Linux")
def test_a_bank_larger_than_the_memory_there_is_is_searched(tmp_path):
    """164 MB of embeddings; the process may take 100 MB more than it has."""
    with FeatureBank.create(tmp_path / "large", replace(INFO, dims=2048)) as bank:
        rng = np.random.default_rng(0)
        for _ in range(10):
            bank.append(rng.random((2000, 2048), np.float32), [entry(0)] * 2000)
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path / "large"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_is_not_wanted_is_not_read(tmp_path, monkeypatch):
    bank = FeatureBank.create(tmp_path / "b", INFO)
    bank.append(np.random.default_rng(0).standard_normal((1000, 5)), [entry(i) for i in range(1000)])
    bank.memory = 0
    monkeypatch.setattr("seglens.engine.features.search.BATCH", 100 * 4 * 5)
    read = []
    plain = FeatureBank.read
    monkeypatch.setattr(FeatureBank, "read", lambda self, a, b: read.append((a, b)) or plain(self, a, b))
    bank.nearest(np.ones(5), 3, rows=[5, 420, 421])
    assert read == [(0, 100), (400, 500)]
    bank.close()


class FlatIndex:
    """What is used of faiss: an index that adds and searches, in single precision, in any order of ties."""

    def __init__(self, dims, product):
        self.dims, self.product = dims, product

    def add(self, vectors):
        assert vectors.dtype == np.float32
        assert vectors.shape[1] == self.dims
        self.vectors = vectors

    def search(self, queries, k):
        assert queries.dtype == np.float32
        assert queries.flags.c_contiguous
        about = queries @ self.vectors.T
        if not self.product:
            about = (self.vectors**2).sum(1) - 2 * about + (queries**2).sum(1)[:, None]
        order = np.argsort(-about if self.product else about, axis=1)[:, ::-1][:, -k:][:, ::-1]
        return np.take_along_axis(about, order, 1), order


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_candidates_of_an_index_like_that_of_faiss_are_measured_again(bank, metric, monkeypatch):
    """faiss is not installed everywhere; this stands for its two calls."""
    stand_in = types.SimpleNamespace(
        IndexFlatL2=lambda dims: FlatIndex(dims, False), IndexFlatIP=lambda dims: FlatIndex(dims, True)
    )
    monkeypatch.setitem(sys.modules, "faiss", stand_in)
    installed.cache_clear()
    try:
        queries = bank.vectors([7, 400, 520, 3, 139])
        found = bank.nearest(queries, 45, metric=metric, by="faiss")
        some = bank.nearest(queries, 5, metric=metric, by="faiss", exclude_groups="slide 2")
    finally:
        monkeypatch.undo()
        installed.cache_clear()
    np.testing.assert_array_equal(found.rows, brute(bank.vectors(), queries, 45, metric)[0])
    among = [i for i in range(600) if i % 4 != 2]
    np.testing.assert_array_equal(some.rows, brute(bank.vectors(), queries, 5, metric, among)[0])
    assert some.excluded == ("slide 2",)


def test_faiss_is_asked_for_only_where_it_is(bank):
    if importlib.util.find_spec("faiss"):
        pytest.skip("faiss is installed here")
    with pytest.raises(MissingNeed, match="faiss is not installed"):
        bank.nearest(np.ones(5), 1, by="faiss")


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
