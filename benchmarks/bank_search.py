"""How long one search in a large feature bank takes: first, again, with a group left out, and from disk.

    python benchmarks/bank_search.py [--rows 1000000] [--dims 64] [--groups 40] [--repeat 15] [--out FILE.json]

Makes a bank of random half-precision embeddings in a temporary folder, and prints JSON: milliseconds of one query for
ten neighbours (the median, the smallest, and the processor's time, which others on the machine move less), and peak
resident memory. *First* means that the bank was just opened, its files are not in the system's cache where that can be
asked for, and everything is read.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seglens.engine.features import BankInfo, Entry, FeatureBank
from seglens.engine.features.index import installed

K = 10


def make(folder: Path, rows: int, dims: int, groups: int) -> None:
    """A bank of clusters, so that neighbours are not all alike."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.standard_normal((200, dims))
    bank = FeatureBank.create(folder, BankInfo("layer", "object", "YX", dims, ("background", "cell")))
    for start in range(0, rows, 20_000):
        count = min(20_000, rows - start)
        vectors = centres[rng.integers(0, len(centres), count)] + rng.standard_normal((count, dims))
        group = f"slide {start // 20_000 % groups}"
        image = f"image {start}"
        one = Entry(
            image, image, f"{image}.tif", {}, "object", (1, 1), ((0, 9), (0, 9)), 40, "cell", "cell", 0.8, group
        )
        bank.append(vectors, [one] * count)
    bank.close()


def forget(folder: Path) -> bool:
    """Ask the system to forget the files; whether it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for file in folder.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
    return True


def timed(ask: Callable[[], Any], repeat: int) -> str:
    """Milliseconds: the median, the smallest, and what the processor had to do with it."""
    taken, busy = [], time.process_time()
    for _ in range(repeat):
        start = time.perf_counter()
        ask()
        taken.append(1e3 * (time.perf_counter() - start))
    busy = 1e3 * (time.process_time() - busy) / repeat
    return f"{statistics.median(taken):.1f} (smallest {min(taken):.1f}, processor {busy:.1f})"


def peak() -> float:
    """Peak resident memory of this process in MiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def measure(folder: Path, repeat: int) -> dict[str, Any]:
    """All figures of one bank."""
    told: dict[str, Any] = {"peak MiB before": peak()}
    bank = FeatureBank.open(folder)
    bank.memory = 0
    query = bank.vectors([len(bank) // 2])
    told["cold files"] = forget(folder)
    told["from disk, first"] = timed(lambda: bank.nearest(query, K), 1)
    told["from disk, again"] = timed(lambda: bank.nearest(query, K), max(3, repeat // 3))
    told["peak MiB from disk"] = peak()
    forget(folder)
    start = time.perf_counter()
    bank.close()
    bank = FeatureBank.open(folder)
    bank.nearest(query, K)
    told["in memory, first"] = f"{1e3 * (time.perf_counter() - start):.1f}"
    for metric in ("cosine", "euclidean"):
        for by in ("numpy", "sklearn", *(["faiss"] if installed("faiss") else [])):
            ask = partial(bank.nearest, query, K, metric=metric, by=by)
            ask()
            told[f"in memory, {metric}, {by}"] = timed(ask, repeat)
    told["in memory, a group left out"] = timed(lambda: bank.nearest(query, K, exclude_groups=["slide 3"]), repeat)
    many = bank.vectors(np.arange(0, len(bank), len(bank) // 100)[:100])
    told["in memory, 100 queries"] = timed(lambda: bank.nearest(many, K), 3)
    told["peak MiB in memory"] = peak()
    bank.close()
    return told


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=64)
    parser.add_argument("--groups", type=int, default=40)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    parent = Path(tempfile.mkdtemp())
    try:
        start = time.perf_counter()
        make(parent / "large.bank", options.rows, options.dims, options.groups)
        told = {
            "rows": options.rows, "dims": options.dims, "cpus": os.cpu_count(), "machine": platform.machine(),
            "threads": os.environ.get("OMP_NUM_THREADS", ""), "seconds to write": round(time.perf_counter() - start, 1),
            **measure(parent / "large.bank", options.repeat),
        }  # fmt: skip
    finally:
        shutil.rmtree(parent)
    text = json.dumps(told, indent=1)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    os.write(1, (text + "\n").encode())


if __name__ == "__main__":
    main()
