"""All contenders of all questions, each in a fresh process, one after another; answers set side by side."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import multiprocessing
import os
import platform
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import worker
from benchmarks.loop import targets
from benchmarks.questions import QUESTIONS, Question, Sizes, scenes
from benchmarks.scenes import MANY, NETWORKS, Scene
from seglens.core.threads import wait_politely

ROOT = Path(__file__).resolve().parent.parent
Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Plan:
    """How much to do.

    Args:
        sizes: shapes by network.
        only, contenders: regular expressions for names of questions and of contenders.
        networks, family: regular expressions.
        threads: of every process.
        seconds: that a contender other than ours may take; what is left is scaled.
        limit: seconds after which ours is stopped and scaled too.
        forwards: ordinary forwards before each contender (fewer where they are large) and, up to 512², half as many
            after.
        again: seconds: what took ours less is asked a second time.
        repeats: for the accuracy of Kernel SHAP.
    """

    sizes: Sizes
    only: str = ""
    contenders: str = ""
    networks: str = ""
    family: str = ""
    threads: int = 1
    seconds: float = 2.0
    limit: float = 25.0
    forwards: int = 3
    again: float = 8.0
    repeats: int = 6


@dataclass
class Cell:
    """What one contender gave to one question."""

    question: Question
    contender: str
    told: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


def run(plan: Plan, say: Say, keep: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
    """Measure; plain data as it stands in ``results/peers.json``, handed to ``keep`` after every scene."""
    results: dict[str, Any] = {"machine": machine(plan), "accuracy": _accuracy(plan, say), "profiles": {}, "rows": []}
    for scene in scenes(plan.sizes):
        if re.search(plan.networks, scene.network):
            results["rows"] += _scene(scene, plan, results["accuracy"].get("passes", {}), say)
            results["profiles"] |= _profile(scene, plan, say)
            if keep is not None:
                keep(results)
    return results


def joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Results of two runs: the newer figure where there are two, in the usual order."""
    rows = {(row["question"], row["network"], *row["shape"]): row for row in (*old.get("rows", ()), *new["rows"])}
    order = {q.name: i for i, q in enumerate(QUESTIONS)}
    networks = list(NETWORKS)
    return {
        "machine": new["machine"],
        "accuracy": new["accuracy"] or old.get("accuracy", {}),
        "profiles": old.get("profiles", {}) | new.get("profiles", {}),
        "rows": sorted(
            ({"family": "perturbation"} | row for row in rows.values() if row["question"] in order),
            key=lambda row: (networks.index(row["network"]), prod(row["shape"]), order[row["question"]]),
        ),
    }


