"""The folder of a feature bank: what is written is read again, in any piece, by anybody, after a kill."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from seglens.core.errors import BadParameter
from seglens.engine.features import BankInfo, Entry, FeatureBank, is_bank

INFO = BankInfo("decoder", "object", "YX", 5, ("background", "cell", "dead"), pixel_size=(0.5, 0.5))


def entry(number: int = 0, **changes: object) -> Entry:
    """One that is told apart by its number."""
    plain = Entry("abc", "one", "/data/one.tif", {"T": number}, "object", (number, 2), ((0, number + 1), (1, 4)),
                  number + 1, "cell", "dead", 0.25, "slide 1")  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def vectors(n: int, seed: int = 0, dims: int = 5) -> np.ndarray:
    """Numbers that half precision holds exactly."""
    return np.random.default_rng(seed).integers(-9, 9, (n, dims)).astype(np.float32)


@pytest.fixture
def bank(tmp_path):
    """An empty bank with chunks of 7 rows."""
    made = FeatureBank.create(tmp_path / "cells.bank", INFO)
    yield made
    made.close()


def test_what_is_written_is_read_again(bank):
    rows = bank.append(vectors(3), [entry(i) for i in range(3)])
    bank.append(vectors(2, 1), [entry(7, truth=None, iou=None, group="slide 2"), entry(8, predicted="dead")])
    assert rows.tolist() == [0, 1, 2]
    bank.close()
    again = FeatureBank.open(bank.folder)
    assert again.info == INFO
    assert len(again) == 5
    assert again.entries([3, 0]) == [entry(7, truth=None, iou=None, group="slide 2"), entry(0)]
    np.testing.assert_array_equal(again.vectors(), np.concatenate([vectors(3), vectors(2, 1)]))
    again.close()


def test_vectors_in_any_order_and_in_batches(bank, monkeypatch):
    monkeypatch.setattr("seglens.engine.features.bank.CHUNK", 70)
    small = FeatureBank.create(bank.folder.with_name("small.bank"), INFO)
    all_ = vectors(40)
    for start in range(0, 40, 3):
        small.append(all_[start : start + 3], [entry(i) for i in range(start, min(40, start + 3))])
    rows = np.random.default_rng(1).permutation(40)[:17]
    np.testing.assert_array_equal(small.vectors(rows), all_[rows])
    np.testing.assert_array_equal(small.vectors([4, 4]), all_[[4, 4]])
    assert small.vectors([]).shape == (0, 5)
    pieces = [(r, v) for r, v in small.batches(9)]
    assert [len(r) for r, _ in pieces] == [7, 7, 7, 7, 7, 5]  # whole chunks
    np.testing.assert_array_equal(np.concatenate([v for _, v in pieces]), all_)
    small.close()


def test_rows_by_what_they_are(bank):
    bank.append(
        vectors(4), [entry(0), entry(1, group="b"), entry(2, predicted="dead"), entry(3, image="x", truth=None)]
    )
    assert bank.rows().tolist() == [0, 1, 2, 3]
    assert bank.rows(image="abc").tolist() == [0, 1, 2]
    assert bank.rows(image="abc", predicted="cell", group="slide 1").tolist() == [0]
    assert bank.rows(truth="dead").tolist() == [0, 1, 2]
    assert bank.rows(group="nobody").tolist() == []
    assert bank.groups() == ("b", "slide 1")
    assert [(i.fingerprint, i.group, i.count) for i in bank.images()] == [
        ("abc", "slide 1", 2), ("abc", "b", 1), ("x", "slide 1", 1)]  # fmt: skip


def test_what_does_not_fit_is_refused_and_leaves_nothing(bank):
    with pytest.raises(BadParameter, match="5 numbers"):
        bank.append(vectors(2, dims=4), [entry(), entry()])
    for wrong in (1e5, np.inf, np.nan):
        with pytest.raises(BadParameter, match="float16 cannot hold"):
            bank.append(np.full((1, 5), wrong), [entry()])
    bank.append(vectors(3), [entry()] * 3)
    with pytest.raises(BadParameter, match="3 embeddings; 3 is not"):
        bank.entries([3])
    assert len(bank) == 3


def test_single_precision_holds_large_numbers(tmp_path):
    bank = FeatureBank.create(tmp_path / "b", replace(INFO, precision="float32"))
    bank.append(np.full((1, 5), 1e5), [entry()])
    assert bank.vectors().max() == 1e5
    with pytest.raises(BadParameter, match="float32 cannot hold"):
        bank.append(np.full((1, 5), 1e20), [entry()])
    bank.close()


def test_no_bank_says_how_to_build_one(tmp_path, bank):
    with pytest.raises(BadParameter, match="seglens gallery bank"):
        FeatureBank.open(tmp_path)
    with pytest.raises(BadParameter, match="not empty"):
        FeatureBank.create(bank.folder, INFO)
    assert is_bank(bank.folder)
    assert not is_bank(tmp_path)


def test_a_folder_that_may_not_be_written_is_read(bank, monkeypatch):
    bank.append(vectors(3), [entry(i) for i in range(3)])
    bank.close()
    monkeypatch.setattr("os.access", lambda *_: False)
    with FeatureBank.open(bank.folder) as reader:
        assert reader.entries([1]) == [entry(1)]
        np.testing.assert_array_equal(reader.vectors(), vectors(3))
        with pytest.raises(BadParameter, match="readonly"):
            reader.append(vectors(1), [entry()])


def test_a_later_version_is_not_touched(bank):
    bank.close()
    with sqlite3.connect(bank.folder / "bank.sqlite") as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(BadParameter, match="version 9"):
        FeatureBank.open(bank.folder)


KILLED = """
import os, sys
sys.path.insert(0, "tests")
from engine.test_features_bank import entry, vectors
from seglens.engine.features import FeatureBank
bank = FeatureBank.open(sys.argv[1])
bank.append(vectors(4), [entry(i) for i in range(4)])
bank.table.add = lambda *_: os._exit(9)  # vectors are written, entries are not
bank.append(vectors(3, 1), [entry(9)] * 3)
"""


def test_a_kill_loses_the_batch_that_was_being_written_and_nothing_else(bank):
    killed = subprocess.run([sys.executable, "-c", KILLED, bank.folder], check=False)
    assert killed.returncode == 9
    assert len(bank) == 4
    bank.append(vectors(2, 5), [entry(20), entry(21)])
    np.testing.assert_array_equal(bank.vectors(), np.concatenate([vectors(4), vectors(2, 5)]))
    assert bank.entries([4])[0] == entry(20)


def test_another_process_sees_what_is_added(bank):
    reader = FeatureBank.open(bank.folder)
    bank.append(vectors(3), [entry(i) for i in range(3)])
    assert len(reader) == 3
    np.testing.assert_array_equal(reader.vectors(), vectors(3))
    reader.close()


def test_it_is_used_from_several_threads(bank):
    """A worker adds while another thread reads what is there."""
    seen, errors = [], []

    def read():
        try:
            while not seen or seen[-1] < 60:
                count = len(bank)
                assert len(bank.entries(range(count))) == len(bank.vectors(range(count))) == count
                seen.append(count)
        except (AssertionError, BadParameter) as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(20):
        bank.append(vectors(3, i), [entry(i)] * 3)
    reader.join(60)
    assert errors == []
    assert seen[-1] == 60
