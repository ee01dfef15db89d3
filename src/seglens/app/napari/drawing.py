"""Figures of an answer as pictures: lines with their bands, bars, points, maps, trees. Data in, marks on axes out."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from seglens.app.napari import words
from seglens.core.explanation import Figure

GREYED = "greyed"  # a series of this name says which bars stand back
ERROR = "standard error"  # a series of this name, behind the name of another, is that one's uncertainty
CYCLE = ("#3d9be9", "#e69f00", "#2aa876", "#cc79a7", "#d55e00", "#8f7ae5", "#a0a0a0")
MOST_TICKS = 40


@dataclass(frozen=True)
class Ink:
    """Colours of the theme."""

    background: str
    text: str
    line: str
    highlight: str


def draw(figure: Figure, axes: Any, ink: Ink) -> None:
    """Draw a figure on empty matplotlib axes."""
    axes.figure.set_facecolor(ink.background)
    axes.set_facecolor(ink.background)
    if not any(math.isfinite(v) for values in shown(figure).values() for v in values):
        axes.text(0.5, 0.5, words.FIGURE_EMPTY, ha="center", va="center", color=ink.text, transform=axes.transAxes)
        axes.axis("off")
        return
    _KINDS[figure.kind](figure, axes, ink)
    if figure.kind == "tree":
        axes.axis("off")
        return
    axes.set_xlabel(figure.x_label, color=ink.text, fontsize=9)
    axes.set_ylabel(figure.y_label, color=ink.text, fontsize=9)
    axes.tick_params(colors=ink.text, labelsize=8)
    for side, spine in axes.spines.items():
        spine.set_color(ink.line)
        spine.set_visible(side in ("left", "bottom"))
    if figure.kind == "map":
        return
    axes.grid(visible=True, axis="y", color=ink.line, linewidth=0.5, alpha=0.5)
    axes.set_axisbelow(True)
    if len(shown(figure)) > 1:
        axes.legend(frameon=False, labelcolor=ink.text, fontsize=8)


def shown(figure: Figure) -> dict[str, list[float]]:
    """The series that are drawn themselves: not those that are the uncertainty of another or set bars back."""
    return {n: numbers(v) for n, v in figure.series.items() if not n.endswith(ERROR) and n != GREYED}


def error_of(figure: Figure, name: str) -> list[float] | None:
    """The uncertainty of a series; ``None`` if it has none."""
    alone = len(shown(figure)) == 1
    told = figure.series.get(f"{name} {ERROR}", figure.series.get(ERROR) if alone else None)
    return None if told is None else numbers(told)


def numbers(values: Sequence[Any]) -> list[float]:
    """Values as floats; what is no number leaves a gap."""
    return [float(v) if isinstance(v, int | float) or hasattr(v, "__float__") else math.nan for v in values]


def _line(figure: Figure, axes: Any, ink: Ink) -> None:
    x = _places(figure, axes)
    for colour, (name, y) in zip(_colours(), shown(figure).items(), strict=False):
        axes.plot(x, y, color=colour, linewidth=1.6, marker="." if len(x) <= 30 else "", label=name)
        error = error_of(figure, name)
        if error is not None:
            low = [a - e for a, e in zip(y, error, strict=True)]
            high = [a + e for a, e in zip(y, error, strict=True)]
            axes.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0, label=f"_{name} band")


def _bar(figure: Figure, axes: Any, ink: Ink) -> None:
    series = shown(figure)
    greyed = figure.series.get(GREYED, [False] * len(figure.x))
    width = 0.8 / max(1, len(series))
    for index, (colour, (name, y)) in enumerate(zip(_colours(), series.items(), strict=False)):
        at = [n + (index - (len(series) - 1) / 2) * width for n in range(len(y))]
        error = error_of(figure, name)
        more = {} if error is None else {"yerr": error, "ecolor": ink.text, "capsize": 2}
        axes.bar(at, y, width, color=[ink.line if back else colour for back in greyed], label=name, **more)
    _name_ticks(axes, [_short(v) for v in figure.x])
    axes.axhline(0, color=ink.line, linewidth=0.8)


def _scatter(figure: Figure, axes: Any, ink: Ink) -> None:
    x = _places(figure, axes)
    for colour, (name, y) in zip(_colours(), shown(figure).items(), strict=False):
        axes.scatter(x, y, s=16, color=colour, alpha=0.8, linewidths=0, label=name)


def _map(figure: Figure, axes: Any, ink: Ink) -> None:
    x, y = numbers(figure.x), [float(level) for level in figure.series]
    picture = axes.imshow(
        [numbers(row) for row in figure.series.values()], origin="lower", aspect="auto", interpolation="nearest",
        cmap="viridis", extent=(*_ends(x), *_ends(y)),
    )  # fmt: skip
    bar = axes.figure.colorbar(picture, ax=axes)
    bar.ax.tick_params(colors=ink.text, labelsize=8)
    bar.outline.set_edgecolor(ink.line)


def _ends(middles: list[float]) -> tuple[float, float]:
    """Outer edges of cells of one size around their middles."""
    half = (middles[-1] - middles[0]) / (len(middles) - 1) / 2 if len(middles) > 1 else 0.5
    return middles[0] - half, middles[-1] + half


def _tree(figure: Figure, axes: Any, ink: Ink) -> None:
    parents = [-1 if math.isnan(p) else int(p) for p in numbers(figure.series["parent"])]
    places = top_down(parents)
    lit_nodes = figure.series.get("on path", figure.series.get("on_path", [False] * len(parents)))
    on_path = [bool(v) for v in lit_nodes]
    chances = numbers(figure.series.get("probability", [math.nan] * len(parents)))
    leaves, depth = 1 + max(x for x, _ in places.values()), 1 + max(d for _, d in places.values())
    names, size = _words_of_nodes(figure, chances, axes, leaves, depth)
    for node, (x, down) in places.items():
        if parents[node] in places:
            up_x, up_down = places[parents[node]]
            lit = on_path[node] and on_path[parents[node]]
            axes.plot(
                [up_x, x], [-up_down, -down], color=ink.highlight if lit else ink.line,
                linewidth=2.4 if lit else 1, zorder=1,
            )  # fmt: skip
    for node, (x, down) in places.items():
        lit = on_path[node]
        frame = {
            "boxstyle": "round,pad=0.35", "facecolor": ink.background,
            "edgecolor": ink.highlight if lit else ink.line, "linewidth": 2 if lit else 1,
        }  # fmt: skip
        axes.text(
            x, -down, names[node], ha="center", va="center", fontsize=size, color=ink.text,
            fontweight="bold" if lit else "normal", bbox=frame, zorder=2,
        )  # fmt: skip
    axes.set_xlim(-0.7, leaves - 0.3)
    axes.set_ylim(0.5 - depth, 0.5)


def _words_of_nodes(
    figure: Figure, chances: list[float], axes: Any, leaves: float, depth: int
) -> tuple[list[str], float]:
    """What stands in every node, and the size of the letters: as large as the room allows."""
    room, point = axes.get_window_extent(), axes.figure.dpi / 72
    # two lines a node where they fit, else one
    high = room.height / depth > 60 * point
    told = []
    for name, chance in zip(figure.x, chances, strict=True):
        word = textwrap.fill(str(name), 16) if high else _short(name)
        told.append(word if math.isnan(chance) else f"{word}{chr(10) if high else '  '}{chance:.2g}")
    longest = max(len(line) for word in told for line in word.split("\n"))
    return told, max(5.0, min(9.0, room.width / leaves / (0.6 * point * (longest + 1.5))))


def top_down(parents: Sequence[int]) -> dict[int, tuple[float, int]]:
    """Places of a tree's nodes: leaves side by side, every other node above the middle of its children.

    Returns:
        Place from the left and depth for every node that hangs on a root (a node without a parent).
    """
    children: dict[int, list[int]] = {n: [] for n in range(len(parents))}
    roots = []
    for node, parent in enumerate(parents):
        if parent in children and parent != node:
            children[parent].append(node)
        else:
            roots.append(node)
    places: dict[int, tuple[float, int]] = {}
    leaves = 0
    # each node twice: on the way down it opens its children, on the way up it stands above them
    waiting = [(root, 0, False) for root in reversed(roots)]
    while waiting:
        node, depth, back = waiting.pop()
        if not children[node]:
            places[node] = (float(leaves), depth)
            leaves += 1
        elif back:
            below = [places[child][0] for child in children[node]]
            places[node] = ((min(below) + max(below)) / 2, depth)
        else:
            waiting.append((node, depth, True))
            waiting += [(child, depth + 1, False) for child in reversed(children[node])]
    return dict(sorted(places.items()))


def _places(figure: Figure, axes: Any) -> list[float]:
    x = numbers(figure.x)
    if any(math.isnan(v) for v in x):
        _name_ticks(axes, [_short(v) for v in figure.x])
        return [float(n) for n in range(len(x))]
    return x


def _name_ticks(axes: Any, names: list[str]) -> None:
    # more names than fit would be a black line
    step = 1 + (len(names) - 1) // MOST_TICKS
    at = list(range(0, len(names), step))
    told = [names[n] for n in at]
    slanted = sum(map(len, told)) > 70
    axes.set_xticks(at, told, rotation=30 if slanted else 0, ha="right" if slanted else "center")


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else textwrap.shorten(str(value), 24, placeholder="…")


def _colours() -> list[str]:
    return [*CYCLE, *CYCLE, *CYCLE]


_KINDS: dict[str, Callable[[Figure, Any, Ink], None]] = {
    "line": _line, "bar": _bar, "scatter": _scatter, "tree": _tree, "map": _map
}  # fmt: skip
