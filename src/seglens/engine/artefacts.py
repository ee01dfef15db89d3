"""What methods have prepared: in memory, and in a folder of the person's own, so that nothing is trained twice.

A folder per key under ``artefacts/`` of :func:`seglens.core.places.home`: ``arrays.safetensors`` and ``data.json``,
which is written last; inside it ``checkpoint/``, the same, of a preparation that was interrupted. Nothing is pickled.
What has not been used for longest goes when all of them take more than :data:`MOST` bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from seglens import __version__
from seglens.core.errors import BadParameter
from seglens.core.method import Artefact, Method, Need
from seglens.core.places import home, write_whole
from seglens.core.run import Run
from seglens.engine.case import Case

ARRAYS, DATA, CHECKPOINT = "arrays.safetensors", "data.json", "checkpoint"
MOST = 4 * 2**30

_MEMORY: dict[str, Artefact] = {}


def prepared(method: Method, case: Case) -> Case:
    """The case with what its method needs prepared: remembered, read from its folder, or made now and kept there.

    Raises:
        Cancelled: the preparation was stopped; a method that kept a checkpoint goes on from it next time.
        TypeError: an artefact that holds other things than arrays of numbers and plain data (a fault of the author).
    """
    if Need.TRAINING not in method.needs:
        return case
    store = Store.of(method, case)
    made = _MEMORY.get(store.key) or store.load()
    if made is None:
        fresh = method.prepare(case)
        if fresh is None:
            return case
        made = store.save(fresh)
        store.forget_checkpoint()
        make_room(store.folder)
    else:
        case.run.note("What this method prepares was there from an earlier run.")
    _MEMORY[store.key] = made
    return replace(case, artefact=made)


def known(method: Method, case: Case) -> bool:
    """Whether what the method prepares is there already."""
    store = Store.of(method, case)
    return store.key in _MEMORY or (store.folder / DATA).exists()


def clear() -> None:
    """Forget what is in memory; folders stay."""
    _MEMORY.clear()


@dataclass(frozen=True, eq=False)
class Store:
    """Where one preparation lives.

    Args:
        key: tells it from others.
        run: told of what could not be read or written.
    """

    key: str
    run: Run

    @classmethod
    def of(cls, method: Method, case: Case) -> Store:
        """The store of a method's preparation for a case: its parameters, the model, the seed and what it looks at."""
        told: list[Any] = [__version__, method.name, sorted(method.values().items()), case.model.fingerprint()]
        told += [case.model.variant, case.run.seed, *method.looks_at(case)]
        return cls(hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32], case.run)

    @property
    def folder(self) -> Path:
        """Its folder, there or not."""
        return home() / "artefacts" / self.key

    def load(self) -> Artefact | None:
        """What is finished; ``None`` if nothing is."""
        return self._read(self.folder)

    def save(self, artefact: Artefact) -> Artefact:
        """Keep it, and hand back what reading it will give."""
        return self._write(self.folder, artefact)

    def checkpoint(self) -> Artefact | None:
        """What an interrupted preparation left; ``None`` if there is nothing."""
        return self._read(self.folder / CHECKPOINT)

    def save_checkpoint(self, artefact: Artefact) -> None:
        """Keep what there is, to go on from here."""
        self._write(self.folder / CHECKPOINT, artefact)

    def forget_checkpoint(self) -> None:
        """It is finished."""
        shutil.rmtree(self.folder / CHECKPOINT, ignore_errors=True)

    def _read(self, folder: Path) -> Artefact | None:
        if not (folder / DATA).exists():
            return None
        try:
            data = json.loads((folder / DATA).read_text(encoding="utf-8"))
            os.utime(folder)  # used now
            arrays = load_file(folder / ARRAYS)
            if data["arrays"] != _digest(folder / ARRAYS):
                raise ValueError("arrays and data do not belong together")
            return Artefact(arrays, data["data"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            self.run.note(f"What was prepared earlier cannot be read ({error}), so it is made again.")
            return None

    def _write(self, folder: Path, artefact: Artefact) -> Artefact:
        arrays = {name: np.asarray(array, order="C") for name, array in artefact.arrays.items()}
        strange = [name for name, array in arrays.items() if array.dtype.kind not in "biuf"]
        if strange:
            raise TypeError(f"An artefact holds arrays of numbers; {strange[0]} is {arrays[strange[0]].dtype}.")
        told = json.dumps(artefact.data, allow_nan=False)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            draft = folder / f".{ARRAYS}.{os.getpid()}"
            save_file(arrays, draft)
            digest = _digest(draft)
            draft.replace(folder / ARRAYS)
            write_whole(folder / DATA, f'{{"arrays": "{digest}", "data": {told}}}')
        except (OSError, BadParameter, SafetensorError) as error:
            self.run.note(f"What was prepared cannot be kept on disk ({error}); it lasts until the program ends.")
        return Artefact(arrays, json.loads(told))


def make_room(keep: Path) -> None:
    """Throw away what has not been used for longest, until all takes no more than :data:`MOST` bytes.

    Args:
        keep: a folder that stays; the others lie beside it.
    """
    found = {}
    for folder in keep.parent.iterdir() if keep.parent.exists() else ():
        try:
            sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
            found[folder] = (folder.stat().st_mtime, sum(sizes))
        except OSError:
            continue  # somebody else throws it away
    total = sum(size for _, size in found.values())
    for folder, (_, size) in sorted(found.items(), key=lambda one: one[1][0]):
        if total <= MOST:
            return
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
