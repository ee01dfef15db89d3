"""``seglens gallery …``: banks of embeddings, and galleries of prototypes; a command is imported when it is called."""

from __future__ import annotations

import importlib

import click

# Name of the command: module below seglens.app.commands that holds it under this name (with an underscore where Python
# has the name already), and its line in the list.
COMMANDS = {
    "bank": ("gallery_bank", "Embed what a model draws on many images."),
    "make": ("gallery_make", "Make a gallery of a prototype network, or of what is typical in a bank."),
    "list": ("gallery_edit", "List its items."),
    "add": ("gallery_make", "Add a place of an image, or an object that a model draws."),
    "drop": ("gallery_edit", "Let items count no more."),
    "keep": ("gallery_edit", "Let items count again."),
    "merge": ("gallery_edit", "Make items parts of another one."),
    "relabel": ("gallery_edit", "Let items stand for another class."),
    "note": ("gallery_edit", "Write on an item."),
    "undo": ("gallery_edit", "Take back the last edit."),
    "redo": ("gallery_edit", "Do again what was undone."),
    "history": ("gallery_edit", "Who did what, and when."),
    "coverage": ("gallery_edit", "Which share of an image each item explains."),
    "leaks": ("gallery_edit", "Which items come from an image or its group."),
    "relocate": ("gallery_edit", "Find images that moved."),
    "apply": ("gallery_make", "Write the prototype network as its edits make it."),
    "export": ("gallery_make", "Write a page, a table or a folder."),
    "import": ("gallery_make", "Read an exported folder or a table."),
}


class Commands(click.Group):
    """The commands of a gallery, imported one by one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of a first session."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"seglens.app.commands.{COMMANDS[cmd_name][0]}")
        command: click.Command = vars(module).get(cmd_name) or getattr(module, f"{cmd_name}_")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


command = Commands("gallery", help="Feature banks of many images, and galleries of what stands for a class.")
