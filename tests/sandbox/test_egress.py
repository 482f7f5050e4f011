"""A worker with a network reaches what its settings allow, through the proxy, and nothing else."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.sandbox import SandboxSettings, StrictLauncher, make_launcher, try_sandbox
from gateway.sandbox.bwrap import Tools
from gateway.sandbox.network import addresses, egress, inlets, listener
from gateway.sandbox.network.addresses import why_refused
from gateway.sandbox.network.audit import Auditor, Record, read_record
from gateway.sandbox.network.egress import Egress
from gateway.sandbox.network.metering import Meter
from gateway.sandbox.network.proxy import Proxy
from gateway.sandbox.network.targets import Asked, Policy
from gateway.sandbox.refusals import explain_refusal
from tests.sandbox.running import lines_of
from tests.sandbox.test_targets import naive_connect
from tests.sandbox.users import need_sandbox
from tests.unit.exhausted import no_watches_left

USER = "root" if os.geteuid() == 0 else "user"

# Asks the proxy for each target and says what it answered, then what came through the tunnel.
AGENT = """
import json, os, socket, sys
host, port = os.environ["https_proxy"].removeprefix("http://").split(":")
for target in sys.argv[1:]:
    with socket.create_connection((host, int(port)), 10) as tunnel:
        tunnel.sendall(f"CONNECT {target} HTTP/1.1\\r\\nHost: {target}\\r\\n\\r\\n".encode())
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            head += tunnel.recv(1)
        said = b""
        if b" 200 " in head:
            tunnel.sendall(b"ping")
            tunnel.shutdown(socket.SHUT_WR)
        while more := tunnel.recv(4096):
            said += more
    print(json.dumps([head.split()[1].decode(), said.decode()]), flush=True)
"""


@pytest.fixture
def launched(request: pytest.FixtureRequest) -> Iterator[StrictLauncher]:
    need_sandbox(USER)
    made = make_launcher(
        "agent",
        [sys.executable, "-c", AGENT, *request.param["targets"]],
        SandboxSettings(network=tuple(request.param["network"])),
        environ=os.environ,
        cwd="/",
    )
    assert isinstance(made, StrictLauncher)
    yield made
    made.close()


def run(launcher: StrictLauncher) -> list[Any]:
    return [json.loads(line) for line in lines_of(launcher)]


@pytest.mark.parametrize(
    "launched",
    [
        {
            "network": ["*:*"],
            "targets": ["127.0.0.1:22", "localhost:22", "169.254.169.254:80", "[::1]:22", "0:22"],
        }
    ],
    indirect=True,
)
def test_not_even_a_network_of_everything_has_this_machine_or_the_metadata_in_it(
    launched: StrictLauncher,
) -> None:
    answers = run(launched)
    assert [status for status, _ in answers] == ["403"] * 5
    assert "it is this machine" in answers[0][1]
    assert "where metadata services are" in answers[2][1]


@pytest.mark.parametrize(
    "launched",
    [
        {
            "network": ["api.example.com:443"],
            "targets": ["other.example.com:443", "api.example.com:80"],
        }
    ],
    indirect=True,
)
def test_what_is_not_in_the_list_is_refused_by_name(launched: StrictLauncher) -> None:
    assert run(launched) == [
        ["403", "other.example.com:443 is not in the agent's network setting\n"],
        ["403", "api.example.com:80 is not in the agent's network setting\n"],
    ]


@pytest.mark.parametrize(
    "launched", [{"network": ["api.example.com:443"], "targets": []}], indirect=True
)
def test_a_sandbox_with_a_network_passes_the_trial(launched: StrictLauncher) -> None:
    assert "the gateway's ports cannot be reached" in try_sandbox(launched)


@pytest.mark.parametrize(
    "launched", [{"network": ["a.example.com:1"], "targets": ["x:1"]}], indirect=True
)
def test_a_proxy_that_died_is_replaced_at_the_next_start(launched: StrictLauncher) -> None:
    assert run(launched)[0][0] == "403"
    proxy = launched._proxy
    assert proxy is not None
    first = proxy._process
    assert first is not None
    first.kill()
    first.wait()
    assert run(launched)[0][0] == "403"
    assert proxy._process is not first


@pytest.mark.parametrize(
    "launched", [{"network": ["a.example.com:1"], "targets": ["x:1"]}], indirect=True
)
def test_the_agent_itself_has_no_descriptor_but_its_own(launched: StrictLauncher) -> None:
    code = "import os, json; print(json.dumps(sorted(map(int, os.listdir('/proc/self/fd')))))"
    plain = launched.with_confinement(
        replace(launched.confinement, argv=(sys.executable, "-c", code))
    )
    # The fourth is the folder that is being listed.
    assert run(plain) == [[0, 1, 2, 3]]


def test_the_proxy_ends_with_the_gateway() -> None:
    """Its standard error, which it shares with this gateway, is closed by the kernel."""
    code = (
        "import os\n"
        "from gateway.sandbox import SandboxSettings, make_launcher\n"
        "made = make_launcher('agent', ['true'], SandboxSettings(network=('a.invalid:1',)),\n"
        "                     environ=os.environ, cwd='/')\n"
        "with made._proxy.announce():\n"
        "    print(made._proxy.pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    gateway = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    said, complaints = gateway.communicate(timeout=30)
    assert gateway.returncode == -9
    assert said.strip().isdigit()
    assert complaints == ""


class Kept(Auditor):
    """An auditor whose records the test reads."""

    def __init__(self) -> None:
        super().__init__(self._keep)
        self.records: list[Record] = []

    def _keep(self, packet: bytes) -> bool:
        record = read_record(packet)
        assert record is not None
        self.records.append(record)
        return True


class InProcess(Proxy):
    """The same proxy as a task of the test, so that the test may say what is public."""

    def __init__(self) -> None:
        tools = Tools(bwrap="", setpriv="", sh="")
        super().__init__("agent", {}, meter=Meter(), uid=0, tools=tools, seccomp=b"")
        self.control, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self.theirs = trio.socket.from_stdlib_socket(theirs)

    def _running(self) -> socket.socket:
        return self.control


@contextmanager
def upstream() -> Iterator[tuple[int, Any]]:
    """A server that is reached through the tunnel: it answers when the client has finished."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        async def answer() -> None:
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(server.dup()))
            async with listener:
                stream = await listener.accept()
                async with stream:
                    said = b""
                    async for more in stream:
                        said += more
                    await stream.send_all(said + b" pong")

        yield server.getsockname()[1], answer


