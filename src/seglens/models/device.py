"""Where models run, and why."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from seglens.core.errors import BadParameter, OutOfMemory
from seglens.core.run import Run

ROOM = 2**30  # bytes of copies and their activations: more pays on a GPU alone
SHARE = 0.5  # of what is free on a GPU: other work goes on there

# The settings that every PyTorch has. Later ones have a finer one for each operation, which must agree with them.
_EXACT: dict[str, Any] = {"convolutions": False, "products": "highest"}

UNTRIED = "SegLens has not been tried on Apple's GPUs yet; the device mps is this one."

# in the words of CUDA, of the CPU, of cuBLAS and cuDNN, and of a convolution that found no room for its workspace
NO_ROOM = ("out of memory", "can't allocate memory", "_status_alloc_failed", "unable to find an engine to execute")


@dataclass(frozen=True)
class Device:
    """A device with a name for people and the reason it was chosen."""

    name: str
    label: str
    why: str


def choose_device(wanted: str = "auto") -> Device:
    """The device to use: ``auto`` (CUDA, then CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Apple's GPUs are for those who ask: nobody has yet seen what SegLens answers on one.

    Raises:
        BadParameter: a device that this machine does not have.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return Device("cuda", torch.cuda.get_device_name(0), "CUDA is available.")
        return Device("cpu", "CPU", UNTRIED if torch.backends.mps.is_available() else _why_no_gpu())
    kind = wanted.split(":")[0]
    if kind == "cpu":
        return Device("cpu", "CPU", "The CPU was asked for.")
    if kind == "cuda" and torch.cuda.is_available() and _index(wanted) < torch.cuda.device_count():
        return Device(wanted, torch.cuda.get_device_name(_index(wanted)), "This GPU was asked for.")
    if kind == "mps" and torch.backends.mps.is_available():
        return Device("mps", "Apple GPU", "This GPU was asked for.")
    raise BadParameter(f"The device {wanted!r} is not there: {_why_no_gpu()}", fix="Use --device auto or --device cpu.")


def _index(wanted: str) -> int:
    text = wanted.partition(":")[2]
    return int(text) if text.isdigit() else 0


def _why_no_gpu() -> str:
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA."
    return "no GPU answers to this PyTorch." if not torch.cuda.is_available() else "no GPU of that number."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in NO_ROOM)


def room(device: torch.device, run: Run) -> int:
    """Bytes that copies and their activations may take; the same all through a run."""
    return run.room(str(device), lambda: _free(device))


def _free(device: torch.device) -> int:
    if device.type != "cuda":
        return ROOM
    free, _ = torch.cuda.mem_get_info(device)
    # what this process keeps and does not use is free for it
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(1, int(SHARE * (free + kept)))


def finest(device: torch.device) -> torch.dtype:
    """The most exact numbers that a device has; Apple's GPUs have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def fine(t: torch.Tensor) -> torch.Tensor:
    """A tensor in the most exact numbers that its device has."""
    return t.to(finest(t.device))


def fine_sum(t: torch.Tensor, *axes: int) -> torch.Tensor:
    """The sum along axes, or of all, in the most exact numbers of the device."""
    return t.sum(axes or None, dtype=finest(t.device))


def wait(device: torch.device) -> None:
    """Until the device has nothing left to do, so that a clock tells how long it took."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def no_memory(device: torch.device) -> OutOfMemory:
    """The error when not even one image fits."""
    fix = "Choose a smaller region (View or ROI, or --crop)"
    if device.type != "cpu":
        fix += ", or run on the CPU with --device cpu"
    return OutOfMemory(f"One image of this size does not fit into the memory of {device}.", fix=f"{fix}.")


def free_cache() -> None:
    """Hand unused GPU memory back."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Counted:
    """A setting of the whole process that is made for the first who needs it, and put back after the last.

    Args:
        make: makes it, and returns what puts it back.
    """

    def __init__(self, make: Callable[[], Callable[[], None]]) -> None:
        """Nobody needs it yet."""
        self._make, self._lock, self._users = make, threading.Lock(), 0
        self._back: Callable[[], None] = lambda: None

    @contextmanager
    def held(self) -> Iterator[None]:
        """While this lasts the setting stays."""
        with self._lock:
            if self._users == 0:
                self._back = self._make()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self._users == 0:
                    self._back()


def exact() -> AbstractContextManager[None]:
    """Convolutions and products in all digits of float32 while this lasts.

    By default cuDNN rounds what it multiplies to ten bits (TF32): that is an error of a thousandth, and whether a
    short cut gives the same could not be told.
    """
    return _ROUNDED.held()


def direct() -> AbstractContextManager[None]:
    """Convolutions without cuDNN while this lasts: its transforms of whole images would carry a NaN anywhere."""
    return _DIRECT.held()


def _exactly() -> Callable[[], None]:
    before = _rounding()
    _set(dict.fromkeys(_owners(), "ieee") | {name: _EXACT[name] for name in _EXACT if name in before})
    return lambda: _set(before)


def _directly() -> Callable[[], None]:
    before = torch.backends.cudnn.enabled

    def back() -> None:
        torch.backends.cudnn.enabled = before

    torch.backends.cudnn.enabled = False
    return back


_ROUNDED, _DIRECT = Counted(_exactly), Counted(_directly)


def _owners() -> dict[str, Any]:
    """What holds the finer settings, by a name for each; empty before PyTorch 2.9."""
    b: Any = torch.backends
    if not hasattr(b.cudnn, "conv"):
        return {}
    return {"conv": b.cudnn.conv, "rnn": b.cudnn.rnn, "matmul": b.cuda.matmul, "cpu matmul": b.mkldnn.matmul}


def _rounding() -> dict[str, Any]:
    """All settings as they are; an old one is left out where the finer ones are set at odds with it."""
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch 2.9 warns of the old settings, which others still ask for
        try:
            found["convolutions"] = torch.backends.cudnn.allow_tf32
            found["products"] = torch.get_float32_matmul_precision()
        except RuntimeError:
            found = {}
    return found | {name: owner.fp32_precision for name, owner in _owners().items()}


def _set(values: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "convolutions" in values:
            torch.backends.cudnn.allow_tf32 = values["convolutions"]
        if "products" in values:
            torch.set_float32_matmul_precision(values["products"])
    # last, since the old ones change these, too
    for name, owner in _owners().items():
        owner.fp32_precision = values[name]
