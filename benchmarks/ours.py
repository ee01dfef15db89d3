"""SegLens, through its public calls alone."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import seglens.session
from benchmarks.contender import Asked, Go, Outcome, Skip
from benchmarks.scenes import MANY
from seglens.core.catalogue import METHODS
from seglens.core.errors import Cancelled
from seglens.core.explanation import Explanation
from seglens.core.run import Run

CHANNELS = {"seg-ablation-cam": "drop", "seg-score-cam": "score per pixel"}  # and the column to compare
PREPARING = "measuring"  # how the progress of what is done once for a model begins
CHECKED = 48  # copies of the small run that is compared with the engine's own plain loop


class Watch:
    """Progress that stops the work after a while, and can tell how long all of it would have taken."""

    def __init__(self, limit: float) -> None:
        """``limit`` in seconds."""
        self.run = Run(on_progress=self)
        self.limit, self.start = limit, time.perf_counter()
        self.text, self.first, self.last = "", 0.0, (0.0, 0, 1)

    def __call__(self, done: int, total: int, text: str) -> None:
        """Note the time; cancel when it is up."""
        now = time.perf_counter() - self.start
        if text != self.text or done == 0:
            # what came before is spent once
            self.text, self.first = text, now if done == 0 else self.last[0]
        self.last = (now, done, total)
        if now > self.limit and 0 < done < total and not text.startswith(PREPARING):
            # however slow, something is done of the work itself, which the whole can be told from
            self.run.cancel()

    def scaled(self) -> float:
        """Seconds that the whole would have taken."""
        now, done, total = self.last
        return self.first + (now - self.first) * total / done


def ours(asked: Asked, again: bool = False) -> Go:
    """One question, with ``explain``, or about fifty targets with ``explain_each``.

    Args:
        asked: the question.
        again: ask with another fill, as scores that are known already are not measured but remembered.

    Raises:
        Skip: the method is not there.
    """
    question, scene = asked.question, asked.scene
    if question.method not in METHODS:
        raise Skip(f"SegLens has no method {question.method} yet")
    METHODS[question.method]  # its module is imported now, not while the clock runs
    many = question.target == "many"
    model, image = scene.model(), scene.image()
    wanted = [scene.target(n) for n in ([f"object {i}" for i in range(MANY)] if many else [question.target])]
    parameters = dict(question.parameters)
    if again and "fill" in parameters:
        parameters["fill"] = "grey"
    if question.name == "kernel-shap":
        parameters["samples"] = asked.passes.get("ours", 500)

    def go() -> Outcome:
        watch = Watch(asked.limit)
        try:
            # answers come one by one; what is compared is kept of each, as fifty maps would be most of the memory
            answers = (
                seglens.session.explain_each(question.method, image, model, wanted, run=watch.run, **parameters)
                if many
                else [seglens.session.explain(question.method, image, model, wanted[0], run=watch.run, **parameters)]
            )
            found = [arrays(question.method, answer) for answer in answers]
        except Cancelled:
            _, done, total = watch.last
            return Outcome(done, total, details=spent(watch.run), seconds=watch.scaled())
        joined = {k: np.stack([one[k] for one in found], 1) for k in found[0] if k == "drops"}
        return Outcome(asked.total, asked.total, found[0] | joined, spent(watch.run, parameters))

    return go


def checked(asked: Asked) -> dict[str, float] | None:
    """Short cuts against the engine's own plain loop with the same draws: largest difference of the maps.

    For methods that draw at random, where no other program draws the same.
    """
    if not drawn(asked.question.method):
        return None
    scene = asked.scene
    parameters = {**asked.question.parameters, "samples": CHECKED}
    target = scene.target(asked.question.target)
    fast, plain = (
        seglens.session.explain(asked.question.method, scene.image(), scene.model(), target, run=run, **parameters)
        for run in (Run(seed=1), Run(seed=1, plain=True, batch=1))
    )
    a, b = np.asarray(fast.map.data, np.float64), np.asarray(plain.map.data, np.float64)
    return {"largest": float(np.abs(a - b).max()), "relative": float(np.abs(a - b).max() / np.abs(b).max())}


def arrays(method: str, answer: Explanation) -> dict[str, NDArray[Any]]:
    """What can be compared: drops of windows (n,) with their starts, or of some channels with their numbers."""
    if method == "occlusion":
        table = answer.tables[0].columns
        lines = [np.array(values) for name, values in table.items() if name.endswith("start")]
        return {"drops": np.array(table["drop"], float), "starts": np.stack(lines, 1)}
    if method in CHANNELS:
        table = answer.tables[0].columns
        return {"channels": np.array(table[CHANNELS[method]], float), "index": np.array(table["channel"], int)}
    return {} if drawn(method) else {"image": np.asarray(answer.map.data, np.float64)}


def drawn(method: str) -> bool:
    """Whether copies are drawn at random, so that no other program has the same."""
    return "samples" in {p.name for p in METHODS[method].parameters()}


def spent(run: Run, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the engine says it did."""
    told = {"forwards": run.cost.forwards, "plain": run.cost.plain, "images": round(run.cost.images, 2)}
    samples = {"samples": parameters["samples"]} if parameters and "samples" in parameters else {}
    return told | samples | {"engine": run.engine, "notes": run.notes}
