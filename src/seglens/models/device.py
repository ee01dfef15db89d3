"""Where models run, and why."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from seglens.core.errors import BadParameter


@dataclass(frozen=True)
class Device:
    """A device with a name for people and the reason it was chosen."""

    name: str
    label: str
    why: str


def choose_device(wanted: str = "auto") -> Device:
    """The device to use: ``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        BadParameter: a device that this machine does not have.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return Device("cuda", torch.cuda.get_device_name(0), "CUDA is available.")
        if torch.backends.mps.is_available():
            return Device("mps", "Apple GPU", "Metal is available.")
        return Device("cpu", "CPU", _why_no_gpu())
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
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def free_cache() -> None:
    """Hand unused GPU memory back."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
