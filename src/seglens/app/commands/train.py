"""``seglens train``: make a model from images and masks."""

from __future__ import annotations

from pathlib import Path

import click

from seglens.app.commands._options import working


@click.command("train")
@click.argument("recipe")
@click.argument("data", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="New folder for the model.")
@click.option("--epochs", type=int, metavar="N", help="How long; the recipe's own length by default.")
@click.option("--network", metavar="NAME", help="Another network than the recipe's own: unet or segmenter.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Seed of every random draw.")
def command(recipe: str, data: Path | None, out: Path, epochs: int | None, network: str | None, seed: int) -> None:
    """Train a RECIPE on DATA, a folder with `images` and `masks`; some recipes draw their own."""
    from seglens.training import train

    with working(seed) as run:
        folder = train(recipe, data, out, run=run, epochs=epochs, network=network)
    click.echo(f"Trained {recipe}: {folder} (use it with --model {folder})")
