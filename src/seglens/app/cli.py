"""The command line: ``seglens COMMAND``. Commands are imported when they are called; help imports no torch."""

from __future__ import annotations

import importlib
from typing import Any

import click

from seglens import __version__
from seglens.core.errors import SegLensError
from seglens.core.threads import wait_politely

# Name of the command: module below seglens.app.commands, and its line in the list.
COMMANDS = {
    "demo": "Segment and explain a real image, and show it.",
    "models": "List the models that come with SegLens.",
    "methods": "List the methods of explanation.",
    "segment": "Segment images.",
    "explain": "Explain what a model drew.",
    "train": "Train a model of a recipe.",
    "gallery": "Banks of embeddings, and galleries of prototypes.",
}


class ToldError(click.ClickException):
    """One of our errors on a terminal: both sentences, exit code 2."""

    exit_code = 2

    def __init__(self, error: SegLensError) -> None:
        """Keep both sentences."""
        super().__init__(str(error))

    def show(self, file: Any = None) -> None:
        """Write them to the standard error."""
        click.echo(f"Error: {self.message}", err=True)


class StoppedError(click.ClickException):
    """Ctrl-C."""

    exit_code = 130

    def show(self, file: Any = None) -> None:
        """One word on a line of its own."""
        click.echo(f"\n{self.message}", err=True)


class Commands(click.Group):
    """The group of all commands: imports one when it is called, and words errors for people."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of a first session."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"seglens.app.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let ``--debug`` stand anywhere: that is where people add it after an error."""
        if "--debug" in args:
            args = ["--debug", *(a for a in args if a != "--debug")]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; our errors become two sentences unless ``--debug`` asks for the traceback."""
        try:
            return super().invoke(ctx)
        except SegLensError as error:
            if ctx.params.get("debug"):
                raise
            raise ToldError(error) from error
        except KeyboardInterrupt as stop:
            raise StoppedError("Stopped. Nothing half-finished was kept.") from stop


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, message="seglens %(version)s")
def main(debug: bool) -> None:
    """See why a segmentation model drew that line."""
    wait_politely()
