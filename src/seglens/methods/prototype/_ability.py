"""How well one prototype for a class and one for the rest draw a mask from a layer's features (card A/B4).

With features X and a guide P in 0…1, μ₊ = ΣPX / ΣP and μ₋ = Σ(1 − P)X / Σ(1 − P), and a pixel is of the class where
‖X − μ₋‖² > ‖X − μ₊‖². That is linear in X, so channels are taken a few at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seglens.core.explanation import Layer, Table
from seglens.engine.case import Case
from seglens.engine.channels import AT_ONCE
from seglens.engine.watching import watch
from seglens.models.classes import drawn, probabilities
from seglens.models.device import fine, finest

OWN, DRAWN, CHANCE = "Dice with the prediction", "Dice with the annotation", "chance"
NOTHING = 1e-10  # squared distance of the prototypes, in units of the features' variance, that is only rounding
STEEP = 4.0  # how sure the map is at a prototype: 1 / (1 + exp(-4)) = 0.98


@dataclass(frozen=True, eq=False)
class Drawn:
    """What prototypes draw at a layer, for each of several guides.

    Args:
        margin: (G, n) ‖X − μ₋‖² − ‖X − μ₊‖² of every pixel; positive: of the class.
        gap: (G,) ‖μ₊ − μ₋‖²; 0 where the layer tells nothing apart.
    """

    margin: Tensor
    gap: Tensor

    def mask(self, guide: int) -> Tensor:
        """(n,) boolean: the pixels nearer to the prototype of the class."""
        return self.margin[guide] > 0

    def soft(self, guide: int) -> Tensor:
        """(n,) the softmax of both distances, which are divided so that it is 0.98 at the prototype of the class.

        Without that, many channels make it 0 or 1 everywhere; the mask is the same.
        """
        gap = float(self.gap[guide])
        if gap == 0:
            return torch.full_like(self.margin[guide], 0.5)
        return (self.margin[guide] * (STEEP / gap)).sigmoid()


def draw(case: Case, features: Tensor, guides: Tensor) -> Drawn:
    """Draw by the prototypes of a layer.

    Args:
        case: the image and its size.
        features: (1, D, *s), enlarged to the image.
        guides: (G, n), each pixel 0 to 1.
    """
    inside = guides.sum(1, keepdim=True).clamp(min=1e-6)
    outside = (1 - guides).sum(1, keepdim=True).clamp(min=1e-6)
    margin, gap = torch.zeros_like(guides), guides.new_zeros(len(guides), dtype=finest(guides.device))
    variance = 0.0
    for part in torch.split(features[0][:, None], AT_ONCE):
        full = case.enlarged(part).flatten(1)
        # distances do not depend on the origin, and sums of small numbers are exact
        full = full - full.mean(1, keepdim=True, dtype=finest(full.device)).to(full)
        weighed = guides @ full.T
        plus = fine(weighed / inside)
        minus = fine((full.sum(1) - weighed) / outside)
        margin += 2 * (plus - minus).to(full) @ full - (plus**2 - minus**2).sum(1, keepdim=True).to(full)
        gap += ((plus - minus) ** 2).sum(1)
        variance += float((full**2).mean(1).sum())
    told = gap > NOTHING * variance
    return Drawn(margin * told[:, None], gap * told)


def noise(case: Case, channels: int, size: tuple[int, ...], seed: int) -> Tensor:
    """Features (1, channels, *size) that know nothing, of the size of a layer's."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((1, channels, *size), generator=generator).to(case.x)


def dice(one: Tensor, two: Tensor) -> float:
    """Dice of two masks (n,); 0 where one of them is empty."""
    total = int(one.sum()) + int(two.sum())
    return 2 * int((one & two).sum()) / total if total else 0.0


@dataclass(frozen=True, eq=False)
class Guides:
    """What guides the prototypes, and what their masks are compared with.

    Args:
        present: the classes that the network draws, and the target's.
        own: where the target's class stands among them.
        soft: (G, n) probabilities of these classes, and behind them the annotation, if any.
        masks: (G, n) boolean, what the network draws as these classes, and the annotation.
    """

    present: list[int]
    own: int
    soft: Tensor
    masks: Tensor

    @classmethod
    def of(cls, case: Case) -> Guides:
        """From the network's answer to the clean image; what is not 0 in an annotation is the target's class."""
        over = case.model.spec.overlapping
        present = sorted({*np.unique(case.labels).tolist(), case.target.index})
        soft = probabilities(case.logits, over)[0].flatten(1)[present]
        masks = torch.stack([drawn(case.logits, k, over).flatten() for k in present])
        if case.annotation is not None:
            told = torch.from_numpy(np.asarray(case.annotation) != 0).to(soft.device).flatten()[None]
            soft, masks = torch.cat([soft, told.to(soft)]), torch.cat([masks, told])
        return cls(present, present.index(case.target.index), soft, masks)


@dataclass(frozen=True, eq=False)
class Depth:
    """What one layer's prototypes draw.

    Args:
        name: of the layer.
        size: of its map.
        channels: how many.
        dices: with the mask of each guide, drawn by that guide (G,).
        crossed: that of the target's class with the last mask, which is the annotation's if there is one.
        soft: (n,) the map of the target's class; ``None`` where it is not shown.
        mask: (n,) boolean, the same decided.
    """

    name: str
    size: tuple[int, ...]
    channels: int
    dices: list[float]
    crossed: float
    soft: Tensor | None
    mask: Tensor | None

    @classmethod
    def of(cls, case: Case, name: str, out: Tensor, guides: Guides) -> Depth:
        """Look at a layer's answer (1, D, *s)."""
        drawn, own = draw(case, out, guides.soft), guides.own
        dices = [dice(drawn.mask(g), truth) for g, truth in enumerate(guides.masks)]
        crossed = dice(drawn.mask(own), guides.masks[-1])
        soft, mask = drawn.soft(own).cpu(), drawn.mask(own).cpu()
        return cls(name, tuple(out.shape[2:]), out.shape[1], dices, crossed, soft, mask)


