"""``seglens train``: make a model from images and masks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from seglens.app.commands._options import working


def _list(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    if not wanted or ctx.resilient_parsing:
        return
    from seglens.training.recipes import RECIPES

    for name, recipe in RECIPES.items():
        phases = ", ".join(f"{phase.name} {phase.epochs}" for phase in recipe.plan())
        click.echo(f"{name}\n    {recipe.spec.description}")
        click.echo(f"    {recipe.network}; masks of {recipe.truth}; epochs: {phases}")
    ctx.exit()


@contextmanager
def _told_how_to_go_on(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if (out / "checkpoint").is_dir():
            click.echo("\nThe last whole epoch is kept. Go on with --resume and the same options.", err=True)
        raise


@click.command("train")
@click.argument("recipe")
@click.argument("data", type=click.Path(path_type=Path), required=False)
@click.option("--list", is_flag=True, is_eager=True, expose_value=False, callback=_list, help="List the recipes.")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="New folder for the model.")
@click.option("--epochs", type=int, metavar="N", help="How long, all phases together; the recipe's own by default.")
@click.option("--network", metavar="NAME", help="Another network than the recipe's own: unet or segmenter.")
@click.option("--patience", type=int, metavar="N", help="End a phase after N epochs without a better validation.")
@click.option("--precision", type=click.Choice(["full", "bf16"]), default="full", show_default=True, help="Of numbers.")
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in DIR, with the same options.")
@click.option("--licence", metavar="TEXT", help="Licence of the model, for its card.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of every random draw.")
def command(recipe: str, data: Path | None, out: Path, seed: int, precision: Any, **options: Any) -> None:
    """Train a RECIPE (a name, or a JSON file) on DATA, a folder with `images` and `masks`; some draw their own.

    A training that was stopped goes on with --resume and ends in the same weights.
    """
    from seglens.training import train

    with working(seed) as run, _told_how_to_go_on(out):
        run.precision = precision
        folder = train(recipe, data, out, run=run, **options)
    click.echo(
        f"Trained {Path(recipe).stem}: {folder} (use it with --model {folder}; {folder / 'CARD.md'} tells of it)"
    )
