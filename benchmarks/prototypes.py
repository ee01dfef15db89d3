"""Prototype networks in numbers: the price in mIoU, what is kept, what the diversity term does, how fast an edit is.

``python -m benchmarks.prototypes HISTOLOGY --alloy SUPERALLOY --models DIR`` trains what DIR lacks (``proto``: the
recipe proto-histology; ``plain``: the same U-Net and schedule with a 1×1 convolution instead of prototypes;
``seed-0-with`` …: proto-superalloy, small and short, with and without the diversity term) and prints Markdown. Both are
folders for ``seglens train``. Without them, only what needs no data: diversity on drawn pictures, and speed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seglens import load_model
from seglens.core.image import Image
from seglens.core.run import Run
from seglens.engine.prototypes import PrototypeEdit, PrototypeView, prototypes_of
from seglens.models.nets.proto_unet import ProtoUNet
from seglens.models.segmentation import SegmentationModel
from seglens.models.spec import ModelSpec, Normalisation, classes_from, read_spec
from seglens.training import train
from seglens.training.batches import Batch, encode
from seglens.training.data import Sample, read_folder
from seglens.training.evaluate import predict
from seglens.training.prototypes import PrototypeTask, jeffreys
from seglens.training.recipe import PLAIN, Recipe
from seglens.training.recipes import RECIPES

RECIPE = "proto-histology"
OWN_SHARE, NEAREST = 0.9, 20


def plain_recipe() -> Recipe:
    """The same U-Net, schedule and loss; a 1×1 convolution in the place of add-on and prototypes."""
    proto = RECIPES[RECIPE]
    arguments = {k: v for k, v in proto.arguments.items() if k not in ("width", "per_class")}
    named = {"addon": "head", "head.similarity": "head", "head.weight": "head"}
    phases = tuple(
        replace(phase, rates={}, only=tuple(dict.fromkeys(named.get(prefix, prefix) for prefix in phase.only)))
        for phase in proto.phases
    )
    spec = proto.spec.with_(name="plain-histology")
    return replace(proto, spec=spec, network="unet", arguments=arguments, phases=phases, task=PLAIN, options={})


def trained(recipe: str | Recipe, data: Path, folder: Path, seed: int = 0) -> SegmentationModel:
    """The model of a folder; trained first, where there is none."""
    if not (folder / "model.json").is_file():
        train(recipe, data, folder, run=Run(seed=seed))
    return load_model(folder, device="cpu")


def after_joint(folder: Path) -> dict[str, Any]:
    """What push and prune told of a trained model."""
    told: dict[str, Any] = next(p["after"] for p in read_spec(folder / "training.json")["phases"] if "after" in p)
    return told


def miou(model: SegmentationModel, samples: Sequence[Sample]) -> list[float]:
    """IoU of each class, background included, over the pixels of all images together."""
    classes = len(model.spec.classes)
    counts = np.zeros((classes, classes), np.int64)
    for sample in samples:
        truth = sample.truth if sample.classes else (sample.truth > 0).astype(int)
        np.add.at(counts, (truth.ravel(), predict(model, sample.image).ravel()), 1)
    both = np.diag(counts)
    return [float(n) for n in both / (counts.sum(0) + counts.sum(1) - both)]


def price(data: Path, models: Path) -> list[str]:
    """The table of mIoU on the test share, with and without prototypes, and what is kept of them."""
    pair = {"without": trained(plain_recipe(), data, models / "plain"), "with": trained(RECIPE, data, models / "proto")}
    split = read_spec(models / "proto" / "training.json")["split"]["test"]
    samples = read_folder(data, split, pair["with"].spec)
    names = [c.name for c in pair["with"].spec.classes]
    lines = [f"| {RECIPE}, {len(samples)} test images | mIoU | {' | '.join(f'IoU {n}' for n in names)} |"]
    lines.append("|---|---|" + "---|" * len(names))
    scores = {}
    for which, model in pair.items():
        each = miou(model, samples)
        scores[which] = float(np.mean(each))
        lines.append(f"| {which} prototypes | {scores[which]:.4f} | {' | '.join(f'{v:.4f}' for v in each)} |")
    told = after_joint(models / "proto")
    kept = len(prototypes_of(pair["with"]))
    lines += [
        "",
        f"Prototypes cost {100 * (scores['without'] - scores['with']):.1f} points of mIoU. Kept are {kept} of "
        f"{told['prototypes']} ({kept / told['prototypes']:.0%}): {len(told['duplicates'])} became the same pixel as "
        f"another, {len(told['pruned'])} were pruned. Likeness of the prototypes of a class: {told['likeness']}.",
    ]
    return lines


def on_alloy(data: Path, models: Path, seeds: int) -> list[str]:
    """Small and short trainings on real images, with and without the term: likeness, prototypes kept, Dice."""
    usual = RECIPES["proto-superalloy"]
    lengths = {"warm-up": 1, "joint": 4, "last layer": 1}
    phases = tuple(replace(phase, epochs=lengths[phase.name]) for phase in usual.phases)
    recipe = replace(usual, phases=phases, crop=96, batch=4)
    lines = [f"| proto-superalloy, small, {seeds} seeds | likeness before push | after | kept of 15 | Dice, test |"]
    lines.append("|---|---|---|---|---|")
    for which, weight in (("without", 0.0), ("with", 0.25)):
        chosen = replace(recipe, options={**usual.options, "diversity": weight})
        rows = []
        for seed in range(seeds):
            folder = models / f"seed-{seed}-{which}"
            trained(chosen, data, folder, seed)
            told, test = after_joint(folder), read_spec(folder / "training.json")["test"]
            dice = float(np.mean([one["dice"] for one in test["classes"].values()]))
            rows.append((*told["likeness"].values(), float(sum(told["kept"].values())), dice))
        shown = " | ".join(
            f"{mean:.2f} ± {spread:.2f}" for mean, spread in zip(np.mean(rows, 0), np.std(rows, 0), strict=True)
        )
        lines.append(f"| {which} the term | {shown} |")
    return lines


class Pixelwise(ProtoUNet):
    """A prototype network that sees single pixels, so that within a class only sub-type and noise differ."""

    def compared(self, x: Tensor) -> Tensor:
        """Only the add-on: ``(N, C, *space)`` to ``(N, width, *space)``."""
        features: Tensor = self.addon(x)
        return features


def subtypes(seed: int, size: int = 20) -> tuple[Sample, NDArray[np.int32]]:
    """A picture of one class with two hidden sub-types, and which pixel is of which (plant P6)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    kind = np.zeros((size, size), np.int32)
    for n in range(6):
        cy, cx = rng.uniform(3, size - 3, 2)
        kind[np.hypot(y - cy, x - cx) <= 3] = 1 if n < 4 else 2
    colours = np.array([[0.1, 0.1], [0.85, 0.5], [0.5, 0.85]])
    image = colours[kind] + rng.normal(0, 0.05, (size, size, 2))
    truth = (kind > 0).astype(np.int32)
    return Sample(f"drawn {seed}", image.astype(np.float32), truth, classes=True), kind


