"""What methods share that read a network's own parts: its head of class rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seglens.core.errors import MissingNeed
from seglens.engine.case import Case

SIDE = {2: 64, 3: 32}


def class_head(case: Case) -> tuple[str, Tensor]:
    """Name and weight rows (K, D) of the 1×1 convolution that answers the logits.

    Found by trying: with its output replaced by one number per class, the network must answer just these numbers
    everywhere. What comes after the head may resize it or take its softmax, but nothing else.

    Raises:
        MissingNeed: there is none, or each class has a sigmoid of its own.
    """
    spec = case.model.spec
    if spec.multilabel:
        raise MissingNeed(
            f"{spec.name} answers each class by itself (a sigmoid), so its classes do not compete.",
            fix="Choose a model with a softmax over its classes, or another method.",
        )
    part = case.x[(slice(None), slice(None), *(slice(0, SIDE[spec.ndim]),) * spec.ndim)]
    wanted = torch.linspace(-2, 2, len(spec.classes), device=part.device)
    for name, module in reversed(list(case.model.module.named_modules())):
        if _is_pointwise(module, len(spec.classes)) and _answers(case, module, part, wanted):
            rows: Tensor = module.weight.detach().flatten(1)
            return name, rows
    raise MissingNeed(
        f"{spec.name} does not end in a 1×1 convolution with a row of weights for each of its "
        f"{len(spec.classes)} classes.",
        fix="Choose a network that ends in one (U-Net, DeepLab, HRNet, SegFormer), or another method.",
    )


def _is_pointwise(module: nn.Module, classes: int) -> bool:
    return (
        isinstance(module, nn.Conv2d | nn.Conv3d)
        and set(module.kernel_size) == {1}
        and module.groups == 1
        and module.out_channels == classes
    )


def _answers(case: Case, module: nn.Module, x: Tensor, wanted: Tensor) -> bool:
    """Whether the class scores are what this module answers, up to a number that all classes share."""
    case.run.check()
    shape = (1, -1, *(1,) * (x.ndim - 2))

    def replace(_: nn.Module, __: object, out: Tensor) -> Tensor:
        return wanted.to(out).view(shape).expand_as(out).clone()

    handle = module.register_forward_hook(replace)
    try:
        # not inference_mode: a network may keep tensors that it makes, and later use needs their gradient
        with torch.no_grad():
            logits = case.model.logits(x)
    finally:
        handle.remove()
    expected = wanted.log_softmax(0).view(shape).expand_as(logits)
    return torch.allclose(logits.float().log_softmax(1), expected, atol=1e-3)
