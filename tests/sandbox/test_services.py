"""An agent in the strict sandbox, without a network, uses a service whose key it cannot have."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import trustme

from tests.harness import RunningGateway, running_gateway
from tests.sandbox.doors import KEY, Answer, Upstream
from tests.sandbox.users import available_users, need_sandbox

AGENT = Path(__file__).with_name("services_agent.py")


def completion(text: str) -> bytes:
    body = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    return head.encode() + b"\r\n\r\n" + content


def event(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    data = b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


@asynccontextmanager
async def serving(
    tmp_path: Path, answer: Answer, settings: str = "", *, authority: trustme.CA | None = None
) -> AsyncIterator[tuple[RunningGateway, Upstream]]:
    """A gateway with an agent that has the service `openai`, which `answer` answers for.

    With `authority` it is asked by TLS, and the service `strange` is the same without the
    authority's certificate.
    """
    need_sandbox(available_users()[0])
    upstream = Upstream(answer)
    async with trio.open_nursery() as nursery, _copied() as agent:
        port = await nursery.start(_serve_service, upstream, authority)
        url = f"http{'s' if authority else ''}://127.0.0.1:{port}/v1"
        if authority is not None:
            authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
            settings += f'\nca = "{tmp_path}/ca.pem"'
        toml = f"""
            [server]
            metrics = true
            [services.openai]
            preset = "openai"
            url = "{url}"
            {settings}
            [services.strange]
            url = "{url}"
            [agents.bot]
            command = ["{sys.executable}", "-u", "{agent}"]
            services = ["openai", "strange"]
            [agents.both]
            command = ["{sys.executable}", "-u", "{agent}"]
            services = ["openai"]
            workers.min = 0
            sandbox.network = ["api.invalid:443"]
            [agents.other]
            command = ["{sys.executable}", "-u", "{agent}"]
            [agents.other.sandbox]
            env_allow = ["OPENAI_API_KEY"]
        """
        env = {"OPENAI_API_KEY": KEY}
        async with running_gateway(toml=toml, folder=tmp_path, env=env) as gateway:
            yield gateway, upstream
        nursery.cancel_scope.cancel()


async def _serve_service(
    upstream: Upstream,
    authority: trustme.CA | None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    listeners: Any = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    if authority is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        listeners = [trio.SSLListener(each, context) for each in listeners]
    task_status.started(port)
    await trio.serve_listeners(upstream.serve, listeners)


@asynccontextmanager
async def _copied() -> AsyncIterator[Path]:
    """The agent in a folder that others can read, and which holds nothing else."""
    with tempfile.TemporaryDirectory(prefix="services-") as folder:
        os.chmod(folder, 0o755)
        yield Path(shutil.copy(AGENT, folder))


async def ask(gateway: RunningGateway, what: Any, *, agent: str = "bot") -> Any:
    answer = (await gateway.post(f"/agent/{agent}/invoke", input=what)).json()
    assert "output" in answer, answer
    return answer["output"]


async def echo(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
    """Answers with the head of the request, in what the model says."""
    if b'"hello"' not in head and head.startswith(b"POST"):
        await upstream.until(stream, b'"hello"')
    await stream.send_all(completion(head.partition(b"\r\n\r\n")[0].decode()))


async def test_an_unmodified_client_uses_a_key_that_is_nowhere_in_the_sandbox(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, echo) as (gateway, upstream):
        said = await ask(gateway, "chat")
        # The control: the service has seen the real key.
        assert f"Authorization: Bearer {KEY}".encode() in upstream.seen
        assert f"Authorization: Bearer {'*' * len(KEY)}" in said
        assert "placeholder" not in said
        scan = await ask(gateway, {"scan": KEY[::-1]})
        assert scan["found"] == []
        assert scan["looked_at"] > 100
        assert scan["environment"]["OPENAI_API_KEY"] == "placeholder"
        assert scan["environment"]["OPENAI_BASE_URL"] == "http://127.0.0.1:3129/openai"
        await gateway.logged(r"POST /chat/completions .*tokens_in=3 tokens_out=4")
        outside = [pid for pid in gateway.processes() if b"network.door" in _read(pid, "cmdline")]
        assert outside
        for pid in outside:
            assert KEY.encode() not in _read(pid, "cmdline") + _read(pid, "environ")
        state = await gateway.state("bot")
        assert state["sandbox"]["services"]["openai"]["header"] == ["Authorization"]
        assert state["services"]["openai"]["tokens"] == {"input": 3, "output": 4}
        metrics = (await gateway.client.get("/metrics")).text
        for sample in (
            'gateway_service_requests_total{agent="bot",outcome="allowed",service="openai"} 1.0',
            'gateway_service_tokens_total{agent="bot",direction="input",service="openai"} 3.0',
            'gateway_service_tokens_total{agent="bot",direction="output",service="openai"} 4.0',
        ):
            assert sample in metrics
    assert not any(KEY in line for line in gateway.log)
    assert KEY not in json.dumps(state)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path("/proc", str(pid), name).read_bytes()
    except OSError:
        return b""  # not even root may read what cannot be traced, or it has just ended


async def test_tokens_stream_one_by_one(tmp_path: Path) -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        if b'"hello"' not in head:
            await upstream.until(stream, b'"hello"')
        await stream.send_all(STREAM)
        for number in range(3):
            await stream.send_all(event(f"token {number}"))
            await read[number].wait()
        await stream.send_all(END)

    read = [trio.Event() for _ in range(3)]
    async with serving(tmp_path, answer) as (gateway, _):
        body = {"input": "x", "stream": True}
        async with gateway.client.stream("POST", "/agent/bot/invoke", json=body) as response:
            seen = ""
            async for text in response.aiter_text():
                seen += text
                for number in range(3):
                    if f'"token {number}"' in seen:
                        read[number].set()
        assert seen.endswith("data: [DONE]\n\n")


async def test_the_agents_leaving_is_seen_by_the_service(tmp_path: Path) -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        if b'"hello"' not in head:
            await upstream.until(stream, b'"hello"')
        await stream.send_all(STREAM + event("one"))
        await upstream.until(stream, b"never")

    async with serving(tmp_path, answer) as (gateway, upstream):
        assert await ask(gateway, "leave") == "one"
        with trio.fail_after(20):
            await upstream.left.wait()


async def test_a_service_is_asked_by_tls_and_has_to_be_trusted(tmp_path: Path) -> None:
    async with serving(tmp_path, echo, authority=trustme.CA()) as (gateway, upstream):
        assert "POST /v1/chat/completions" in await ask(gateway, "chat")
        assert f"Bearer {KEY}".encode() in upstream.seen
        request = "GET /strange/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await ask(gateway, {"raw": request})
        assert "strange: 127.0.0.1: its certificate is not trusted" in answer


async def test_what_is_not_allowed_is_told_to_the_agent_and_in_the_log(tmp_path: Path) -> None:
    async with serving(tmp_path, echo, 'allow = ["GET /models"]') as (gateway, upstream):
        answer = await gateway.post("/agent/bot/invoke", input="chat")
        assert "services.openai.allow does not have POST /chat/completions" in answer.text
        await gateway.logged(r"services.openai.allow")
        assert not upstream.seen


async def test_the_gateway_itself_is_not_reached_by_a_service(tmp_path: Path) -> None:
    async with serving(tmp_path, echo) as (gateway, _):
        port = gateway.port
    toml = f"""
        [server]
        port = {port}
        [services.openai]
        url = "http://127.0.0.1:{port}"
        [agents.bot]
        command = "true"
        services = ["openai"]
    """
    path = tmp_path / "own.toml"
    path.write_text(toml)
    done = await trio.run_process(
        [sys.executable, "-m", "gateway", "--config", str(path)],
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"which is the gateway itself" in done.stderr


async def test_the_scan_finds_a_key_that_is_put_into_the_sandbox(tmp_path: Path) -> None:
    # The control: what `env_allow` shows an agent, it can have.
    async with serving(tmp_path, echo) as (gateway, _):
        scan = await ask(gateway, {"scan": KEY[::-1]}, agent="other")
        assert "environment" in scan["found"]
        assert "OPENAI_BASE_URL" not in scan["environment"]


async def test_an_agent_with_a_network_has_services_beside_it(tmp_path: Path) -> None:
    async with serving(tmp_path, echo) as (gateway, upstream):
        assert "POST /v1/chat/completions" in await ask(gateway, "chat", agent="both")
        assert upstream.connections == 1
        state = await gateway.state("both")
        assert state["sandbox"]["network"] == ["api.invalid:443"]


async def test_without_a_sandbox_there_are_no_services(tmp_path: Path) -> None:
    path = tmp_path / "off.toml"
    path.write_text(
        f"""
        [services.local]
        url = "http://127.0.0.1:1"
        [agents.bot]
        command = ["{sys.executable}", "-u", "{AGENT}"]
        services = ["local"]
        """
    )
    done = await trio.run_process(
        [sys.executable, "-m", "gateway", "--sandbox", "off", "--config", str(path)],
        capture_stderr=True,
        check=False,
    )
    assert done.returncode == 1
    assert b"services: local needs the strict sandbox" in done.stderr
