"""Training of prototype networks after ProtoSeg: warm-up, joint, push, prune, last layer.

The phases of the recipe are ``warm-up``, ``joint`` and ``last layer``; push and prune follow the joint phase
(:mod:`seglens.training.pushing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seglens.core.errors import BadParameter
from seglens.core.run import Run
from seglens.engine.prototypes import write_prototypes
from seglens.models.nets.proto_unet import ProtoUNet
from seglens.models.nets.unet import resized
from seglens.training.batches import Batch
from seglens.training.data import Sample
from seglens.training.pushing import labels_at, likeness, prune, push, records
from seglens.training.recipe import Recipe
from seglens.training.tasks import Task

JOINT, LAST = "joint", "last layer"


class PrototypeTask(Task):
    """The recipe's loss, and a term that keeps the prototypes of a class apart; in the last phase one for few weights.

    Options of the recipe: ``diversity`` (0.25) and ``off_class`` (1e-4) are the weights of the two terms.
    """

    def __init__(self, recipe: Recipe, run: Run) -> None:
        """Read the weights of the terms."""
        super().__init__(recipe, run)
        self.diversity = float(recipe.options.get("diversity", 0.25))
        self.off_class = float(recipe.options.get("off_class", 1e-4))

    def arguments(self, samples: Sequence[Sample]) -> Mapping[str, Any]:
        """The recipe's own.

        Raises:
            BadParameter: a recipe without the phase that push and prune follow.
        """
        names = [phase.name for phase in self.recipe.plan()]
        if JOINT not in names:
            raise BadParameter(
                f"The recipe has the phases {', '.join(names)}, and prototypes are pushed after one called {JOINT!r}.",
                fix=f"Call its phases warm-up, {JOINT} and {LAST}, as proto-histology does.",
            )
        return super().arguments(samples)

    def loss(self, network: nn.Module, batch: Batch, phase: str) -> Tensor:
        """() of a batch; what is frozen in a phase is in no term of it."""
        net = _proto(network)
        head = net.head
        distances = head.similarity.distances(net.compared(batch.image))
        similarities = head.similarity.of(distances).to(head.weight.dtype)
        loss = self.criterion(resized(head.mix(similarities), batch.image.shape[2:]), batch.labels)
        if phase == LAST:
            return loss + self.off_class * off_class(head.weight, head.owner)
        if self.diversity:
            labels = labels_at(batch.labels, distances.shape[2:])
            loss = loss + self.diversity * jeffreys(distances, labels, head.owner, head.active)
        return loss

    def after(self, phase: str, network: nn.Module, samples: Sequence[Sample], run: Run) -> dict[str, Any]:
        """Behind the joint phase, push and prune."""
        if phase != JOINT:
            return {}
        net, classes = _proto(network), [c.name for c in self.recipe.spec.classes]
        before = likeness(net, samples, self.recipe, run, jeffreys)
        pushed = push(net, samples, self.recipe, run)
        pruned = prune(net, samples, self.recipe, run)
        owner, active = net.head.owner.tolist(), net.head.active.tolist()
        kept = {c: sum(a for a, o in zip(active, owner, strict=True) if o == k) for k, c in enumerate(classes)}
        return {
            **pushed,
            **pruned,
            "kept": kept,
            "prototypes": len(owner),
            "likeness": {"before push": before, "after": likeness(net, samples, self.recipe, run, jeffreys)},
        }

    def save(self, network: nn.Module, out: Path, samples: Sequence[Sample]) -> None:
        """Where each prototype comes from, with its crop."""
        net = _proto(network)
        net.head.provenance = records(net, self.told[JOINT]["pushed"], samples, self.recipe)
        write_prototypes(out, net.head, self.recipe.spec)

    def describe(self) -> str:
        """What the prototypes went through."""
        told = self.told.get(JOINT, {})
        kept = told.get("kept", {})
        shares = ", ".join(f"{number} of {name}" for name, number in kept.items())
        return (
            f"A prototype layer after ProtoSeg (Sacha et al. 2023): a logit is the sum over prototypes of the "
            f"similarity with each times its weight. Beside the loss above a term of weight {self.diversity:g} keeps "
            f"the prototypes of a class apart (Jeffreys divergence of the pixels they lie near), and in the last "
            f"phase one of weight {self.off_class:g} keeps weights for other classes few. After the joint phase each "
            f"prototype became the nearest training pixel of its own class; {sum(kept.values())} of "
            f"{told.get('prototypes', 0)} were kept ({shares}): dropped are {len(told.get('duplicates', []))} that "
            f"became the same pixel as another and {len(told.get('pruned', []))} whose nearest pixels in other "
            f"images are mostly of other classes. The prototypes are pixels of training images: `prototypes.json` says "
            f"which, `prototypes.safetensors` has a crop of each."
        )


def _proto(network: nn.Module) -> ProtoUNet:
    if not isinstance(network, ProtoUNet):
        raise BadParameter(
            f"A recipe of prototypes cannot train a {type(network).__name__}.", fix="Use the network proto-unet."
        )
    return network


def off_class(weight: Tensor, owner: Tensor) -> Tensor:
    """Sum of the absolute weights (K, P) of prototypes for classes that they are not of: ()."""
    own = nn.functional.one_hot(owner, len(weight)).T.bool()
    return weight.masked_fill(own, 0).abs().sum()


def jeffreys(distances: Tensor, labels: Tensor, owner: Tensor, active: Tensor) -> Tensor:
    """How alike the prototypes of a class are, from 0 (each near other pixels) to 1 (all near the same): ().

    For each image, each class in it and each two prototypes of *that class*: P = softmax over the class's pixels of
    the squared distances to the one and to the other, J = ½[KL(P|Q) + KL(Q|P)]; the mean of exp(-J). (The authors'
    code takes the prototypes of the next class where a void class is ignored; this does not.)

    Args:
        distances: (N, P, *s).
        labels: (N, *s) class numbers; negative where nobody knows.
        owner, active: (P,) class of each prototype, and whether it counts.

    Returns:
        The mean; 0 where no class has two prototypes and a pixel.
    """
    found = []
    for one, truth in zip(distances.flatten(2), labels.flatten(1), strict=True):
        for c in range(int(owner.max()) + 1):
            mine = one[(owner == c) & active][:, truth == c]
            if len(mine) > 1 and mine.shape[1]:
                found.append(_alike(mine))
    return torch.cat(found).mean() if found else distances.new_zeros(())


def _alike(distances: Tensor) -> Tensor:
    """exp(-J) of every two of (m, pixels) distances."""
    log = distances.log_softmax(1)
    p = log.exp()
    divergence = (p * log).sum(1, keepdim=True) - p @ log.T
    first, second = torch.triu_indices(len(log), len(log), 1, device=log.device)
    return (-0.5 * (divergence + divergence.T)[first, second]).exp()
