"""Attention relevance: the tests of its card (B/F2)."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from monai.networks.blocks import selfattention
from monai.networks.nets import UNETR, SwinUNETR, swin_unetr
from torch import nn
from torch.nn import functional as F

from attending import PATCH, Given, blocks, random_matrices
from hand import AttendingDeep, wrap
from seglens.core.errors import BadParameter, MissingNeed
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.core.target import Painted, Target
from seglens.models.nets.segmenter import Segmenter
from seglens.session import explain

GRID = (3, 4)
TOKENS = 12
SPACE = (PATCH * 3, PATCH * 4)
PIXELS = np.random.default_rng(0).random(SPACE).astype(np.float32)
IMAGE = Image(PIXELS, "YX", name="noise")
X = torch.from_numpy(PIXELS)[None, None]


def patches_mask(patches):
    mask = np.zeros(TOKENS, bool)
    mask[list(patches)] = True
    return mask.reshape(GRID).repeat(PATCH, 0).repeat(PATCH, 1)


def relevance(net, mask, *, classes=("background", "a"), of_class=1, smooth=False, **parameters):
    target = Target(of_class, Painted(mask), reduction="sum")
    return explain(
        "attention-relevance", IMAGE, wrap(net, classes=classes, divisor=PATCH), target, smooth=smooth, **parameters
    )


def by_hand(weights, total):
    """R of the paper's rule for self-attention, and the identity that it begins with."""
    gradients = torch.autograd.grad(total, weights)
    eye = torch.eye(weights[0].shape[-1])
    found = eye
    for weight, gradient in zip(weights, gradients, strict=True):
        found = found + (weight[0] * gradient[0]).clamp(min=0).mean(0) @ found
    return found.detach(), eye


@pytest.mark.parametrize("extras", [0, 2])
@pytest.mark.parametrize("itself", [False, True])
def test_is_the_rule_by_hand(extras, itself):
    matrices = [m.requires_grad_() for m in random_matrices(3, 4, TOKENS + extras)]
    net, mask = Given(matrices, extras), patches_mask((0, 5, 6))
    logits, weights = net.run(X)
    found, eye = by_hand(weights, logits[0, 1][torch.from_numpy(mask)].sum())
    wanted = (found - eye * (not itself))[[q + extras for q in (0, 5, 6)]].mean(0)[extras:]
    for matrix in matrices:
        matrix.requires_grad_(False)
    answer = relevance(net, mask, itself=itself)
    torch.testing.assert_close(blocks(answer.map.data).flatten(), wanted, rtol=1e-4, atol=1e-6)
    assert f"adds up to {float(wanted.sum()):.3g}" in answer.text
    assert "true resolution is 3×4 tokens" in answer.text


@pytest.mark.parametrize(("first", "last"), [(1, 2), (2, None), (2, 2), (3, 3)])
def test_a_range_of_attentions_is_the_rule_on_these(first, last):
    matrices = [m.requires_grad_() for m in random_matrices(3, 4, TOKENS)]
    net, mask = Given(matrices), patches_mask((0, 5, 6))
    logits, weights = net.run(X)
    total, chosen = logits[0, 1][torch.from_numpy(mask)].sum(), slice(first - 1, last)
    found, eye = by_hand(weights[chosen], total)
    for matrix in matrices:
        matrix.requires_grad_(False)
    answer = relevance(net, mask, first=first, last=last)
    wanted = (found - eye)[[0, 5, 6]].mean(0)
    torch.testing.assert_close(blocks(answer.map.data).flatten(), wanted, rtol=1e-4, atol=1e-6)
    through = f"attentions {first} to {last or 3}" if first != (last or 3) else f"attention {first}"
    assert f"through {through} of 3, read" in answer.text
    with pytest.raises(BadParameter, match="no attentions"):
        relevance(net, mask, first=3, last=2)


class Around(Given):
    """What attention adds is a thousandth of the answer; the rest is the pixel itself."""

    def forward(self, x):
        return 1e-3 * super().forward(x) + torch.cat([0 * x, x], 1)


def test_a_network_that_goes_around_attention_is_told():
    matrices = random_matrices(2, 2, TOKENS)
    around = relevance(Around(matrices), patches_mask((3, 4)))
    assert any("comes through attention, 0.0" in note for note in around.record.notes)
    assert around.map.data.max() > 0
    net, mask = Given([m.requires_grad_() for m in matrices]), patches_mask((3, 4))
    logits, weights = net.run(X)
    total = logits[0, 1][torch.from_numpy(mask)].sum()
    gains = [
        float((w * g).clamp(min=0).sum()) for w, g in zip(weights, torch.autograd.grad(total, weights), strict=True)
    ]
    for matrix in matrices:
        matrix.requires_grad_(False)
    through = relevance(net, mask)
    assert not any("Hardly" in note for note in through.record.notes)
    assert f"Through one attention the score gains {max(gains):.3g} at most." in through.text


