"""``seglens segment``: classes, objects and uncertainty of any number of images."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

from seglens.app.commands._options import (
    RUN,
    Option,
    Sectioned,
    image_options,
    load,
    model_options,
    open_view,
    run_options,
    working,
)  # fmt: skip
from seglens.core.errors import Cancelled, SegLensError
from seglens.core.files import SAMPLE, image_files
from seglens.core.image import Image
from seglens.core.plural import plural
from seglens.core.saving import new_folder, save_segmentation

# From this many pixels on, results go to disk while they are made.
BIG = 2**28


class PartlyFailedError(click.ClickException):
    """Some images failed; the others are done."""

    exit_code = 2


def _run(images: tuple[str, ...], **options: Any) -> None:
    sources = _expanded(images)
    with new_folder(options["out"]) as out:
        model = load(options)
        failed: dict[str, SegLensError] = {}
        names = _folder_names(sources)
        for source, name in zip(sources, names, strict=True):
            folder = out if len(sources) == 1 else out / name
            try:
                click.echo(_one(source, folder, model, options))
            except Cancelled:
                raise
            except SegLensError as error:
                if len(sources) == 1:
                    raise
                failed[source] = error
                click.echo(f"{source}: failed. {error.what}", err=True)
        if len(failed) == len(sources):
            raise PartlyFailedError(_told(failed, len(sources)))
    if failed:
        raise PartlyFailedError(_told(failed, len(sources)))


def _one(source: str, folder: Path, model: Any, options: dict[str, Any]) -> str:
    from seglens.session import segment

    image = open_view(source, options)
    keep = options["probabilities"]
    with working(options["seed"]) as run, _scratch(image, folder) as parts:
        made = segment(
            image, model, run=run, tile=options["tile"], halo=options["halo"], probabilities=keep, out=parts
        )  # fmt: skip
        save_segmentation(made, folder, image)
    return f"{image.name}: {_shares(made, model.spec)}: {folder}"


@contextmanager
def _scratch(image: Image, folder: Path) -> Iterator[Path | None]:
    """A folder beside the results for an image too big for memory, removed after; ``None`` for others."""
    if int(np.prod(image.shape)) < BIG:
        yield None
        return
    parts = folder.with_name(f".{folder.name}.parts")
    parts.mkdir(parents=True)
    try:
        yield parts
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def _shares(made: Any, spec: Any) -> str:
    counts = np.zeros(len(spec.classes), np.int64)
    rows = max(1, 2**26 // max(1, int(np.prod(made.labels.shape[1:]))))
    for start in range(0, made.labels.shape[0], rows):
        part = np.asarray(made.labels[start : start + rows])
        counts += np.bincount(part.ravel(), minlength=len(counts))
    shares = [f"{spec.classes[i].name} {counts[i] / counts.sum():.1%}" for i in range(1, len(counts))]
    return ", ".join(shares)


def _expanded(images: tuple[str, ...]) -> list[str]:
    """Folders as the images in them."""
    from seglens.core.readers.zarrs import is_zarr

    found: list[str] = []
    for source in images:
        path = Path(source).expanduser()
        many = not source.startswith(SAMPLE) and path.is_dir() and not is_zarr(path)
        found += [str(p) for p in image_files(path)] if many else [source]
    return found


def _folder_names(sources: list[str]) -> list[str]:
    names: list[str] = []
    for source in sources:
        name = Path(source.removeprefix(SAMPLE)).name.split(".")[0] or "image"
        names.append(name if name not in names else f"{name}-{len(names) + 1}")
    return names


def _told(failed: dict[str, SegLensError], total: int) -> str:
    lines = "\n".join(f"  {source}: {error.what} {error.fix}" for source, error in failed.items())
    return f"{len(failed)} of {plural(total, 'image')} failed:\n{lines}"


command = Sectioned(
    "segment",
    callback=_run,
    help="Segment IMAGES (files, folders or sample:NAME) and write labels, objects and entropy of each.",
    params=[
        click.Argument(["images"], nargs=-1, required=True),
        *model_options(),
        *image_options(),
        Option(["--tile"], section=RUN, type=click.IntRange(min=1), metavar="N", help="Side of a tile, in pixels."),
        Option(["--halo"], section=RUN, type=click.IntRange(min=0), metavar="N", help="Context around a tile."),
        Option(["--probabilities"], section=RUN, is_flag=True, help="Also write the probability of each class."),
        *run_options(),
    ],
)
