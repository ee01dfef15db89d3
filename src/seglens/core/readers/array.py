"""NumPy files (.npy): numbers only, mapped from disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from seglens.core.readers import Pixels


def read(path: Path) -> Pixels:
    """An array whose axes the file does not tell."""
    return Pixels(np.load(path, mmap_mode="r", allow_pickle=False))
