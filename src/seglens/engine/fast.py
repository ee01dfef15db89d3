"""Plain evaluations at about half the price: memory that is kept, layout that convolutions like, batches that fit."""

from __future__ import annotations

import ctypes
import mmap
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seglens.core.run import Run
from seglens.models.blame import blaming
from seglens.models.device import room
from seglens.models.rest import forget
from seglens.models.segmentation import SegmentationModel, quiet

# Numbers of glibc's mallopt, and the values that it starts with or comes to by itself.
TRIM_THRESHOLD, MMAP_MAX = -1, -4
STATM = Path("/proc/self/statm")
KEPT = 64 * 2**20  # bytes that glibc keeps at most by itself: to ask for fewer again costs more than they are worth
USUAL = {TRIM_THRESHOLD: KEPT, MMAP_MAX: 65536}
CPU_PIXELS, CPU_LEAST = 2**20, 4  # pixels of a batch, and copies whatever their size; more only costs memory
SMALL = 1024  # bytes per pixel that a pass usually takes at most
SPARE = 0.125  # of the memory that is allowed: freed memory that is kept, as giving it back and forth costs time
SHARE = 0.6  # of the memory that is allowed, for the tensors of a batch
GPU_PIXELS = 2**22  # of a batch on CUDA, where small images wait for kernels to be started
MOST = {"cpu": 64, "cuda": 256, "mps": 64}

_lock = threading.Lock()
_users = 0
_aside = 0.0  # bytes of other kinds, when the first user came


class _Held(ctypes.Structure):
    """What glibc's mallinfo2 tells; of interest here is what is in use."""

    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "a", "b", "c", "mapped", "d", "e", "used", "free", "f")]


@cache
def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
    except OSError:
        return None


@contextmanager
def kept_memory(model: SegmentationModel) -> Iterator[None]:
    """Keep freed memory for the next layer of a model while this lasts; then give it back to the system.

    By default glibc returns every large tensor at once, and the next one costs a page fault per 4 KiB: a third of
    the time of a network on a CPU. The setting is the process's, so it lasts only as long as the work. Elsewhere
    than on Linux with glibc, and for models on a GPU, this does nothing.
    """
    global _users, _aside
    libc = _glibc()
    if libc is None or model.device.type != "cpu":
        yield
        return
    with _lock:
        _users += 1
        if _users == 1:
            _aside = _apart(libc)
            libc.mallopt(MMAP_MAX, 0)
            libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for number, value in USUAL.items():
                    libc.mallopt(number, value)
                # where nobody can tell what is kept, all of it goes
                give_back(KEPT if _aside else -inf)


@contextmanager
def at_rest(model: SegmentationModel) -> Iterator[None]:
    """A question about a network: it is left as it was, and memory that one pass frees is there for the next.

    Raises:
        ModelMismatch: the network itself failed.
    """
    with blaming(model), quiet(model.module), kept_memory(model):
        forget(model.module)
        yield


def give_back(most: float) -> None:
    """Return freed memory to the system where more than ``most`` bytes of it are kept: sizes change and leave gaps."""
    libc = None if most == inf else _glibc()
    if libc is not None and _apart(libc) - _aside > most:
        libc.malloc_trim(0)


def _apart(libc: Any) -> float:
    """Bytes that the process holds, and that are no part of what it asked the allocator for; 0 where nobody tells.

    What glibc counts as free is no measure: it goes on counting what it has given back. Before 2.33 it counts in 32
    bits, and there may be no ``/proc``.
    """
    if not hasattr(libc, "mallinfo2") or not STATM.exists():
        return 0.0
    libc.mallinfo2.restype = _Held
    _, resident, shared = (int(n) for n in STATM.read_text(encoding="ascii").split()[:3])
    return float((resident - shared) * mmap.PAGESIZE - libc.mallinfo2().used)


def spare(x: Tensor, run: Run) -> float:
    """Bytes of freed memory that a pass of an input (N, C, *space) may keep; looking takes time, so only large ones."""
    if x.device.type != "cpu":
        return inf
    allowed = room(x.device, run)
    return SPARE * allowed if x[:, 0].numel() * SMALL > allowed / 2 else inf


def blank(size: Sequence[int], stride: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor for its shape and layout alone, of zeros that nobody is to touch: on a CPU it takes no memory."""
    count = 1 + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if device.type != "cpu" or sys.platform == "win32" or 0 in size:  # Windows sets aside even what nobody touches
        return torch.empty_strided(size, stride, dtype=dtype, device=device)
    # pages of the system's that are never written do not exist; those of the heap would push others further up
    memory = mmap.mmap(-1, count * dtype.itemsize)
    return torch.frombuffer(memory, dtype=dtype).as_strided(size, stride)


def arranged(x: Tensor) -> Tensor:
    """The same values (N, C, *space) in the layout in which convolutions are fastest."""
    return x.contiguous(memory_format=layout(x.device, x.ndim))


def layout(device: torch.device, ndim: int) -> torch.memory_format:
    """The layout of tensors of so many axes in which convolutions are fastest on a device.

    A CPU likes channels that lie together. So do the kernels of a GPU for half precision; those for all digits of
    float32 are up to three times as slow then.
    """
    half = device.type == "cuda" and torch.is_autocast_enabled("cuda")
    if device.type != "cpu" and not half:
        return torch.contiguous_format
    return torch.channels_last if ndim == 4 else torch.channels_last_3d


def precision(model: SegmentationModel, run: Run) -> Any:
    """A context in which the network runs in the precision that was asked for."""
    if run.precision == "full":
        return nullcontext()
    return torch.autocast(model.device.type, {"bf16": torch.bfloat16, "fp16": torch.float16}[run.precision])


class Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A mode that sees every operation, and does not bring in the compiler: seconds of imports that nobody needs."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Peak(Watching):
    """Measures how many bytes the tensors made inside take at most at a time."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.bytes = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count what is new."""
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor):
                self._count(t)
        return out

    def _count(self, t: Tensor) -> None:
        storage = t.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.bytes = max(self.bytes, self.now)
        weakref.finalize(t, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        if key in self._seen:
            self._seen.discard(key)
            self.now -= size


def batch_size(model: SegmentationModel, pixels: int, peak: int, run: Run, taken: int = 0) -> int:
    """Copies per batch: as many as the memory takes, and no more than pays.

    Args:
        model: where it runs.
        pixels: of one copy.
        peak: bytes that one copy needs on its way through the network.
        run: a batch that was asked for, and the memory there is.
        taken: bytes of it that are taken already.
    """
    if run.batch is not None:
        return run.batch
    most = MOST.get(model.device.type, 64)
    if model.device.type == "cpu":
        most = min(most, max(CPU_LEAST, CPU_PIXELS // pixels))
    elif model.device.type == "cuda":
        most = min(most, max(1, GPU_PIXELS // pixels))
    # tensors are not all: convolutions work in memory of their own
    return max(1, min(most, int(SHARE * room(model.device, run) - taken) // max(1, peak)))
