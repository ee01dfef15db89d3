"""The benchmark's harness: processes, units, differences; no time is tested."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "peers.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--sizes", "64", "--networks", "^unet$"]
    command += ["--only", "^occlusion$", "--contenders", "ours|loop|captum", "--threads", "1", "--limit", "200"]
    ended = subprocess.run([*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(out.read_text(encoding="utf-8")), ended.stdout


@pytest.fixture(autouse=True)
def found(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def test_every_contender_is_measured_in_forwards_of_its_own_process(results):
    (whole,) = results[0]["rows"]
    assert whole["evaluations"] == 9
    assert set(whole["contenders"]) == {"ours", "captum Occlusion", "loop"}
    for told in whole["contenders"].values():
        assert "wall" in told, told
        assert told["forwards"]["wall"] == pytest.approx(told["wall"] / told["unit"]["wall"], rel=1e-2)
        assert told["unit"]["wall"] > 0
        assert told["memory_mib"] >= 0
        assert not told["scaled"]
    assert whole["best_peer"] == "captum Occlusion"


def test_ours_is_the_straight_loop_and_captum(results):
    for row in results[0]["rows"]:
        found = [told["difference"] for told in row["contenders"].values() if "difference" in told]
        assert found
        for difference in found:
            assert difference["compared"] >= 9
            assert difference["relative"] < 1e-5


def test_machine_is_told_without_names(results):
    machine = results[0]["machine"]
    assert machine["threads"] == 1
    assert machine["cores"] >= 1
    assert set(machine) >= {"torch", "captum", "monai", "date", "minutes"}


def test_table_has_a_line_per_row(results):
    lines = [line for line in results[1].splitlines() if line.startswith("| occlusion")]
    assert len(lines) == len(results[0]["rows"])


def test_docs_are_rewritten_between_markers_only(results, tmp_path):
    from benchmarks.table import END, START, write_docs

    page = tmp_path / "page.md"
    page.write_text(f"Before.\n{START}\nold\n{END}\nAfter.\n", encoding="utf-8")
    write_docs(results[0], page)
    first = page.read_text(encoding="utf-8")
    write_docs(results[0], page)
    assert page.read_text(encoding="utf-8") == first
    assert first.startswith("Before.\n")
    assert first.endswith("After.\n")
    assert "old" not in first
    assert "straight loop" in first


def test_samples_of_windows_lie_on_the_lattice_of_all():
    from benchmarks.questions import STRIDE, lattice, sampled

    for shape in ((256, 256), (2048, 2048), (64, 128, 128)):
        every = {tuple(s.start for s in box) for box in lattice(shape, (STRIDE,) * len(shape))}
        for affordable in (1, 5, 50, 400):
            some = [tuple(s.start for s in box) for box in lattice(shape, sampled(shape, affordable))]
            assert len(some) <= max(affordable, 2 ** len(shape))
            assert set(some) <= every
            assert max(some) == tuple(n - 32 for n in shape)


def test_many_objects_cost_a_peer_many_runs_and_ours_one():
    from benchmarks.compare import Cell, row
    from benchmarks.questions import question
    from benchmarks.scenes import MANY, Scene

    cost = {"unit": {"wall": 1.0, "cpu": 1.0}, "scaled": False}
    costs = {n: {**cost, "wall": n, "cpu": n, "forwards": {"wall": n, "cpu": n}} for n in (10.0, 4.0)}
    many, whole = question("occlusion-fifty"), question("occlusion")
    cells = [Cell(whole, "captum Occlusion", costs[10.0]), Cell(whole, "ours", costs[10.0])]
    cells.append(Cell(many, "ours", costs[4.0]))
    found = row(Scene("unet", (512, 512)), many, cells)
    assert found["contenders"]["captum Occlusion"]["wall"] == MANY * 10
    assert found["contenders"]["captum Occlusion"]["borrowed"] == MANY
    assert found["times"] == MANY * 10 / 4
    assert found["of_one_run"] == 0.4
