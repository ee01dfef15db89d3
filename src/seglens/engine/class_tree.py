"""A tree over the classes: from logits to decisions on the way to a class, and to class probabilities.

A node's score is the mean of the logits of the classes under it. At an inner node the softmax of its children's
scores says which way to go; the probability of a class is the product along its path. All of it is done per
sample and pixel: ``*space`` below is any number of axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from scipy.cluster.hierarchy import linkage
from torch import Tensor


@dataclass(frozen=True)
class Node:
    """A set of classes that no decision has told apart yet; a leaf is one class.

    Args:
        classes: indices of the classes under it, ascending.
        parent: number of the node above, -1 for the root.
        children: numbers of the nodes below; none for a leaf.
        height: the linkage distance at which its children were joined, 0 for a leaf.
    """

    classes: tuple[int, ...]
    parent: int = -1
    children: tuple[int, ...] = ()
    height: float = 0.0


@dataclass(frozen=True)
class ClassTree:
    """Nodes, parents before their children; node 0 is the root."""

    nodes: tuple[Node, ...]

    def path(self, index: int) -> tuple[int, ...]:
        """Numbers of the nodes from the root to the leaf of a class, both included."""
        return tuple(n for n, node in enumerate(self.nodes) if index in node.classes)

    def steps(self, index: int) -> tuple[tuple[int, int], ...]:
        """The decisions on the way to a class: (inner node, the child that leads on)."""
        return tuple(pairwise(self.path(index)))

    def siblings(self, node: int) -> tuple[int, ...]:
        """The other children of a node's parent; none for the root."""
        return tuple(n for n in self.nodes[self.nodes[node].parent].children if n != node) if node else ()

    def score(self, logits: Tensor, node: int) -> Tensor:
        """Mean logit of the classes under a node, (N, K, *space) to (N, *space)."""
        return logits[:, list(self.nodes[node].classes)].mean(1)

    def turn(self, logits: Tensor, node: int) -> Tensor:
        """Log-probability of each child at an inner node, (N, K, *space) to (N, children, *space)."""
        return torch.stack([self.score(logits, n) for n in self.nodes[node].children], 1).log_softmax(1)

    def arrivals(self, logits: Tensor) -> list[Tensor]:
        """Log-probability of arriving at each node, each (N, *space)."""
        found = [torch.zeros_like(logits[:, 0])] * len(self.nodes)
        for number, node in enumerate(self.nodes):
            if node.children:
                turns = self.turn(logits, number)
                for place, child in enumerate(node.children):
                    found[child] = found[number] + turns[:, place]
        return found

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Log-probability of each class under the soft decision, (N, K, *space); they are normalised already."""
        found = self.arrivals(logits)
        return torch.stack([found[self.path(c)[-1]] for c in self.nodes[0].classes], 1)

    def greedy(self, logits: Tensor) -> Tensor:
        """The class at which the likelier turn arrives at every node, (N, K, *space) to (N, *space)."""
        at = torch.zeros_like(logits[:, 0], dtype=torch.long)
        for number, node in enumerate(self.nodes):
            if node.children:
                chosen = torch.tensor(node.children, device=at.device)[self.turn(logits, number).argmax(1)]
                at = torch.where(at == number, chosen, at)
        return torch.tensor([node.classes[0] for node in self.nodes], device=at.device)[at]

    def shared(self, logits: Tensor, index: int) -> Tensor:
        """How many greedy decisions a pixel shares with the path to a class, from 0 to all of them, (N, *space)."""
        count = torch.zeros_like(logits[:, 0], dtype=torch.long)
        for depth, (node, child) in enumerate(self.steps(index)):
            right = self.turn(logits, node).argmax(1) == self.nodes[node].children.index(child)
            count += right & (count == depth)
        return count

    def name(self, node: int, classes: Sequence[str], most: int = 3) -> str:
        """The classes under a node in words; beyond ``most`` they are counted."""
        named = [classes[c] for c in self.nodes[node].classes]
        return " + ".join(named) if len(named) <= most else f"{' + '.join(named[:2])} + {len(named) - 2} more"


def ward(rows: Tensor) -> ClassTree:
    """The binary tree of Ward's clustering (Euclidean) of one row of weights per class, (K, D) with K at least 2."""
    merges = linkage(rows.detach().cpu().double().numpy(), "ward")
    leaves = len(rows)
    # linkage numbers the merges after the leaves, the root last; here parents come first
    pairs = {leaves + i: ((int(a), int(b)), float(height)) for i, (a, b, height, _) in enumerate(merges)}
    members: dict[int, tuple[int, ...]] = {i: (i,) for i in range(leaves)}
    for merged, (both, _) in pairs.items():
        members[merged] = tuple(sorted(c for part in both for c in members[part]))
    order = [max(members)]
    for old in order:
        order.extend(sorted(pairs[old][0], key=lambda part: members[part]) if old in pairs else ())
    new = {old: number for number, old in enumerate(order)}
    above = {new[part]: new[merged] for merged, (both, _) in pairs.items() for part in both}
    below = {old: tuple(sorted(new[part] for part in both)) for old, (both, _) in pairs.items()}
    heights = {old: height for old, (_, height) in pairs.items()}
    return ClassTree(
        tuple(Node(members[o], above.get(new[o], -1), below.get(o, ()), heights.get(o, 0.0)) for o in order)
    )


def star(classes: int) -> ClassTree:
    """One decision among all classes: the softmax itself."""
    return ClassTree(
        (Node(tuple(range(classes)), -1, tuple(range(1, classes + 1))), *(Node((c,), 0) for c in range(classes)))
    )