def test_is_the_rule_by_hand_on_a_segmenter_with_class_tokens(monkeypatch):
    """Encoder and decoder by hand: patches keep their rows, class tokens begin without a pixel."""
    torch.manual_seed(0)
    net = Segmenter(1, 3, PATCH, 16, 2, 2, grid=4, decoder_depth=2).eval()
    mask = patches_mask((0, 1, 7))
    answer = relevance(net, mask, classes=("background", "a", "b"), of_class=2)
    weights = []

    def plain(query, key, value):
        weights.append((query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1))
        return weights[-1] @ value

    monkeypatch.setattr(F, "scaled_dot_product_attention", plain)
    total = net(X)[0, 2][torch.from_numpy(mask)].sum()
    gradients = torch.autograd.grad(total, weights)
    steps = [(w[0] * g[0]).clamp(min=0).mean(0) for w, g in zip(weights, gradients, strict=True)]
    found = torch.eye(TOKENS)
    for step in steps[:2]:
        found = found + step @ found
    found = torch.cat([found, torch.zeros(3, TOKENS)])
    for step in steps[2:]:
        found = found + step @ found
    region = (found - torch.eye(TOKENS + 3)[:, :TOKENS])[[0, 1, 7]].mean(0)
    torch.testing.assert_close(
        blocks(answer.map.data).flatten(), (region + found[TOKENS + 2]).detach(), rtol=1e-4, atol=1e-6
    )
    assert "the region's tokens and the token of b" in answer.text
    parts = [
        relevance(net, mask, classes=("background", "a", "b"), of_class=2, rows=rows).map.data
        for rows in ("region", "class token")
    ]
    np.testing.assert_allclose(sum(parts), answer.map.data, rtol=1e-4, atol=1e-7)


def test_tokens_in_front_are_the_classes_only_if_that_is_said():
    """They may be registers; how many there are does not tell."""
    net, names, mask = Given(random_matrices(2, 2, TOKENS + 3), 3, 3), ("background", "a", "b"), patches_mask((0,))
    assert "read from the region's tokens;" in relevance(net, mask, classes=names).text
    told = relevance(net, mask, classes=names, of_class=2, rows="class token")
    assert "read from the token of b;" in told.text
    logits, weights = Given([m.requires_grad_() for m in net.matrices], 3, 3).run(X)
    found, _ = by_hand(weights, logits[0, 2][torch.from_numpy(mask)].sum())
    torch.testing.assert_close(blocks(told.map.data).flatten(), found[2, 3:], rtol=1e-4, atol=1e-6)
    two = Given(random_matrices(2, 2, TOKENS + 3), 3)
    with pytest.raises(MissingNeed, match="no token for the class a"):
        relevance(two, mask, rows="class token")


def test_without_gradient_nothing_is_relevant_but_each_token_itself():
    """The logit of class 0 is a constant."""
    net = Given(random_matrices(2, 2, TOKENS))
    nothing = relevance(net, patches_mask((3,)), of_class=0)
    assert not nothing.map.data.any()
    itself = blocks(relevance(net, patches_mask((3,)), of_class=0, itself=True).map.data).flatten()
    torch.testing.assert_close(itself, torch.eye(TOKENS)[3])


def test_one_attention_that_only_helps_is_linear_in_the_region():
    """One head, one layer, positive tokens: nothing is clipped, and each row hears its own pixels alone."""
    net = Given(random_matrices(1, 1, TOKENS))
    one, two = patches_mask((1,)), patches_mask((6,))
    both, a, b = (relevance(net, m).map.data for m in (one | two, one, two))
    np.testing.assert_allclose(2 * both, a + b, rtol=1e-5)


class TwoHeads(nn.Module):
    """One head reads the planted patch, the other one reads everything alike; only the first head is listened to."""

    divisor = PATCH

    def __init__(self, planted, loud=0):
        super().__init__()
        told = torch.full((2, TOKENS, TOKENS), 1e-4)
        told[0, :, planted] = 1
        self.told = told / told.sum(-1, keepdim=True)
        self.loud = loud

    def forward(self, x):
        grid = F.avg_pool2d(x, PATCH)
        tokens = grid.flatten(1)
        about = 0 * (tokens[:, :, None] + tokens[:, None])
        weights = (self.told.log() + about[:, None]).softmax(-1)
        read = weights @ tokens[:, None, :, None]
        own = F.interpolate((tokens + read[:, self.loud, :, 0]).reshape(grid.shape), x.shape[2:])
        return torch.cat([torch.zeros_like(own), own], 1)


