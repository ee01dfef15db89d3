"""What a trained noise network answers: maps, and how the mask survives when unimportant pixels are hidden."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seglens.core.boxes import Box, at_box
from seglens.core.explanation import Explanation, Figure, Layer, Table
from seglens.core.method import Artefact
from seglens.engine.case import Case
from seglens.methods.perturbation._noise import noise_logits
from seglens.models.nets.unet import UNet

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0)  # of the pixels that stay visible
HALF = SHARES.index(0.5)


def tolerance(case: Case, net: UNet, box: Box) -> Tensor:
    """Logits of B (*space) in a box; far above 0 around it, where noise cannot matter."""
    with torch.inference_mode():
        inside = noise_logits(net.eval(), case.x[at_box(box)])[0, 0].clone()
    around = torch.full(case.shape, 30.0, device=inside.device)
    around[box] = inside
    return around


def answer(
    title: str, case: Case, artefact: Artefact, n: Tensor, noise: Tensor, *, ratio: bool, whole: bool
) -> Explanation:
    """Layers, thresholds and curves.

    Args:
        title: of the method.
        case: the question.
        artefact: of the training.
        n: logits of B (*space).
        noise: what B means in deviations of the image (*space).
        ratio: show ReLU(-logit)/max instead of 1 - B.
        whole: the mask had to stay everywhere; else in the target's region.
    """
    importance = torch.sigmoid(-n)
    rows = visible(case, importance, SHARES, whole)
    hidden = hide(case, most(importance, SHARES[HALF]))
    image = case.intensities(hidden)
    heat, unit = (n.neg().relu() / n.neg().max().clamp(min=1e-6), "-logit of B") if ratio else (importance, "1 - B")
    layers = (
        Layer("importance", "heat", heat.cpu().numpy(), unit),
        Layer("noise that is tolerated", "heat", noise.cpu().numpy(), "deviations of the image"),
        Layer("visible half", "image", image, rgb=image.ndim > n.ndim and image.shape[-1] == 3),
        Layer("labels on it", "labels", case.classes(case.forward(hidden))[0]),
    )
    losses = artefact.data["losses"]
    curves = {key: rows[key] for key in ("Dice", "Dice of random pixels")}
    figures = (
        Figure("training", "line", list(range(len(losses))), {"loss": losses}, "step", "loss"),
        Figure("visible", "line", rows["share visible"], curves, "share visible", "Dice with the clean mask"),
    )
    where = "in the whole image" if whole else "in the region"
    text = (
        f"{title} of {case.target.name}, {where}: the mean importance is {float(importance.mean()):.3g}. With the more "
        f"important half of the pixels visible and the rest at the mean, the mask keeps a Dice of "
        f"{rows['Dice'][HALF]:.3f}; with half of the pixels drawn at random, {rows['Dice of random pixels'][HALF]:.3f}."
    )
    if artefact.data["blind"]:
        text += " Noise never changed the answer: all of it is tolerated everywhere."
    return Explanation(layers, (Table("thresholds", rows),), figures, text)


def most(importance: Tensor, share: float) -> Tensor:
    """The most important pixels (*space), boolean; of equals the first."""
    order = importance.flatten().argsort(descending=True, stable=True)
    return _chosen(order, share).reshape(importance.shape)


def _chosen(order: Tensor, share: float) -> Tensor:
    shown = torch.zeros(len(order), dtype=torch.bool, device=order.device)
    shown[order[: round(share * len(order))]] = True
    return shown


def visible(case: Case, importance: Tensor, shares: Sequence[float], whole: bool) -> dict[str, list[float]]:
    """How well the mask survives when only the most important pixels stay, the rest at the mean of the image.

    Args:
        case: the question.
        importance: (*space).
        shares: of the pixels that stay visible.
        whole: compare everywhere; else in the target's region.

    Returns:
        Columns: the B up to which pixels are visible, their share, the Dice of the class with the clean mask, and the
        same with as many pixels chosen at random.
    """
    flat = importance.flatten()
    chance = torch.randperm(len(flat), generator=case.generator()).to(flat.device)
    counts = torch.ones(case.shape, dtype=torch.bool, device=flat.device) if whole else case.target.weights != 0
    own = case.target.drawn(case.logits)[0] & counts
    sorted_flat = flat.sort(descending=True).values
    rows: dict[str, list[float]] = {"B up to": [], "share visible": [], "Dice": [], "Dice of random pixels": []}
    for number, share in enumerate(shares):
        case.run.progress(number, len(shares), "thresholds")
        dices = []
        for shown in (most(importance, share), _chosen(chance, share).reshape(importance.shape)):
            now = case.target.drawn(case.forward(hide(case, shown)))[0] & counts
            total = int(now.sum() + own.sum())
            dices.append(2 * int((now & own).sum()) / total if total else 1.0)
        last = max(0, round(share * len(flat)) - 1)
        for column, value in zip(rows.values(), (1 - float(sorted_flat[last]), share, *dices), strict=True):
            column.append(value)
    return rows


def hide(case: Case, shown: Tensor) -> Tensor:
    """The image (1, C, *space) with everything but ``shown`` (*space, boolean) at its mean."""
    return torch.where(shown.to(case.x.device), case.x, case.fill("mean").to(case.x))
