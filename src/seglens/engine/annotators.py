"""Networks of several annotators: what each would draw, where they disagree, and who speaks for an answer there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seglens.core.errors import MissingNeed, ModelMismatch
from seglens.engine.case import Case
from seglens.models.loaders.beside import find, folder_of
from seglens.models.nets.annotators import AnnotatorHead
from seglens.models.segmentation import SegmentationModel

RECORDS = "annotators.json"
AT_ONCE = 2**15  # pixels whose distances to all prototypes are computed at a time


def find_head(module: nn.Module) -> AnnotatorHead | None:
    """The layer that answers as several annotators, if the network has one."""
    return next((m for m in module.modules() if isinstance(m, AnnotatorHead)), None)


def check_annotators(model: SegmentationModel) -> AnnotatorHead:
    """The layer of a model that answers as several annotators.

    Raises:
        MissingNeed: it has none.
    """
    head = find_head(model.module)
    if head is None or model.spec.multilabel:
        raise MissingNeed(
            f"{model.spec.name} was not trained with several annotators, so it cannot tell one from another.",
            fix="Train one with the recipe annotators-phase, on masks/NAME/IMAGE.png with a folder for each annotator.",
        )
    return head


@dataclass(frozen=True, eq=False)
class Opinions:
    """An image as several annotators would draw it.

    Args:
        head: the layer that tells.
        features: (D, n) of the image's pixels, as the layer reads them.
        labels: (R, n) the class that each draws.
        answer: (n,) the class that the network draws.
    """

    head: AnnotatorHead
    features: Tensor
    labels: Tensor
    answer: Tensor

    @classmethod
    def of(cls, case: Case) -> Opinions:
        """Look once.

        Raises:
            MissingNeed: the network is not one of several annotators.
        """
        head = check_annotators(case.model)
        read: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda _, given: read.append(given[0]))
        try:
            case.forward(case.x)
        finally:
            handle.remove()
        with torch.inference_mode():
            full = head.opinions(read[-1])[0]
            labels = torch.stack([case.enlarged(one[None])[0].argmax(0).flatten() for one in full])
            features = case.enlarged(read[-1])[0].flatten(1)
        answer = torch.from_numpy(case.labels).to(labels).flatten()
        return cls(head, features.clone(), labels.clone(), answer)

    @property
    def disagree(self) -> Tensor:
        """(n,) boolean: where not all draw the same."""
        apart: Tensor = (self.labels != self.labels[:1]).any(0)
        return apart

    def entropy(self) -> Tensor:
        """(n,) the entropy of their votes in bits: 0 where all draw the same."""
        counts = torch.stack([(self.labels == k).sum(0) for k in range(self.head.out_channels)])
        share = counts / len(self.labels)
        bits: Tensor = -torch.special.xlogy(share, share).sum(0) / np.log(2)
        return bits + 0.0

    def distances(self, labels: Tensor, at: Tensor) -> Tensor:
        """Squared distances (R, M, p) of some pixels to each annotator's prototypes of the class that is drawn there.

        Args:
            labels: (n,) what is drawn.
            at: (p,) numbers of the pixels.
        """
        bank, out = self.head.bank.detach(), []
        for part in torch.split(at, AT_ONCE):
            own = bank[:, labels[part]].permute(0, 2, 3, 1)  # (R, M, D, p)
            out.append((self.features[:, part] - own).square().sum(2))
        return torch.cat(out, 2) if out else bank.new_zeros(len(bank), bank.shape[2], 0)

    def who(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Who speaks for what is drawn, where they disagree; elsewhere nobody can be told from the others.

        Args:
            labels: (n,) what is drawn.

        Returns:
            The numbers (p,) of the pixels where they disagree, and for each the shares (R, p) of the annotators: the
            softmax over them of minus the squared distance to the nearest of their prototypes of the class drawn.
        """
        at = self.disagree.nonzero()[:, 0]
        shares: Tensor = (-self.distances(labels, at).amin(1)).softmax(0)
        return at, shares


def records_of(model: SegmentationModel) -> list[dict[str, Any]]:
    """The training pixel that each prototype is, in the order of the bank; empty where nothing is known.

    Raises:
        MissingNeed: the network is not one of several annotators.
        ModelMismatch: the model's folder tells of other annotators, or cannot be read.
    """
    head = check_annotators(model)
    if head.provenance is None:
        head.provenance = _read(model, head.names, int(np.prod(head.bank.shape[:3])))
    return head.provenance


def _read(model: SegmentationModel, names: Sequence[str], count: int) -> list[dict[str, Any]]:
    with folder_of(model.source) as folder:
        file = None if folder is None else find(folder, RECORDS)
        if file is None:
            return []
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            records, known = list(told["prototypes"]), tuple(told["annotators"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise ModelMismatch(f"{RECORDS} cannot be read: {error!r}.", fix="Train the model again.") from error
    if known != tuple(names) or len(records) != count:
        raise ModelMismatch(
            f"{RECORDS} tells of {len(records)} prototypes of {', '.join(known)}; the network has {count} of "
            f"{', '.join(names)}.",
            fix="Keep the folder of a model as it was written.",
        )
    return records
