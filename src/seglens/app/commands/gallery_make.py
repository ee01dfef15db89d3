"""``seglens gallery``: making galleries, adding to them, and taking them elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from seglens.app.commands._options import (
    image_options,
    load,
    model_options,
    target,
    target_options,
    view,
    working,
)  # fmt: skip
from seglens.app.commands.gallery_edit import GALLERY, IMAGE, opened, option, subcommand
from seglens.core.errors import BadParameter
from seglens.core.files import open_image
from seglens.core.plural import plural
from seglens.core.saving import check_new
from seglens.workspace.gallery import (
    Gallery,
    add_region,
    edit_of,
    gallery_of_bank,
    gallery_of_export,
    gallery_of_model,
    typical,
)  # fmt: skip

_REGION = ("region", "point", "object", "object_at", "box")


def _model_options(*, required: bool) -> list[click.Parameter]:
    options = model_options()
    options[0].required = required
    return options


def _make(out: Path, title: str, from_bank: Path | None, per_class: int, **options: Any) -> None:
    if (from_bank is None) == (options["model"] is None):
        raise BadParameter(
            "A gallery is made of a prototype network or of a feature bank, and of one of them.",
            fix="Give --model M, or --from-bank DIR (of `seglens gallery bank`).",
        )
    check_new(out)
    with working(options["seed"]) as run:
        if from_bank is None:
            made = gallery_of_model(load(options), out, title=title)
        else:
            from seglens.engine.features import FeatureBank

            bank = FeatureBank.open(from_bank)
            try:
                made = gallery_of_bank(bank, typical(bank, per_class, run=run), out, title=title, run=run)
            finally:
                bank.close()
        _tell(made)


def _add(gallery: Path, image: str, note: str, group: str | None, **options: Any) -> None:
    if not any(options[name] is not None for name in _REGION):
        raise BadParameter(
            "Nobody said which part of the image is to be added.",
            fix="Give --box Y,X:Y,X, --point Y,X or --region MASK; with --model also --object N or --object-at Y,X.",
        )
    with opened(gallery) as one, working(0) as run:
        whole = open_image(image, axes=options["axes"])
        part = view(whole, channels=options["channels"], select=options["select"], crop=options["crop"])
        where = dict(zip(whole.kept, part.offset(whole.kept), strict=True))
        select = {axis: at for axis, at in where.items() if axis not in part.kept and axis != "C"}
        options |= {"live": False, "border": None, "value": "logit", "reduction": "mean"}
        region = target(options, part.space(one.info.axes)).region
        model = None if options["model"] is None else load(options)
        number = add_region(
            one, whole, region, view=part, select=select, label=options["of_class"], model=model, group=group,
            note=note, run=run,
        )  # fmt: skip
        click.echo(f"Added item {number}: {one.item(number).label} of {whole.name}.")


def _export(gallery: Path, html: Path | None, table: Path | None, folder: Path | None) -> None:
    if html is table is folder is None:
        raise BadParameter(
            "Nobody said as what the gallery is to be exported.",
            fix="Give --html FILE, --csv FILE or --folder DIR (what `import` reads, pictures and all), or several.",
        )
    with opened(gallery) as one, working(0) as run:
        if html is not None:
            one.export_html(html, run)
            click.echo(f"A page to open in a browser: {html}")
        if table is not None:
            one.export_table(table)
            click.echo(f"A table of {plural(len(one), 'item')}: {table}")
        if folder is not None:
            one.export(folder, run)
            click.echo(f"Table, pictures and vectors: {folder}")


def _import(source: Path, out: Path | None, into: Path | None, title: str) -> None:
    if (out is None) == (into is None):
        raise BadParameter(
            "It was not said where the items go, or two places were named.",
            fix="Give --out DIR for a new gallery, or --into GALLERY for one that is there.",
        )
    with working(0) as run:
        if out is not None:
            _tell(gallery_of_export(source, out, title=title, run=run))
        elif into is not None:
            with opened(into) as one:
                click.echo(f"Imported {plural(one.import_(source, run), 'item')}; the gallery has {len(one)} now.")


def _apply(gallery: Path, out: Path, **options: Any) -> None:
    from seglens.engine.prototypes import save_edited

    check_new(out)
    with opened(gallery) as one:
        options["model"] = options["model"] or one.info.model_source
        if not options["model"]:
            raise BadParameter(f"The gallery {gallery} is of no model.", fix="Give the model (--model M).")
        model = load(options)
        edit, _ = edit_of(one, model)
    folder = save_edited(model, edit, out)
    parts = {
        "dropped": len(edit.dropped), "merged": len(edit.merged), "of another class": len(edit.relabelled),
        "added": len(edit.added),
    }  # fmt: skip
    told = ", ".join(f"{count} {word}" for word, count in parts.items() if count) or "nothing changed"
    click.echo(f"{model.spec.name} with its prototypes edited ({told}): {folder} (use it with --model {folder})")


def _tell(gallery: Gallery) -> None:
    counts = [(name, gallery.count(label=name)) for name in gallery.info.classes]
    told = ", ".join(f"{count} {name}" for name, count in counts if count) or "no items"
    click.echo(f"Gallery: {gallery.folder} ({told})")
    gallery.close()


def _region_options() -> list[click.Parameter]:
    unused = {"live", "border", "value", "reduction"}
    return [one for one in target_options() if one.name not in unused]


_OUT = option("--out", "New folder for the gallery.", type=click.Path(path_type=Path), metavar="DIR")
_TITLE = option("--title", "Shown to people; the name of the folder by default.", default="", metavar="TEXT")
make = subcommand(
    "make", _make, "Make a gallery of the prototypes of a network, or of what is typical in a feature bank.",
    option("--out", "New folder for the gallery.", type=click.Path(path_type=Path), required=True, metavar="DIR"),
    _TITLE,
    option("--from-bank", "A feature bank of `seglens gallery bank`.", type=click.Path(path_type=Path), metavar="DIR"),
    option(
        "--per-class", "So many entries of the bank for each class, chosen by MMD-critic.", type=click.IntRange(min=1),
        default=10, show_default=True, metavar="N",
    ),
    option("--seed", "Seed of every random draw.", type=int, default=0, show_default=True, metavar="N"),
    *_model_options(required=False),
)  # fmt: skip
add = subcommand(
    "add", _add, "Add a place of IMAGE to a GALLERY; with --model also an object that it draws, with its vector.",
    GALLERY, IMAGE, *_region_options(),
    option("--note", "For people.", default="", metavar="TEXT"),
    option("--group", "What must not leak; by default by the gallery's rule.", metavar="NAME"),
    *image_options(), *_model_options(required=False),
)  # fmt: skip
export = subcommand(
    "export", _export, "Write a GALLERY as a page, as a table, or as a folder that can be imported.", GALLERY,
    option("--html", "One page with all pictures in it.", type=click.Path(path_type=Path), metavar="FILE"),
    option("--csv", "A table.", also=["table"], type=click.Path(path_type=Path), metavar="FILE"),
    option("--folder", "A new folder: table, pictures, vectors.", type=click.Path(path_type=Path), metavar="DIR"),
)  # fmt: skip
import_ = subcommand(
    "import", _import, "Read items from SOURCE: an exported folder, or a CSV table.",
    click.Argument(["source"], type=click.Path(path_type=Path)), _OUT,
    option("--into", "A gallery that is there.", type=click.Path(path_type=Path), metavar="GALLERY"), _TITLE,
)  # fmt: skip
apply = subcommand(
    "apply", _apply, "Write the prototype network of a GALLERY as its edits make it: a folder for --model.", GALLERY,
    option("--out", "New folder for the model.", type=click.Path(path_type=Path), required=True, metavar="DIR"),
    *_model_options(required=False),
)  # fmt: skip
