"""What a model expects and what it answers, as plain data that is saved beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from seglens.core.errors import BadParameter, ModelMismatch, UnknownName

Norm = Literal["none", "dtype", "percentile", "zscore", "fixed"]
Head = Literal["logits", "probabilities"]

PALETTE = ("#00000000", "#26c6da", "#ffb300", "#ec407a", "#9ccc65", "#7e57c2", "#8d6e63", "#42a5f5")


@dataclass(frozen=True)
class ClassSpec:
    """A class the model can answer: its name and its colour (``#rrggbb`` or ``#rrggbbaa``)."""

    name: str
    color: str


@dataclass(frozen=True)
class Normalisation:
    """How intensities become model input; always affine per channel, fitted once on the clean image.

    Args:
        kind: ``none`` · ``dtype`` (divide by the largest value of the data type; floats stay) ·
            ``percentile`` (low to 0 and high to 1) · ``zscore`` (mean 0, deviation 1 of this image) ·
            ``fixed`` (subtract ``mean``, divide by ``std``, in image units).
        low, high: percentiles, for ``percentile``.
        mean, std: per channel (one number serves all), for ``fixed``.
        per_channel: whether ``percentile`` and ``zscore`` look at each channel by itself.
        then_mean, then_std: a second step after the first: subtract, divide.
    """

    kind: Norm = "none"
    low: float = 1.0
    high: float = 99.8
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    per_channel: bool = True
    then_mean: float = 0.0
    then_std: float = 1.0


@dataclass(frozen=True)
class ModelSpec:
    """What a model expects and answers.

    Args:
        name: short name, shown to people.
        axes: what the network sees at once, in its order: ``YX``, ``ZYX``, or ``TYX`` for frames.
        channels: names of the input channels, in order.
        classes: every class including background; class 0 is background.
        head: whether the module returns ``logits`` or ``probabilities``.
        multilabel: the module has one sigmoid per foreground class and no background channel; then a
            background with logit 0 is added (a one-logit network is the case of one class).
        output: which output to take: index of a tuple or key of a dict; ``None`` finds it.
        normalisation: see :class:`Normalisation`.
        divisor: each space axis is padded to a multiple of this.
        min_size: each space axis is padded to at least this (deep networks fail on very small images).
        size: the only spatial size the model takes (an exported graph), else ``None``.
        batch: the only batch size the model takes (an exported graph), else ``None``.
        tile, halo: tile and context per space axis used by default, in pixels.
        reach: how far one input pixel can influence the output, in pixels; ``None`` if unknown.
        pixel_size: size of a pixel in training, per space axis, in ``unit``.
        sha256: fingerprint of the weights.
    """

    name: str
    axes: str
    channels: tuple[str, ...]
    classes: tuple[ClassSpec, ...]
    head: Head = "logits"
    multilabel: bool = False
    output: int | str | None = None
    normalisation: Normalisation = field(default_factory=Normalisation)
    divisor: int = 1
    min_size: int = 1
    size: tuple[int, ...] | None = None
    batch: int | None = None
    tile: tuple[int, ...] | None = None
    halo: tuple[int, ...] | None = None
    reach: int | None = None
    pixel_size: tuple[float, ...] | None = None
    unit: str = "micrometer"
    licence: str = ""
    description: str = ""
    sha256: str = ""

    def __post_init__(self) -> None:
        """Refuse what no model can be."""
        if self.axes not in ("YX", "ZYX", "TYX"):
            raise BadParameter(
                f"The model's axes are given as {self.axes!r}.",
                fix="Use YX for images, ZYX for volumes or TYX for frames.",
            )
        if len(self.classes) < 2:
            raise BadParameter(
                f"The model is declared with {len(self.classes)} class.",
                fix="Name at least two classes; the first is background.",
            )

    @property
    def ndim(self) -> int:
        """Number of space axes, 2 or 3."""
        return len(self.axes)

    @property
    def overlapping(self) -> bool:
        """Whether a pixel may be of several classes: there are several, and each has a sigmoid of its own."""
        return self.multilabel and len(self.classes) > 2

    @property
    def choices(self) -> int:
        """Between how many answers a decision about a pixel falls: all classes, or yes and no of one."""
        return 2 if self.overlapping else len(self.classes)

    def class_index(self, wanted: str | int) -> int:
        """Index of a class given by name, number or number as text.

        Raises:
            UnknownName: no class of that name or number.
        """
        names = [c.name for c in self.classes]
        if str(wanted) in names:
            return names.index(str(wanted))
        text = str(wanted).strip()
        if text.isdigit() and int(text) < len(names):
            return int(text)
        listing = f"{self.name} knows: " + ", ".join(f"{i} {n}" for i, n in enumerate(names)) + "."
        raise UnknownName.among("class", str(wanted), names, listing=listing)

    def with_(self, **changes: Any) -> ModelSpec:
        """A copy with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelSpec:
        """Read what :meth:`to_dict` wrote; classes and channels may also be plain names.

        Raises:
            ModelMismatch: a field is missing or unknown.
        """
        known = {name: _tuples(value) for name, value in data.items() if name in cls.__dataclass_fields__}
        extra = sorted(set(data) - set(known))
        if extra:
            raise ModelMismatch(
                f"The model description has unknown entries: {', '.join(extra)}.",
                fix="Remove them; `docs/models.md` lists what a description may hold.",
            )
        try:
            known["classes"] = classes_from(known["classes"])
            if isinstance(known.get("normalisation"), Mapping):
                norm = {k: _tuples(v) for k, v in known["normalisation"].items()}
                known["normalisation"] = Normalisation(**norm)
            return cls(**known)
        except (KeyError, TypeError) as error:
            raise ModelMismatch(
                f"The model description cannot be used: {error}.",
                fix="Give name, axes, channels and classes; `docs/models.md` has an example.",
            ) from error


def classes_from(items: Any) -> tuple[ClassSpec, ...]:
    """Classes from names or from ``{"name": …, "color": …}``; colours are filled in."""
    out = []
    for index, item in enumerate(items):
        name, color = (item.get("name"), item.get("color")) if isinstance(item, Mapping) else (item, None)
        out.append(ClassSpec(str(name), color or PALETTE[index % len(PALETTE)]))
    return tuple(out)


def read_spec(path: Path) -> dict[str, Any]:
    """The JSON object of a ``model.json``.

    Raises:
        ModelMismatch: not a JSON object.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelMismatch(
            f"{path.name} cannot be read: {error}.", fix="Write it as JSON; `docs/models.md` has an example."
        ) from error
    if not isinstance(data, dict):
        raise ModelMismatch(
            f"{path.name} holds a {type(data).__name__}.", fix="Write a JSON object with name, axes, channels, classes."
        )
    return data


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
