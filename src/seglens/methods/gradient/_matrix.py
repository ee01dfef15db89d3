"""Methods beside each other: the share of each channel by class and method, and how far the maps agree."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from seglens.core.explanation import Figure, Table
from seglens.methods.gradient._shared import channel_sums

COMPARED = 2**16  # pixels that are ranked
NONE = "–"  # of a map that is the same for all channels

Values = Mapping[str, Tensor]


class Matrix:
    """Shares of channels and agreement.

    Args:
        made: per class and method the values (1, C, *space); of a method that knows no channels (1, 1, *space).
        channels: names.
    """

    def __init__(self, made: Mapping[str, Values], channels: Sequence[str]) -> None:
        """Everything is made up at once."""
        self._channels = channels
        self._shares = {(c, m): _shares(made[c][m]) for c, m in _pairs(made) if made[c][m].shape[1] == len(channels)}
        self._agree = {(c, m): a for c in made for m, a in _agreement(made[c]).items()}

    def table(self) -> Table:
        """A row for each class and method."""
        rows = list(self._agree)
        columns: dict[str, list[object]] = {"class": [c for c, _ in rows], "method": [m for _, m in rows]}
        if len(self._channels) > 1:
            for i, name in enumerate(self._channels):
                columns[name] = [self._shares[row][i] if row in self._shares else NONE for row in rows]
        columns["agreement with the others"] = [self._agree[row] for row in rows]
        return Table("methods", columns)

    def figure(self, of: str) -> Figure:
        """Of one class: the share of each channel by method; of an image of one channel, the agreement."""
        methods = [m for c, m in self._agree if c == of]
        if len(self._channels) == 1:
            series = {"agreement with the others": [self._agree[of, m] for m in methods]}
            return Figure("agreement", "bar", [*methods], {k: [*v] for k, v in series.items()}, "method", "correlation")
        methods = [m for m in methods if (of, m) in self._shares]
        bars: dict[str, list[float]] = {
            name: [self._shares[of, m][i] for m in methods] for i, name in enumerate(self._channels)
        }
        return Figure("channels", "bar", [*methods], {k: [*v] for k, v in bars.items()}, "method", "share of the size")

    def told(self, of: str) -> str:
        """Of one class: which channel counts most, by how many methods, and whether the maps agree."""
        agreed = float(np.mean([a for (c, _), a in self._agree.items() if c == of]))
        text = f"Their maps have a mean rank correlation of {agreed:.2f}."
        rows = [shares for (c, _), shares in self._shares.items() if c == of and sum(shares) > 0]
        if len(self._channels) == 1 or not rows:
            return text
        most = [int(np.argmax(shares)) for shares in rows]
        first = max(set(most), key=most.count)
        mean = float(np.mean([shares[first] for shares in rows]))
        return (
            f"{most.count(first)} of {len(rows)} that tell channels apart find most in {self._channels[first]}, on "
            f"average {mean:.0%}. {text}"
        )


def _pairs(made: Mapping[str, Values]) -> list[tuple[str, str]]:
    return [pair for c in made for pair in product([c], made[c])]


def _shares(values: Tensor) -> list[float]:
    sums = channel_sums(values)
    return [float(s) for s in sums / sums.sum().clamp(min=1e-300)]


def _agreement(made: Values) -> dict[str, float]:
    """Per method the mean rank correlation of its map of sizes with those of the others."""
    maps = [_thin(values) for values in made.values()]
    table = np.array([[_alike(a, b) for b in maps] for a in maps])
    others = (table.sum(1) - np.diag(table)) / max(1, len(maps) - 1)
    return dict(zip(made, others.tolist(), strict=True))


def _thin(values: Tensor) -> NDArray[np.float32]:
    flat = values[0].abs().amax(0).flatten().numpy()
    return np.asarray(flat[:: max(1, len(flat) // COMPARED)])


def _alike(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else float(spearmanr(a, b).statistic)
