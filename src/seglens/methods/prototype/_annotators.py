"""What a network of several annotators says of an image, as maps and tables (card A/B3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seglens.core.explanation import Layer, Table
from seglens.engine.annotators import Opinions
from seglens.engine.case import Case

MOST = 12  # annotators that have a mask of their own
WHY = 20  # prototypes in the table
CLEAR = 1.5  # times the share by chance from which somebody stands out


def masks(case: Case, opinions: Opinions) -> list[Layer]:
    """What each annotator would draw (*space), for so many of them."""
    names = opinions.head.names
    if len(names) > MOST:
        case.run.note(f"Of {len(names)} annotators the first {MOST} have a mask; the table has all.")
    drawn = opinions.labels.to(torch.uint8).reshape(-1, *case.shape).cpu().numpy()
    return [Layer(f"drawn by {name}", "labels", mask) for name, mask in zip(names[:MOST], drawn, strict=False)]


def people(case: Case, opinions: Opinions) -> Table:
    """One row for each annotator: how much of the class, against the network's answer; largest last column first."""
    k, labels = case.target.index, opinions.labels
    own, answer = labels == k, opinions.answer == k
    area = int(answer.sum())
    columns: dict[str, list[Any]] = {
        "number": list(range(1, len(labels) + 1)),
        "annotator": list(opinions.head.names),
        f"pixels of {case.target.name}": own.sum(1).tolist(),
        "against the network": [float(n / area) if area else 0.0 for n in own.sum(1).tolist()],
        "more than the network": (own & ~answer).sum(1).tolist(),
        "less than the network": (~own & answer).sum(1).tolist(),
        "size of the own kernel": opinions.head.sizes().tolist(),
    }
    return Table("annotators", columns)


def why(case: Case, opinions: Opinions, drawn: Tensor, at: Tensor, records: list[dict[str, Any]]) -> Table:
    """The prototypes that are nearest to some pixels, whoever drew them: which training pixels these look like.

    Args:
        case: the classes.
        opinions: of the annotators.
        drawn: (n,) the classes whose prototypes count.
        at: (p,) numbers of the pixels.
        records: what is known of the prototypes.
    """
    names, classes = opinions.head.names, [c.name for c in case.model.spec.classes]
    _, kinds, count = opinions.head.bank.shape[:3]
    rows: list[tuple[Any, ...]] = []
    for k in np.unique(drawn[at].cpu().numpy()).tolist():
        mine = at[drawn[at] == k]
        distances = opinions.distances(drawn, mine)
        won = distances.amin(1).argmin(0).bincount(minlength=len(names))
        for r, m in np.ndindex(*distances.shape[:2]):
            number = (r * kinds + k) * count + m
            record = records[number] if number < len(records) else {}
            place = ", ".join(
                f"{a} {n}" for a, n in zip(case.model.spec.axes, record.get("position", ()), strict=False)
            )
            mean, nearest = float(distances[r, m].mean()), int(won[r])
            rows.append((mean, names[r], classes[k], m + 1, nearest, record.get("name", ""), place))
    rows.sort(key=lambda row: row[0])
    heads = (
        "mean squared distance",
        "annotator",
        "class",
        "prototype",
        "pixels nearest to this annotator",
        "image",
        "position",
    )
    return Table("nearest prototypes", {head: [row[i] for row in rows[:WHY]] for i, head in enumerate(heads)})


def spoken(case: Case, opinions: Opinions, at: Tensor, shares: Tensor, drawn: str) -> str:
    """What was found, in words."""
    head, name = opinions.head, case.target.name
    region = torch.from_numpy(case.target.region).to(at.device).flatten()
    area = (opinions.labels == case.target.index).sum(1).tolist()
    most, least = int(np.argmax(area)), int(np.argmin(area))
    text = (
        f"{len(head.names)} annotators: {head.names[most]} draws most of {name} ({area[most]} pixels), "
        f"{head.names[least]} least ({area[least]}). They disagree at {len(at)} pixels, {len(at) / region.numel():.1%} "
        "of the image."
    )
    inside = region[at]
    if not bool(inside.any()):
        return text + f" In the region of {name} all draw the same, so nothing tells one from another there."
    mean = shares[:, inside].mean(1)
    first = int(mean.argmax())
    clear = "" if float(mean[first]) >= CLEAR / len(mean) else " Nobody stands out."
    return text + (
        f" At the {int(inside.sum())} of them in the region, {drawn} is most like what {head.names[first]} drew in "
        f"training (share {float(mean[first]):.2f}; by chance {1 / len(mean):.2f}).{clear} Who is told by likeness "
        "alone: an annotator of other images than the rest is known by the images as well."
    )
