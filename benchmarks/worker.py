"""One contender, one question, one process: the ordinary forward first, then the work, with time and memory.

Started by :mod:`benchmarks.compare`. Nothing that a contender does to its process (allocator, caches, threads) can
help or hurt another one.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from benchmarks.contender import Asked, Go, Outcome, Skip
from benchmarks.questions import question
from benchmarks.scenes import Scene

MIB = 2**20


def cpu() -> float:
    """Seconds of all cores that this process and its children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def clock() -> tuple[float, float]:
    """Wall and processor time."""
    return time.perf_counter(), cpu()


def since(start: tuple[float, float]) -> dict[str, float]:
    """Seconds since."""
    wall, used = clock()
    return {"wall": wall - start[0], "cpu": used - start[1]}


def forwards(scene: Scene, count: int) -> list[dict[str, float]]:
    """Ordinary forwards: one image, default layout, whatever the allocator is."""
    out = []
    with torch.inference_mode():
        for _ in range(count):
            start = clock()
            scene.module(scene.x)
            out.append(since(start))
    return out


def first_forward(scene: Scene) -> float:
    """Let the libraries wake up on a corner of the image, then see by how many MiB memory grows in one forward."""
    with torch.inference_mode():
        scene.module(scene.x[(slice(None), slice(None), *(slice(min(n, 32)) for n in scene.shape))])
    with Memory() as memory:
        _ = scene.logits
    return memory.grown


class Memory:
    """Growth of resident memory within a block, children included: sampled, and the system's own high-water mark."""

    def __enter__(self) -> Memory:
        """Start to watch."""
        self.process, self.done = psutil.Process(), threading.Event()
        self.mark = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.start = self.peak = self.process.memory_info().rss
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop."""
        self.done.set()
        self.thread.join()
        mark = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if mark > self.mark and sys.platform != "darwin":
            self.peak = max(self.peak, mark * 1024)

    @property
    def grown(self) -> float:
        """MiB."""
        return (self.peak - self.start) / MIB

    def _watch(self) -> None:
        children: list[psutil.Process] = []
        for tick in range(2**31):
            if tick % 100 == 0:
                children = self.process.children(recursive=True)
            self.peak = max(self.peak, self.process.memory_info().rss + sum(map(_resident, children)))
            if self.done.wait(0.01):
                return


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def contender(name: str, asked: Asked) -> Go:
    """Get a contender ready.

    Raises:
        Skip: it cannot answer.
    """
    if name == "ours":
        from benchmarks.ours import ours

        return ours(asked)
    if name == "loop":
        from benchmarks.loop import LOOPS

        return LOOPS[asked.question.method](asked)
    from benchmarks.peers import PEERS

    return PEERS[name](asked)


def measure(spec: dict[str, Any]) -> tuple[dict[str, Any], Outcome | None]:
    """Ask one contender.

    Args:
        spec: ``question``, ``contender``, ``network``, ``shape``, ``seconds`` (what to spend, where less than all can
            be measured), ``limit``, ``again``, ``forwards``, ``passes``; see :class:`benchmarks.compare.Plan`.

    Returns:
        Plain data: ``before`` and ``after`` (ordinary forwards), ``wall``, ``cpu``, ``again``, ``memory_mib`` and
        ``forward_mib`` (growth of resident memory during the work, and during one ordinary forward), ``done``,
        ``total``, ``details``; or ``skipped``. And the answer.
    """
    scene = Scene(spec["network"], tuple(spec["shape"]))
    one = first_forward(scene)
    before = forwards(scene, spec["forwards"])
    unit = float(np.median([f["wall"] for f in before]))
    asked = Asked(scene, question(spec["question"]), spec["seconds"] / unit, spec["limit"], spec["passes"])
    try:
        go = contender(spec["contender"], asked)
        with Memory() as memory:
            start = clock()
            outcome = go()
            spent = since(start)
    except Skip as reason:
        return {"before": before, "after": [], "skipped": str(reason)}, None
    told: dict[str, Any] = {"before": before, "after": [], **spent, "memory_mib": memory.grown, "forward_mib": one}
    mine = spec["contender"] == "ours"
    if mine and outcome.seconds is None and spent["wall"] < spec["again"]:
        from benchmarks.ours import ours

        go = ours(asked, again=True)
        start = clock()
        go()
        told["again"] = since(start)
    if outcome.seconds is not None:
        share = outcome.seconds / spent["wall"]
        told |= {"wall": outcome.seconds, "cpu": spent["cpu"] * share}
    elif outcome.done != outcome.total:
        told |= {key: value * outcome.total / outcome.done for key, value in spent.items()}
    told |= {"done": outcome.done, "total": outcome.total, "details": outcome.details}
    told["scaled"] = outcome.done != outcome.total
    if not mine and scene.size <= 512**2:
        # ours may have changed the allocator of its process; large ones have those before the next contender
        told["after"] = forwards(scene, max(1, spec["forwards"] // 2))
    elif mine and scene.size <= 256**2 and asked.question.target == "class" and len(asked.question.contenders) > 1:
        from benchmarks.ours import checked

        told["plain_difference"] = checked(asked)
    if outcome.exactly is not None:
        single, outcome.arrays = outcome.arrays, outcome.exactly()
        told["rounding"] = _off(single["image"], outcome.arrays["image"])
    return told, outcome


def _off(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Largest difference as a share of the largest value."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def answer(spec: dict[str, Any], folder: str) -> None:
    """Do what a process was started for; write ``answer.json`` and ``answer.npz`` into a folder.

    Args:
        spec: see :func:`measure`, and ``threads``; or ``accuracy`` with ``repeats``; or ``profile`` with
            ``network`` and ``shape``.
        folder: also the home of what is remembered between runs, which would make a second one look better.
    """
    os.environ |= {"SEGLENS_HOME": str(Path(folder) / "home"), "XDG_CACHE_HOME": str(Path(folder) / "cache")}
    warnings.simplefilter("ignore")
    torch.set_num_threads(spec["threads"])
    outcome = None
    try:
        if spec.get("accuracy"):
            from benchmarks.accuracy import accuracy

            told = accuracy(spec["repeats"])
        elif spec.get("profile"):
            from benchmarks.profile_pass import both

            told = both(Scene(spec["network"], tuple(spec["shape"])))
        else:
            told, outcome = measure(spec)
    except Exception as error:
        # one contender that fails is a line in the report, not the end of the run
        traceback.print_exc()
        told = {"before": [], "after": [], "failed": f"{type(error).__name__}: {error}"}
    if outcome is not None:
        np.savez(Path(folder) / "answer.npz", **outcome.arrays)
    (Path(folder) / "answer.json").write_text(json.dumps(told, default=str))
