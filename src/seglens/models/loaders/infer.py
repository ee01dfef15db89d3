"""Finding out by trying what no description says: axes, channels, classes, head, divisor, sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from seglens.core.errors import ModelMismatch, SegLensError
from seglens.models.loaders.request import FOREIGN_ERRORS, first_line
from seglens.models.segmentation import SegmentationModel, pick_output, quiet
from seglens.models.spec import ModelSpec, classes_from

AXES = {2: "YX", 3: "ZYX"}
NDIM = {axes: ndim for ndim, axes in AXES.items()}
# tried in turn until one works; the later ones are the sizes that networks with a fixed size are made for
SIZES = {2: (64, 128, 256, 96, 224, 384, 512), 3: (32, 64, 96, 128, 48)}
USUAL_CHANNELS = (1, 3, 2, 4)
DIVISORS = (1, 2, 4, 8, 16, 32, 64)
# a divisor counts if an odd multiple of it, about this large, works
ROOMY = {2: 66, 3: 33}
FOUND_BY_TRYING = {"axes", "channels", "classes", "head", "multilabel", "divisor", "min_size", "size", "batch"}

Sizes = tuple[int, ...]


@dataclass
class Probe:
    """A network and the small images that are sent through it; keeps what went wrong with the likeliest, the first."""

    module: nn.Module
    name: str
    output: int | str | None
    device: str
    trouble: str = ""
    answered: dict[tuple[int, ...], Tensor | None] = field(default_factory=dict)

    def answer(self, batch: int, channels: int, space: Sizes, *, noise: float = 0.0) -> Tensor | None:
        """The map (N, K, *space) that a small image gives; ``None`` if it cannot be used."""
        shape = (batch, channels, *space)
        if noise:
            return self._ask(shape, noise)
        if shape not in self.answered:
            self.answered[shape] = self._ask(shape, noise)
        return self.answered[shape]

    def _ask(self, shape: tuple[int, ...], noise: float) -> Tensor | None:
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * noise if noise else torch.zeros(shape)
        axes = AXES[len(shape) - 2]
        spec = ModelSpec(self.name, axes, ("",), classes_from(("", "")), output=self.output)
        try:
            # not inference_mode: a network may keep tensors that it makes, and later use needs their gradient
            with quiet(self.module), torch.no_grad():
                out = pick_output(self.module(x.to(self.device)), spec, ndim=len(shape))
        except SegLensError as error:
            self.trouble = self.trouble or error.what.rstrip(".")
            return None
        except FOREIGN_ERRORS as error:
            self.trouble = self.trouble or first_line(error)
            return None
        fits = len(out) == shape[0] and all(n % m == 0 for n, m in zip(shape[2:], out.shape[2:], strict=True))
        if not fits:
            self.trouble = self.trouble or f"for an image of shape {shape} it answers {tuple(out.shape)}"
        return out if fits else None


def complete(
    module: nn.Module, described: Mapping[str, Any], *, device: str, shape: tuple[int | None, ...] | None = None
) -> ModelSpec:
    """The description of a network, with what is missing found out by sending small images through it.

    Args:
        module: the network, on ``device``.
        described: entries that are known (``name`` at least).
        device: where the network is.
        shape: input shape of an exported graph, ``None`` where any size goes.

    Raises:
        ModelMismatch: nothing works, or what is known contradicts the network.
    """
    if shape is not None:
        # what is written into the graph wins over "any size" and "any batch"
        described = {**described, **{key: value for key, value in _from_graph(shape).items() if _tells(key, described)}}
    if set(described) >= FOUND_BY_TRYING:
        return ModelSpec.from_dict(described)
    probe = Probe(module, str(described["name"]), described.get("output"), device)
    ndim, channels, space = _first_that_works(probe, described)
    found: dict[str, Any] = {"axes": AXES[ndim], "channels": usual_channels(channels)}
    found |= _sizes(probe, described, channels, space)
    batch = described.get("batch")
    if batch is None and shape is None:
        found["batch"] = None if probe.answer(2, channels, space) is not None else 1
    found |= _classes(probe, described, channels, space)
    return ModelSpec.from_dict({**found, **described})


def check(model: SegmentationModel) -> None:
    """Send one small image through, so that a wrong description is met now and not in the middle of the work.

    Raises:
        ModelMismatch: the network does not take what its description says, or answers something else.
    """
    spec = model.spec
    side = -(-max(spec.min_size, SIZES[spec.ndim][0]) // spec.divisor) * spec.divisor
    x = torch.zeros((1, len(spec.channels), *(spec.size or (side,) * spec.ndim)), device=model.device)
    try:
        with quiet(model.module), torch.no_grad():
            model.logits(x)
    except SegLensError:
        raise
    except FOREIGN_ERRORS as error:
        raise ModelMismatch(
            f"{spec.name} is described with {_told(spec.axes, len(spec.channels))} and cannot take them: "
            f"{first_line(error)}.",
            fix=_correction(model.module),
        ) from error


def first_convolution(module: nn.Module) -> tuple[int, int] | None:
    """Number of space axes and of input channels of the first convolution, as far as the weights tell."""
    return next(_convolutions(module), None)


def _convolutions(module: nn.Module) -> Iterator[tuple[int, int]]:
    found = {f"{name}.weight": getattr(m, "groups", None) for name, m in module.named_modules()}
    groups = {name: count for name, count in found.items() if isinstance(count, int)}
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.ndim in (4, 5) and name.endswith("weight"):
            yield tensor.ndim - 2, tensor.shape[1] * groups.get(name, 1)


def _first_that_works(probe: Probe, described: Mapping[str, Any]) -> tuple[int, int, Sizes]:
    batch = described.get("batch") or 1
    faces = _faces(probe.module, described)
    longest = max(len(sizes) for sizes in SIZES.values())
    for turn in range(longest):
        for ndim, channels in faces:
            space = _space(described, ndim, turn)
            if space is not None and probe.answer(batch, channels, space) is not None:
                return ndim, channels, space
    told = " or ".join(_told(AXES[ndim], channels) for ndim, channels in faces[:2])
    raise ModelMismatch(
        f"{probe.name} does not run on an image with {told}: {probe.trouble or 'its size has another number of axes'}.",
        fix=_correction(probe.module),
    )


def _faces(module: nn.Module, described: Mapping[str, Any]) -> list[tuple[int, int]]:
    seen = list(dict.fromkeys(_convolutions(module)))
    dims = list(dict.fromkeys(ndim for ndim, _ in seen)) or [2, 3]
    faces = seen + [(ndim, channels) for ndim in dims for channels in USUAL_CHANNELS]
    if "axes" in described and described["axes"] in NDIM:
        # kept even where the weights disagree: the message then says so
        ndim = NDIM[described["axes"]]
        faces = [face for face in faces if face[0] == ndim] or [(ndim, channels) for _, channels in faces]
    if "channels" in described:
        count = len(described["channels"])
        faces = [(ndim, count) for ndim, _ in faces]
    return list(dict.fromkeys(faces))


def _space(described: Mapping[str, Any], ndim: int, turn: int) -> Sizes | None:
    size = described.get("size")
    if size is not None:
        return tuple(size) if turn == 0 and len(size) == ndim else None
    if turn >= len(SIZES[ndim]):
        return None
    divisor = int(described.get("divisor", 1))
    return (-(-SIZES[ndim][turn] // divisor) * divisor,) * ndim


def _sizes(probe: Probe, described: Mapping[str, Any], channels: int, space: Sizes) -> dict[str, Any]:
    """Divisor and smallest size; or the only size, where no divisor will do."""
    if described.get("size") is not None:
        return {}
    ndim, batch = len(space), described.get("batch") or 1

    def works(side: int) -> bool:
        return probe.answer(batch, channels, (side,) * ndim) is not None

    def serves(divisor: int) -> bool:
        side = _odd_multiple(divisor, ROOMY[ndim])
        # the size that worked already proves nothing: it may be the only one
        return works(side) and (side != space[0] or works(side + 2 * divisor))

    candidates = [described["divisor"]] if "divisor" in described else DIVISORS
    divisor = next((d for d in candidates if serves(d)), None)
    if divisor is None:
        return {"size": space}
    sides = (divisor * 2**n for n in range(10))
    return {"divisor": divisor, "min_size": next((side for side in sides if side >= space[0] or works(side)), space[0])}


def _odd_multiple(divisor: int, at_least: int) -> int:
    times = -(-at_least // divisor)
    return divisor * (times + 1 - times % 2)


def _classes(probe: Probe, described: Mapping[str, Any], channels: int, space: Sizes) -> dict[str, Any]:
    """Classes, head and whether they exclude each other, from what the network answers to strong noise."""
    batch = described.get("batch") or 1
    out = probe.answer(batch, channels, space, noise=30.0)
    if out is None:
        return {}
    count = int(out.shape[1])
    shares = bool(out.min() >= 0) and bool(out.max() <= 1) and bool(out.std() > 0)
    sums_to_one = shares and bool(torch.allclose(out.sum(1), torch.ones_like(out[:, 0]), atol=1e-3))
    named = len(described["classes"]) if "classes" in described else None
    multilabel = count == 1 or (shares and not sums_to_one) or named == count + 1
    if named == count and count > 1:
        multilabel = False
    names = ("background", *(f"class {n}" for n in range(1, count + multilabel)))
    return {"classes": names, "head": "probabilities" if shares else "logits", "multilabel": multilabel}


def usual_channels(count: int) -> tuple[str, ...]:
    """Names for channels that nobody named."""
    usual = {1: ("grey",), 3: ("red", "green", "blue")}
    return usual.get(count, tuple(f"channel {n}" for n in range(1, count + 1)))


def _from_graph(shape: tuple[int | None, ...]) -> dict[str, Any]:
    batch, channels, *space = shape
    fixed = next((n for n in space if n is not None), None)
    found: dict[str, Any] = {"batch": batch, "size": None if fixed is None else tuple(n or fixed for n in space)}
    if len(space) in AXES:
        found["axes"] = AXES[len(space)]
    if channels is not None:
        found["channels"] = usual_channels(channels)
    return found


def _tells(key: str, described: Mapping[str, Any]) -> bool:
    return described.get(key) is None


def _told(axes: str, channels: int) -> str:
    return f"axes {axes} and {channels} channel{'s' if channels != 1 else ''}"


def _correction(module: nn.Module) -> str:
    face = first_convolution(module)
    if face is None:
        return "Describe axes, channels and size in a model.json beside the file; `docs/models.md` has an example."
    takes = _told(AXES[face[0]], face[1])
    return f"Correct axes, channels and classes in its model.json; its first convolution takes {takes}."
