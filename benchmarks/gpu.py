"""``python -m benchmarks.gpu``: ours beside Captum on a GPU, in ordinary forwards of the same network, within a time.

An ordinary forward is of one image, in the default layout, without gradients. PyTorch lets convolutions round to TF32
by default, and ours does not: so there are two kinds of forward, and Captum is asked both ways. Every time is taken
when the GPU is done. Where time is short a part is measured and scaled, and marked with ``~``. The last two columns
are Captum's time without TF32 by ours: of the whole question asked again, and of the method by itself. More than 1 is
faster. What a question takes the first time counts what is found out about a network once, and not what CUDA takes to
start.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import gradients, passes
from benchmarks.contender import Asked, Go, Outcome, Skip
from benchmarks.ours import ours
from benchmarks.peers import PEERS, captum_occlusion
from benchmarks.questions import Question, question
from benchmarks.scenes import MANY, Scene
from seglens.engine import appetite, cache, evaluator, folding, reach
from seglens.models.device import exact, free_cache, is_out_of_memory

REPEATS = 5
MIB = 2**20
AT_ONCE = 16  # windows of Captum's occlusion
# the cheap ones first: what time they leave is for the others
NAMES = (
    "gradient", "grad-cam", "guided-backprop", "lrp", "deep-lift", "integrated-gradients", "smooth-grad",
    "gradient-shap", "occlusion",
)  # fmt: skip
CROPPED = 1024**2  # pixels from which a painted region is asked about, too: much less of the image matters to it
PARTS = 8  # contenders' times of a row: ours thrice, Captum's two or four
QUICK = ("gradient", "smooth-grad", "occlusion")
ALONE = {"gradient": "gradient", "grad-cam": "Grad-CAM", "guided-backprop": "guided backprop", "lrp": "LRP",
         "deep-lift": "DeepLift"}  # fmt: skip
FIFTY = Question("fifty", f"gradients of {MANY} objects", "vanilla-gradient", {"show": "signed"}, "many")
SHARE = 0.5  # of the GPU's memory that a peer may take
HEAD = ("question", "size", "ours: first", "again", "by itself", "MiB", "Captum, TF32", "TF32 off", "MiB",
        "× as fast: again", "by itself")  # fmt: skip


@dataclass
class Clock:
    """Time by the device's own end of work.

    Args:
        device: its name.
        seconds: for each contender.
        limit: of everything.
    """

    device: str
    seconds: float
    limit: float
    start: float = field(default_factory=time.perf_counter)

    @property
    def cuda(self) -> bool:
        """Whether it is a GPU."""
        return self.device.startswith("cuda")

    @property
    def left(self) -> float:
        """Seconds."""
        return self.limit - (time.perf_counter() - self.start)

    def once(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds of a piece of work, and what it answers."""
        self.wait()
        start = time.perf_counter()
        answer = work()
        self.wait()
        return time.perf_counter() - start, answer

    def median(self, work: Callable[[], object], repeats: int = REPEATS) -> float:
        """Seconds; fewer times where it takes long."""
        taken: list[float] = [self.once(work)[0]]
        if taken[0] < self.seconds / 2:
            taken = []
        while len(taken) < repeats and sum(taken) < self.seconds:
            taken.append(self.once(work)[0])
        return statistics.median(taken)

    def wait(self) -> None:
        """Until the device has nothing left to do."""
        if self.cuda:
            torch.cuda.synchronize()


@contextmanager
def grown(clock: Clock, told: dict[str, Any]) -> Iterator[None]:
    """Notes the MiB that work takes at most beyond what was there."""
    if not clock.cuda:
        yield
        return
    free_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    try:
        yield
    finally:
        told["mib"] = round((torch.cuda.max_memory_allocated() - before) / MIB, 1)


def forwards(scene: Scene, clock: Clock) -> dict[str, float]:
    """Seconds of an ordinary forward, as PyTorch has it and without TF32."""

    @torch.inference_mode()
    def work() -> object:
        return scene.module(scene.x)

    warm(scene, clock)
    found = {"usual": clock.median(work, 5 * REPEATS)}
    with exact():
        found["exact"] = clock.median(work, 5 * REPEATS) if clock.cuda else found["usual"]
    return found


def warm(scene: Scene, clock: Clock) -> None:
    """Ordinary passes, back and forth, until libraries and clocks have settled."""
    for _, under in kinds(clock):
        stop = time.perf_counter() + clock.seconds
        with under:
            for _ in range(REPEATS):
                x = scene.x.clone().requires_grad_()
                torch.autograd.grad(scene.module(x).sum(), x)
                clock.wait()
                if time.perf_counter() > stop:
                    break


def kinds(clock: Clock) -> list[tuple[str, AbstractContextManager[None]]]:
    """Both ways of multiplying; on a CPU they are one."""
    return [("usual", nullcontext()), *([("exact", exact())] if clock.cuda else [])]


