"""Node, Bun and Deno keep within the agent's limits and reach what its network allows."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from gateway.sandbox import SandboxSettings, make_launcher
from gateway.sandbox.network import egress, inlets
from gateway.sandbox.network.targets import Policy
from gateway.sandbox.strict import StrictLauncher
from tests.javascript import need_runtime
from tests.sandbox.running import lines_of
from tests.sandbox.test_egress import InProcess, Kept, Loopback
from tests.sandbox.users import need_sandbox

USER = "root" if os.geteuid() == 0 else "user"
HEAP = "console.log(require('v8').getHeapStatistics().heap_size_limit >> 20)"
MIB = 1 << 20


def launcher(*argv: str, **settings: Any) -> StrictLauncher:
    need_sandbox(USER)
    made = make_launcher(
        "agent", argv, SandboxSettings(**settings), environ=os.environ, cwd=os.getcwd()
    )
    assert isinstance(made, StrictLauncher)
    return made


def run(made: StrictLauncher) -> list[str]:
    try:
        return lines_of(made)
    finally:
        made.close()


def heap_of(*argv: str, **settings: Any) -> int:
    """MiB. What is reported has the young generation on top, up to 192 MiB, which fills seldom."""
    return int(run(launcher(*argv, memory="512M", **settings))[0])


@pytest.mark.parametrize("runtime", ["node20", "node22", "node24"])
def test_the_heap_of_node_stays_below_the_agents_memory(runtime: str) -> None:
    node = need_runtime(runtime)
    assert 384 <= heap_of(node, "-e", HEAP) < 640
    assert 384 <= heap_of("sh", "-c", f'"$0" -e "{HEAP}"', node, mounts_ro=(node,)) < 640


def test_the_heap_of_deno_stays_below_the_agents_memory() -> None:
    code = HEAP.replace("require('v8')", "(await import('node:v8'))")
    assert 384 <= heap_of(need_runtime("deno"), "eval", code) < 640


def test_the_agents_own_options_of_node_win() -> None:
    node = need_runtime("node22")
    own = {"env": {"NODE_OPTIONS": "--max-old-space-size=128"}}
    assert 128 <= heap_of(node, "-e", HEAP, **own) < 384
    assert 128 <= heap_of(node, "--max-old-space-size=128", "-e", HEAP) < 384
    # Options about something else leave the limit as it is.
    other = {"env": {"NODE_OPTIONS": "--no-warnings"}}
    assert 384 <= heap_of(node, "-e", HEAP, **other) < 640


CLIENT = """
import https from "node:https";
import http from "node:http";
import process from "node:process";

const get = (url, options = {}) => new Promise((resolve, reject) => {
  const { get } = url.startsWith("https") ? https : http;
  get(url, options, async (response) => {
    let text = "";
    for await (const data of response) text += data;
    resolve(text);
  }).on("error", reject);
});
const ways = {
  fetch: async (url) => (await fetch(url)).text(),
  post: async (url) => (await fetch(url, { method: "POST", body: "x".repeat(100_000) })).text(),
  https: get,
  agent: (url) => get(url, { agent: new https.Agent({ keepAlive: true }) }),
};
const server = http.createServer((_, response) => response.end("here")).listen(0, "127.0.0.1");
await new Promise((resolve) => server.once("listening", resolve));
const here = `http://127.0.0.1:${server.address().port}/`;
for (const [way, url] of process.argv.slice(2).map((word) => word.split("=", 2))) {
  try {
    console.log(JSON.stringify([way, await ways[way](url === "here" ? here : url)]));
  } catch (error) {
    console.log(JSON.stringify([way, `${error.message}: ${error.cause?.message}`]));
  }
}
process.exit();
"""


@pytest.fixture
def client(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    path = tmp_path / "client.mjs"
    path.write_text(CLIENT)
    return path


@contextmanager
def upstream(authority: trustme.CA) -> Iterator[tuple[Any, Any]]:
    """A server of https on this machine: `serve` answers every request with its path."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.invalid").configure_cert(context)
    with trio.socket.socket() as listening:

        async def answer(raw: trio.SocketStream) -> None:
            stream = trio.SSLStream(raw, context, server_side=True, https_compatible=True)
            try:
                while True:
                    head = b""
                    while b"\r\n\r\n" not in head:
                        if not (more := await stream.receive_some(65536)):
                            return
                        head += more
                    head, _, body = head.partition(b"\r\n\r\n")
                    if b"content-length: 100000" in head.lower():
                        while len(body) < 100_000:
                            body += await stream.receive_some(65536)
                    path = head.split()[1]
                    length = str(len(path)).encode()
                    await stream.send_all(
                        b"HTTP/1.1 200 OK\r\ncontent-length: " + length + b"\r\n\r\n" + path
                    )
            except trio.BrokenResourceError:
                pass  # a client that ends does not say good-bye

        async def serve() -> None:
            await trio.serve_listeners(answer, [trio.SocketListener(listening)])

        yield listening, serve


@pytest.mark.parametrize("runtime", ["node20", "node22", "node24"])
async def test_whatever_node_connects_to_goes_through_the_agents_network(
    runtime: str, client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "why_refused", lambda address, by_name: None)
    monkeypatch.setattr(trio.socket, "getaddrinfo", Loopback())
    authority = trustme.CA()
    trusted = client.with_name("trusted.crt")
    authority.cert_pem.write_to_path(str(trusted))
    with upstream(authority) as (listening, serve):
        await listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        url = f"https://api.invalid:{port}"
        made = launcher(
            *(need_runtime(runtime), str(client)),
            *(f"fetch={url}/a", f"post={url}/b", f"https={url}/c", f"agent={url}/d"),
            *("https=here", "fetch=here"),
            *("fetch=https://other.invalid/", "https=https://other.invalid/"),
            network=(f"api.invalid:{port}",),
            mounts_ro=(str(client), str(trusted)),
            env={"NODE_EXTRA_CA_CERTS": str(trusted)},
        )
        proxy = InProcess()
        made._proxy = proxy
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            auditor = Kept()
            handler = egress.Egress(auditor, Policy((f"api.invalid:{port}",)))
            serve_workers = partial(inlets.serve, max_clients=egress.MAX_TUNNELS)
            nursery.start_soon(serve_workers, proxy.theirs, handler, auditor)
            said = [json.loads(line) for line in await trio.to_thread.run_sync(run, made)]
            nursery.cancel_scope.cancel()
        proxy.theirs.close()
        proxy.control.close()
    assert said[:6] == [
        ["fetch", "/a"],
        ["post", "/b"],
        ["https", "/c"],
        ["agent", "/d"],
        ["https", "here"],
        ["fetch", "here"],
    ]
    assert said[6][1].startswith("fetch failed: ")
    assert "other.invalid:443 is not in the agent's network setting" in said[7][1]


def test_a_node_without_a_network_loads_nothing_first() -> None:
    code = "console.log(process.env.NODE_OPTIONS ?? 'none')"
    assert run(launcher(need_runtime("node22"), "-e", code, memory="0")) == ["none"]
