"""`[server] connections_per_address` of a gateway whose clients are on machines of their own: what
connects from its own machine is not counted."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import AsyncExitStack
from pathlib import Path

import trio

from tests.conftest import need
from tests.fleet.namespaces import Machine, network
from tests.harness import reload, running_gateway
from tests.http.conftest import SCRIPTED
from tests.http.raw import Connection, becomes, connected


def allowing(most: int) -> str:
    return f"""
        [server]
        sandbox = "off"
        allow_anonymous = true
        connections_per_address = {most}
        [agents.scripted]
        command = {json.dumps(SCRIPTED)}
        workers = {{ min = 1, max = 1 }}
    """


async def is_served(connection: Connection) -> bool:
    """Ask, and tell whether that is answered or refused as one too many."""
    await connection.request("/agent/scripted/invoke", {"input": [["end"]]})
    answer = await connection.answer()
    if answer.status == 429:
        assert answer.error["setting"] == "server.connections_per_address"
        assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")
        assert await connection.has_ended()
    return answer.status == 200


async def is_served_on(machine: Machine, host: str, port: int) -> bool:
    """The same by curl, which connects from that machine."""
    ask = ["curl", "-sS", "-m", "20", "-H", "Host: localhost", "-o", os.devnull]
    command = [*machine.prefix, *ask, "-w", "%{http_code}", f"http://{host}:{port}/live"]
    done = await trio.run_process(command, capture_stdout=True)
    return bool(done.stdout == b"200")


async def test_an_address_has_as_many_connections_as_it_may_and_takes_none_of_another(
    tmp_path: Path,
) -> None:
    need(os.geteuid() == 0, "only root can make network namespaces that are joined")
    need(shutil.which("curl"), "curl is not installed")
    with network("gateway", "neighbour") as machines:
        own = machines["gateway"]
        async with (
            running_gateway(
                None, "--host", "0.0.0.0", toml=allowing(2), folder=tmp_path, prefix=own.prefix
            ) as gateway,
            AsyncExitStack() as opened,
        ):

            async def connect() -> Connection:
                return await opened.enter_async_context(connected(gateway.port, host=own.address))

            async def one_more_is_served() -> bool:
                async with connected(gateway.port, host=own.address) as connection:
                    return await is_served(connection)

            first, second = await connect(), await connect()
            assert await is_served(first)
            assert await is_served(second)
            assert not await one_more_is_served()
            await gateway.logged(f"{own.switch}: as many connections as one address may have, 2,")
            # Those that it has, another address, and the gateway's own machine are served.
            assert await is_served(first)
            assert await is_served(second)
            assert await is_served_on(machines["neighbour"], own.address, gateway.port)
            assert await is_served_on(own, "127.0.0.1", gateway.port)
            # One that has ended makes room for one.
            await first.stream.aclose()
            await becomes(one_more_is_served)
            # A reload closes none, and counts those that there are.
            await reload(gateway, tmp_path, allowing(1), "reload: done")
            assert not await one_more_is_served()
            assert await is_served(second)
            assert await is_served_on(machines["neighbour"], own.address, gateway.port)
