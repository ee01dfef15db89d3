"""What a method answers: layers, tables, figures, text, and a record that can run it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["heat", "signed", "labels", "image", "points", "vectors"]
SHOWN = 99  # percentile at which colours of maps end


@dataclass(frozen=True, eq=False)
class Layer:
    """One array in image coordinates: shape ``(*space)``, for an ``image`` of several channels ``(*space, C)``.

    Args:
        name: what it shows, in a few words.
        kind: ``heat`` (0 upwards) · ``signed`` (zero in the middle) · ``labels`` · ``image`` · ``points``
            (N, D) · ``vectors`` (N, 2, D).
        data: raw values; display limits are never baked in.
        unit: what the values mean (``change of logit``).
        rgb: for ``image``: the last axis is colour.
        offset: where the array starts in the image, in pixels.
        resolution: how many pixels a map had along each axis before it was enlarged to the image's; empty where the
            method looked at every pixel.
    """

    name: str
    kind: Kind
    data: NDArray[Any]
    unit: str = ""
    rgb: bool = False
    offset: tuple[int, ...] = ()
    resolution: tuple[int, ...] = ()

    def enlarged(self) -> str:
        """What a low-resolution map has to say of itself, ``16×16 map shown at 256×256``; empty for others."""
        if self.resolution in ((), self.data.shape):
            return ""
        own, full = ("×".join(map(str, shape)) for shape in (self.resolution, self.data.shape))
        return f"{own} map shown at {full}"

    def limits(self) -> tuple[float, float]:
        """Sensible display limits: symmetric for signed maps, from 0 for heat.

        The 99th percentile of the sizes that say anything, for both kinds: a few extreme pixels leave the rest to be
        seen, and zeros beside a crop or window count for nothing.
        """
        if self.kind not in ("signed", "heat"):
            return self.span()
        values = self._finite()
        said = values[values != 0 if self.kind == "signed" else values > 0]
        sizes = np.abs(said.astype(np.result_type(said, np.float32), copy=False))
        top = float(np.percentile(sizes, SHOWN, overwrite_input=True)) if sizes.size else 1.0
        return (-top if self.kind == "signed" else 0.0, top)

    def span(self) -> tuple[float, float]:
        """All finite values lie in it: as far as limits may be moved; symmetric for signed maps, from 0 for heat."""
        values = self._finite()
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        if self.kind == "signed":
            top = max(high, -low) or 1.0
            return (-top, top)
        if self.kind == "heat":
            return (min(low, 0.0), high if high > 0 else 1.0)
        return (low, high if high > low else low + 1.0)

    def _finite(self) -> NDArray[Any]:
        values = np.asarray(self.data)
        sound = np.isfinite(values)
        # a copy of a large map is for those alone that need one
        return values.ravel() if sound.all() else values[sound]


@dataclass(frozen=True)
class Table:
    """A table by columns of equal length."""

    name: str
    columns: dict[str, list[Any]]

    def rows(self) -> list[dict[str, Any]]:
        """The same by rows."""
        return [dict(zip(self.columns, row, strict=True)) for row in zip(*self.columns.values(), strict=True)]


@dataclass(frozen=True)
class Figure:
    """Data of a plot, not a picture: series of y over x; a ``tree`` has parents in its series.

    A ``map`` has a series for each row of a picture, named by its y, the lowest first; ``x`` are the middles of its
    columns. A bar stands back where the series ``greyed`` says so.
    """

    name: str
    kind: Literal["line", "bar", "scatter", "tree", "map"]
    x: list[Any]
    series: dict[str, list[Any]]
    x_label: str = ""
    y_label: str = ""


@dataclass(frozen=True)
class Record:
    """All that is needed to run it again, as plain data."""

    method: str
    parameters: dict[str, Any]
    target: dict[str, Any]
    model: dict[str, Any]
    image: dict[str, Any]
    seed: int
    versions: dict[str, str]
    device: str
    cost: dict[str, Any]
    seconds: float
    notes: list[str] = field(default_factory=list)
    engine: dict[str, Any] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    fidelity: str = "exact"
    cite: str = ""
    created: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Record:
        """Read what :meth:`to_dict` wrote."""
        return cls(**data)


@dataclass(frozen=True, eq=False)
class Explanation:
    """The answer of a method. The session adds the record."""

    layers: tuple[Layer, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[Figure, ...] = ()
    text: str = ""
    record: Record | None = None

    def __getitem__(self, name: str) -> Layer:
        """The layer of a name."""
        return next(layer for layer in self.layers if layer.name == name)

    def with_record(self, record: Record) -> Explanation:
        """The same answer with its record."""
        return replace(self, record=record)

    @property
    def map(self) -> Layer:
        """The saliency map: the first heat or signed layer."""
        return next(layer for layer in self.layers if layer.kind in ("heat", "signed"))