async def test_a_tunnel_passes_on_both_directions_and_both_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_sandbox(USER)
    monkeypatch.setattr(egress, "why_refused", lambda address, by_name: None)
    with upstream() as (port, answer):
        made = make_launcher(
            "agent",
            [sys.executable, "-c", AGENT, f"localhost:{port}"],
            SandboxSettings(network=(f"*:{port}",)),
            environ=os.environ,
            cwd="/",
        )
        assert isinstance(made, StrictLauncher)
        proxy = InProcess()
        made._proxy = proxy
        auditor = Kept()
        handler = Egress(auditor, Policy((f"localhost:{port}",)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            serve = partial(inlets.serve, max_clients=1)
            nursery.start_soon(serve, proxy.theirs, handler, auditor)
            assert await trio.to_thread.run_sync(run, made) == [["200", "ping pong"]]
            # The end of the gateway is the end of the proxy: the nursery closes.
            proxy.control.close()
        proxy.theirs.close()
    [record] = auditor.records
    assert (record.name, record.verdict, record.rule) == (
        f"localhost:{port}",
        "allowed",
        f"localhost:{port}",
    )
    assert (record.sent, record.received, record.status) == (len("ping"), len("ping pong"), 200)


async def test_a_worker_whose_socket_was_lost_on_its_way_takes_nothing_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The kernel discards the descriptors of a message that a process has no room for."""
    auditor = Kept()
    serve = partial(inlets.serve, max_clients=1)
    control, other = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with control, trio.socket.from_stdlib_socket(other) as theirs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, theirs, Egress(auditor, POLICY), auditor)
            control.send(b'{"worker": 4}')
            held, passed = socket.socketpair()
            with held:
                with passed:
                    socket.send_fds(control, [b'{"worker": 5}'], [passed.fileno()])
                held.shutdown(socket.SHUT_WR)
                # The end of its socket is the end of its service, which had begun then.
                await trio.lowlevel.wait_readable(held)
                assert held.recv(1) == b""
            control.close()
    assert "worker 4 has no network" in caplog.text


def test_a_worker_that_starts_without_its_networks_process_says_so_in_one_line() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.close()
        command = listener.command([(theirs.fileno(), 0)], 64)
        done = subprocess.run(
            [*command, "/bin/true"],
            pass_fds=(theirs.fileno(),),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    [line] = done.stderr.splitlines()
    assert "the process that serves this worker's network has ended" in line
    assert explain_refusal([line]) == line  # which becomes the reason of the worker's end
    assert done.returncode == 1


async def test_a_worker_whose_port_is_broken_takes_nothing_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    auditor = Kept()
    control, other = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with control, trio.socket.from_stdlib_socket(other) as theirs, trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            serve = partial(inlets.serve, max_clients=1)
            nursery.start_soon(serve, theirs, Egress(auditor, POLICY), auditor)
            for number in (4, 5):  # the second is served by a process that has seen the first
                held, passed = socket.socketpair()
                with held, passed, socket.socket() as port:  # which does not listen
                    socket.send_fds(
                        control, [f'{{"worker": {number}}}'.encode()], [passed.fileno()]
                    )
                    passed.close()
                    socket.send_fds(held, [b"x"], [port.fileno()])
                    # The gateway sees this end, and replaces the worker.
                    await trio.lowlevel.wait_readable(held)
                    assert held.recv(1) == b""
                assert f"worker {number} has no network any more" in caplog.text
            control.close()


@pytest.mark.parametrize(
    ("address", "by_name", "why"),
    [
        ("93.184.216.34", False, None),
        ("2606:2800:220:1:248:1893:25c8:1946", False, None),
        ("127.0.0.1", True, "this machine"),
        ("127.8.8.8", True, "this machine"),
        ("::1", True, "this machine"),
        ("0.0.0.0", True, "this machine"),
        ("::", True, "this machine"),
        ("::ffff:127.0.0.1", True, "this machine"),
        ("64:ff9b::7f00:1", True, "this machine"),
        ("64:ff9b::a9fe:a9fe", True, "link-local"),
        ("2002:7f00:1::", True, "this machine"),
        ("169.254.169.254", True, "link-local"),
        ("fe80::1", True, "link-local"),
        ("224.0.0.1", True, "no single host"),
        ("255.255.255.255", True, "no single host"),
        ("10.0.0.1", False, "private network"),
        ("192.168.1.1", False, "private network"),
        ("100.64.0.1", False, "private network"),
        ("fd00:ec2::254", False, "private network"),
        ("10.0.0.1", True, None),
        ("fd12:3456::1", True, None),
    ],
)
def test_addresses_are_judged_by_what_they_reach(
    address: str, by_name: bool, why: str | None
) -> None:
    found = why_refused(ipaddress.ip_address(address), by_name=by_name)
    assert (found is None) == (why is None)
    assert why is None or why in str(found)


def test_this_machines_own_public_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway may listen there."""
    monkeypatch.setattr(addresses, "_is_own", lambda address: True)
    found = why_refused(ipaddress.ip_address("93.184.216.34"), by_name=True)
    assert found == "it is this machine"


def test_an_address_in_doubt_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*args: Any) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(addresses.stdlib_socket, "socket", exhausted)
    found = why_refused(ipaddress.ip_address("93.184.216.34"), by_name=True)
    assert found == "it is this machine"


@pytest.mark.parametrize(
    "passing",
    [
        *(errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED),
        *(errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT),
    ],
)
async def test_what_hinders_one_connection_is_waited_out(
    passing: int,
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Listener:
        def __init__(self) -> None:
            self.answers: list[Any] = [OSError(passing, "no"), OSError(passing, "no"), "client"]

        async def accept(self) -> tuple[Any, None]:
            answer = self.answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return answer, None

    port: Any = Listener()
    accepted: Any = await inlets._accept_one(port)
    assert accepted == "client"
    assert trio.current_time() >= 2 * inlets.ACCEPT_PAUSE
    port.answers = [OSError(errno.EINVAL, "closed")]
    assert await inlets._accept_one(port) is None


async def test_without_epoll_watches_descriptors_still_arrive() -> None:
    """Where the proxy shares its user's watches with workers."""
    theirs, ours = socket.socketpair()
    with theirs, trio.socket.from_stdlib_socket(ours) as source, no_watches_left() as full:
        async with trio.open_nursery() as nursery:
            received: list[tuple[bytes, list[int]]] = []

            async def receive() -> None:
                received.append(await inlets.receive_message(source))

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            assert full.refused
            socket.send_fds(theirs, [b"W"], [theirs.fileno()])
        [(said, [descriptor])] = received
        os.close(descriptor)
        assert said == b"W"


@pytest.mark.parametrize(
    ("hosts", "goes_on"),
    [
        (["a.com:1"], True),
        (["other.com:1", "a.com:*"], True),
        ([], False),
        (["a.com:2"], False),
        # By name, it may be in a private network; by a pattern, it may not.
        (["*:1"], False),
    ],
)
async def test_a_tunnel_that_other_rules_do_not_allow_is_closed(
    hosts: list[str], goes_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = ipaddress.ip_address("10.0.0.1")

    async def open_upstream(tunnel: egress.Tunnel) -> trio.SocketStream:
        assert tunnel.lead_to(private) is None
        return trio.SocketStream(inner)

    monkeypatch.setattr(egress, "open_upstream", open_upstream)
    inner, far = trio.socket.socketpair()
    near, client = trio.socket.socketpair()
    auditor = Kept()
    handler = Egress(auditor, POLICY)
    with far, client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handler.serve_client, trio.SocketStream(near), 7)
            await client.send(b"CONNECT a.com:1 HTTP/1.1\r\n\r\nping")
            assert await client.recv(100) == b"HTTP/1.1 200 Connection established\r\n\r\n"
            assert await far.recv(100) == b"ping"
            handler.change({"network": hosts})
            if goes_on:
                await far.send(b"pong")
                assert await client.recv(100) == b"pong"
                client.shutdown(socket.SHUT_WR)
                far.shutdown(socket.SHUT_WR)
            assert await client.recv(100) == b""
    [record] = auditor.records
    assert (record.verdict, record.worker, record.sent) == ("allowed", 7, 4)
    assert (record.why == "") == goes_on
    assert goes_on or record.why.startswith("closed: ")


async def test_a_connection_that_waits_for_its_host_obeys_other_rules_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving = trio.Event()

    async def resolve(*args: Any, **options: Any) -> list[Any]:
        resolving.set()
        await trio.sleep_forever()
        return []

    monkeypatch.setattr(trio.socket, "getaddrinfo", resolve)
    near, client = trio.socket.socketpair()
    auditor = Kept()
    handler = Egress(auditor, POLICY)
    with client:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handler.serve_client, trio.SocketStream(near), 7)
            await client.send(b"CONNECT a.com:1 HTTP/1.1\r\n\r\n")
            await resolving.wait()
            handler.change({"network": []})
            assert await client.recv(100) == b""
    [record] = auditor.records
    assert record.why == "closed: a.com:1 is not in the agent's network setting"


POLICY = Policy(("a.com:1",))


def naive_request(head: bytes) -> Asked:
    """For controls: as `targets.parse_request`, without its grammar."""
    return Asked("CONNECT", *naive_connect(head))


async def talk(said: bytes, policy: Policy = POLICY) -> bytes:
    """What a client that says this, and no more, is answered."""
    ours, theirs = map(trio.SocketStream, trio.socket.socketpair())
    async with ours, theirs, trio.open_nursery() as nursery:
        nursery.start_soon(Egress(Kept(), policy).serve_client, theirs, 1)
        await ours.send_all(said)
        await ours.send_eof()
        answer = b""
        async for more in ours:
            answer += more
    return answer


async def test_a_head_that_does_not_end_is_refused() -> None:
    assert (await talk(b"CONNECT a.com:1 HTTP/1.1\r\n")).startswith(b"HTTP/1.1 400 ")
    assert (await talk(b"x" * (egress.MAX_HEAD + 1))).startswith(b"HTTP/1.1 431 ")


class Loopback:
    """Resolves every name to this machine, which is judged as any address is."""

    async def __call__(self, host: bytes, port: int, **options: Any) -> list[Any]:
        del options
        assert re.fullmatch(rb"[0-9a-z.:-]+", host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))]