def depths(case: Case, names: Sequence[str], shown: Sequence[str], guides: Guides) -> list[Depth]:
    """What every layer's prototypes draw, in the order in which layers finish; one forward pass.

    A block and its last part that answer the same are one, by the name of the block. Maps of layers that are not shown
    are not kept.
    """
    found: dict[str, Depth] = {}
    last: tuple[Tensor, str] | None = None

    def look(name: str, out: Tensor) -> None:
        nonlocal last
        if last is not None and out is last[0]:
            found[name] = replace(found.pop(last[1]), name=name)
        else:
            if last is not None and last[1] not in shown:
                found[last[1]] = replace(found[last[1]], soft=None, mask=None)
            found.pop(name, None)
            found[name] = Depth.of(case, name, out, guides)
        last = out, name
        case.run.progress(len(found), len(names), "layers")

    watch(case, names, look)
    return [*found.values()]


def scores(case: Case, found: Sequence[Depth], guides: Guides, draws: int) -> Table:
    """One row for each layer: how well its prototypes draw the class, and what noise of its size reaches."""
    own, last = guides.own, len(guides.soft) - 1
    which = [own] if case.annotation is None else [own, last]
    sizes = {(d.channels, d.size): d for d in found}
    by_size = {}
    for done, (size, d) in enumerate(sizes.items()):
        case.run.progress(done, len(sizes), "noise")
        by_size[size] = chance(case, d, guides.soft[which], guides.masks[which], draws)
    columns: dict[str, list[Any]] = {
        "layer": [d.name for d in found],
        "channels": [d.channels for d in found],
        "map": ["×".join(map(str, d.size)) for d in found],
        OWN: [d.dices[own] for d in found],
        CHANCE: [by_size[d.channels, d.size][0] for d in found],
    }
    if case.annotation is not None:
        columns[DRAWN] = [d.crossed for d in found]
        columns[f"{DRAWN}, guided by it"] = [d.dices[last] for d in found]
        columns[f"{CHANCE}, guided by it"] = [by_size[d.channels, d.size][1] for d in found]
    return Table("ability", columns)


def chance(case: Case, depth: Depth, guides: Tensor, truths: Tensor, draws: int) -> list[float]:
    """The mean Dice (G,) with each truth (G, n) of what noise of a layer's size draws, guided alike."""
    made = (noise(case, depth.channels, depth.size, case.run.seed + number) for number in range(draws))
    drawn = [draw(case, features, guides) for features in made]
    return [float(np.mean([dice(d.mask(g), truth) for d in drawn])) for g, truth in enumerate(truths)]


def map_of(case: Case, depth: Depth) -> tuple[Layer, ...]:
    """The ability map of a layer (*space), if it was kept."""
    if depth.soft is None:
        return ()
    values = depth.soft.reshape(case.shape).numpy()
    return (Layer(f"ability at {depth.name}", "heat", values, "softmax of distances", resolution=depth.size),)


def decided(case: Case, found: Sequence[Depth], truth: Tensor) -> Layer:
    """From which depth on a pixel is drawn as the network draws it, at every depth from there: 1 to N, 0 never."""
    wanted = truth.cpu()
    since = torch.zeros(wanted.shape, dtype=torch.uint8)
    kept = torch.ones_like(wanted)
    for number in range(len(found), 0, -1):
        mask = found[number - 1].mask
        if mask is not None:
            kept = kept & (mask == wanted)
            since[kept] = number
    return Layer("decided from depth", "labels", since.reshape(case.shape).numpy())


def told(case: Case, table: Table, best: str, shown: int) -> str:
    """What the numbers say, and what they do not."""
    rows = table.rows()
    at = next(row for row in rows if row["layer"] == best)
    good = (at[OWN] + at[CHANCE]) / 2
    early = next((row for row in rows if row[OWN] >= good), at)
    text = (
        f"Segmentation ability of {len(rows)} layers for {case.target.name}: one prototype for the class and one for "
        f"the rest draw the network's mask best at {best}, of {shown} depths, with Dice {at[OWN]:.2f} "
        f"(noise of that size: {at[CHANCE]:.2f}). The first layer more than half way there from chance is "
        f"{early['layer']} ({early[OWN]:.2f})."
    )
    if at[OWN] <= at[CHANCE] + 0.05:
        text += " No depth tells the class apart by one prototype."
    if case.annotation is None:
        return text + (
            " The guide is the network's own answer: where that is wrong, a high score hides the failure. Give an "
            "annotation to see it."
        )
    theirs = max(rows, key=lambda row: row[f"{DRAWN}, guided by it"])
    there, by_chance = theirs[f"{DRAWN}, guided by it"], theirs[f"{CHANCE}, guided by it"]
    return text + (
        f" Against the annotation the same prototypes reach {at[DRAWN]:.2f}; guided by it, the best layer is "
        f"{theirs['layer']} with {there:.2f} (chance {by_chance:.2f})."
    )
