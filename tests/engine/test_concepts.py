"""Concept vectors on embeddings: direction, score, significance, chance (card B/R7)."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from seglens.core.errors import MissingNeed
from seglens.engine.features import concepts
from seglens.engine.features.concepts import (
    Concept,
    find_concept,
    random_concept,
    scores,
    verdicts,
)

D = 16


def attributes(n=600, seed=0):
    """Embeddings with two independent attributes along known unit directions, and noise in all of them."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(D, D)))[0]
    drives, idle = rng.random(n) < 0.5, rng.random(n) < 0.5
    vectors = rng.normal(size=(n, D)) + 4 * drives[:, None] * basis[0] + 4 * idle[:, None] * basis[1]
    return vectors, drives, idle, basis


def examples(direction, n=40, seed=3):
    """Gradients of a target that follows one direction, a little different at every example."""
    rng = np.random.default_rng(seed)
    return direction + 0.05 * rng.normal(size=(n, D))


def test_direction_is_the_planted_one():
    vectors, drives, _, basis = attributes()
    concept = find_concept("drives", vectors[drives], vectors[~drives], size=250)
    assert concept.vector @ basis[0] > 0.99
    assert concept.accuracy > 0.9
    np.testing.assert_allclose(np.linalg.norm(concept.directions, axis=1), 1)
    side = vectors @ concept.vector > concept.offset
    assert (side == drives).mean() > 0.95


def test_what_drives_the_target_is_significant_and_what_does_not_is_not():
    vectors, drives, idle, basis = attributes()
    found = [find_concept(name, vectors[of], vectors[~of]) for name, of in (("drives", drives), ("idle", idle))]
    yes, no = verdicts(found, random_concept(vectors), examples(basis[0]))
    assert yes.score > 0.99
    assert yes.p < 0.01
    assert yes.significant
    assert yes.sensitivity == pytest.approx(1, abs=0.05)
    assert yes.effect == pytest.approx(4, abs=0.5)  # the attribute's own size
    assert yes.effect > 5 * yes.chance
    assert found[1].accuracy > 0.9  # it is there, and does not matter
    assert not no.significant
    against = verdicts(found[:1], random_concept(vectors), examples(-basis[0]))[0]
    assert against.score < 0.01
    assert against.significant


@pytest.mark.parametrize("seed", range(6))
def test_an_irrelevant_attribute_is_never_significant(seed):
    vectors, _, idle, basis = attributes(seed=seed)
    concept = find_concept("idle", vectors[idle], vectors[~idle], seed=seed)
    assert not verdicts([concept], random_concept(vectors, seed=seed), examples(basis[0]))[0].significant


def test_random_against_random_is_a_coin():
    vectors, _, _, basis = attributes()
    every = [scores(random_concept(vectors, seed=s), examples(basis[0])).mean() for s in range(10)]
    assert np.mean(every) == pytest.approx(0.5, abs=0.08)
    accuracy = np.mean([random_concept(vectors, seed=s).accuracy for s in range(10)])
    assert accuracy == pytest.approx(0.5, abs=0.05)
    verdict = verdicts([random_concept(vectors, seed=77)], random_concept(vectors), examples(basis[0]))[0]
    assert not verdict.significant


def test_p_grows_with_the_number_of_concepts():
    vectors, drives, _, basis = attributes()
    concept, chance = find_concept("drives", vectors[drives], vectors[~drives]), random_concept(vectors)
    one = verdicts([concept], chance, examples(basis[0]))[0].p
    many = verdicts([concept] * 5, chance, examples(basis[0]))[0].p
    assert many == pytest.approx(min(1, 5 * one))


def test_p_is_that_of_welchs_test():
    rng = np.random.default_rng(0)
    one, other = rng.random(12), 0.3 + rng.random(20) ** 2
    assert concepts._p(one, other) == pytest.approx(stats.ttest_ind(one, other, equal_var=False).pvalue)
    assert concepts._p(np.ones(5), np.zeros(5)) == 0
    assert concepts._p(np.ones(5), np.ones(4)) == 1


def test_a_target_that_follows_nothing_has_no_significant_concept():
    vectors, drives, _, _ = attributes()
    found = verdicts([find_concept("a", vectors[drives], vectors[~drives])], random_concept(vectors), np.zeros((5, D)))
    assert found[0].p == 1
    assert not found[0].significant


def test_embeddings_that_are_all_the_same_point_nowhere():
    concept = find_concept("same", np.ones((20, D)), np.ones((20, D)), repeats=3)
    assert np.isfinite(concept.directions).all()
    assert np.isfinite(concept.vector).all()
    assert np.isfinite(concept.offset)


def test_same_seed_same_concept():
    vectors, drives, _, _ = attributes(80)
    one, again, other = (
        find_concept("a", vectors[drives], vectors[~drives], repeats=3, size=20, seed=s) for s in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.directions, again.directions)
    assert not np.array_equal(one.directions, other.directions)
    assert isinstance(one, Concept)


def test_too_few_embeddings_are_refused():
    with pytest.raises(MissingNeed, match="5 are in few"):
        find_concept("few", np.ones((5, D)), np.ones((50, D)))
    with pytest.raises(MissingNeed, match="2 are beside many"):
        find_concept("many", np.ones((50, D)), np.ones((2, D)))
    with pytest.raises(MissingNeed, match="there are 11"):
        random_concept(np.ones((11, D)))


def test_false_alarms_are_rare():
    """Random sets taken for concepts, of a target that follows the direction in which they differ most."""
    vectors, _, _, basis = attributes(200)
    gradients, alarms, by_p = examples(basis[0]), 0, 0
    for seed in range(10):
        drawn = np.random.default_rng(100 + seed).permutation(200)
        concept = find_concept("none", vectors[drawn[:60]], vectors[drawn[60:]], seed=seed)
        chance = random_concept(vectors, seed=seed, size=concept.drawn, repeats=60)
        verdict = verdicts([concept], chance, gradients)[0]
        alarms, by_p = alarms + verdict.significant, by_p + (verdict.p < 0.05)
    assert alarms <= 1
    # which the t-test of the scores alone does not give
    assert by_p >= 3