def forget() -> None:
    """As if nobody had asked before."""
    os.environ["SEGLENS_HOME"] = tempfile.mkdtemp(dir=os.environ["SEGLENS_BENCHMARK"])
    for known in (reach._KNOWN, folding._found, appetite._BYTES, evaluator._SECONDS):
        known.clear()
    cache.clear()


def scaled(seconds: float, outcome: Outcome) -> dict[str, Any]:
    """What all of the work takes."""
    if outcome.seconds is not None:
        return {"seconds": outcome.seconds, "part": True}
    return {"seconds": seconds * outcome.total / outcome.done, "part": outcome.done != outcome.total}


def mine(asked: Asked, clock: Clock) -> dict[str, Any]:
    """The whole public question, asked first and asked again."""
    forget()
    told: dict[str, Any] = {}
    with grown(clock, told):
        seconds, outcome = clock.once(ours(asked))
    told["first"] = scaled(seconds, outcome)
    told["notes"] = outcome.details.get("notes", [])
    taken: list[dict[str, Any]] = []
    while not taken or (len(taken) < REPEATS and sum(t["spent"] for t in taken) < clock.seconds):
        cache.clear()  # scores are remembered, and would not be measured
        spent, outcome = clock.once(ours(asked))
        taken.append(scaled(spent, outcome) | {"spent": spent})
    told["again"] = sorted(taken, key=lambda t: t["seconds"])[len(taken) // 2]
    return told


def peer(make: Callable[[Asked], Go], asked: Asked, clock: Clock) -> dict[str, Any]:
    """One of Captum's; the first call is not counted unless it takes long."""
    told: dict[str, Any] = {}
    # on a network of its own: what refuses one leaves its rules in it
    scene = replace(asked.scene)
    vars(scene).update({**vars(asked.scene), "module": copy.deepcopy(asked.scene.module)})
    asked = replace(asked, scene=scene)
    go = make(asked)
    with grown(clock, told):
        seconds, outcome = clock.once(go)
    taken = [] if seconds < clock.seconds / 2 else [scaled(seconds, outcome)]
    stop = time.perf_counter() + clock.seconds / 2
    while not taken or (len(taken) < REPEATS and time.perf_counter() < stop):
        taken.append(scaled(*clock.once(make(asked))))
    return told | sorted(taken, key=lambda t: t["seconds"])[len(taken) // 2]


def peers(name: str) -> dict[str, Callable[[Asked], Go]]:
    """Captum's contenders for a question."""
    if name == "occlusion":
        return {"one at a time": captum_occlusion, f"{AT_ONCE} at once": lambda asked: captum_occlusion(asked, AT_ONCE)}
    found = [c for c in question(name).contenders if c.startswith("captum")]
    return {"few at once" if c.endswith("few at once") else "": PEERS[c] for c in found}


def safely(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was measured, or why nothing was."""
    try:
        return work()
    except Skip as reason:
        return {"not": str(reason)}
    except Exception as error:  # whatever happens to one, the others are asked
        return {"not": "out of memory" if is_out_of_memory(error) else f"{type(error).__name__}: {error}"[:200]}
    finally:
        free_cache()


class Size:
    """All questions about one image.

    Args:
        scene: the network and the image.
        clock: times.
        until: seconds that may be left when the last question is asked.
    """

    def __init__(self, scene: Scene, clock: Clock, until: float) -> None:
        """Measure the ordinary forward."""
        self.scene, self.clock, self.until, self.most = scene, clock, until, clock.seconds
        self.unit = forwards(scene, clock)
        self.whole: dict[str, dict[str, Any]] = {}

    def rows(self, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        """One question after the other, the whole class and the painted region; then the objects.

        Each may take as long as all that are left may take on average, so that the last ones have their turn.
        """
        targets = ("class", "painted") if self.scene.size >= CROPPED else ("class",)
        asked = [(name, target) for name in names for target in targets] + [(FIFTY.name, "objects")]
        for number, (name, target) in enumerate(asked):
            share = (self.clock.left - self.until) / (len(asked) - number)
            if share > 0:
                self.clock.seconds = min(self.most, share / PARTS)
                fifty = name == FIFTY.name
                yield self.fifty() if fifty else self.row(name, replace(question(name), target=target))
        self.clock.seconds = self.most

    def row(self, name: str, one: Question) -> dict[str, Any]:
        """Ours, by itself, and Captum, whose passes are the same whatever the region."""
        asked = Asked(self.scene, one, self.clock.seconds / self.unit["usual"], 2 * self.clock.seconds)
        told = self.told(name, one.target) | {"ours": safely(lambda: mine(asked, self.clock))}
        if name in ALONE:
            told["alone"] = safely(lambda: self.alone(ALONE[name], one.target))
        if one.target != "class":
            told["captum"] = self.whole.get(name, {})
            return told
        for which, make in peers(name).items():
            for kind, under in kinds(self.clock):
                with under:
                    told["captum"].setdefault(kind, {})[which] = safely(lambda make=make: peer(make, asked, self.clock))
        self.whole[name] = told["captum"]
        return told

    def fifty(self) -> dict[str, Any]:
        """Ours at once; Captum fifty times."""
        asked = Asked(self.scene, FIFTY, 1, 2 * self.clock.seconds)
        told = self.told(FIFTY.name, "objects") | {"ours": safely(lambda: mine(asked, self.clock))}
        for kind, found in self.whole.get("gradient", {}).items():
            one = found.get("", {})
            if "seconds" in one:
                told["captum"][kind] = {"": one | {"seconds": MANY * one["seconds"], "part": True}}
        return told

    def alone(self, which: str, target: str) -> dict[str, Any]:
        """What the method takes once the question is resolved."""
        with passes.asked(self.scene, target) as works:
            return {"seconds": self.clock.median(works[which]), "part": False}

    def told(self, name: str, target: str) -> dict[str, Any]:
        """The start of a row."""
        return {"question": name, "target": target, "side": self.scene.shape[0], "unit": self.unit, "captum": {}}


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    unit, own, captum = row["unit"], row["ours"], row["captum"]
    again = own.get("again", {})
    usual, off = (best(captum.get(kind, {})) for kind in ("usual", "exact"))
    compared = off if "seconds" in off else usual
    cells = (
        f"{row['question']}, {row['target']}",
        f"{row['side']}²",
        cost(own.get("first", own), unit["exact"]),
        cost(again, unit["exact"]),
        cost(row.get("alone", {}), unit["exact"]),
        str(own.get("mib", "-")),
        cost(usual, unit["usual"]),
        cost(off, unit["exact"]),
        str(compared.get("mib", "-")),
        times(compared, again),
        times(compared, row.get("alone", {})),
    )
    return "| " + " | ".join(cells) + " |"


def times(captum: dict[str, Any], ours: dict[str, Any]) -> str:
    """How many times as fast ours is."""
    return f"{captum['seconds'] / ours['seconds']:.2g}×" if "seconds" in captum and "seconds" in ours else "-"


def best(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The quickest of Captum's ways; why there is none, if there is none."""
    measured = [one for one in found.values() if "seconds" in one]
    return min(measured, key=lambda one: one["seconds"]) if measured else next(iter(found.values()), {})


def cost(told: dict[str, Any], unit: float) -> str:
    """Forwards and milliseconds."""
    if "seconds" not in told:
        return told.get("not", "-").replace("|", "/")
    return f"{'~' if told['part'] else ''}{told['seconds'] / unit:.3g} ({1e3 * told['seconds']:.3g} ms)"


def machine(device: str) -> dict[str, Any]:
    """What it ran on."""
    cuda = device.startswith("cuda")
    return {
        "device": torch.cuda.get_device_name(device) if cuda else "CPU",
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "tf32 by default": {"convolutions": torch.backends.cudnn.allow_tf32,
                            "products": torch.backends.cuda.matmul.allow_tf32},
    }  # fmt: skip


def run(chosen: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """All sizes, each within its part of the time that is left."""
    clock = Clock(chosen.device, chosen.seconds, chosen.limit)
    if clock.cuda:
        gradients.MOST = int(SHARE * torch.cuda.get_device_properties(chosen.device).total_memory)
    results: dict[str, Any] = {"machine": machine(chosen.device), "network": chosen.network, "rows": []}
    say(", ".join(f"{k} {v}" for k, v in results["machine"].items()) + "\n")
    say("| " + " | ".join(HEAD) + " |\n" + "|" + " --- |" * len(HEAD))
    module = Scene(chosen.network, (64, 64), chosen.device).module
    for number, side in enumerate(chosen.sizes):
        until = clock.left * (1 - 1 / (len(chosen.sizes) - number))
        scene = Scene(chosen.network, (side, side), chosen.device)
        vars(scene)["module"] = module  # one for all
        size = Size(scene, clock, until)
        told = {kind: f"{1e3 * seconds:.3g} ms" for kind, seconds in size.unit.items()}
        say(f"| one forward: TF32 {told['usual']}, off {told['exact']} | {side}² |" + " |" * (len(HEAD) - 2))
        for row in size.rows(QUICK if chosen.quick else NAMES):
            results["rows"].append(row)
            say(line(row))
            if chosen.out:
                chosen.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    say(f"\n{clock.limit - clock.left:.0f} s in all.")
    return results


def main() -> None:
    """Print the table as it comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--network", default="basicunet", help="of benchmarks.scenes, in 2-D")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512, 1024, 2048])
    parser.add_argument("--seconds", type=float, default=0.5, help="for each contender, after which it is scaled")
    parser.add_argument("--limit", type=float, default=150.0, help="seconds of everything; no new question after it")
    parser.add_argument("--quick", action="store_true", help="three questions")
    parser.add_argument("--out", type=Path, help="a file for the JSON")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    with ExitStack() as stack:
        os.environ["SEGLENS_BENCHMARK"] = stack.enter_context(tempfile.TemporaryDirectory())
        run(chosen, lambda text: print(text, flush=True, file=sys.stdout))  # noqa: T201


if __name__ == "__main__":
    main()
