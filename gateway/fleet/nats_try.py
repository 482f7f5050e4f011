"""Whether NATS can be reached with these settings: for `gateway --check`."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from gateway.fleet.nats_link import Link, Loop
from gateway.fleet.nats_login import LoginError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.config import FleetSettings


async def try_servers(settings: FleetSettings) -> list[dict[str, Any]]:
    """Connect to each server once: what was found of each, in JSON's types. `ok` says whether it
    can carry a fleet."""
    return [
        await trio.to_thread.run_sync(partial(_try, settings, server))
        for server in settings.servers
    ]


def _try(settings: FleetSettings, server: str) -> dict[str, Any]:
    """Blocks."""
    loop = Loop()
    try:
        return loop.run_until_complete(_connect(settings, server, loop))
    finally:
        loop.close()


async def _connect(settings: FleetSettings, server: str, loop: Loop) -> dict[str, Any]:
    name = settings.process_name
    inbox = f"{settings.prefix}.js.{name}.check"
    link = Link(settings, server, loop, name=f"{name} --check", inbox=inbox, post=_ignore)
    found: dict[str, Any] = {"nats": server, "ok": True}
    try:
        await link.connect()
    except LoginError as error:
        return {**found, "ok": False, "error": f"{server} {error}"}
    await link.close()
    # Tasks of nats-py that were cancelled end in the next turns.
    await asyncio.sleep(0)
    return {**found, "version": link.version, "encrypted": link.encrypted}


def _ignore(function: Callable[[Any], Awaitable[None]] | Any, argument: Any, size: int) -> None:
    del function, argument, size
