"""``seglens models``: what comes with SegLens."""

from __future__ import annotations

import json

import click

from seglens.models.spec import read_spec
from seglens.models.zoo import zoo


@click.command("models")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def command(as_json: bool) -> None:
    """List the models that come with SegLens."""
    found = {name: read_spec(folder / "model.json") for name, folder in zoo().items()}
    if as_json:
        told = [{**spec, "name": name, "path": str(zoo()[name])} for name, spec in found.items()]
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    for name, spec in found.items():
        classes = ", ".join(c["name"] if isinstance(c, dict) else str(c) for c in spec["classes"])
        click.echo(click.style(name, bold=True))
        click.echo(f"  {spec.get('description', '')}")
        click.echo(f"  takes {spec['axes']} with {', '.join(spec['channels'])}; draws {classes}")
    if not found:
        click.echo("No models came along with this installation. Give --model a file of your own.")
