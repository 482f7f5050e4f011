"""`gateway key`: keys for the callers of a gateway."""

from __future__ import annotations

import click

from gateway.config.keys import KEY_NAME, hash_key, new_key


@click.group("key", help="Keys for the callers of a gateway.")
def command() -> None:
    pass


@command.command("new")
@click.argument("name", default="NAME")
def new(name: str) -> None:
    """Make a key, and print it with its hash. It is not kept anywhere.

    \b
    The key is for the caller, who sends it as "Authorization: Bearer KEY".
    The hash is for the gateway's configuration, under [keys.NAME].
    """
    if KEY_NAME.match(name) is None:
        words = "expected letters, digits, '_' and '-', at most 64"
        raise click.BadParameter(words, param_hint="NAME")
    key = new_key()
    click.echo(f'{key}\n\n[keys.{name}]\nhash = "{hash_key(key.encode())}"')
