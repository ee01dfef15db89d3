"""Any torch module behind one face: ``logits((N, C, *space)) -> (N, K, *space)``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seglens.core.errors import ImageMismatch, ModelMismatch
from seglens.core.plural import plural
from seglens.models.device import exact
from seglens.models.rest import remembered, resting
from seglens.models.spec import ModelSpec

EPS = 1e-6
ROW = 2**13  # bytes


class SegmentationModel:
    """A network, what it expects (:class:`~seglens.models.spec.ModelSpec`) and where it runs.

    Args:
        module: the network; it is put into eval mode only while it is used (:func:`quiet`).
        spec: what it expects and answers.
        device: where it runs.
        source: zoo name or path, with which it can be loaded again.
        options: what else was said when it was loaded (``weights``, ``network``).
        layered: whether modules inside can be tapped (not so for TorchScript and exported graphs).
    """

    def __init__(
        self,
        module: nn.Module,
        spec: ModelSpec,
        *,
        device: str | torch.device = "cpu",
        source: str = "",
        layered: bool = True,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """Move the module to the device."""
        self.module = module
        self.spec = spec
        self.source = source or spec.name
        self.layered = layered
        self.options = dict(options or {})
        self._fingerprint: tuple[Any, str] | None = None
        self.device = torch.device(device)
        self.to(self.device)

    def to(self, device: str | torch.device) -> SegmentationModel:
        """Move to a device; returns itself."""
        self.device = torch.device(device)
        self.module.to(self.device)
        return self

    def fingerprint(self) -> str:
        """The sha256 of the weights: of their file, else of the values in memory and of how the layers are set."""
        return self.spec.sha256 or remembered(self.module, "fingerprint", self._digest)

    def _digest(self) -> str:
        told = f"{type(self.module).__qualname__} " + re.sub(r" at 0x[0-9a-f]+", "", repr(self.module))
        values = {n: v.detach().reshape(-1).view(torch.uint8) for n, v in self.module.state_dict().items()}
        # sums are ten times as fast as the digest, and tell when weights were changed in place
        seen = (told, *values, checksum(list(values.values())))
        if self._fingerprint is None or self._fingerprint[0] != seen:
            digest = hashlib.sha256(told.encode())
            for name, value in values.items():
                digest.update(name.encode() + value.cpu().numpy().tobytes())
            self._fingerprint = (seen, digest.hexdigest())
        return self._fingerprint[1]

    @property
    def variant(self) -> str:
        """How this differs from the model as it was loaded; for caches."""
        return ""

    def within(self, box: Sequence[slice], space: tuple[int, ...]) -> SegmentationModel:
        """What answers for a crop of an image of size ``space`` as this model does for the whole."""
        return self

    def logits(self, x: Tensor) -> Tensor:
        """Scores before softmax.

        Args:
            x: normalised input (N, C, *space), any size unless ``spec.size`` says otherwise.

        Returns:
            (N, K, *space) of the same space. Odd sizes are padded to the divisor by repeating the edge,
            and cropped back.

        Raises:
            ImageMismatch: wrong number of channels or axes, or a size that a fixed graph cannot take.
            ModelMismatch: the network's answer is not a map of K classes.
        """
        self._check_input(x)
        space = tuple(x.shape[2:])
        padded = self.padded(space)
        if padded != space:
            margins = [n for size, full in zip(space, padded, strict=True) for n in (full - size, 0)][::-1]
            x = F.pad(x, margins, mode="replicate")
        out = self._call(x)
        out = pick_output(out, self.spec, ndim=x.ndim)
        if tuple(out.shape[2:]) != padded:
            out = F.interpolate(out, padded, mode="bilinear" if len(padded) == 2 else "trilinear", align_corners=False)
        out = out[(slice(None), slice(None), *(slice(0, n) for n in space))]
        return self._as_logits(out)

    def _call(self, x: Tensor) -> Any:
        fixed = self.spec.batch
        if fixed is None or len(x) == fixed:
            return self.module(x)
        outs = []
        for start in range(0, len(x), fixed):
            part = x[start : start + fixed]
            short = fixed - len(part)
            full = torch.cat([part, part[-1:].expand(short, *part.shape[1:])]) if short else part
            outs.append(pick_output(self.module(full), self.spec, ndim=x.ndim)[: len(part)])
        return torch.cat(outs)

    def padded(self, space: tuple[int, ...]) -> tuple[int, ...]:
        """The size at which the network sees a space of this size: its far ends are padded.

        Raises:
            ImageMismatch: larger than a fixed graph can take.
        """
        fixed, divisor = self.spec.size, self.spec.divisor
        if fixed is None:
            return tuple(-(-max(n, self.spec.min_size) // divisor) * divisor for n in space)
        if any(n > limit for n, limit in zip(space, fixed, strict=True)):
            raise ImageMismatch(
                f"{self.spec.name} takes images of exactly {_by(fixed)} pixels; this one has {_by(space)}.",
                fix=f"Choose a region of at most {_by(fixed)} pixels, or export the model with dynamic sizes.",
            )
        return fixed

    def _check_input(self, x: Tensor) -> None:
        expected = len(self.spec.channels)
        if x.ndim != self.spec.ndim + 2:
            raise ImageMismatch(
                f"{self.spec.name} expects axes {self.spec.axes}; the image has {x.ndim - 2} space axes.",
                fix="Choose the axes with --axes, or a slice of the stack.",
            )
        if x.shape[1] != expected:
            raise ImageMismatch(
                f"{self.spec.name} expects {plural(expected, 'channel')} ({', '.join(self.spec.channels)}); "
                f"the image has {x.shape[1]}.",
                fix=channel_hint(x.shape[1], expected),
            )

    def _as_logits(self, out: Tensor) -> Tensor:
        spec = self.spec
        if spec.head == "probabilities":
            p = out.clamp(EPS, 1 - EPS)
            out = torch.logit(p) if spec.multilabel else p.log()
        if spec.multilabel:
            out = torch.cat([torch.zeros_like(out[:, :1]), out], 1)
        if out.shape[1] != len(spec.classes):
            raise ModelMismatch(
                f"{spec.name} is declared with {len(spec.classes)} classes and answers {out.shape[1]}.",
                fix="Correct the classes in its model.json; the first is background.",
            )
        return out


def pick_output(out: Any, spec: ModelSpec, *, ndim: int) -> Tensor:
    """The map of classes among what a network returns (a tensor, tuple, list or dict of tensors).

    Raises:
        ModelMismatch: there is no tensor of the right number of axes.
    """
    if isinstance(out, Tensor):
        chosen: Any = out
    elif isinstance(out, Mapping):
        keys = [spec.output] if spec.output is not None else ["out", "logits", "pred", *out]
        chosen = next((out[k] for k in keys if k in out and _is_map(out[k], ndim)), None)
    elif isinstance(out, tuple | list):
        if isinstance(spec.output, int) and spec.output < len(out):
            chosen = out[spec.output]
        else:
            maps = [o for o in out if _is_map(o, ndim)]
            chosen = max(maps, key=lambda o: o.shape[2:].numel(), default=None)
    else:
        chosen = None
    if not _is_map(chosen, ndim):
        raise ModelMismatch(
            f"{spec.name} returns {_told(out)}, not a map of classes with {ndim} axes (batch, class, space).",
            fix="Name the right output with `output` in its model.json.",
        )
    return chosen  # type: ignore[no-any-return]


def settle(module: nn.Module) -> None:
    """Eval mode for every module that knows modes; exported graphs and frozen TorchScript are in it already."""
    for m in module.modules():
        if hasattr(m, "training"):
            m.training = False


def checksum(values: Sequence[Tensor]) -> bytes:
    """Sums over rows and over columns of all bytes (n,) of some values, where they are: a change shows in one of them.

    The few bytes that fill no row are told as they are.
    """
    told: list[Tensor] = []
    left: list[Tensor] = []
    for value in values:
        full = value.numel() - value.numel() % ROW
        if full:
            # numbers of eight bytes have to start at a multiple of eight
            rows = (value.clone() if value.storage_offset() % 8 else value)[:full].view(torch.int64).view(-1, ROW // 8)
            told += [rows.sum(0), rows.sum(1)]
        left.append(value[full:])
    return b"".join(torch.cat(some).cpu().numpy().tobytes() for some in (told, left) if some)


@contextmanager
def quiet(module: nn.Module) -> Iterator[None]:
    """Use a module without leaving a trace: eval mode, frozen parameters and no TF32 inside, all put back after."""
    with resting(module), exact():
        yield


def channel_hint(have: int, want: int) -> str:
    """What to type when the number of channels is wrong."""
    if have == 1:
        return f"Repeat the grey channel with --channels {','.join(['0'] * want)}, or choose another model."
    example = ",".join(str(min(i, have - 1)) for i in range(want))
    return f"Choose which of the {have} channels to use, for example --channels {example}."


def _is_map(thing: Any, ndim: int) -> bool:
    return isinstance(thing, Tensor) and thing.ndim == ndim


def _told(out: Any) -> str:
    if isinstance(out, Tensor):
        return f"a tensor of shape {tuple(out.shape)}"
    if isinstance(out, Mapping):
        return f"a dict with {', '.join(map(str, out))}"
    return f"a {type(out).__name__} of {len(out)}" if isinstance(out, tuple | list) else f"a {type(out).__name__}"


def _by(sizes: tuple[int, ...]) -> str:
    return "×".join(map(str, sizes))