PLAIN = "GET http://web.example:{port}/x HTTP/1.1\r\nHost: y\r\nConnection: keep-alive\r\n\r\n"
TUNNEL = "CONNECT web.example:{port} HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "allow_local", "own", "answer"),
    [
        (PLAIN, True, False, "GET /x HTTP/1.1\r\nHost: web.example:{port}\r\nConnection: close"),
        (TUNNEL, True, False, "HTTP/1.1 200 "),
        (PLAIN, False, False, "HTTP/1.1 403 web.example is 127.0.0.1: it is this machine"),
        (TUNNEL, False, False, "HTTP/1.1 403 web.example is 127.0.0.1: it is this machine"),
        (PLAIN, True, True, "HTTP/1.1 403 web.example is 127.0.0.1: it is the gateway itself"),
        (PLAIN.replace("web", "other"), True, False, "HTTP/1.1 403 http://other.example:{port} is"),
    ],
)
async def test_plain_http_and_this_machine_are_reached_where_the_settings_say_so(
    monkeypatch: pytest.MonkeyPatch, said: str, allow_local: bool, own: bool, answer: str
) -> None:
    async def echo(stream: trio.SocketStream) -> None:
        async for data in stream:
            await stream.send_all(data)

    async with trio.open_nursery() as nursery:
        [server] = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
        monkeypatch.setattr(trio.socket, "getaddrinfo", Loopback())
        port = server.socket.getsockname()[1]
        policy = Policy(
            (f"http://web.example:{port}",),
            allow_local=allow_local,
            own_ports=frozenset((port,) if own else ()),
        )
        got = await talk(said.format(port=port).encode(), policy)
        nursery.cancel_scope.cancel()
    assert got.decode().startswith(answer.format(port=port))


