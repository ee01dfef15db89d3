"""A GPU that is not there: tensors on it are marked, and where they meet others it is an error, as on a GPU.

A marked tensor lies in ordinary memory, and says that it is on ``cuda:0``, or on ``mps:0``, which has no float64. What
is made of marked tensors is marked; what is copied to the CPU is not. So whatever forgets a device, or what that device
lacks, is found out on any machine. How fast or how exact a GPU is cannot be seen here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from seglens.engine.fast import Watching

HERE = torch.device("cpu")
TWICE = (torch.float64, torch.complex128)
Plain = torch._C.TensorBase
aten = torch.ops.aten
# these make a tensor in a way that no operation tells of
COPIED = {Tensor.__deepcopy__, Tensor.new_tensor}
# these may read from, or write to, another device
ACROSS = {aten.copy_.default, aten.fill_.Tensor}
# indices may lie on the CPU whatever is indexed
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}


class _Place:
    """The GPU that is pretended."""

    device = torch.device("cuda", 0)


def is_away(t: Tensor) -> bool:
    """Whether a tensor is marked."""
    return getattr(Plain.untyped_storage(t), "away", False)


def mark(out: Any, away: bool = True) -> Any:
    """Mark tensors, or take the mark away; returns them."""
    for t in _tensors(out):
        Plain.untyped_storage(t).away = away
    return out


@contextmanager
def elsewhere(kind: str = "cuda") -> Iterator[torch.device]:
    """Pretend that there is a GPU, ``cuda`` or ``mps``; a model is moved there with ``to``."""
    said = {"device": property(_device), "is_cpu": property(lambda t: not is_away(t)), f"is_{kind}": property(is_away)}
    done = {"to": _to, "cpu": _cpu, "numpy": _numpy, "__array__": _array, "clone": _clone}
    kernels = _Kernels()
    with ExitStack() as stack:
        for name, value in (said | done).items():
            stack.enter_context(mock.patch.object(Tensor, name, value))
        stack.enter_context(mock.patch.object(_Place, "device", torch.device(kind, 0)))
        stack.enter_context(mock.patch("torch.cuda.mem_get_info", return_value=(2**31, 2**32)))
        for name in ("_lazy_init", "synchronize"):
            stack.enter_context(mock.patch(f"torch.cuda.{name}"))
        stack.enter_context(kernels)
        stack.enter_context(_Calls(kernels))
        yield _Place.device


class _Kernels(Watching):
    """Sees every operation that is computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[bool] = []  # of the calls from Python, whether they got anything marked

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = _tensors((args, kwargs))
        device, kwargs = _here(kwargs or {})
        if device is not None and device.type == _Place.device.type:
            away = True
        elif given:
            away = _meet(func, args, given)
        else:
            # made in C++ for its own use, which always names the CPU, or by a call from Python that says no device
            away = bool(self.calls) and self.calls[-1]
        if away and any(isinstance(a, torch.Generator) for a in tree_leaves((args, kwargs))):
            raise RuntimeError(
                f"Expected a '{_Place.device.type}' device type for generator but found 'cpu', in {func}"
            )
        out = func(*args, **kwargs)
        if away and _Place.device.type == "mps" and any(t.dtype in TWICE for t in _tensors(out)):
            raise TypeError(f"Cannot convert a MPS Tensor to float64 dtype as MPS has none: {func}")
        if away:
            held = {id(t) for t in given}
            mark([t for t in _tensors(out) if id(t) not in held])
        return out


class _Calls(TorchFunctionMode):
    """Sees every call of torch from Python: what asks for a device."""

    def __init__(self, kernels: _Kernels) -> None:
        super().__init__()
        self._kernels = kernels

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        device, kwargs = _here(kwargs or {})
        away = (
            any(is_away(t) for t in _tensors((args, kwargs))) if device is None else device.type == _Place.device.type
        )
        if away and device is not None and kwargs.get("generator") is not None:
            raise RuntimeError(f"Expected a '{_Place.device.type}' device type for generator but found 'cpu'")
        self._kernels.calls.append(away)
        try:
            out = func(*args, **kwargs)
        finally:
            self._kernels.calls.pop()
        return mark(out, away) if device is not None or func in COPIED else out


def _device(t: Tensor) -> torch.device:
    return _Place.device if is_away(t) else HERE


def _cpu(t: Tensor, *_: Any, **__: Any) -> Tensor:
    return _moved(t, HERE)


def _numpy(t: Tensor, **kwargs: Any) -> Any:
    if is_away(t):
        raise TypeError(f"can't convert {_Place.device} device type tensor to numpy. Use Tensor.cpu() first.")
    return Plain.numpy(t, **kwargs)


def _array(t: Tensor, dtype: Any = None, **_: Any) -> Any:
    found = _numpy(t)
    return found if dtype is None else found.astype(dtype, copy=False)


def _clone(t: Tensor, **kwargs: Any) -> Tensor:
    return mark(Plain.clone(t, **kwargs), is_away(t))


def _to(t: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``Tensor.to`` in all its forms."""
    given = [*args, *kwargs.values()]
    other = next((g for g in given if isinstance(g, Tensor)), None)
    where = next((torch.device(g) for g in given if isinstance(g, str | torch.device)), None)
    dtype = next((g for g in given if isinstance(g, torch.dtype)), None)
    if other is not None:
        where, dtype = _device(other), other.dtype
    out = t if where is None else _moved(t, where)
    layout = kwargs.get("memory_format", torch.preserve_format)
    return Plain.to(out, dtype=dtype or t.dtype, copy=bool(kwargs.get("copy", False)), memory_format=layout)


def _moved(t: Tensor, device: torch.device) -> Tensor:
    away = device.type == _Place.device.type
    return t if is_away(t) == away else mark(Plain.clone(t), away)


def _here(kwargs: dict[str, Any]) -> tuple[torch.device | None, dict[str, Any]]:
    """The device that is asked for, and the same arguments for what really runs."""
    device = kwargs.get("device")
    if device is None:
        return None, kwargs
    return torch.device(device), kwargs | {"device": HERE}


def _meet(func: Any, args: Any, given: list[Tensor]) -> bool:
    """Whether an operation is one on the GPU.

    Raises:
        RuntimeError: its tensors lie on different devices.
    """
    marks = [is_away(t) for t in given]
    if func in ACROSS or all(marks) or not any(marks):
        return marks[0]
    first = args[0] if isinstance(args[0], Tensor) else None
    if func in INDEXED and first is not None and is_away(first):
        allowed = all(is_away(v) or v.dim() == 0 for v in args[2:3])
    else:
        # a single number may come from the CPU, and nothing may go there
        written = func._schema.is_mutable and first is not None and not is_away(first)
        single = torch.Tag.pointwise in func.tags or func == aten.where.self
        allowed = single and not written and all(away or t.dim() == 0 for t, away in zip(given, marks, strict=True))
    if not allowed:
        told = ", ".join(f"{tuple(t.shape)} on {_device(t)}" for t in given)
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got {told}")
    return True


def _tensors(tree: Any) -> list[Tensor]:
    return [t for t in tree_leaves(tree) if isinstance(t, Tensor) and t.layout == torch.strided]