def machine(plan: Plan) -> dict[str, Any]:
    """What it ran on, without names."""
    versions = {p: importlib.metadata.version(p) for p in ("seglens", "torch", "numpy", "captum", "monai")}
    return {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": plan.threads,
        "python": platform.python_version(),
        **versions,
        "seconds per contender": plan.seconds,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def _accuracy(plan: Plan, say: Say) -> dict[str, Any]:
    wanted = re.search(plan.only, "kernel-shap") and re.search(plan.family, "perturbation")
    if not (wanted and plan.repeats):
        return {}
    told, _ = launch({"accuracy": True, "repeats": plan.repeats}, plan)
    say(f"accuracy of Kernel SHAP: {json.dumps(told)}")
    return told


def _profile(scene: Scene, plan: Plan, say: Say) -> dict[str, Any]:
    """Where the time of one evaluation goes."""
    wanted = re.search(plan.only, "profile") and re.search(plan.family, "perturbation")
    if not wanted or scene.network != "basicunet" or scene.size > 256**2:
        return {}
    told, _ = launch({"profile": True, "network": scene.network, "shape": scene.shape}, plan)
    say(f"{scene.name:24} profile            {told.get('failed', 'done')}")
    return {} if "failed" in told else {scene.name: told}


def _scene(scene: Scene, plan: Plan, passes: dict[str, int], say: Say) -> list[dict[str, Any]]:
    """The rows of one scene."""
    cells: list[Cell] = []
    for question, contender in _jobs(scene, plan):
        spec = {
            "question": question.name, "contender": contender, "network": scene.network, "shape": scene.shape,
            "seconds": plan.seconds, "limit": plan.limit, "again": plan.again, "forwards": _forwards(scene, plan),
            "passes": passes,
        }  # fmt: skip
        cell = Cell(question, contender, *launch(spec, plan))
        cells.append(cell)
        say(f"{scene.name:24} {question.name:18} {contender:28} {_short(cell.told)}")
    for cell, following in zip(cells, [*(c.told for c in cells[1:]), {}], strict=False):
        _in_forwards(cell.told, following)
    return [row(scene, q, cells) for q in QUESTIONS if any(c.question is q for c in cells)]


def _jobs(scene: Scene, plan: Plan) -> Iterator[tuple[Question, str]]:
    """Question and contender, in the order in which they run: the loops last, as they leave their process as it was."""
    asked = [q for q in QUESTIONS if q.asked_of(scene) and re.search(plan.only, q.name)]
    asked = [q for q in asked if re.search(plan.family, q.family)]
    jobs = [(q, c) for q in asked for c in q.contenders if re.search(plan.contenders, c)]
    yield from sorted(jobs, key=lambda job: job[1] == "loop")


def _forwards(scene: Scene, plan: Plan) -> int:
    if scene.size <= 512**2:
        return plan.forwards
    return min(2, plan.forwards) if scene.size <= 1024**2 else 1


def launch(spec: dict[str, Any], plan: Plan) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Start a process, wait for it, read what it says; ``failed`` holds its last words if it ended badly."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = _processes(plan).Process(target=worker.answer, args=({**spec, "threads": plan.threads}, name))
        process.start()
        process.join()
        if not (folder / "answer.json").exists():
            return {"before": [], "after": [], "failed": f"the process ended with code {process.exitcode}"}, {}
        told: dict[str, Any] = json.loads((folder / "answer.json").read_text())
        arrays = dict(np.load(folder / "answer.npz")) if (folder / "answer.npz").exists() else {}
        return told, arrays


@cache
def _processes(plan: Plan) -> Any:
    """Processes that start from one that has done nothing but import the libraries, as MONAI's import takes seconds."""
    wait_politely()
    os.environ |= {"OMP_NUM_THREADS": str(plan.threads), "MKL_NUM_THREADS": str(plan.threads)}
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    needed = {
        "captum.attr": re.search(plan.contenders, "captum"),
        "monai.networks.nets": re.search(plan.networks, "basicunet"),
        "monai.visualize": re.search(plan.contenders, "monai"),
    }
    context.set_forkserver_preload(["benchmarks.worker", *(name for name, wanted in needed.items() if wanted)])
    return context


def _in_forwards(told: dict[str, Any], following: dict[str, Any]) -> None:
    """Add ``unit``, the median ordinary forward before and after, and the cost in units of it.

    Ours may change the allocator of its process, so what stands after it is the forward before the next contender.
    """
    if "wall" not in told:
        return
    around = told["before"] + (told["after"] or following.get("before", []))
    told["unit"] = {key: median(f[key] for f in around) for key in ("wall", "cpu")}
    told["forwards"] = {key: told[key] / told["unit"][key] for key in ("wall", "cpu")}
    if "again" in told:
        told["again"]["forwards"] = told["again"]["wall"] / told["unit"]["wall"]


def row(scene: Scene, question: Question, cells: list[Cell]) -> dict[str, Any]:
    """One question on one scene: every contender's cost, the best peer, the differences."""
    own = {c.contender: c for c in cells if c.question is question}
    lent = {c.contender: c for c in cells if question.borrows.get(c.contender, ("",))[0] == c.question.name}
    told = {name: _kept(c.told) for name, c in own.items()}
    told |= {n: _borrowed(c.told, question.borrows[n][1]) for n, c in lent.items() if "wall" in c.told}
    ours = own.get("ours")
    # the loop that is lent has scored the targets of all questions about windows
    for name, cell in (own | {n: c for n, c in lent.items() if "drops" in c.arrays and n == "loop"}).items():
        found = difference(scene, question, ours, cell) if ours else None
        if found is not None:
            told[name]["difference"] = found
    peers = {n: t["forwards"]["wall"] for n, t in told.items() if n not in ("ours", "loop") and "forwards" in t}
    best = min(peers, key=peers.__getitem__, default=None)
    mine = told.get("ours", {}).get("forwards")
    return {
        "question": question.name, "title": question.title, "family": question.family, "network": scene.network,
        "shape": list(scene.shape), "evaluations": question.evaluations(scene), "contenders": told, "best_peer": best,
        "times": peers[best] / mine["wall"] if best and mine else None, "of_one_run": _of_one(question, cells, mine),
    }  # fmt: skip


def _of_one(question: Question, cells: list[Cell], mine: dict[str, float] | None) -> float | None:
    """What many targets cost ours in units of one whole class."""
    one = next((c.told for c in cells if c.question.name == "occlusion" and c.contender == "ours"), {})
    asked = question.target == "many" and mine and "forwards" in one
    return mine["wall"] / one["forwards"]["wall"] if asked and mine else None


def _kept(told: dict[str, Any]) -> dict[str, Any]:
    """Without the single forwards."""
    kept = {k: v for k, v in told.items() if k not in ("before", "after")}
    if "details" in kept:
        kept["details"] = {k: v for k, v in kept["details"].items() if k != "targets"}
    return _rounded(kept)


def _borrowed(told: dict[str, Any], factor: int) -> dict[str, Any]:
    costs = {key: factor * told[key] for key in ("wall", "cpu")}
    forwards = {key: factor * value for key, value in told["forwards"].items()}
    same = {key: told[key] for key in ("unit", "scaled", "memory_mib") if key in told}
    return _rounded({**costs, "forwards": forwards, **same, "borrowed": factor})


def difference(scene: Scene, question: Question, ours: Cell, other: Cell) -> dict[str, float] | None:
    """Largest difference of ours from another answer, absolute and as a share of the largest value; if comparable."""
    if other is ours or not ours.arrays or not other.arrays:
        return None
    if "image" in ours.arrays:
        return _apart(ours.arrays["image"], other.arrays["image"]) if "image" in other.arrays else None
    if "channels" in ours.arrays:
        known = ours.arrays["index"] < len(other.arrays["channels"])
        index = ours.arrays["index"][known]
        return _apart(ours.arrays["channels"][known], other.arrays["channels"][index]) if len(index) else None
    at = {tuple(s): i for i, s in enumerate(ours.arrays["starts"].tolist())}
    places = [tuple(s) for s in other.arrays["starts"].tolist()]
    mine = ours.arrays["drops"][[at[p] for p in places]]
    names = [f"object {i}" for i in range(MANY)] if question.target == "many" else [question.target]
    columns = targets(scene) if other.contender == "loop" else (question.target,)
    return _apart(mine, other.arrays["drops"][:, [columns.index(n) for n in names]])


def _apart(a: NDArray[Any], b: NDArray[Any]) -> dict[str, float]:
    largest, scale = float(np.abs(a - b).max()), float(np.abs(b).max())
    return {
        "largest": largest,
        "relative": largest / scale if scale else float(largest > 0),
        "compared": int(np.size(b)),
    }


def _rounded(data: dict[str, Any]) -> dict[str, Any]:
    """Four digits are more than the clock has."""
    out = {}
    for key, value in data.items():
        short = float(f"{value:.4g}") if isinstance(value, float) else value
        out[key] = _rounded(value) if isinstance(value, dict) else short
    return out


def _short(told: dict[str, Any]) -> str:
    if "wall" not in told:
        return str(told.get("skipped") or told.get("failed"))
    scaled = "~" if told["scaled"] else " "
    return f"{scaled}{told['wall']:9.2f} s, {told['memory_mib']:6.0f} MiB, {told['done']} of {told['total']}"
