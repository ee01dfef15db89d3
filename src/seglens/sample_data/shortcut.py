"""Pictures with a planted shortcut: every infected cell of the training set has a bright mark beside it.

Infected cells differ from healthy ones by faint granules only, while a small bright ring lies 4 to 12 px
outside each of them. A network trained on such pictures reads the ring. With ``markers="healthy"`` or
``"none"`` the very same cells are drawn with the rings moved or left out, so the shortcut can be shown.
Plain numpy and scipy: no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from seglens.core.errors import BadParameter

Markers = Literal["infected", "healthy", "all", "none"]
Array = npt.NDArray[np.float32]

BACKGROUND, HEALTHY, INFECTED = 0, 1, 2
GRANULES = 0.03
_RADII = (9.0, 13.0)
_GAP = (4.0, 5.5)
_RING = (2.2, 3.0)


@dataclass(frozen=True)
class _Cell:
    """An ellipse (centre and radii in pixels, angle in radians) and the place kept free for its mark."""

    centre: tuple[float, float]
    radii: tuple[float, float]
    angle: float
    infected: bool
    mark: tuple[float, float]
    mark_radius: float


def shortcut_image(
    seed: int,
    size: int = 160,
    *,
    infected: float = 0.5,
    markers: Markers = "infected",
    granules: float = GRANULES,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """Draw one picture.

    Args:
        seed: same seed and size, same cells and noise, whatever ``markers`` and ``granules`` are.
        size: width and height in pixels, 64 or more.
        infected: share of cells that are infected, 0 to 1.
        markers: which cells have the bright ring beside them: ``infected`` (as in training),
            ``healthy`` (moved), ``all`` or ``none``.
        granules: brightness of the true sign; the picture's range is 0 to 1 and its noise about 0.02.

    Returns:
        The grey image, class labels (0 background, 1 healthy, 2 infected), instance labels (1, 2, …), and
        where the rings are; all ``(size, size)``.

    Raises:
        BadParameter: ``size``, ``infected`` or ``markers`` is outside its limits.
    """
    _check(size, infected, markers)
    layout, texture = np.random.default_rng((seed, size, 1)), np.random.default_rng((seed, size, 2))
    cells = _place(layout, size, infected)
    classes = np.zeros((size, size), np.uint8)
    instances = np.zeros((size, size), np.uint16)
    light = 0.14 + 0.02 * _smooth(texture, size, 20.0)
    for number, cell in enumerate(cells, start=1):
        inside = _ellipse(cell, size)
        classes[inside] = INFECTED if cell.infected else HEALTHY
        instances[inside] = number
        _paint(light, inside, texture)
        # Drawn for every cell, added for infected ones only, so that the random stream stays the same.
        sign = _granules(texture, cell, size)
        light += (granules if cell.infected else 0.0) * sign * inside
    light = ndimage.gaussian_filter(light, 0.8)
    marked = _rings(cells, size, markers, light)
    light += texture.normal(0.0, 0.02, light.shape).astype(np.float32)
    return (np.clip(light, 0, 1) * 255).round().astype(np.uint8), classes, instances, marked


def _check(size: int, infected: float, markers: str) -> None:
    if size < 64:
        raise BadParameter(f"A picture of {size} px has no room for cells.", fix="Use a size of 64 or more.")
    if not 0 <= infected <= 1:
        raise BadParameter(f"infected={infected} is not a share.", fix="Use a number from 0 to 1.")
    if markers not in ("infected", "healthy", "all", "none"):
        raise BadParameter(f"markers={markers!r} is unknown.", fix="Use infected, healthy, all or none.")


def _place(rng: np.random.Generator, size: int, infected: float) -> list[_Cell]:
    """Cells that do not touch, each with a free place for a mark that lies near no other cell."""
    wanted = max(2, round(size * size / 3600))
    cells: list[_Cell] = []
    for _ in range(60 * wanted):
        cell = _propose(rng, size, infected)
        if len(cells) < wanted and _fits(cell, cells, size):
            cells.append(cell)
    return cells


def _propose(rng: np.random.Generator, size: int, infected: float) -> _Cell:
    y, x = rng.uniform(_RADII[1] + 2, size - _RADII[1] - 2, 2)
    a, b = rng.uniform(*_RADII, 2)
    angle, direction = rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
    ring = rng.uniform(*_RING)
    # The edge of the ellipse seen along `direction`; the ring begins a gap further out.
    along = direction - angle
    edge = a * b / np.hypot(b * np.cos(along), a * np.sin(along))
    away = edge + rng.uniform(*_GAP) + ring
    mark = (y + away * np.sin(direction), x + away * np.cos(direction))
    return _Cell((y, x), (a, b), angle, bool(rng.random() < infected), mark, ring)


def _fits(cell: _Cell, others: list[_Cell], size: int) -> bool:
    if not all(5 < m < size - 6 for m in cell.mark):
        return False
    far = _RADII[1] + 16
    return all(
        _distance(cell.centre, o.centre) > 2 * _RADII[1] + 5
        and _distance(cell.mark, o.centre) > far
        and _distance(cell.centre, o.mark) > far
        and _distance(cell.mark, o.mark) > 12
        for o in others
    )


def _distance(a: tuple[float, float], b: tuple[float, float]) -> float:
    return float(np.hypot(a[0] - b[0], a[1] - b[1]))


def _ellipse(cell: _Cell, size: int) -> npt.NDArray[np.bool_]:
    y, x = np.mgrid[:size, :size].astype(np.float32)
    y, x = y - cell.centre[0], x - cell.centre[1]
    cos, sin = np.cos(cell.angle), np.sin(cell.angle)
    u, v = x * cos + y * sin, y * cos - x * sin
    return np.asarray((u / cell.radii[0]) ** 2 + (v / cell.radii[1]) ** 2 <= 1)


def _paint(light: Array, inside: npt.NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Give a cell its own brightness, a soft edge towards the rim and a texture, in place."""
    depth = ndimage.distance_transform_edt(inside)
    body = rng.uniform(0.36, 0.5) * (0.75 + 0.25 * np.tanh(depth / 4)) + 0.035 * _smooth(rng, len(light), 2.0)
    light[inside] = body[inside]


