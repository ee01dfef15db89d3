"""``seglens gallery bank``: embeddings of objects, patches or pixels of many images, in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from seglens.app.commands._options import (
    RUN,
    Option,
    Sectioned,
    image_options,
    load,
    model_options,
    open_view,
    working,
)  # fmt: skip
from seglens.core.image import Image
from seglens.core.plural import plural
from seglens.engine.features.entry import Kind, MaskKind, Precision

WHAT = "What is embedded"
TRUTH = "What is known"


class PartlyFailedError(click.ClickException):
    """Some images failed; the others are in the bank."""

    exit_code = 2


def _run(images: tuple[str, ...], **options: Any) -> None:
    from seglens.engine.features import build_bank

    def opener(source: str) -> Image:
        return open_view(source, options)

    own = ("layer", "kind", "masks", "masks_are", "group", "per_image", "smallest", "side", "tile", "precision")
    model = load(options)
    with working(options["seed"]) as run:
        bank = build_bank(
            model, images, options["out"], classes=options["of_class"], opener=opener, run=run,
            **{name: options[name] for name in own},
        )  # fmt: skip
    try:
        count, groups, found, failed = len(bank), len(bank.groups()), len(bank.images()), bank.failures()
        where = f"{bank.folder}: layer {bank.info.layer}, {bank.info.dims} numbers each"
    finally:
        bank.close()
    click.echo(
        f"{plural(count, options['kind'] + ' embedding')} of {plural(found, 'image')} in {plural(groups, 'group')}: "
        f"{where}"
    )
    if failed:
        lines = "\n".join(f"  {one.source}: {one.what} {one.fix}" for one in failed)
        raise PartlyFailedError(f"{plural(len(failed), 'image was', 'images were')} left out:\n{lines}")


def _option(name: str, section: str, text: str, **settings: Any) -> Option:
    names = [name, settings.pop("dest")] if "dest" in settings else [name]
    return Option(names, section=section, help=text, **settings)


def _number(name: str, section: str, text: str) -> Option:
    return _option(name, section, text, type=click.IntRange(min=1), metavar="N")


def _choice(name: str, section: str, text: str, of: Any, **settings: Any) -> Option:
    return _option(name, section, text, type=click.Choice(get_args(of)), **settings)


bank = Sectioned(
    "bank",
    callback=_run,
    help="Embed what a model draws on IMAGES (files, folders or sample:NAME) in a folder that methods look things up "
    "in. A build that was stopped goes on where it was, if it is asked for again.",
    params=[
        click.Argument(["images"], nargs=-1, required=True),
        *model_options(),
        _option("--layer", WHAT, "The layer that is read; by default what the head reads.", metavar="NAME"),
        _choice("--kind", WHAT, "Of what.", Kind, default="object", show_default=True),
        _option("--class", WHAT, "Only what is drawn as this class.", dest="of_class", multiple=True, metavar="CLASS"),
        _number("--per-image", WHAT, "Most of one image; by default 500 pixels, all objects and patches."),
        _option("--smallest", WHAT, "Leave out what has fewer pixels.", type=click.IntRange(min=1), metavar="N",
                default=1, show_default=True),
        _number("--side", WHAT, "Side of a patch, in pixels; by default 32, or 16 in volumes."),
        _option("--masks", TRUTH, "Folder of masks that are called like the images.", metavar="DIR",
                type=click.Path(path_type=Path)),
        _choice("--masks-are", TRUTH, "What their numbers are; by default as they look.", MaskKind),
        _option("--group", TRUTH, "What must not leak: file, folder, or an expression such as 'patient_(\\d+)'.",
                default="file", show_default=True, metavar="RULE"),
        *image_options(),
        _number("--tile", RUN, "Look in tiles of this side; by default only at large images."),
        _choice("--precision", RUN, "Of the numbers.", Precision, default="float16", show_default=True),
        _option("--seed", RUN, "Seed of every random draw.", type=int, default=0, show_default=True, metavar="N"),
        _option("--out", RUN, "Folder of the bank; one that was begun is gone on with.", required=True, metavar="DIR",
                type=click.Path(path_type=Path)),
    ],
)  # fmt: skip
