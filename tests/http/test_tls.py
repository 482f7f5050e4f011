"""TLS is a proxy's: the configurations of `gateway/deploy/` end it, renew it, and pass on the rest.

Each runs as it is shipped, with other ports and a certificate of the test's own.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio
import trustme

from gateway.config.keys import hash_key, new_key
from tests.conftest import need
from tests.harness import RunningGateway, running_gateway
from tests.http.proxies import FILES, certify, command, configuration, free_ports
from tests.http.raw import becomes
from tests.programs import find_program

SECONDS = 60

KEY = new_key()
KEY_HASH = hash_key(KEY.encode())

HELD = """
import os, time
from worker import Agent

agent = Agent("held")


@agent.invoke
def words(path):
    yield "first "
    while not os.path.exists(path):
        time.sleep(0.02)
    yield "last"
"""


class Proxy:
    """A proxy that runs, and its certificate."""

    def __init__(self, name: str, folder: Path, port: int, authority: trustme.CA) -> None:
        self.name, self.folder, self.port, self.authority = name, folder, port, authority
        self.process: trio.Process
        self.url = f"https://localhost:{port}"
        self.context = ssl.create_default_context()
        authority.configure_trust(self.context)
        self.context.set_alpn_protocols(["h2", "http/1.1"])

    async def certificate(self) -> int:
        """The serial number of the one that a new connection is shown."""
        stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        async with trio.SSLStream(
            stream, self.context, server_hostname="localhost", https_compatible=True
        ) as shown:
            await shown.do_handshake()
            found = shown.getpeercert()
        return int(found["serialNumber"], 16)

    async def serves(self) -> bool:
        try:
            await self.certificate()
        except (OSError, trio.BrokenResourceError):
            return False
        return True

    def reload(self) -> None:
        """As the head of the configuration says."""
        signals = {"nginx": signal.SIGHUP, "haproxy": signal.SIGUSR2}
        self.process.send_signal(signals[self.name])


@asynccontextmanager
async def proxy(name: str, folder: Path, gateway: int) -> AsyncIterator[Proxy]:
    """In front of one gateway; the other one is down."""
    need(find_program(name), f"{name} is not installed")
    port, plain, down = free_ports(3)
    authority = trustme.CA()
    os.chmod(folder, 0o755)
    path = configuration(name, folder, plain, (gateway, down), tls_port=port, authority=authority)
    made = Proxy(name, folder, port, authority)
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command(name, path), check=False, capture_stderr=True)
        made.process = await nursery.start(run)
        await becomes(made.serves)
        yield made
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def gateway_with(folder: Path) -> AsyncIterator[RunningGateway]:
    agent = folder / "held.py"
    agent.write_text(HELD)
    toml = f"""
        [server]
        sandbox = "off"  # its agent waits for a file of the test's
        [keys.ada]
        hash = "{KEY_HASH}"
        [agents.held]
        command = {[sys.executable, "-m", "worker", f"{agent}:agent"]}
    """
    async with running_gateway(None, toml=toml, folder=folder) as gateway:
        yield gateway


@pytest.mark.parametrize("name", FILES)
async def test_streams_pass_at_once_and_go_on_while_the_certificate_is_replaced(
    name: str, tmp_path: Path
) -> None:
    released = tmp_path / "released"
    with trio.fail_after(SECONDS):
        async with gateway_with(tmp_path) as gateway, proxy(name, tmp_path, gateway.port) as front:
            first = await front.certificate()
            certificates = front.folder / "authority.pem"
            front.authority.cert_pem.write_to_path(str(certificates))
            curl = [
                "curl",
                "-sN",
                "--http2",
                "--cacert",
                str(certificates),
                "-w",
                "%{http_version}",
            ]
            ask = [*curl, f"{front.url}/agent/held/invoke", "--json"]
            refused = await trio.run_process([*ask, '{"input":"x"}'], capture_stdout=True)
            assert b'"unauthorized"' in refused.stdout

            # curl, because a HTTP/2 connection that is to end soon says so (GOAWAY), upon which
            # httpx gives up the stream as well.
            body = json.dumps({"input": str(released), "stream": True})
            key = ["-H", f"Authorization: Bearer {KEY}"]
            async with trio.open_nursery() as nursery:
                stream = await nursery.start(
                    partial(trio.run_process, [*ask, body, *key], stdout=subprocess.PIPE)
                )
                said = b""
                while b"first" not in said:  # before the agent has said any more
                    piece = await stream.stdout.receive_some()
                    assert piece, said
                    said += piece
                certify(front.folder, front.authority)
                front.reload()

                async def is_another() -> bool:
                    try:
                        return await front.certificate() != first
                    except (OSError, trio.BrokenResourceError):
                        return False  # in the middle of it

                await becomes(is_another)
                released.touch()
                async for piece in stream.stdout:
                    said += piece
            assert said.endswith(b'{"chunk":"last"}\n\ndata: [DONE]\n\n2'), said


@pytest.mark.parametrize("name", FILES)
async def test_a_gateway_is_told_who_asks_and_what_they_sent(name: str, tmp_path: Path) -> None:
    heads: list[bytes] = []

    async def answer(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # a check that has seen enough resets it
            await answer_all(stream)

    async def answer_all(stream: trio.SocketStream) -> None:
        data = b""
        while piece := await stream.receive_some():
            data += piece
            if b"\r\n\r\n" not in data:
                continue
            if not data.startswith(b"GET /ready"):
                heads.append(data)
            data = b""
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
            upstream = listener.socket.getsockname()[1]
            async with proxy(name, tmp_path, upstream) as front:
                sent = {
                    "Authorization": "Bearer secret",
                    "X-Request-Id": "r-1",
                    "X-Forwarded-For": "203.0.113.9",
                    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                }
                async with httpx.AsyncClient(verify=front.context, timeout=30) as client:

                    async def arrives() -> bool:
                        # 503, until the proxy knows that a gateway is ready.
                        return (await client.get(f"{front.url}/agents", headers=sent)).is_success

                    await becomes(arrives)
            nursery.cancel_scope.cancel()
    lines = heads[-1].decode().lower().split("\r\n")
    found = dict(line.split(": ", 1) for line in lines[1:] if line)
    assert lines[0] == "get /agents http/1.1"
    assert found["authorization"] == "bearer secret"
    assert found["x-request-id"] == "r-1"
    assert found["traceparent"] == sent["traceparent"]
    assert found["x-forwarded-for"] == "127.0.0.1"  # and not what the client says
    assert found["x-forwarded-proto"] == "https"
    assert found["host"] == f"localhost:{front.port}"
