"""``python -m benchmarks.passes``: what methods of one pass take by themselves, once the question is resolved.

The table of :mod:`benchmarks` counts whole questions, with the pass on which the target is frozen, the record and what
is found out once. A peer is given its target as a number. Here ours is, too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from benchmarks.scenes import LAYER, MANY, Scene

REPEATS = 7


def median(work: Callable[[], object]) -> float:
    """Seconds."""
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def ordinary(scene: Scene) -> float:
    """Seconds of an ordinary forward."""
    with torch.inference_mode():
        scene.module(scene.x)
        return median(lambda: scene.module(scene.x))


def rows(side: int) -> Iterator[tuple[str, float]]:
    """Each method in ordinary forwards of its network, in the same process."""
    scene = Scene("basicunet", (side, side))
    unit = ordinary(scene)
    with asked(scene) as works:
        for name, work in works.items():
            work()
            yield name, median(work) / unit


@contextmanager
def asked(scene: Scene, target: str = "class") -> Iterator[dict[str, Callable[[], object]]]:
    """What each method does once the question is resolved, by its name."""
    from seglens.core.run import Run
    from seglens.engine import fast
    from seglens.engine.resolve import resolve
    from seglens.engine.rules import COMPOSITES, Backprop, Rescale, Trace, summed

    model = scene.model()
    with fast.at_rest(model):
        case = resolve(scene.image(), model, scene.target(target), Run())
        black = case.fill("black")
        yield {
            "gradient": case.gradient,
            "Grad-CAM": lambda: case.activations(LAYER),
            "guided backprop": lambda: Trace(case, Backprop("guided")).back(),
            "LRP": lambda: Trace(case, COMPOSITES["epsilon-plus"]).back(rows=True),
            "DeepLift": lambda: summed(case, Rescale(), black),
        }


def fifty(side: int) -> float:
    """The gradients of fifty objects, each on its own crop, in ordinary forwards."""
    from seglens.session import explain_each

    scene = Scene("basicunet", (side, side))
    unit, model = ordinary(scene), scene.model()
    targets = [scene.target(f"object {n}") for n in range(MANY)]
    start = time.perf_counter()
    for _ in explain_each("vanilla-gradient", scene.image(), model, targets):
        pass
    return (time.perf_counter() - start) / unit


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--fifty", action="store_true", help="also fifty objects")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as home:
        os.environ["SEGLENS_HOME"] = home
        for side in chosen.sizes:
            told = {name: f"{cost:.2f}" for name, cost in rows(side)}
            if chosen.fifty:
                told[f"gradients of {MANY} objects"] = f"{fifty(side):.1f}"
            sys.stdout.write(f"{side}²: " + ", ".join(f"{name} {cost}" for name, cost in told.items()) + "\n")


if __name__ == "__main__":
    main()
