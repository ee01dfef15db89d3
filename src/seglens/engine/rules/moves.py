"""Ways back that several families of rules share: operations that copy, select or mix what they read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from seglens.engine.rules.steps import Rule, Slot, Step, names, places

Came = Sequence[Tensor | None]
Gave = list[tuple[Slot, Tensor]]

# Each value of the answer is one value of the input, or a constant.
COPIES = names(
    "cat stack clone copy _to_copy lift lift_fresh_copy contiguous repeat repeat_interleave expand_copy view_copy "
    "permute_copy constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
    "replication_pad2d replication_pad3d upsample_nearest1d upsample_nearest2d upsample_nearest3d "
    "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d pixel_shuffle pixel_unshuffle "
    "channel_shuffle native_channel_shuffle index index_select _unsafe_index index_put slice_scatter select_scatter "
    "gather scatter flip roll masked_fill masked_scatter where tril triu im2col unfold_copy take max_unpool2d "
    "max_unpool3d select_backward slice_backward fill zero rot90 unsafe_split unsafe_chunk split_copy"
)
# Each value of the answer is a sum of values of the input times fixed numbers.
MIXES = names(
    "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d _adaptive_avg_pool2d _adaptive_avg_pool3d mean sum nansum "
    "cumsum upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa col2im grid_sampler_2d grid_sampler_3d scatter_add index_add trace"
)
# The largest values of the input are the answer.
WINNERS = names(
    "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d "
    "max amax maximum min amin minimum topk sort kthvalue median fractional_max_pool2d fractional_max_pool3d"
)
# Of one number each.
CURVES = names(
    "relu leaky_relu _prelu_kernel rrelu_with_noise elu celu selu gelu silu mish hardswish hardsigmoid hardtanh "
    "sigmoid tanh softplus softsign log_sigmoid_forward threshold clamp clamp_min clamp_max exp expm1 log log1p log2 "
    "log10 sqrt rsqrt square reciprocal pow abs erf sin cos logit"
)
ATTENTION = names(
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention _scaled_dot_product_attention_math "
    "_scaled_dot_product_fused_attention_overrideable"
)
SUMS = frozenset(("add", "sub", "rsub"))
POOLS = {"max_pool2d_with_indices": "max_pool2d_with_indices_backward",
         "max_pool3d_with_indices": "max_pool3d_with_indices_backward"}  # fmt: skip


def plain(step: Step, came: Came) -> Gave:
    """The operation's own derivative, by running it again; exact for whatever torch can differentiate."""
    leaves: list[tuple[Slot, Tensor]] = []

    def leaf(thing: object) -> object:
        if not isinstance(thing, Slot):
            return thing
        if thing.cell is None:
            return thing.value
        fresh = thing.tensor().detach().requires_grad_(True)
        leaves.append((thing, fresh))
        return fresh

    args, kwargs = tree_map(leaf, (step.args, step.kwargs))
    with torch.enable_grad():
        out = step.run(*args, **kwargs)
    made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
    pairs = [(t, c) for t, c in zip(made, came, strict=False) if c is not None and t.requires_grad]
    if not pairs:
        return []
    grads = derivative(pairs, [t for _, t in leaves])
    return [(slot, g) for (slot, _), g in zip(leaves, grads, strict=True) if g is not None]


def derivative(pairs: Sequence[tuple[Tensor, Tensor]], leaves: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """What comes back to leaves when to each answer something has come: pairs of both, in one shape.

    The derivative of a number is asked for: where torch is given what comes back, it imports its compiler first.
    """
    with torch.enable_grad():
        numbers = [(answer * came).sum() for answer, came in pairs]
        total = numbers[0]
        for number in numbers[1:]:
            total = total + number
    return torch.autograd.grad(total, leaves, allow_unused=True)


def joined(step: Step, came: Came) -> Gave:
    """Concatenation: each input gets its part."""
    axis = int(step.args[1]) if len(step.args) > 1 else 0
    gave, start = [], 0
    for slot in step.args[0]:
        shape = slot.tensor().shape if slot.cell is None else slot.cell.size
        if len(shape) == 1 and shape[0] == 0:
            continue  # torch leaves out such empty tensors
        if slot.cell is not None:
            gave.append((slot, one(came).narrow(axis, start, shape[axis])))
        start += shape[axis]
    return gave


def pooled(step: Step, came: Came) -> Gave:
    """Max pooling: the largest of each window gets all."""
    slot, indices = step.args[0], step.answers[1].tensor()
    usual: list[Any] = [[], 0, 1, False]  # stride, padding, dilation, ceil mode
    how = [*step.args[1:], *usual[len(step.args) - 2 :]]
    back = getattr(torch.ops.aten, POOLS[step.name])
    return [(slot, back(one(came), slot.tensor(), *how, indices.long()))]


def copied(step: Step, came: Came) -> Gave:
    """A copy: of another type, in another layout, or into a part of another tensor."""
    slot = step.args[1] if step.name == "copy" else step.args[0]
    if slot.cell is None:
        return []
    return [(slot, stretched_back(one(came), slot.cell.size).to(slot.cell.dtype))]


def addends(step: Step) -> list[tuple[Any, float]]:
    """What an addition or subtraction adds, each with its factor."""
    alpha = float(step.kwargs.get("alpha", step.args[2] if len(step.args) > 2 else 1))
    left, right = step.args[:2]
    if step.name == "rsub":
        return [(left, -alpha), (right, 1.0)]
    return [(left, 1.0), (right, alpha if step.name == "add" else -alpha)]


def added(step: Step, came: Came) -> Gave:
    """Addition: each addend gets the whole, times its factor."""
    values = one(came)
    return [
        (slot, stretched_back(values if factor == 1 else values * factor, slot.cell.size))
        for slot, factor in addends(step)
        if isinstance(slot, Slot) and slot.cell is not None
    ]


def stretched_back(values: Tensor, size: Sequence[int]) -> Tensor:
    """Sum over the axes along which a tensor of a size was repeated."""
    return values.sum_to_size(tuple(size))


def one(came: Came) -> Tensor:
    """What came to the only answer."""
    found = came[0]
    assert found is not None  # an operation of one answer is only asked when something came to it
    return found


JOINED = Rule("shares", joined)
COPIED = Rule("shares", copied)
POOLED = Rule("winner", pooled, kept=places)
ADDED = Rule("gradient", added)


def move(step: Step) -> Rule | None:
    """The rule of an operation that copies or selects, the same in all families; ``None`` for others."""
    if step.name == "cat":
        return JOINED
    if step.name in ("clone", "copy", "_to_copy"):
        return COPIED
    if step.name in POOLS:
        return POOLED
    if step.name in COPIES:
        return Rule("shares", plain)
    return None
