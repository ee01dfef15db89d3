"""Where the time of one perturbed copy goes: a straight loop beside SegLens, by kind of operation.

RISE is what is asked, as nothing of it can be cropped, packed or cached: what is left is the network itself.
"""

from __future__ import annotations

import resource
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from benchmarks.contender import Asked
from benchmarks.questions import question
from benchmarks.scenes import Scene

COPIES = 96  # more than it takes until layout and batch are tried out
KINDS = {
    "convolution": ("conv",),
    "normalisation": ("norm",),
    "activation": ("relu", "clamp", "sigmoid", "softmax"),
    "pooling, enlarging": ("pool", "upsample"),
    "joining, padding": ("cat", "pad"),
    "memory (empty, copy, fill)": ("empty", "copy", "clone", "fill", "zero", "resize", "contiguous", "::to"),
}
Profile = dict[str, Any]


def kind(operation: str) -> str:
    """The kind of an operation by its name."""
    return next((k for k, words in KINDS.items() if any(w in operation for w in words)), "other operations")


def faults() -> tuple[int, float]:
    """Page faults of this process so far, and the seconds that the system has worked for it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_minflt, used.ru_stime


def profiled(go: Callable[[], object], copies: int) -> Profile:
    """Milliseconds and page faults per copy, and the system's share; then, as watching costs, shares by kind apart."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.worker import clock, since

    before, start = faults(), clock()
    go()
    spent, after = since(start), faults()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        start = clock()
        go()
        watched = since(start)["wall"]
    shares: dict[str, float] = defaultdict(float)
    for event in seen.key_averages():
        shares[kind(event.key)] += event.self_cpu_time_total / 1e6 / watched
    shares["between operations"] = 1 - sum(shares.values())
    return {
        "milliseconds": 1000 * spent["wall"] / copies,
        "shares": dict(shares),
        "page faults": (after[0] - before[0]) / copies,
        "system share": (after[1] - before[1]) / spent["cpu"],
        "threads": torch.get_num_threads(),
    }


def straight(scene: Scene) -> Profile:
    """One masked copy after the other, in a process as it comes."""
    from benchmarks.loop import LOOPS

    go = LOOPS["rise"](Asked(scene, question("rise"), COPIES // 4, 0))
    go()
    return profiled(go, COPIES // 4)


def seglens(scene: Scene) -> Profile:
    """As anybody calls it, a second time: layout and batch are known."""
    from seglens.core.run import Run
    from seglens.session import explain

    def go(seed: int = 1) -> None:
        explain(
            "rise", scene.image(), scene.model(), scene.target("class"), run=Run(seed=seed), fill="black",
            samples=COPIES, stop=None,
        )  # fmt: skip

    go(0)
    seeds = iter(range(1, 100))
    return profiled(lambda: go(next(seeds)), COPIES)


def both(scene: Scene) -> dict[str, Profile]:
    """The loop first, as ours sets the allocator of its process."""
    return {"straight loop": straight(scene), "SegLens": seglens(scene)}


def table(found: dict[str, dict[str, Profile]]) -> str:
    """Markdown: a line per kind, a column per scene and contender; and what it is."""
    kinds = [*KINDS, "other operations", "between operations"]
    columns = {f"{who}, {scene}": told for scene, both_ in found.items() for who, told in both_.items()}
    lines = [("milliseconds per copy", *columns), ("---",) * (1 + len(columns))]
    for name in kinds:
        parts = [(p["shares"].get(name, 0.0), p["milliseconds"]) for p in columns.values()]
        lines.append((name, *(f"{share * whole:.1f} ({share:.0%})" for share, whole in parts)))
    lines.append(("all", *(f"{p['milliseconds']:.1f}" for p in columns.values())))
    lines.append(("page faults", *(f"{p['page faults']:,.0f}" for p in columns.values())))
    lines.append(("share of the system", *(f"{p['system share']:.0%}" for p in columns.values())))
    text = (
        "**Where the time goes.** One copy of the image in RISE, of which nothing can be cropped, packed or cached; "
        "shares by torch's profiler."
    )
    return text + "\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)
