"""Peak memory of segmenting a 20,000 × 20,000 lazy zarr tile by tile, results on disk.

    python benchmarks/memory_20k.py [--side 20000] [--model nuclei-fluorescence] [--tile 1024]

Prints JSON: peak resident memory before and after, seconds, and seconds per forward pass of one tile.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import zarr

import seglens


def peak() -> float:
    """Peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def slide(path: Path, side: int) -> zarr.Array:
    """A zarr of nuclei-like spots, written chunk by chunk."""
    tile = seglens.open_image("sample:nuclei-2d").read("YX")
    array = zarr.create_array(path, shape=(side, side), chunks=(1024, 1024), dtype=np.uint8)
    fitted = np.tile(tile, (-(-1024 // tile.shape[0]), -(-1024 // tile.shape[1])))[:1024, :1024]
    for y in range(0, side, 1024):
        for x in range(0, side, 1024):
            array[y : y + 1024, x : x + 1024] = fitted[: min(1024, side - y), : min(1024, side - x)]
    return array


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000)
    parser.add_argument("--model", default="nuclei-fluorescence")
    parser.add_argument("--tile", type=int, default=1024)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        image = seglens.Image(slide(folder / "slide.zarr", options.side), "YX", name="slide")
        model = seglens.load_model(options.model)
        small = image.crop(Y=slice(0, options.tile), X=slice(0, options.tile))
        seglens.segment(small, model, tile=options.tile)
        start = time.perf_counter()
        seglens.segment(small, model, tile=options.tile)
        one = time.perf_counter() - start
        before = peak()

        def progress(done: int, total: int, text: str) -> None:
            if done % 25 == 0:
                sys.stderr.write(f"\r{done}/{total} {text}, peak {peak():.0f} MiB ")

        start = time.perf_counter()
        result = seglens.segment(image, model, run=seglens.Run(on_progress=progress), tile=options.tile, out=folder)
        seconds = time.perf_counter() - start
        report = {
            "side": options.side,
            "tile": options.tile,
            "array_mib": options.side**2 * (1 + 4) / 2**20,
            "peak_mib_one_tile": round(before),
            "peak_mib_whole": round(peak()),
            "seconds": round(seconds, 1),
            "seconds_one_tile": round(one, 2),
            "foreground": float(np.mean(np.asarray(result.labels[:2048, :2048]) > 0)),
        }
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
