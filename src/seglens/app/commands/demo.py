"""``seglens demo``: the main job on a real image."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("demo")
@click.option("--headless", is_flag=True, help="Write pictures; open no window.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, metavar="DIR", help="Folder."
)
def command(headless: bool, out: Path) -> None:
    """Segment a real image, explain one nucleus and one class, and show it."""
    # late, because this brings torch and matplotlib
    from seglens.app.demo import run_demo

    run_demo(headless=headless, out=out)
