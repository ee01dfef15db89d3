"""``python -m benchmarks``: measure, print, keep as JSON, write the table into the documentation."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.compare import ROOT, Plan, joined, run
from benchmarks.questions import QUICK_SIZES, SIZES
from benchmarks.scenes import NETWORKS
from benchmarks.table import markdown, write_docs

RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
QUICK = {"seconds": 1.0, "limit": 30.0, "forwards": 2, "again": 0.0, "repeats": 1}


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help="questions whose names match this expression, or profile")
    parser.add_argument("--contenders", default="", help="contenders whose names match this expression")
    parser.add_argument("--family", default="", help="perturbation or gradient; both if nothing is said")
    parser.add_argument("--networks", default="", help="networks whose names match this expression")
    parser.add_argument(
        "--sizes", nargs="+", metavar="N or DxHxW", help="such as 256 64x128x128; any, if --networks is given"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch, for every contender")
    parser.add_argument("--seconds", type=float, help="for each contender; what is left is scaled and marked ~")
    parser.add_argument("--limit", type=float, help="seconds after which ours is stopped and scaled")
    parser.add_argument("--quick", action="store_true", help="small sizes, few evaluations: to see that it works")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the JSON")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--add", action="store_true", help="keep what the JSON has of other questions and sizes")
    parser.add_argument("--from-json", action="store_true", help="measure nothing, use the JSON that is there")
    return parser.parse_args()


def plan(chosen: argparse.Namespace) -> Plan:
    """What the options ask for."""
    sizes = QUICK_SIZES if chosen.quick else SIZES
    if chosen.sizes:
        shapes = [tuple(int(n) for n in size.split("x")) for size in chosen.sizes]
        shapes = [s * 2 if len(s) == 1 else s for s in shapes]
        # a network that is not named is asked at its usual sizes only
        usual = {n: shapes if chosen.networks else SIZES[n] for n in NETWORKS}
        sizes = {n: tuple(s for s in shapes if len(s) == dims and s in usual[n]) for n, dims in NETWORKS.items()}
    more: dict[str, Any] = dict(QUICK) if chosen.quick else {}
    more |= {k: v for k in ("seconds", "limit") if (v := getattr(chosen, k)) is not None}
    return Plan(sizes, chosen.only, chosen.contenders, chosen.networks, chosen.family, chosen.threads, **more)


def say(line: str) -> None:
    """Tell how far it is."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main() -> None:
    """Measure and report."""
    chosen = options()
    if chosen.from_json:
        results = joined({}, json.loads(chosen.out.read_text(encoding="utf-8")))
    else:
        start = time.perf_counter()
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        old = json.loads(chosen.out.read_text(encoding="utf-8")) if chosen.add and chosen.out.exists() else {}

        def keep(results: dict[str, Any]) -> None:
            results["machine"]["minutes"] = round((time.perf_counter() - start) / 60, 1)
            text = json.dumps(joined(old, results), indent=1)
            chosen.out.write_text(text + "\n", encoding="utf-8")

        results = run(plan(chosen), say, keep)
        keep(results)
        results = joined(old, results)
    sys.stdout.write(markdown(results))
    if chosen.write_docs:
        write_docs(results, ROOT / "docs" / "performance.md")


if __name__ == "__main__":
    main()
