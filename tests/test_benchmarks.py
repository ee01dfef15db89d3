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


def test_on_a_gpu_every_question_has_a_row_within_the_time(tmp_path):
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--sizes", "64", "--quick"]
    command += ["--network", "unet", "--seconds", "0.05", "--limit", "60", "--out", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(out.read_text(encoding="utf-8"))
    asked = [(row["question"], row["target"]) for row in told["rows"]]
    assert asked == [*((name, "class") for name in ("gradient", "smooth-grad", "occlusion")), ("fifty", "objects")]
    assert told["machine"]["device"] == "CPU"
    for row in told["rows"]:
        assert row["ours"]["again"]["seconds"] > 0, row
        assert all(one["seconds"] > 0 for one in row["captum"]["usual"].values()), row
        assert "mib" not in row["ours"]
    assert sum(text.count("|") == 12 for text in ended.stdout.splitlines()) == 3 + len(told["rows"])


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


def test_newer_results_replace_older_ones_and_others_stay():
    from benchmarks.compare import joined

    def row(question, side, times):
        return {"question": question, "network": "unet", "shape": [side, side], "times": times}

    old = {
        "accuracy": {"games": []},
        "profiles": {"a": 1},
        "rows": [row("occlusion", 512, 1), row("rise", 256, 1), row("no longer asked", 256, 1)],
    }
    new = {"machine": {}, "accuracy": {}, "profiles": {"b": 2}, "rows": [row("occlusion", 512, 2)]}
    both = joined(old, new)
    assert [(r["question"], r["times"]) for r in both["rows"]] == [("rise", 1), ("occlusion", 2)]
    assert both["accuracy"] == {"games": []}
    assert both["profiles"] == {"a": 1, "b": 2}


def test_work_that_is_stopped_is_scaled_without_what_comes_before_it(monkeypatch):
    import time

    from benchmarks.ours import Watch

    now = iter([0.0, 5.0, 7.0, 9.0, 10.0, 11.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    watch = Watch(limit=8.0)
    watch(0, 10, "evaluations")  # 5 s of preparation
    watch(1, 10, "evaluations")
    assert not watch.run.cancelled
    watch(2, 10, "evaluations")
    assert watch.run.cancelled
    assert watch.scaled() == 5 + 2 * 10
    slow = Watch(limit=0.0)
    slow(1, 10, "measuring how far a pixel reaches")
    assert not slow.run.cancelled


def test_accuracy_takes_the_fewest_passes_that_reach_the_bar():
    import numpy as np
    from benchmarks.accuracy import Game, climb

    game = Game(None, 2, np.array([3.0, 4.0]), 0.0, None)
    found = climb(game, lambda g, n, seed: g.truth + 8.0 / n, [(2, 2), (4, 4), (8, 8)], 1.0, 2)
    assert found["enough"] == 4
    assert found["errors"][4] == pytest.approx(2 / np.sqrt(12.5))
    unsure = Game(None, 2, game.truth, 1.0, None)
    assert unsure.error(lambda g, n, seed: g.truth + 1.0, 1, 2) == 0
    assert climb(game, lambda g, n, seed: g.truth + 9.0, [(2, 2)], 1.0, 2)["enough"] is None


def test_true_shapley_values_of_twelve_units_add_up():
    import torch
    from benchmarks.accuracy import sixty_four, twelve

    for game in (twelve((12, 16), "unet"), sixty_four((16, 16), 2, "unet")):
        empty, full = torch.zeros(1, game.units), torch.ones(1, game.units)
        gain = float(game.value(full > 0) - game.value(empty > 0))
        assert game.truth.sum() == pytest.approx(gain, rel=1e-4)


@pytest.mark.parametrize("target", ["class", "painted"])
def test_captums_gradient_is_the_loops(target):
    from dataclasses import replace

    import numpy as np
    from benchmarks.contender import Asked
    from benchmarks.gradients import GRADIENTS, loop_gradient
    from benchmarks.questions import question
    from benchmarks.scenes import Scene

    asked = Asked(Scene("unet", (128, 128)), replace(question("gradient"), target=target), 1, 1)
    looped = loop_gradient(asked)().arrays["image"]
    found = GRADIENTS["captum Saliency"](asked)()
    assert np.abs(looped - found.arrays["image"]).max() <= 1e-4 * np.abs(looped).max()
    assert np.abs(looped - found.exactly()["image"]).max() <= 1e-2 * np.abs(looped).max()


def test_a_peer_that_would_fill_the_memory_is_not_asked(monkeypatch):
    from benchmarks import gradients
    from benchmarks.contender import Asked, Skip
    from benchmarks.questions import question
    from benchmarks.scenes import Scene

    asked = Asked(Scene("unet", (64, 64)), question("integrated-gradients"), 1, 1)
    gradients.GRADIENTS["captum IntegratedGradients"](asked)
    monkeypatch.setattr(gradients, "MOST", 2**24)
    with pytest.raises(Skip, match="32 copies of 64×64 at once take about"):
        gradients.GRADIENTS["captum IntegratedGradients"](asked)


def test_a_library_is_stopped_and_its_time_scaled():
    import torch
    from benchmarks.contender import Asked
    from benchmarks.peers import FEWEST, Recorded
    from benchmarks.questions import question
    from benchmarks.scenes import Scene

    recorded = Recorded(Asked(Scene("unet", (32, 32)), question("occlusion"), 2, 1), 1000)

    def library():
        for _ in range(1000):
            recorded(torch.zeros(1, 3, 32, 32))

    seconds = recorded.ask(library)
    assert len(recorded.seen) == FEWEST + 2
    assert seconds > recorded.times[-1] - recorded.times[0]


def test_every_question_is_one_that_its_method_understands():
    from benchmarks.peers import PEERS
    from benchmarks.questions import QUESTIONS

    from seglens.core.catalogue import METHODS

    names = [q.name for q in QUESTIONS]
    assert len(names) == len(set(names))
    for question in QUESTIONS:
        METHODS[question.method].from_values(question.parameters)
        assert set(question.contenders) <= {"ours", "loop", *PEERS}
        for name, (lender, _) in question.borrows.items():
            assert name in next(q for q in QUESTIONS if q.name == lender).contenders
