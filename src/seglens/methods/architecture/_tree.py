"""A tree over the classes as read on one image: the path to the target's class, in numbers and words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seglens.core.explanation import Figure, Layer, Table
from seglens.engine.case import Case
from seglens.engine.class_tree import ClassTree


@dataclass(frozen=True, eq=False)
class Reading:
    """What a binary tree says about a case.

    Args:
        case: the question; its target's class is where the path leads.
        tree: a binary tree over the model's classes.
        hard: go the likelier way at each node, instead of the likeliest product along a path.
    """

    case: Case
    tree: ClassTree
    hard: bool

    @property
    def names(self) -> list[str]:
        """Names of the classes."""
        return [c.name for c in self.case.model.spec.classes]

    @cached_property
    def inside(self) -> Tensor:
        """Logits of the pixels that count for the target (1, K, pixels)."""
        weights = self.case.target.weights
        return self.case.logits[:, :, weights > 0 if bool((weights > 0).any()) else weights != 0]

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """The tree's class per pixel (*space)."""
        if self.hard:
            return _labels(self.tree.greedy(self.case.logits))
        return _labels(self.tree.log_probabilities(self.case.logits).argmax(1))

    @property
    def children(self) -> list[int]:
        """The nodes on the way to the target's class, without the root."""
        return list(self.tree.path(self.case.target.index)[1:])

    def margin(self, child: int) -> float:
        """Score of a node above that of its sibling, mean over the region."""
        difference = self.tree.score(self.inside, child) - self.tree.score(self.inside, self._other(child))
        return float(difference.mean())

    def sides(self, child: int) -> str:
        """The decision for a node, in words."""
        tree = self.tree
        return f"{tree.name(child, self.names)}, not {tree.name(self._other(child), self.names)}"

    def layers(self) -> tuple[Layer, ...]:
        """The tree's mask, where it differs from the network's, and how far each pixel goes along the path."""
        target, labels = self.case.target, self.labels
        shared = _labels(self.tree.shared(self.case.logits, target.index))
        return (
            Layer("class by the tree", "labels", labels),
            Layer("tree and network differ", "labels", (labels != self.case.labels).astype(np.uint8)),
            Layer(f"decisions shared with {target.name}", "labels", shared),
        )

    def path(self) -> Table:
        """A row per decision on the way: the probability and the share of pixels are of the side towards the class."""
        tree, columns = self.tree, ("at", "towards", "rather than", "probability", "share of pixels")
        table: dict[str, list[Any]] = {name: [] for name in columns}
        for child in self.children:
            node = tree.nodes[child].parent
            turn, place = tree.turn(self.inside, node)[0], tree.nodes[node].children.index(child)
            named = [tree.name(n, self.names) for n in (node, child, self._other(child))]
            taken = float((turn.argmax(0) == place).float().mean())
            for column, value in zip(columns, (*named, float(turn[place].exp().mean()), taken), strict=True):
                table[column].append(value)
        return Table("path", table)

    def agreement(self) -> Table:
        """Pixels of each class by the network, by the tree, and by both."""
        ours, theirs, classes = self.labels, self.case.labels, range(len(self.names))
        columns: dict[str, list[Any]] = {
            "class": list(self.names),
            "network": [int((theirs == c).sum()) for c in classes],
            "tree": [int((ours == c).sum()) for c in classes],
            "both": [int(((ours == c) & (theirs == c)).sum()) for c in classes],
        }
        return Table("pixels by class", columns)

    def figure(self) -> Figure:
        """The tree: ``x`` are names of nodes, parents before children.

        Series: ``parent`` (place in ``x``, -1 for the root), ``probability`` (of arriving there, mean over the
        region), ``on_path`` (whether it leads to the target's class), ``height`` (distance at which its sides joined).
        """
        tree, on_path = self.tree, (0, *self.children)
        series: dict[str, list[Any]] = {
            "parent": [node.parent for node in tree.nodes],
            "probability": [float(log.exp().mean()) for log in tree.arrivals(self.inside)],
            "on_path": [number in on_path for number in range(len(tree.nodes))],
            "height": [node.height for node in tree.nodes],
        }
        return Figure("tree of classes", "tree", [tree.name(n, self.names) for n in range(len(tree.nodes))], series)

    def text(self, head: str) -> str:
        """The path and the agreement with the network in two sentences."""
        rows = self.path().rows()
        told = "; ".join(f"{r['towards']} rather than {r['rather than']} ({r['probability']:.2f})" for r in rows)
        same, region = self.labels == self.case.labels, self.case.target.region
        return (
            f"In the tree over the weight rows of {head} the way to {self.case.target.name} is (probability in the "
            f"region): {told}. With {'hard' if self.hard else 'soft'} decisions the tree agrees with the network on "
            f"{same.mean():.1%} of all pixels and {same[region].mean():.1%} of the region."
        )

    def _other(self, child: int) -> int:
        (other,) = self.tree.siblings(child)
        return other


def _labels(values: Tensor) -> NDArray[np.uint8]:
    """Whole numbers (1, *space) as labels (*space)."""
    return np.asarray(values[0].cpu().numpy(), dtype=np.uint8)
