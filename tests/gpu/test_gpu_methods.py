"""Every method answers on a GPU as on the CPU, leaves everything as it was, and leaves nothing behind.

Networks have random weights: the planted ones answer the same in many places, and which of two equal values is larger
is a matter of rounding. Random numbers are no matter: all are drawn on the CPU.
"""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

import seglens
from asking import NAMES, ask, brought, least, nets, plant, quick
from hand import cell_target, context_image, small_image
from seglens.core.explanation import Explanation
from seglens.core.target import Painted, Target
from seglens.session import explain

every = pytest.mark.parametrize("name", NAMES)
CASES = [pytest.param(n, d, id=f"{n}-{d}d") for n in NAMES for d in sorted({2, 3} & set(seglens.METHODS[n].dims))]

# Of the largest value. Another order of summation moves what a convolution answers by some 1e-7 of its largest value.
# On the CPU errors of 3e-7 behind every convolution moved no map by more than 3e-5, and no number of a table by more
# than 1e-4: these are differences of larger numbers.
ALIKE, COUNTED = 1e-4, 1e-3
# These go step by step, and each step depends on which pixels the one before has ranked first, or on where thousands
# of steps of training have come to: errors grow. The same 3e-7 moved single pixels by up to a fourth.
STEERED = {"guided-integrated-gradients", "neuro-xai", "grid-saliency", "feature-dream", "u-noise"}
# Where neighbours are equal but for rounding, the slope of the jump between them has either sign: twelve trainings
# with such errors, all on the CPU, ended in maps whose correlation was 0.82 to 0.91. Their mean losses were within
# 0.1 %: they come down together, to answers that are as good.
EITHER = {"smooth-u-noise"}
# A logistic curve of a small difference of squares: errors of 3e-7 moved it by up to 1.3e-4.
STEEP = {"segmentation-ability"}
# These find nothing to tell in noise: too few objects, entries of one sort.
PLANTED = {"descriptor-shapley", "concept-vectors"}
FEW = 2**16  # bytes that may stay: weights of hand-wired networks whose batch norms were folded


def question(name: str, dims: int) -> dict[str, object]:
    """The network, the image and the target that a method is asked about."""
    if name in PLANTED:
        return {}
    image = small_image(side=32, dims=dims)
    mask = np.zeros(image.space("ZYX"[-dims:]), bool)
    mask[(..., slice(10, 20), slice(8, 22)) if dims == 2 else np.s_[2:5, 5:11, 4:13]] = True
    module = nets(name)[2](seed=1, classes=seglens.METHODS[name].min_classes, dims=dims)
    return {"module": module, "image": image, "target": Target("cell", Painted(mask))}


def largest(answer: Explanation) -> float:
    """Of all maps of an answer, as a difference of two may be nothing but rounding."""
    return max((float(np.abs(m.data).max()) for m in answer.layers if m.kind in ("heat", "signed")), default=1.0)


def same_maps(name: str, there: Explanation, here: Explanation) -> None:
    """Every layer."""
    near = COUNTED if name in STEEP else ALIKE
    for a, b in zip(there.layers, here.layers, strict=True):
        assert (a.name, a.kind) == (b.name, b.kind)
        one, two = np.asarray(a.data, float), np.asarray(b.data, float)
        if b.kind in ("heat", "signed"):
            np.testing.assert_allclose(one, two, rtol=0, atol=near * largest(here), err_msg=b.name)
        else:
            assert one.shape == two.shape
            assert np.mean(np.abs(one - two) > near * np.abs(two).max(initial=0)) < 0.01, b.name


def same_tables(there: Explanation, here: Explanation) -> None:
    """Every column; words to the letter."""
    for a, b in zip(there.tables, here.tables, strict=True):
        assert (a.name, list(a.columns)) == (b.name, list(b.columns))
        for column, values in b.columns.items():
            where = f"{b.name}: {column}"
            if any(isinstance(v, str) for v in values):
                assert list(a.columns[column]) == list(values), where
                continue
            two = np.array(values, float)
            scale = float(np.abs(two[np.isfinite(two)]).max(initial=0))
            np.testing.assert_allclose(np.array(a.columns[column], float), two, rtol=0, atol=COUNTED * scale + 1e-9,
                                       err_msg=where)  # fmt: skip


def alike(name: str, there: Explanation, here: Explanation) -> None:
    """The same picture, if not the same pixels."""
    one, two = (np.asarray(answer.map.data, float).ravel() for answer in (there, here))
    assert one.shape == two.shape
    assert np.isfinite(one).all()
    least = 0.7 if name in EITHER else 0.95
    assert (np.ptp(one) == 0 and np.ptp(two) == 0) or np.corrcoef(one, two)[0, 1] > least
    if name in EITHER:
        lost = [np.mean(answer.figures[0].series["loss"]) for answer in (there, here)]
        np.testing.assert_allclose(*lost, rtol=0.01)


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_answers_as_on_the_cpu(name, dims, device, forget):
    there = ask(name, dims=dims, seed=3, device=device, **question(name, dims))
    forget()
    here = ask(name, dims=dims, seed=3, **question(name, dims))
    if name in STEERED | EITHER:
        alike(name, there, here)
        return
    same_maps(name, there, here)
    same_tables(there, here)


@every
def test_same_seed_same_answer(name, cuda, forget):
    """Up to the order in which a GPU adds up gradients, which it does not fix."""
    dims = least(name)
    one = ask(name, dims=dims, seed=3, device=cuda, **question(name, dims))
    forget()
    two = ask(name, dims=dims, seed=3, device=cuda, **question(name, dims))
    if name in STEERED | EITHER:
        alike(name, one, two)
        return
    same_maps(name, one, two)


@every
def test_leaves_the_model_and_the_dice_as_they_were(name, cuda, forget):
    dims = least(name)
    model = plant(name, dims).to(cuda)
    module = model.module.train()
    image, cell, _ = context_image(dims)
    before = [(n, p.detach().clone(), p.device, p.requires_grad) for n, p in module.named_parameters()]
    dice = torch.cuda.get_rng_state()
    explain(quick(name), image, model, cell_target(cell), **brought(name, model))
    assert model.device == cuda
    for (n, values, where, asks), (m, p) in zip(before, module.named_parameters(), strict=True):
        assert (n, where, asks) == (m, p.device, p.requires_grad)
        assert p.grad is None
        assert torch.equal(values, p)
    assert all(t.device.type == "cuda" for t in (*module.parameters(), *module.buffers()))
    assert all(m.training for m in module.modules())
    assert torch.equal(dice, torch.cuda.get_rng_state())


@every
def test_nothing_stays_on_the_gpu(name, cuda, forget):
    dims = least(name)
    # the first time libraries take what they keep, and batch norms are folded
    for seed in (3, 4):
        forget()
        gc.collect()
        before = torch.cuda.memory_allocated()
        answer = ask(name, dims=dims, seed=seed, device=cuda, **question(name, dims))
        del answer
        gc.collect()
    assert torch.cuda.memory_allocated() - before <= FEW