@dataclass(frozen=True)
class Planted:
    """What came of one small training: sub-types that have a prototype of their own, likeness, accuracy."""

    covered: frozenset[int]
    likeness: float
    accuracy: float


def planted(seed: int, diversity: float, per_class: int = 3, steps: int = 200) -> Planted:
    """Train on hidden sub-types; a sub-type is covered if it has 9 of 10 of the pixels nearest to some prototype."""
    spec = ModelSpec("drawn", "YX", ("a", "b"), classes_from(("background", "cell")), normalisation=Normalisation())
    options = {"diversity": diversity}
    recipe = Recipe(spec, {}, "flips", loss="cross-entropy", border=0, truth="classes", options=options)
    drawn = [subtypes(100 * seed + i) for i in range(3)]
    batches = [encode(sample, recipe) for sample, _ in drawn]
    batch = Batch(torch.cat([b.image for b in batches]), torch.cat([b.labels for b in batches]))
    kinds = torch.from_numpy(np.stack([kind for _, kind in drawn]))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Pixelwise(2, 2, [2, 2], level=0, width=16, per_class=per_class)
    task = PrototypeTask(recipe, Run(seed=seed))
    optimiser = torch.optim.Adam([*net.addon.parameters(), net.head.prototypes], lr=2e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        task.loss(net, batch, "joint").backward()
        optimiser.step()
    net.eval()
    with torch.inference_mode():
        distances = net.head.similarity.distances(net.compared(batch.image))
        found = net(batch.image).argmax(1)
        like = jeffreys(distances, batch.labels, net.head.owner, net.head.active)
    cells = batch.labels == 1
    own, which = distances.movedim(1, -1)[cells][:, per_class:], kinds[cells]
    nearest = which[own.argsort(0)[:NEAREST]]  # (NEAREST, per_class)
    covered = {c for c in (1, 2) if bool(((nearest == c).float().mean(0) >= OWN_SHARE).any())}
    return Planted(frozenset(covered), float(like), float((found == batch.labels).float().mean()))


def diversity(seeds: int = 5) -> list[str]:
    """With and without the term: in how many trainings both hidden sub-types have a prototype of their own."""
    lines = ["| diversity term | both sub-types covered | mean likeness exp(-J) | accuracy |", "|---|---|---|---|"]
    for weight in (0.0, 0.25):
        found = [planted(seed, weight) for seed in range(seeds)]
        both = sum(one.covered == {1, 2} for one in found)
        like, right = (float(np.mean([getattr(one, what) for one in found])) for what in ("likeness", "accuracy"))
        lines.append(f"| {weight:g} | {both} of {seeds} | {like:.2f} | {right:.3f} |")
    return lines


def speed(model: SegmentationModel, side: int = 512, repeats: int = 15) -> list[str]:
    """How long an edit takes on a view of ``side``² pixels, beside the pass through the network that it saves."""
    rng = np.random.default_rng(0)
    colours = len(model.spec.channels)
    data = rng.integers(0, 255, (side, side, colours)).astype(np.uint8)
    image = Image(data, "YXC") if colours > 1 else Image(data[..., 0], "YX")
    view = PrototypeView(model, image, Run())
    first, second = (p.number for p in prototypes_of(model)[:2])
    label = model.spec.classes[-1].name

    def add() -> None:
        view.labels(PrototypeEdit(added=(view.taken((7, 9), label),)))

    asked: dict[str, Callable[[], object]] = {
        "looked at (one pass)": lambda: PrototypeView(model, image, Run()),
        "dropped": lambda: view.labels(PrototypeEdit(dropped=frozenset({first}))),
        "merged": lambda: view.labels(PrototypeEdit(merged=((first, second),))),
        "added, taken from a pixel": add,
        "contributions of a pixel": lambda: view.contributions((side // 2, side // 3)),
    }
    lines = [f"| {side}², {len(view.similarities)} prototypes, {model.spec.name} | ms, median | ms, worst |"]
    lines.append("|---|---|---|")
    for what, call in asked.items():
        times = []
        for _ in range(repeats):
            begun = time.perf_counter()
            call()
            times.append(1000 * (time.perf_counter() - begun))
        lines.append(f"| {what} | {np.median(times):.0f} | {max(times):.0f} |")
    return lines


def main(arguments: Sequence[str]) -> int:
    """Run from the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prototypes", description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", help="a folder of stained tissue with images/ and masks/")
    parser.add_argument("--alloy", type=Path, help="the superalloy with train/, val/ and test/")
    parser.add_argument("--models", type=Path, default=Path("benchmarks/results/prototypes"), help="trained models")
    parser.add_argument("--seeds", type=int, default=5, help="trainings with and without the diversity term")
    asked = parser.parse_args(arguments)
    parts = []
    if asked.data is not None:
        parts.append(price(asked.data, asked.models))
        model = load_model(asked.models / "proto", device="cpu")
    else:
        model = load_model(RECIPE, device="cpu")
    if asked.alloy is not None:
        parts.append(on_alloy(asked.alloy, asked.models, asked.seeds))
    parts += [diversity(asked.seeds), speed(model)]
    sys.stdout.write("\n\n".join("\n".join(part) for part in parts) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
