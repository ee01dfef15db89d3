"""Training with several annotators after TAX: a loss for each, and prototypes that become pixels of training images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seglens.core.errors import BadParameter
from seglens.core.run import Run
from seglens.engine.annotators import RECORDS
from seglens.models.nets.annotators import AnnotatorHead, AnnotatorUNet
from seglens.models.nets.unet import resized
from seglens.training.batches import Batch, encode
from seglens.training.data import Sample, annotators
from seglens.training.losses import UNKNOWN
from seglens.training.prototypes import jeffreys
from seglens.training.recipe import Recipe
from seglens.training.tasks import Task


class AnnotatorTask(Task):
    """L = mean over annotators r of [loss(gʳ, yʳ) + α · pull + β · diversity] + γ ‖W‖².

    *pull* is the mean over pixels of the squared distance to the nearest prototype of the class that r drew there, by
    r; *diversity* (:func:`seglens.training.prototypes.jeffreys`) keeps the prototypes of one annotator and class
    apart; W is what annotators add to the shared kernel. Options of the recipe: ``pull`` (0.1), ``diversity`` (0.1),
    ``kernels`` (1e-3), and ``annotators``, a pattern such as ``*_Amira``, where not all that have masks count.
    """

    def __init__(self, recipe: Recipe, run: Run) -> None:
        """Read the weights of the terms."""
        super().__init__(recipe, run)
        told = recipe.options
        self.pull, self.diversity = float(told.get("pull", 0.1)), float(told.get("diversity", 0.1))
        self.kernels, self.pattern = float(told.get("kernels", 1e-3)), str(told.get("annotators", "*"))
        self._at: list[int] = []

    def arguments(self, samples: Sequence[Sample]) -> Mapping[str, Any]:
        """The network is built for the annotators of the training images.

        Raises:
            BadParameter: fewer than two of them.
        """
        every = annotators(samples)
        self._at = [i for i, name in enumerate(every) if fnmatch(name, self.pattern)]
        chosen = [every[i] for i in self._at]
        if len(chosen) < 2:
            raise BadParameter(
                f"{self.recipe.spec.name} learns from several annotators; the data have "
                f"{', '.join(every) or 'none by name'}, of which {len(chosen)} fit {self.pattern}.",
                fix="Put the masks of each into a folder of its own: masks/NAME/IMAGE.png.",
            )
        return {**self.recipe.arguments, "annotators": chosen}

    def loss(self, network: nn.Module, batch: Batch, phase: str) -> Tensor:
        """() of a batch; annotators that did not see an image count nothing there."""
        net = _network(network)
        features = net.body(batch.image)
        truths = batch.more["annotators"][:, self._at]
        every = net.head.opinions(features)
        distances = net.head.distances(features)
        terms = []
        for r in range(len(net.head.names)):
            truth = truths[:, r]
            if bool((truth == UNKNOWN).all()):
                continue
            term = self.criterion(resized(every[:, r], batch.image.shape[2:]), truth)
            term = term + self.pull * pulled(distances[:, r], truth)
            if self.diversity:
                term = term + self.diversity * apart(distances[:, r], truth)
            terms.append(term)
        weight, bias = net.head.own()
        own = self.kernels * (weight.square().sum() + bias.square().sum())
        return torch.stack([*terms]).mean() + own if terms else own

    def after(self, phase: str, network: nn.Module, samples: Sequence[Sample], run: Run) -> dict[str, Any]:
        """Behind the last phase prototypes become the nearest pixels of training images; what was learned is told."""
        if phase != self.recipe.plan()[-1].name:
            return {}
        net = _network(network)
        moved = push(net, samples, self.recipe, run)
        sizes = {who: round(n, 4) for who, n in zip(net.head.names, net.head.sizes().tolist(), strict=True)}
        return {"prototypes": moved, "size of own kernels": sizes}

    def save(self, network: nn.Module, out: Path, samples: Sequence[Sample]) -> None:
        """Which pixel each prototype is."""
        told = next(reversed(list(self.told.values())))
        names = _network(network).head.names
        text = json.dumps({"annotators": list(names), "prototypes": told["prototypes"]}, indent=1, ensure_ascii=False)
        (out / RECORDS).write_text(text + "\n", encoding="utf-8")

    def describe(self) -> str:
        """How it was learned, and who they are."""
        told: dict[str, Any] = next(reversed(list(self.told.values())), {})
        names = list(told.get("size of own kernels", {}))
        return (
            f"Learned from {len(names)} annotators ({', '.join(names)}), after TAX (Cheng et al. 2023; the losses are "
            f"ours): a kernel that all share, and one that each adds to it. The mask is that of their mean. Beside the "
            f"loss above, for each annotator, terms of weight {self.pull:g} (pixels lie near a prototype of who drew "
            f"them so), {self.diversity:g} (prototypes of one annotator and class are apart) and {self.kernels:g} (own "
            f"kernels are small). The prototypes are pixels of training images; `{RECORDS}` says which. An annotator "
            f"who has seen other images than the rest is told by the images as well as by the hand."
        )


def _network(network: nn.Module) -> AnnotatorUNet:
    if not isinstance(network, AnnotatorUNet):
        raise BadParameter(
            f"A recipe of several annotators cannot train a {type(network).__name__}.",
            fix="Use the network annotator-unet.",
        )
    return network


def pulled(distances: Tensor, truth: Tensor) -> Tensor:
    """Mean over known pixels of the squared distance to the nearest prototype of their class: ().

    Args:
        distances: (N, K, M, *s) to the prototypes of one annotator.
        truth: (N, *s) that annotator's classes.
    """
    known = truth != UNKNOWN
    nearest = distances.amin(2).gather(1, truth.clamp(min=0)[:, None])[:, 0]
    return (nearest * known).sum() / known.sum().clamp(min=1)


def apart(distances: Tensor, truth: Tensor) -> Tensor:
    """How alike the prototypes of each class of one annotator are, 0 to 1: (); arguments as :func:`pulled`."""
    classes, count = distances.shape[1:3]
    owner = torch.arange(classes, device=truth.device).repeat_interleave(count)
    return jeffreys(distances.flatten(1, 2), truth, owner, torch.ones_like(owner, dtype=torch.bool))


def push(network: AnnotatorUNet, samples: Sequence[Sample], recipe: Recipe, run: Run) -> list[dict[str, Any]]:
    """Put the nearest feature that the annotator drew as the class in the place of each prototype.

    Returns:
        One record for each prototype: annotator, class, number from 1, image, name, source, position, and by how much
        it moved. Of a class that an annotator never drew the image is empty and the prototype stays as it is.
    """
    head, names = network.head, [c.name for c in recipe.spec.classes]
    best: dict[tuple[int, int, int], tuple[float, int, tuple[int, ...], Tensor]] = {}
    for done, sample in enumerate(samples):
        run.progress(done, len(samples), "push")
        batch = encode(sample, recipe, network.divisor, head.names)
        with torch.inference_mode():
            features = network.body(batch.image)
            for r, k in np.ndindex(*head.bank.shape[:2]):
                drawn = (batch.more["annotators"][0, r] == k).flatten().nonzero()[:, 0]
                if len(drawn):
                    mine = features[0].flatten(1)[:, drawn]
                    for m, vector in enumerate(head.bank[r, k]):
                        distance, at = (mine - vector[:, None]).square().sum(0).min(0)
                        if (r, k, m) not in best or float(distance) < best[r, k, m][0]:
                            place = np.unravel_index(int(drawn[at]), tuple(features.shape[2:]))
                            position = tuple(int(n) for n in place)
                            best[r, k, m] = (float(distance), done, position, mine[:, at].clone())
    return _placed(head, best, samples, names)


def _placed(
    head: AnnotatorHead,
    best: Mapping[tuple[int, int, int], tuple[float, int, tuple[int, ...], Tensor]],
    samples: Sequence[Sample],
    names: Sequence[str],
) -> list[dict[str, Any]]:
    records = []
    with torch.no_grad():
        for r, k, m in np.ndindex(*head.bank.shape[:3]):
            record: dict[str, Any] = {"annotator": head.names[r], "class": names[k], "number": m + 1, "image": ""}
            if (r, k, m) in best:
                distance, which, position, vector = best[r, k, m]
                head.bank[r, k, m] = vector
                opened, name = samples[which].opened, samples[which].name
                record |= {
                    "image": opened.fingerprint() if opened else "",
                    "name": name,
                    "source": opened.source if opened else "",
                    "position": list(position),
                    "moved": round(distance, 5),
                }
            records.append(record)
    head.provenance = records
    return records