@pytest.mark.parametrize("planted", [2, 9, 11])
def test_the_one_head_that_counts_is_found_and_controls_do_not_find_it(planted):
    mask = patches_mask((4,))
    net = TwoHeads(planted)
    found = blocks(relevance(net, mask).map.data).flatten()
    assert int(found.argmax()) == planted
    assert float(found[planted]) > 0.9 * float(found.sum())
    # what the network itself says: taking this patch away changes the target most
    drops = []
    for patch in range(TOKENS):
        covered = X.clone()
        covered[0, 0, torch.from_numpy(patches_mask((patch,)))] = 0
        drops.append(float((net(X) - net(covered))[0, 1][torch.from_numpy(mask)].mean()))
    drops[4] = 0  # the region itself
    assert int(np.argmax(drops)) == planted
    # the same weights, read from elsewhere: a network whose answer listens to the other head
    deaf = blocks(relevance(TwoHeads(planted, loud=1), mask).map.data).flatten()
    assert float(deaf[planted]) < 0.5 * float(deaf.sum())
    # and the same number of head, its columns shuffled
    shuffled = TwoHeads(planted)
    shuffled.told = shuffled.told[:, :, torch.arange(TOKENS).roll(5)]
    assert int(blocks(relevance(shuffled, mask).map.data).argmax()) != planted


def test_another_class_has_other_evidence_and_rollout_does_not_see_it():
    torch.manual_seed(1)
    net, names, mask = AttendingDeep(classes=3), ("background", "a", "b"), patches_mask((5, 6))
    a, b = (relevance(net, mask, classes=names, of_class=k).map.data for k in (1, 2))
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] < 0.9
    model = wrap(net, classes=names, divisor=PATCH)
    one, two = (explain("attention-rollout", IMAGE, model, Target(k, Painted(mask))).map.data for k in (1, 2))
    np.testing.assert_array_equal(one, two)


class Rearrange(nn.Module):
    """What MONAI's transformers take from einops: axes joined, split and put in another order."""

    def __init__(self, pattern, **sizes):
        super().__init__()
        groups = [re.findall(r"\([^)]*\)|\w+", side) for side in pattern.split("->")]
        self.left, self.right = ([g.strip("()").split() for g in side] for side in groups)
        self.sizes = sizes

    def forward(self, x):
        shape = []
        for group, size in zip(self.left, x.shape, strict=True):
            known = np.prod([self.sizes.get(n, 1) for n in group], dtype=int)
            shape += [self.sizes.get(n, size // known) for n in group]
        names = [n for group in self.left for n in group]
        x = x.reshape(shape).permute([names.index(n) for group in self.right for n in group])
        sizes = iter(x.shape)
        return x.reshape([int(np.prod([next(sizes) for _ in group], dtype=int)) for group in self.right])


@pytest.fixture
def monai(monkeypatch):
    """MONAI's transformers want einops, which is not there."""
    monkeypatch.setattr(selfattention, "Rearrange", Rearrange)
    monkeypatch.setattr(swin_unetr, "rearrange", lambda x, pattern: Rearrange(pattern)(x))
    torch.manual_seed(0)


def asked(net, method, dims=2, side=32, patch=32):
    image = Image(np.random.default_rng(0).random((side,) * dims).astype(np.float32), "ZYX"[-dims:], name="noise")
    mask = np.zeros((side,) * dims, bool)
    mask[(slice(4, 12),) * dims] = True
    model = wrap(net, dims=dims, divisor=patch, size=(side,) * dims)
    return explain(method, image, model, Target(1, Painted(mask)), run=Run())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("method", ["attention-rollout", "attention-relevance"])
def test_unetr_of_monai_is_explained(monai, method, dims):
    net = UNETR(1, 2, (32,) * dims, feature_size=4, hidden_size=12, mlp_dim=16, num_heads=2, spatial_dims=dims)
    answer = asked(net, method, dims)
    assert f"true resolution is {'×'.join(['2'] * dims)} tokens" in answer.text
    assert answer.record.engine["attention"]["layers"] == 12
    assert np.isfinite(answer.map.data).all()
    assert answer.map.data.max() > 0


@pytest.mark.parametrize("method", ["attention-rollout", "attention-relevance"])
def test_windows_of_monai_are_refused_in_one_sentence(monai, method):
    net = SwinUNETR(1, 2, feature_size=12, spatial_dims=2)
    with pytest.raises(MissingNeed, match="within windows of 49 tokens") as caught:
        asked(net, method, side=64)
    assert caught.value.fix
