"""`gateway init`: a configuration to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from gateway.config.template import template


@click.command("init")
@click.argument("path", default="gateway.toml", metavar="[FILE]", type=click.Path(path_type=Path))
def command(path: Path) -> None:
    """Write a configuration with every setting, commented.

    A file that exists already is left as it is.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError:
        raise click.ClickException(f"{path} exists, and is left as it is") from None
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    click.echo(f"wrote {path}; serve with it: gateway --config {path}")
