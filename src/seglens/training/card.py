"""The model card: what a person must know before using a model, written from the record of its training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from seglens.models.spec import ModelSpec
from seglens.training.recipe import Recipe

CARD = "CARD.md"
# Files in which a data folder says where it comes from.
SOURCES = ("SOURCE.txt", "SOURCE.md", "LICENSE", "LICENSE.txt", "LICENCE", "LICENCE.txt", "README.md", "README.txt")
LINES = 12


def write_card(
    folder: Path,
    spec: ModelSpec,
    record: Mapping[str, Any],
    recipe: Recipe,
    data: Path | None,
    said: str,
    network: nn.Module,
) -> None:
    """Write ``CARD.md``.

    Args:
        folder: where.
        spec: what the finished model says of itself.
        record: what ``training.json`` holds.
        recipe: as it was trained.
        data: the folder it was trained on.
        said: what the task adds; may be empty.
        network: to tell its size.
    """
    parts = [
        f"# {spec.name}",
        f"{spec.description} Classes: {', '.join(c.name for c in spec.classes)}.".strip(),
        "## Data",
        *_data(record, recipe, None if recipe.synthetic else data),
        _licence(spec.licence, record),
        "## Training",
        *_training(record, recipe, network),
        *([said] if said else []),
        f"```\n{record['command']}\n```",
        *_scores(record),
        "## Limits",
        _limits(spec, record, recipe),
    ]
    (folder / CARD).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _licence(licence: str, record: Mapping[str, Any]) -> str:
    """A licence that comes with the recipe was written for other images than a person's own."""
    if not licence:
        return "Licence of the model: not stated. State one before you pass the model on."
    if "--licence" in record["command"] or record["synthetic"]:
        return f"Licence of the model: {licence}."
    return f"Licence of the model, as its recipe has it: {licence}. Make sure that it fits these images."


def _data(record: Mapping[str, Any], recipe: Recipe, data: Path | None) -> list[str]:
    counts = ", ".join(f"{len(names)} for {share}" for share, names in record["split"].items())
    if data is None:
        return [f"Drawn by code, {counts}; a picture's name ends in the seed it is drawn from."]
    ready = all(name.startswith(f"{share}/") for share, names in record["split"].items() for name in names)
    how = "as the folders train, val and test part them" if ready else "by the SHA-256 of the file name"
    holds = "class numbers" if recipe.truth == "classes" else "object numbers; anything but 0 is foreground"
    lines = [
        f"Images and masks of the folder `{data.name}` (masks hold {holds}): {counts}, split {how}; the names are "
        "in `training.json`. Images of one slide, patient or day may stand in several shares unless the folder "
        "keeps them apart; then the scores tell of new images from known sources, not of new sources."
    ]
    people = record["data"]["annotators"]
    if people:
        lines.append(f"{len(people)} annotators: {', '.join(people)}.")
    return lines + _source(data)


def _source(data: Path) -> list[str]:
    """The first lines of what the folder says of itself, word by word."""
    file = next((data / name for name in SOURCES if (data / name).is_file()), None)
    if file is None:
        return ["The folder does not say where its images come from and under which licence: write it here."]
    text = file.read_text(encoding="utf-8", errors="replace").splitlines()
    quoted = [line.replace("```", "'''").rstrip() for line in text[:LINES]] + (["…"] if len(text) > LINES else [])
    return [f"`{file.name}` in it says:", "\n".join(["```text", *quoted, "```"])]


def _training(record: Mapping[str, Any], recipe: Recipe, network: nn.Module) -> list[str]:
    size = sum(parameter.numel() for parameter in network.parameters())
    arguments = ", ".join(f"{name} {value}" for name, value in recipe.arguments.items())
    rim = f"; objects have a rim of {recipe.border} px" if recipe.border and recipe.truth == "instances" else ""
    lines = [
        f"Network `{recipe.network}` ({arguments}), {_thousands(size)} parameters. Loss: {recipe.loss}{rim}. "
        f"{recipe.steps} steps an epoch of {recipe.batch} crops of {recipe.crop} px, mirrored, turned by quarters, "
        f"zoom {recipe.zoom[0]:g} to {recipe.zoom[1]:g}, augmentation `{recipe.augmentation}`. AdamW. Intensities: "
        f"{_normalisation(recipe)}. Seed {record['seed']}, precision {record['precision']}, device {record['device']}."
    ]
    table = ["| phase | epochs | best epoch | validation, best | validation, last |", "|---|---|---|---|---|"]
    for phase in record["phases"]:
        scores = phase["validation"]
        early = " (stopped early)" if phase.get("stopped_early") else ""
        best = phase["best_epoch"]
        table.append(f"| {phase['name']} | {len(scores)}{early} | {best} | {scores[best - 1]:.4f} | {scores[-1]:.4f} |")
    return [*lines, "\n".join(table)]


def _thousands(size: int) -> str:
    return f"{size / 1e6:.1f} million" if size >= 1e6 else f"{size / 1e3:.0f} thousand"


def _normalisation(recipe: Recipe) -> str:
    how = recipe.spec.normalisation
    words = {
        "none": "as they are",
        "dtype": "divided by the largest value of the data type",
        "percentile": f"percentile {how.low:g} to 0 and percentile {how.high:g} to 1, of the whole image",
        "zscore": "mean 0 and deviation 1, of the whole image",
        "fixed": f"less {how.mean}, divided by {how.std}",
    }[how.kind]
    then = f", then less {how.then_mean:g}, divided by {how.then_std:g}"
    return words + (then if (how.then_mean, how.then_std) != (0.0, 1.0) else "")


def _scores(record: Mapping[str, Any]) -> list[str]:
    test = record["test"]
    if not test["images"]:
        return ["## Scores", "No images were held out for a test: how good the model is on new images is not known."]
    rows = ["| | mean | median |", "|---|---|---|"]
    rows += [
        f"| {n} | {test[m]['mean']:.4f} | {test[m]['median']:.4f} |" for n, m in (("Dice", "dice"), ("IoU", "iou"))
    ]
    parts = [
        f"## Scores on the {len(test['images'])} test images",
        "Foreground (all classes but the first) against background, per image:",
        "\n".join(rows),
    ]
    if "classes" in test:
        rows = ["| class | Dice, mean | IoU, mean | images |", "|---|---|---|---|"]
        rows += [f"| {n} | {s['dice']:.4f} | {s['iou']:.4f} | {s['images']} |" for n, s in test["classes"].items()]
        parts += ["Each class, over the images that have it or in which it was found:", "\n".join(rows)]
    rows = ["| lowest Dice | Dice |", "|---|---|"]
    rows += [f"| {name} | {test['images'][name]['dice']:.3f} |" for name in test["worst"]]
    again = "python -m seglens.training.evaluate MODEL_DIR" + ("" if record["synthetic"] else " DATA")
    return [*parts, "\n".join(rows), f"```\n{again}\n```"]


def _limits(spec: ModelSpec, record: Mapping[str, Any], recipe: Recipe) -> str:
    low, high = recipe.zoom
    lines = [
        "Trained on the images named above and tried on nothing else. Other microscopes, stains and cameras are "
        f"unknown ground, and so are objects outside of {low:g} to {high:g} times the size of those in training.",
        f"One input pixel influences at most {spec.reach} px around it (measured)."
        if spec.reach is not None
        else "Every pixel may influence the whole image; tiles have the size of the training crops.",
        "Not for diagnosis.",
    ]
    return " ".join(lines)