HEADS = st.binary(max_size=60) | st.builds(
    "{} {} HTTP/1.1{}\r\n\r\n".format,
    st.sampled_from(["CONNECT", "GET"]),
    st.text(max_size=20) | st.builds("{}:{}".format, st.text(max_size=8), st.integers(-1, 70000)),
    st.sampled_from(["", "\r\nA: b", "\r\n\0", "\n"]),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


@settings(deadline=None)
@given(HEADS)
@example(b"CONNECT ..example.invalid:443 HTTP/1.1\r\n\r\n")
@example(b"CONNECT a.invalid\0.good.invalid:443 HTTP/1.1\r\n\r\n")
@example(b"CONNECT a.invalid:443 HTTP/1.1\r\n\r\n")
def test_whatever_a_client_says_is_refused_in_one_status_line_and_is_no_defect(said: bytes) -> None:
    check_refusal(said)


def check_refusal(said: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio.socket, "getaddrinfo", Loopback())
        answer = trio.run(talk, said, Policy(("*:*",)))
    assert re.match(rb"HTTP/1\.1 (400|403|405) [ -~]{1,200}\r\n", answer)


@pytest.mark.parametrize("host", ["..ex-.\n", "a.invalid\0.good.invalid", "é"])
def test_the_control_is_no_refusal_without_the_grammar(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = f"CONNECT {host}:443 HTTP/1.1\r\n\r\n".encode()
    check_refusal(said)
    monkeypatch.setattr(egress, "parse_request", naive_request)
    with pytest.raises((AssertionError, BaseExceptionGroup)):
        check_refusal(said)


@pytest.mark.parametrize("grammar", [True, False])
async def test_a_nul_byte_in_a_name_reaches_what_no_pattern_allows_only_without_the_grammar(
    grammar: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "why_refused", lambda address, by_name: None)
    if not grammar:
        monkeypatch.setattr(egress, "parse_request", naive_request)
    with upstream() as (port, answer):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            head = f"CONNECT 127.0.0.1\0.good.invalid:{port} HTTP/1.1\r\n\r\n".encode()
            said = await talk(head, Policy(("*.good.invalid:*",)))
            nursery.cancel_scope.cancel()
    assert said.endswith(b" pong") is not grammar


async def test_the_reason_of_a_refusal_stands_in_the_status_line() -> None:
    said = await talk(b"CONNECT b.invalid:1 HTTP/1.1\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 403 b.invalid:1 is not in the agent's network setting\r\n")


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_name_that_cannot_be_resolved_since_the_name_servers_changed_says_so(
    replaced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*args: Any, **options: Any) -> list[Any]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    with tempfile.NamedTemporaryFile(delete=not replaced) as file:
        monkeypatch.setattr(trio.socket, "getaddrinfo", fails)
        # A mount of the file alone keeps showing it when another one takes its name.
        monkeypatch.setattr(addresses, "RESOLV_CONF", f"/proc/self/fd/{file.fileno()}")
        if replaced:
            os.unlink(file.name)
        said = await talk(b"CONNECT a.com:1 HTTP/1.1\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 502 a.com cannot be resolved: Temporary failure")
    assert (b"restart the gateway" in said) == replaced


@pytest.mark.parametrize("gone", ["client", "upstream"])
async def test_a_tunnel_whose_end_is_gone_before_it_opens_is_no_defect(
    gone: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = trio.Event()

    async def open_upstream(*args: object) -> trio.SocketStream:
        ours, theirs = trio.socket.socketpair()
        theirs.close()
        if gone == "client":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()  # a reset
        opened.set()
        return trio.SocketStream(ours)

    monkeypatch.setattr(egress, "open_upstream", open_upstream)
    listener = await trio.open_tcp_listeners(0, host="127.0.0.1")
    client = trio.socket.socket()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inlets.accept, listener[0].socket, Egress(Kept(), POLICY), 1, 1)
        await client.connect(listener[0].socket.getsockname())
        await client.send(b"CONNECT a.com:1 HTTP/1.1\r\n\r\nrest")
        await opened.wait()
        if gone == "upstream":
            with contextlib.suppress(ConnectionResetError):
                while await client.recv(64):
                    pass
        # Both tasks of the tunnel have ended, or were never started.
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    client.close()
    await listener[0].aclose()
    assert "defect" not in caplog.text


async def test_whoever_is_refused_finds_the_record_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the proxy is held up right after it has answered, as any process may be."""
    send_answer = egress._answer

    async def held_up(*args: Any) -> None:
        await send_answer(*args)
        await trio.sleep_forever()

    monkeypatch.setattr(egress, "_answer", held_up)
    auditor = Kept()
    ours, theirs = trio.socket.socketpair()
    with ours:
        async with trio.open_nursery() as nursery:
            handler = Egress(auditor, POLICY)
            nursery.start_soon(handler.serve_client, trio.SocketStream(theirs), 1)
            await ours.send(b"CONNECT b.com:1 HTTP/1.1\r\n\r\n")
            assert (await ours.recv(64)).startswith(b"HTTP/1.1 403 ")
            assert [each.verdict for each in auditor.records] == ["refused"]
            nursery.cancel_scope.cancel()
    assert len(auditor.records) == 1


async def test_a_client_that_says_nothing_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.socket.socketpair()
    with ours:
        await Egress(Kept()).serve_client(trio.SocketStream(theirs), 1)
        assert (await ours.recv(64)).startswith(b"HTTP/1.1 504 ")
    assert trio.current_time() >= egress.HEAD_TIMEOUT


async def test_what_the_trial_attempts_is_not_logged_as_if_the_agent_had() -> None:
    need_sandbox(USER)
    settings = SandboxSettings(network=("api.example.invalid:443",))
    made = make_launcher("agent", [sys.executable], settings, environ=os.environ, cwd="/")
    assert isinstance(made, StrictLauncher)
    try:
        try_sandbox(made)
        (stderr,) = made.logs()
        assert made._proxy is not None
        for descriptor in (stderr, made._proxy.records.descriptor):
            with pytest.raises(BlockingIOError):
                os.read(descriptor, 1)
    finally:
        made.close()