def _granules(rng: np.random.Generator, cell: _Cell, size: int) -> Array:
    spots = np.zeros((size, size), np.float32)
    for _ in range(6):
        radius, angle = 0.7 * cell.radii[0] * np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        y, x = cell.centre[0] + radius * np.sin(angle), cell.centre[1] + radius * np.cos(angle)
        spots[int(np.clip(y, 0, size - 1)), int(np.clip(x, 0, size - 1))] = 1
    return np.asarray(np.minimum(ndimage.gaussian_filter(spots, 1.0) * 6, 1), np.float32)


def _rings(cells: list[_Cell], size: int, markers: Markers, light: Array) -> npt.NDArray[np.bool_]:
    """Draw the rings into ``light``, in place, and tell where they are."""
    marked = np.zeros((size, size), bool)
    y, x = np.mgrid[:size, :size]
    for cell in cells:
        has = {"infected": cell.infected, "healthy": not cell.infected, "all": True, "none": False}[markers]
        if has:
            distance = np.hypot(y - cell.mark[0], x - cell.mark[1])
            ring = np.exp(-(((distance - cell.mark_radius + 0.6) / 0.8) ** 2))
            np.maximum(light, 0.9 * ring, out=light, where=ring > 0.2, casting="unsafe")
            marked |= distance <= cell.mark_radius + 0.5
    return marked


def _smooth(rng: np.random.Generator, size: int, sigma: float) -> Array:
    """A random field of mean 0 and deviation 1 whose grain is about ``sigma`` pixels."""
    field = ndimage.gaussian_filter(rng.normal(size=(size, size)), sigma, mode="wrap")
    return np.asarray((field - field.mean()) / (field.std() + 1e-9), np.float32)
