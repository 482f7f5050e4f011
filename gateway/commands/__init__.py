"""What the command `gateway` does besides serving: one module for each subcommand.

A module here is named as its subcommand and holds it as `command`. It is imported when it is called
or listed, and by nothing else: serving does not pay for it.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

import click

NAMES = ("init", "key")
"""The subcommands, in the order in which the help lists them."""


class Commands(click.Group):
    """A group of the subcommands in `NAMES`. Without one, the group itself is what is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(NAMES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in NAMES:
            return None
        return cast("click.Command", import_module(f"{__name__}.{cmd_name}").command)
