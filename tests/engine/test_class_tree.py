"""The tree over classes: the tests of card A12, a plain replica, and scikit-learn's clustering."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering

from seglens.engine.class_tree import ClassTree, Node, star, ward

NAMES = ("road", "car", "bus", "tree", "grass")


def random_rows(classes, width=16, seed=0):
    return torch.randn(classes, width, generator=torch.Generator().manual_seed(seed))


def random_logits(samples=3, classes=7, space=(5, 6), seed=1):
    return 3 * torch.randn(samples, classes, *space, generator=torch.Generator().manual_seed(seed)).double()


def plain(tree, logits):
    """Class probabilities and greedy class of one pixel's logits, by walking down from the root."""
    probabilities = np.zeros(len(logits))

    def down(number, so_far):
        node = tree.nodes[number]
        if not node.children:
            probabilities[node.classes[0]] = so_far
            return
        scores = np.array([np.mean([logits[c] for c in tree.nodes[n].classes]) for n in node.children])
        turn = np.exp(scores) / np.exp(scores).sum()
        for child, share in zip(node.children, turn, strict=True):
            down(child, so_far * share)

    down(0, 1.0)
    at = 0
    while tree.nodes[at].children:
        at = max(tree.nodes[at].children, key=lambda n: np.mean([logits[c] for c in tree.nodes[n].classes]))
    return probabilities, tree.nodes[at].classes[0]


@pytest.mark.parametrize("classes", [2, 3, 7, 19])
def test_probabilities_sum_to_one(classes):
    logits = 10 * random_logits(classes=classes)
    found = ward(random_rows(classes)).log_probabilities(logits)
    assert found.shape == logits.shape
    torch.testing.assert_close(found.logsumexp(1), torch.zeros_like(found[:, 0]), atol=1e-12, rtol=0)


def test_a_star_is_the_softmax_and_so_is_a_tree_over_two_classes():
    logits = random_logits()
    torch.testing.assert_close(star(7).log_probabilities(logits), logits.log_softmax(1), atol=0, rtol=0)
    two = logits[:, :2]
    torch.testing.assert_close(ward(random_rows(2)).log_probabilities(two), two.log_softmax(1), atol=1e-12, rtol=0)


def test_a_binary_tree_is_not_the_softmax():
    logits = random_logits()
    difference = ward(random_rows(7)).log_probabilities(logits).exp() - logits.softmax(1)
    assert float(difference.abs().max()) > 0.1


def test_equals_a_plain_walk_through_the_tree():
    tree, logits = ward(random_rows(7)), random_logits()
    soft, hard = tree.log_probabilities(logits).exp(), tree.greedy(logits)
    for n, y, x in np.ndindex(3, 5, 6):
        probabilities, chosen = plain(tree, logits[n, :, y, x].numpy())
        np.testing.assert_allclose(soft[n, :, y, x].numpy(), probabilities, atol=1e-12)
        assert int(hard[n, y, x]) == chosen


def test_every_sample_is_read_by_itself():
    # the public code reads the decisions of sample 0 for every sample
    tree, logits = ward(random_rows(7)), random_logits()
    for read in (tree.log_probabilities, tree.greedy, lambda x: tree.shared(x, 4), lambda x: tree.turn(x, 0)):
        whole = read(logits)
        for n in range(3):
            torch.testing.assert_close(whole[n : n + 1], read(logits[n : n + 1]), atol=0, rtol=0)
        assert not torch.equal(whole[0], whole[1])


def test_no_softmax_of_a_softmax():
    # a second softmax could not bring the loss of a certain and right answer below 0.905 for five classes
    logits = torch.full((1, 5, 2, 2), -50.0)
    logits[:, 3] = 50.0
    loss = torch.nn.functional.nll_loss(ward(random_rows(5)).log_probabilities(logits), torch.full((1, 2, 2), 3))
    assert float(loss) < 1e-6


def test_planted_clusters_are_the_first_split():
    rows = random_rows(6, seed=2)
    rows[[0, 2, 5]] += 20
    tree = ward(rows)
    assert {tree.nodes[n].classes for n in tree.nodes[0].children} == {(0, 2, 5), (1, 3, 4)}


@pytest.mark.parametrize("seed", range(4))
def test_clusters_as_scikit_learn(seed):
    rows = random_rows(9, seed=seed)
    theirs = AgglomerativeClustering(None, distance_threshold=0.0, linkage="ward").fit(rows.numpy())
    members = {n: {n} for n in range(9)}
    for n, (a, b) in enumerate(theirs.children_, start=9):
        members[n] = members[a] | members[b]
    tree = ward(rows)
    assert {node.classes for node in tree.nodes} == {tuple(sorted(m)) for m in members.values()}
    np.testing.assert_allclose(sorted(n.height for n in tree.nodes if n.children), theirs.distances_, rtol=1e-5)


def test_is_a_tree_with_parents_first():
    tree = ward(random_rows(8))
    assert len(tree.nodes) == 15
    assert tree.nodes[0].parent == -1
    for number, node in enumerate(tree.nodes[1:], start=1):
        assert node.parent < number
        assert number in tree.nodes[node.parent].children
        assert set(tree.siblings(number)) == set(tree.nodes[node.parent].children) - {number}
    for index in range(8):
        path = tree.path(index)
        assert path[0] == 0
        assert tree.nodes[path[-1]].classes == (index,)
        assert [tree.nodes[n].parent for n in path[1:]] == list(path[:-1])


def test_equal_rows_make_a_tree_too():
    assert len(ward(torch.zeros(4, 3)).nodes) == 7


def pairs():
    """((a, b), (c, d))."""
    return ClassTree(
        (
            Node((0, 1, 2, 3), -1, (1, 2)),
            Node((0, 1), 0, (3, 4)),
            Node((2, 3), 0, (5, 6)),
            *(Node((c,), 1 + c // 2) for c in range(4)),
        )
    )


def test_soft_and_hard_decisions_can_differ():
    # the likelier side is split evenly, the other side is sure of one class
    logits = torch.tensor([0.2, 0.2, 4.0, -4.0]).view(1, 4, 1, 1)
    assert int(pairs().greedy(logits)) in (0, 1)
    assert int(pairs().log_probabilities(logits).argmax(1)) == 2


def test_decisions_shared_with_a_path_are_counted_from_the_root():
    # a: both decisions of c are missed; d: the first is shared; c: both; b wins its side, c loses inside the other
    wins = torch.eye(4)[[0, 3, 2, 1]].T.reshape(1, 4, 2, 2) * 9
    assert pairs().shared(wins, 2).flatten().tolist() == [0, 1, 2, 0]


def test_names_tell_few_classes_and_count_many():
    tree = star(5)
    assert tree.name(2, NAMES) == "car"
    assert tree.name(0, NAMES) == "road + car + 3 more"
    assert pairs().name(1, NAMES) == "road + car"
