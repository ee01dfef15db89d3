"""``seglens methods``: what can be asked."""

from __future__ import annotations

import json

import click

from seglens.core.catalogue import METHODS
from seglens.core.errors import UnknownName
from seglens.core.method import Method, Need

# What a person has to bring along, and the option that brings it.
_OPTIONS = {
    Need.REFERENCE: "--reference",
    Need.ANNOTATION: "--annotation",
    Need.SECOND_MODEL: "--second-model",
    Need.BANK: "--bank",
}


@click.command("methods")
@click.option("--family", metavar="F", help="Only one family.")
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON: needs, limits of parameters, references.")
def command(family: str | None, as_json: bool) -> None:
    """List the methods of explanation."""
    families = {name: METHODS.family_of(name) for name in METHODS}
    if family is not None and family not in families.values():
        known = sorted(set(families.values()))
        raise UnknownName.among("family", family, known, listing=f"Families: {', '.join(known)}.")
    chosen = [name for name, of in families.items() if family in (None, of)]
    if as_json:
        click.echo(json.dumps([METHODS[name].card() for name in chosen], indent=2, ensure_ascii=False))
        return
    width = max(map(len, chosen), default=0)
    last = ""
    for name in sorted(chosen, key=lambda n: (families[n], n)):
        if families[name] != last:
            last = families[name]
            click.echo(click.style(last, bold=True))
        click.echo(f"  {name:<{width}}  {METHODS[name].summary()}{_brought(METHODS[name])}")


def _brought(method: type[Method]) -> str:
    needs = [option for need, option in _OPTIONS.items() if need in method.needs]
    takes = [option for need, option in _OPTIONS.items() if need in method.takes]
    told = [f"{word} {' and '.join(given)}" for word, given in (("needs", needs), ("takes", takes)) if given]
    return f" [{', '.join(told)}]" if told else ""
