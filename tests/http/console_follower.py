"""Gateways with a console, and whoever follows one of its streams as the page does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio

from gateway.config.keys import hash_key
from tests.http.conftest import SCRIPTED
from tests.http.raw import Connection, connected

ADA, BOB = (f"agw_{hashlib.sha256(name).hexdigest()[:43]}" for name in (b"ada", b"bob"))
"""Always the same: they stand in the names of tests."""
AS_ADA, AS_BOB = ({"authorization": f"Bearer {key}"} for key in (ADA, BOB))
API = "/console/api"
HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e"

AGENTS = f"""
[agents.scripted]
command = {json.dumps([*SCRIPTED, "invoke", "chat"])}
description = {json.dumps(HOSTILE)}
workers = {{ min = 1, max = 2 }}
[agents.other]
command = {json.dumps([*SCRIPTED, "invoke"])}
"""
OPEN = f"[server]\nsandbox = 'off'\n{AGENTS}"
KEYS = f"""
[server]
sandbox = "off"
cors = ["http://app.example"]
[keys.ada]
hash = "{hash_key(ADA.encode())}"
[keys.bob]
hash = "{hash_key(BOB.encode())}"
agents = ["scripted"]
{AGENTS}
"""


WORKER = ("pid", "state", "started", "served", "in_flight", "capacity", "memory")


class Follower:
    """What a page would know that follows a stream."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._text = b""
        self.agents: dict[str, dict[str, Any]] = {}
        self.workers: dict[str, dict[str, Any]] = {}
        self.series: dict[str, list[Any]] = {}
        self.requests: dict[str, dict[str, Any]] = {}
        self.running = 0
        self.lines: list[dict[str, Any]] = []
        self.hosts: dict[str, dict[str, Any]] = {}
        self.connected: bool | None = None
        self.events: list[tuple[str, dict[str, Any]]] = []

    @property
    def by_host(self) -> dict[str, dict[str, Any]]:
        """The hosts of the fleet by their names."""
        return {each["name"]: each for each in self.hosts.values()}

    async def until(self, condition: Callable[[], Any]) -> Any:
        """Take events until the condition holds; returns what it returned."""
        with trio.fail_after(30):
            while not (found := condition()):
                await self.step()
        return found

    async def step(self) -> str:
        """Take one event; returns its name. Raises EOFError at the end of the stream."""
        while b"\n\n" not in self._text:
            size = int(await self._connection.until(rb"\r\n"), 16)
            if not size:
                raise EOFError
            self._text += (await self._connection.take(size + 2))[:-2]
        event, _, self._text = self._text.partition(b"\n\n")
        if event.startswith(b":"):
            return await self.step()
        name, data = event.decode().split("\n")
        self._take(name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        return name.removeprefix("event: ")

    def _take(self, name: str, data: dict[str, Any]) -> None:
        self.events.append((name, data))
        if name == "agents":
            for change in data["agents"]:
                self.agents[change["name"]] = self.agents.get(change["name"], {}) | change
            for gone in data["removed"]:
                del self.agents[gone]
        elif name == "workers":
            for key, worker in data["workers"].items():
                if worker is None:
                    del self.workers[key]
                else:
                    self.workers[key] = dict(zip(WORKER, worker, strict=True))
        elif name == "series":
            for agent_name, points in data["series"].items():
                self.series.setdefault(agent_name, []).extend(points)
        elif name == "requests":
            self.running = data["running"]
            self.requests |= {each["id"]: each for each in data["requests"]}
            for gone in data["gone"]:
                self.requests.pop(gone, None)
        elif name == "hosts":
            self.connected = data["connected"]
            for gone in data["removed"]:
                del self.hosts[gone]
            for change in data["hosts"]:
                known = self.hosts.get(change["id"], {})
                agents = {**known.get("agents", {}), **change["agents"]}
                agents = {key: place for key, place in agents.items() if place is not None}
                self.hosts[change["id"]] = known | change | {"agents": agents}
        elif name == "log":
            self.lines += data["lines"]

    def request(self, request_id: str, *states: str) -> dict[str, Any] | None:
        """The request with this id, once it is in one of the states."""
        for each in self.requests.values():
            if each["request_id"] == request_id and each["state"] in states:
                return each
        return None

    def line(self, text: str) -> dict[str, Any] | None:
        return next((each for each in self.lines if text in each["message"]), None)


@asynccontextmanager
async def following(
    client: httpx.AsyncClient, query: str = "", headers: dict[str, str] | None = None
) -> AsyncIterator[Follower]:
    port = client.base_url.port
    assert port is not None
    async with connected(port, host=client.base_url.host) as connection:
        fields = tuple(f"{name}: {value}" for name, value in (headers or {}).items())
        await connection.request(f"{API}/live{query}", method="GET", headers=fields)
        head = await connection.until(rb"\r\n\r\n")
        assert b" 200 " in head, head
        assert b"content-type: text/event-stream" in head
        yield Follower(connection)


async def invoke(
    client: httpx.AsyncClient,
    script: Any,
    name: str,
    *,
    agent: str = "scripted",
    headers: dict[str, str] | None = None,
    stream: bool = False,
) -> httpx.Response:
    """Invoke with a request id."""
    return await client.post(
        f"/agent/{agent}/invoke",
        json={"input": script, "stream": stream, "events": stream},
        headers={"x-request-id": name, **(headers or {})},
    )
