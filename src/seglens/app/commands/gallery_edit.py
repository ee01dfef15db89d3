"""``seglens gallery``: looking at a gallery and editing it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import click

from seglens.app.commands._options import (
    Option,
    Sectioned,
    image_options,
    load,
    model_options,
    open_view,
    working,
)  # fmt: skip
from seglens.core.errors import BadParameter
from seglens.core.files import open_image
from seglens.core.plural import plural
from seglens.workspace.gallery import Gallery, Item, Status, measuring
from seglens.workspace.gallery.item import Order, several

GALLERY = click.Argument(["gallery"], type=click.Path(path_type=Path))
ITEMS = click.Argument(["items"], type=int, nargs=-1, required=True, metavar="ITEM…")
IMAGE = click.Argument(["image"])


def option(name: str, text: str, **more: Any) -> Option:
    """An option with its help."""
    return Option([name, *more.pop("also", ())], section="Gallery", help=text, **more)


def subcommand(name: str, run: Callable[..., None], text: str, *params: click.Parameter) -> Sectioned:
    """A command of the group."""
    return Sectioned(name, callback=run, help=text, params=list(params))


@contextmanager
def opened(folder: Path) -> Iterator[Gallery]:
    """The gallery of a folder, closed after."""
    gallery = Gallery.open(folder)
    try:
        yield gallery
    finally:
        gallery.close()


def _list(gallery: Path, as_json: bool, **asked: Any) -> None:
    with opened(gallery) as one:
        items = one.items(**asked)
        if as_json:
            click.echo(json.dumps([asdict(item) for item in items], indent=2, ensure_ascii=False))
            return
        missing = {item.id for item in one.missing()}
        shown = one.count(**{key: asked[key] for key in ("label", "status")})
        click.echo(f"{one.info.title}: {len(items)} of {plural(shown, 'item')}")
    for line in table([_row(item, item.id in missing) for item in items]):
        click.echo(line)


def _row(item: Item, missing: bool) -> tuple[str, ...]:
    status = item.status if item.merged_into is None else f"merged into {item.merged_into}"
    place = " ".join([f"{axis}={at}" for axis, at in item.select.items()] + [",".join(map(str, item.position))])
    activity = "" if item.activity is None else f"{item.activity:.1%}"
    name = item.name + (" (missing)" if missing else "")
    number = "" if item.prototype is None else f"prototype {item.prototype}"
    return str(item.id), item.label, status, number, activity, name, place.strip(), item.note


def table(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows as lines with aligned columns; columns without any text are left out."""
    kept = [column for column in zip(*rows, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in kept]
    return ["  ".join(t.ljust(w) for t, w in zip(row, widths, strict=True)).rstrip() for row in zip(*kept, strict=True)]


def _edit(verb: str) -> Callable[..., None]:
    def run(gallery: Path, items: tuple[int, ...], **more: Any) -> None:
        with opened(gallery) as one:
            changed = getattr(one, verb)(items, **more)
            click.echo(f"{one.history(1)[0].what.capitalize()}." if changed else "Nothing changed: it was so already.")

    return run


def _note(gallery: Path, item: int, text: str) -> None:
    with opened(gallery) as one:
        one.set_note(item, text)
        click.echo(f"Item {item}: {text or 'no note'}")


def _turn(way: str) -> Callable[..., None]:
    def run(gallery: Path) -> None:
        with opened(gallery) as one:
            what = getattr(one, way)()
            left = one.undoable if way == "undo" else one.redoable
        if what is None:
            raise BadParameter(
                f"There is nothing to {way}.", fix=f"See what was done: seglens gallery history {gallery}"
            )
        click.echo(f"{'Undid' if way == 'undo' else 'Redid'}: {what}." + (f" Next would be: {left}." if left else ""))

    return run


def _history(gallery: Path, limit: int | None) -> None:
    with opened(gallery) as one:
        for edit in reversed(one.history(limit)):
            click.echo(f"{edit.number}  {edit.time[:19].replace('T', ' ')}  {edit.person}  {edit.what}")


def _leaks(gallery: Path, image: str, group: str | None, **options: Any) -> None:
    with opened(gallery) as one:
        found = measuring.leaks(one, open_image(image, axes=options["axes"]), group)
        if not found:
            click.echo(f"No item of {one.info.title} that counts comes from this image or its group.")
            return
        numbers = several([item.id for item in found])
        click.echo(f"Of this image or its group, so that they prove nothing on it: {numbers}.")
        for line in table([_row(item, False) for item in found]):
            click.echo(line)


def _coverage(gallery: Path, image: str, keep: bool, **options: Any) -> None:
    with opened(gallery) as one, working(options["seed"]) as run:
        found = measuring.coverage(one, load(options), open_view(image, options), run)
        items = {item.id: item for item in one.items()}
        for part in found:
            item = items[part.item] if part.item is not None else None
            told = "no item" if item is None else f"item {item.id}  {item.label}  {item.name}"
            click.echo(f"{part.share:6.1%}  {told}")
        if not found:
            click.echo("The model finds no object in this image.")
        if keep and found:
            by_item = {part.item: part.share for part in found if part.item is not None}
            one.set_activity({n: by_item.get(n, 0.0) for n, item in items.items() if item.status == "kept"})


def _relocate(gallery: Path, folder: Path) -> None:
    with opened(gallery) as one, working(0) as run:
        before = len({item.source for item in one.missing()})
        found = one.relocate(folder, run)
        left = {item.source for item in one.missing()}
    if not before:
        click.echo("No image is missing.")
        return
    click.echo(
        f"{before - len(left)} of {plural(before, 'missing image was', 'missing images were')} found again, "
        f"for {plural(found, 'item')}."
    )
    for source in sorted(left):
        click.echo(f"  still missing: {source}")


_SEED = option("--seed", "Seed of every random draw.", type=int, default=0, show_default=True, metavar="N")
list_ = subcommand(
    "list", _list, "List the items of a GALLERY.", GALLERY,
    option("--class", "Only of this class.", also=["label"], metavar="NAME"),
    option("--status", "Only of this status.", type=click.Choice(get_args(Status))),
    option("--order", "By what.", type=click.Choice(get_args(Order)), default="id", show_default=True),
    option("--descending", "The other way round.", is_flag=True),
    option("--limit", "At most so many.", type=click.IntRange(min=0), metavar="N"),
    option("--offset", "Leave out the first.", type=click.IntRange(min=0), default=0, metavar="N"),
    option("--json", "Everything, as JSON.", also=["as_json"], is_flag=True),
)  # fmt: skip
drop = subcommand("drop", _edit("drop"), "Let ITEMs count no more; nothing is deleted.", GALLERY, ITEMS)
keep = subcommand("keep", _edit("keep"), "Let dropped or merged ITEMs count again.", GALLERY, ITEMS)
merge = subcommand(
    "merge", _edit("merge"), "Make ITEMs parts of another one of their class.", GALLERY, ITEMS,
    option("--into", "The item that they become parts of.", type=int, required=True, metavar="N"),
)  # fmt: skip
relabel = subcommand(
    "relabel", _edit("relabel"), "Let ITEMs stand for another class.", GALLERY, ITEMS,
    option("--class", "Which.", also=["label"], required=True, metavar="NAME"),
)  # fmt: skip
note = subcommand(
    "note", _note, "Write TEXT on an ITEM; an empty one takes the note away.", GALLERY,
    click.Argument(["item"], type=int), click.Argument(["text"]),
)  # fmt: skip
undo = subcommand("undo", _turn("undo"), "Take back the last edit of a GALLERY.", GALLERY)
redo = subcommand("redo", _turn("redo"), "Do again what was undone last.", GALLERY)
history = subcommand(
    "history", _history, "Who did what to a GALLERY, and when; the latest comes last.", GALLERY,
    option("--limit", "Only the last N.", type=click.IntRange(min=0), metavar="N"),
)  # fmt: skip
leaks = subcommand(
    "leaks", _leaks, "Which items come from IMAGE, or from its group (file, slide, patient).", GALLERY, IMAGE,
    option("--group", "Its group; by default by the gallery's rule.", metavar="NAME"),
    option("--axes", "One letter of TCZYX per axis, where the file does not tell.", metavar="AXES"),
)  # fmt: skip
coverage = subcommand(
    "coverage", _coverage, "Which share of the pixels of IMAGE each item explains.", GALLERY, IMAGE,
    *model_options(), *image_options(), _SEED,
    option("--keep", "Keep it as the activity of the items.", is_flag=True),
)  # fmt: skip
relocate = subcommand(
    "relocate", _relocate, "Look in FOLDER and below for images that are not where they were.", GALLERY,
    click.Argument(["folder"], type=click.Path(path_type=Path)),
)  # fmt: skip
