"""What an agent, or a service, could try at the door; each attempt beside a control that works."""

from __future__ import annotations

import contextlib
import re
import resource
import ssl
from collections.abc import Iterator
from functools import partial

import pytest
import trio
import trio.testing
import trustme
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.sandbox.network.audit import Auditor
from gateway.sandbox.network.door import Door
from tests.sandbox.doors import KEY, OK, Scene, Upstream, rules_of, scene
from tests.sandbox.test_door import message, status

ASTERISKS = b"*" * len(KEY)


async def refused(it: Scene, request: str, expected: int) -> bytes:
    """Check that the request alone is refused and never comes to the service, and that a plain one
    before it and behind it does."""
    assert status(await it.get("/llm/before")) == 200
    answer = await it.ask(request.encode("latin-1"))
    assert status(answer) == expected, answer
    assert status(await it.get("/llm/behind")) == 200
    lines = [line for line in bytes(it.upstream.seen).split(b"\r\n") if b" HTTP/1." in line]
    assert lines == [b"GET /v1/before HTTP/1.1", b"GET /v1/behind HTTP/1.1"]
    assert answer.count(b"content-length: ") == 1
    return answer


def post(*fields: str, body: str) -> str:
    return "\r\n".join(["POST /llm/x HTTP/1.1", "Host: x", *fields]) + "\r\n\r\n" + body


def get(target: str, *fields: str, method: str = "GET") -> str:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *fields]) + "\r\n\r\n"


SECOND = get("/llm/second")
CHUNKED = "Transfer-Encoding: chunked"
EMPTY = "0\r\n\r\n"

TWO_IN_ONE = {
    "length and coding": post("Content-Length: 5", CHUNKED, body=EMPTY + SECOND),
    "coding and length": post(CHUNKED, "Content-Length: 0", body=f"5\r\nhello\r\n{EMPTY}{SECOND}"),
    "two lengths": post("Content-Length: 0", "Content-Length: 40", body=SECOND),
    "no coding": post("Transfer-Encoding: xchunked", body=EMPTY + SECOND),
    "a strange space": post("Transfer-Encoding:\x0bchunked", body=EMPTY + SECOND),
    "a folded line": post("X: y\r\n Transfer-Encoding: chunked", body=SECOND),
    "a space before the colon": post("Transfer-Encoding : chunked", body=EMPTY + SECOND),
    "bare line feeds": f"GET /llm/x HTTP/1.1\nHost: x\n\n{SECOND}",
    "a bare carriage return": get("/llm/x", "X: a\rY: b") + SECOND,
}
ELSEWHERE = {
    "http://evil.example/x": 400,
    "http://127.0.0.1/llm/x": 400,
    "evil.example:443": 400,
    "*": 400,
    "/llm/../admin": 400,
    "/llm/%2e%2e/admin": 400,
    "/llm/x/..%2f..%2fadmin": 400,
    "/llm/x\\..\\..\\admin": 400,
    "/llm/%252e%252e/admin": 400,
    "/llm/..;/admin": 400,
    "/llm/x%00": 400,
    "/llm/x%0d%0aX:%20y": 400,
    "//llm/x": 404,
    "/other/x": 404,
    "/LLM/x": 404,
}


@pytest.mark.parametrize("request_", TWO_IN_ONE.values(), ids=TWO_IN_ONE)
async def test_no_request_is_read_as_two(request_: str) -> None:
    async with scene() as it:
        await refused(it, request_, 400)


@pytest.mark.parametrize(("target", "expected"), ELSEWHERE.items())
async def test_no_target_leads_elsewhere(target: str, expected: int) -> None:
    async with scene() as it:
        await refused(it, get(target), expected)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (get("evil.example:443", method="CONNECT"), 405),
        (get("/llm/x", method="TRACE"), 405),
        (get("/llm/x", method="get"), 405),
        (get("/llm/x", "Host: evil.example"), 400),
        (get("/llm/x", "Connection: Upgrade", "Upgrade: websocket"), 501),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ],
    ids=["CONNECT", "TRACE", "a small letter", "two hosts", "another protocol", "HTTP/2"],
)
async def test_no_other_method_host_or_protocol_is_passed_on(request_: str, expected: int) -> None:
    async with scene() as it:
        await refused(it, request_, expected)


async def test_what_follows_a_body_is_a_request_of_its_own() -> None:
    # The control of smuggling: what is framed well is passed on, and judged each by itself.
    async with scene(allow=["POST /x", "GET /before", "GET /behind"]) as it:
        answer = await it.ask(
            b"POST /llm/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
            b"GET /llm/second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert [status(b"HTTP/1.1 " + each) for each in answer.split(b"HTTP/1.1 ")[1:]] == [
            200,
            403,
        ]
        assert b"second" not in it.upstream.seen


async def test_a_body_with_a_broken_chunk_ends_both_connections() -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        await upstream.until(stream, b"never")
        del head

    async with scene(answer) as it:
        got = await it.ask(
            b"POST /llm/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5\r\nhello\r\nzz\r\nGET /llm/y HTTP/1.1\r\n\r\n"
        )
        assert got == b""
        await it.upstream.left.wait()


async def test_a_chunk_extension_and_a_trailer_are_not_passed_on() -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        if not head.endswith(b"0\r\n\r\n"):
            await upstream.until(stream, b"0\r\n\r\n")
        await stream.send_all(OK)

    async with scene(answer) as it:
        got = await it.ask(
            b"POST /llm/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
            b"5;evil=1\r\nhello\r\n0\r\nX-Evil: 1\r\n\r\n"
        )
        assert status(got) == 200
        assert b"evil" not in it.upstream.seen.lower()


async def test_a_head_without_end_is_refused() -> None:
    async with scene() as it:
        answer = await it.ask(
            b"GET /llm/x HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"
        )
        assert status(answer) == 431
        assert status(await it.get("/llm/x", "X: " + "y" * 60_000)) == 200


@pytest.mark.parametrize("cut", range(0, len(KEY) + 1, 5))
async def test_a_key_that_the_service_says_back_is_masked(cut: int) -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del upstream
        assert KEY.encode() in head
        body = f"wrong key: {KEY}.".encode()
        await stream.send_all(
            b"HTTP/1.1 401 Not " + KEY.encode() + b"\r\nX-Key: " + KEY.encode() + b"\r\n"
            b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body[: 11 + cut]
        )
        await stream.send_all(body[11 + cut :])

    async with scene(answer) as it:
        got = await it.get("/llm/x")
    assert status(got) == 401
    assert KEY.encode() not in got
    assert got.endswith(b"wrong key: " + ASTERISKS + b".")
    assert b"x-key: " + ASTERISKS in got.lower()


async def test_a_key_in_chunks_in_trailers_and_extensions_is_masked() -> None:
    pieces = [KEY[index : index + 3].encode() for index in range(0, len(KEY), 3)]
    chunks = b"".join(b"%x;%b\r\n%b\r\n" % (len(each), KEY.encode(), each) for each in pieces)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with scene(head + chunks + b"0\r\nX-Key: " + KEY.encode() + b"\r\n\r\n") as it:
        got = await it.get("/llm/x")
    assert KEY.encode() not in got
    assert ASTERISKS in got
    assert b"x-key" not in got.lower()


async def test_what_is_not_http_is_not_quoted() -> None:
    for answer in (KEY.encode() + b"\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + KEY.encode() + b"\r\n\r\n"):
        async with scene(answer) as it:
            got = await it.get("/llm/x")
        assert status(got) == 502
        assert message(got) == "agent-gateway: llm: its answer is not HTTP/1.1"
        assert KEY not in repr(it.records)


async def test_a_compressed_answer_is_refused() -> None:
    async with scene(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"
    ) as it:
        got = await it.get("/llm/x", "Accept-Encoding: gzip")
        assert b"accept-encoding: identity" in it.upstream.seen
    assert status(got) == 502
    assert "compressed body" in message(got)


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("/v1/elsewhere", "/llm/elsewhere"),  # the control
        ("http://evil.example/", None),
        ("http://127.0.0.1:1/v1/x", None),
        ("//evil.example/v1/x", None),
        ("/admin", None),
        ("/v1/../admin", None),
    ],
)
async def test_a_redirect_is_not_followed_and_leads_nowhere_else(
    location: str, seen: str | None
) -> None:
    answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    async with scene(answer.encode()) as it:
        got = (await it.get("/llm/x")).decode()
        assert it.upstream.connections == 1
    assert status(got.encode()) == 302
    assert ("location: " in got.lower()) == (seen is not None)
    assert seen is None or f"location: {seen}\r\n" in got


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nshort\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort\r\n0\r\n\r\n",
    ],
)
async def test_an_answer_that_ends_too_early_never_looks_whole(answer: bytes) -> None:
    async def say(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del upstream, head
        await stream.send_all(answer)
        await stream.aclose()

    async with scene(say) as it:
        got = await it.get("/llm/x")
    assert not got.endswith(b"0\r\n\r\n")
    assert b"Content-Length: 5" not in got
    assert it.records[0].verdict == "failed"


async def test_more_than_the_announced_length_is_no_answer_to_the_next_request() -> None:
    more = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    async with scene(OK + more) as it:
        for _ in range(3):
            assert (await it.get("/llm/x")).endswith(b"\r\n\r\nok")
    assert it.upstream.connections == 3


async def test_so_it_is_with_tls_where_both_come_in_one_segment() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    more = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

    async def serve(stream: trio.SocketStream) -> None:
        held = Held(stream)
        async with trio.SSLStream(held, context, server_side=True) as secure:
            with contextlib.suppress(trio.BrokenResourceError):
                while await secure.receive_some(65536):
                    held.holds = True
                    await secure.send_all(OK)
                    held.holds = False
                    await secure.send_all(more)

    async with scene() as it, trio.open_nursery() as nursery:
        [behind] = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        it.change(
            scheme="https",
            port=behind.socket.getsockname()[1],
            ca=authority.cert_pem.bytes().decode(),
        )
        for _ in range(3):
            assert (await it.get("/llm/x")).endswith(b"\r\n\r\nok")
        nursery.cancel_scope.cancel()


class Held(trio.abc.Stream):
    """A stream that keeps what it is to send, while it `holds`, for the next time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._kept = b""
        self.holds = False

    async def send_all(self, data: bytes) -> None:  # type: ignore[override] - bytes are all it gets
        self._kept += data
        if not self.holds:
            kept, self._kept = self._kept, b""
            await self._stream.send_all(kept)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        return bytes(await self._stream.receive_some(max_bytes))

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_a_long_answer_is_not_kept() -> None:
    size = 1 << 30

    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del upstream, head
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(block)):
            written.append(len(block))
            await stream.send_all(block)

    block = b"x" * (1 << 20)
    written: list[int] = []
    async with scene(answer) as it, await it.connect() as agent:
        await agent.send_all(b"GET /llm/x HTTP/1.1\r\nHost: x\r\n\r\n")
        await agent.receive_some(1000)
        # An agent that does not read holds the service up, once the sockets are full.
        while True:
            before = sum(written)
            with trio.move_on_after(0.3):
                await trio.sleep_forever()
            if sum(written) == before:
                break
        assert before < 64 << 20


async def test_the_gateways_own_port_is_never_reached() -> None:
    async with scene() as it:
        assert status(await it.get("/llm/x")) == 200  # the control
        it.rules["ports"] = [it.upstream.port]
        it.change()
        it.door._entries["llm"].upstream.close_idle(0)
        answer = await it.get("/llm/x")
    assert status(answer) == 403
    assert "it is the gateway itself" in message(answer)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "it is this machine, which the URL has to name"),
        ("169.254.169.254", "link-local"),
        ("0.0.0.0", "it is this machine"),
        ("224.0.0.1", "no single host"),
    ],
)
async def test_a_name_that_leads_here_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, address: str, why: str
) -> None:
    async def resolve(host: bytes, port: int, **_: object) -> list[object]:
        assert host == b"api.example.com"
        return [(2, 1, 6, "", (address, port))]

    async with scene() as it:
        monkeypatch.setattr(trio.socket, "getaddrinfo", resolve)
        it.change(host="api.example.com")
        answer = await it.get("/llm/x")
        assert it.upstream.connections == 0
    assert status(answer) == 403
    assert why in message(answer)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Enough for both ends of each connection: the usual soft limit is 1,024."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_a_thousand_connections_wait_and_none_is_lost(many_descriptors: None) -> None:
    async with scene() as it:
        done: list[int] = []

        async def one() -> None:
            done.append(status(await it.get("/llm/x")))

        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(one)
    assert done == [200] * 1000


async def test_a_slow_head_meets_a_clock(autojump_clock: object) -> None:
    del autojump_clock
    from gateway.sandbox.network.downstream import Downstream

    client, server = trio.testing.memory_stream_pair()
    await client.send_all(b"GET /llm/x HTTP/1.1\r\n")
    asked = await Downstream(server).request()  # type: ignore[arg-type] - a stream in memory
    assert getattr(asked, "status", None) == 408


SAID = st.binary(max_size=80) | st.builds(
    "{} {} HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n{}".format,
    st.sampled_from(["GET", "POST", "HEAD", "CONNECT", "get"]),
    st.text(max_size=12).map("/llm/{}".format) | st.text(max_size=20),
    st.sampled_from(
        [
            "A: b",
            "Content-Length: 3",
            CHUNKED,
            f"{CHUNKED}\r\nContent-Length: 3",
            "Expect: 100-continue",
        ]
    ),
    st.sampled_from(["", "abc", "3\r\nabc\r\n0\r\n\r\n", "3\r\nab", SECOND, "zz\r\n"]),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


@settings(deadline=None)
@given(SAID)
@example(b"\r\n\r\n")
def test_whatever_an_agent_says_is_answered_or_cut_and_is_no_defect(said: bytes) -> None:
    async def talk() -> bytes:
        door = Door(Auditor(bool))
        door.change({"services": {"llm": rules_of(port=1)}})  # where nobody answers
        ours, theirs = trio.socket.socketpair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(door.serve_client, trio.SocketStream(theirs), 1)
            async with trio.SocketStream(ours) as agent:
                await agent.send_all(said)
                await agent.send_eof()
                return b"".join([more async for more in agent])

    answer = trio.run(talk)
    assert not answer or re.match(rb"HTTP/1\.1 (100|4[0-9]{2}|50[0-9]) ", answer)
    assert KEY.encode() not in answer


ANSWERS = st.binary(max_size=80) | st.builds(
    "HTTP/1.1 {} x\r\n{}\r\n\r\n{}".format,
    st.sampled_from([100, 101, 103, 200, 204, 304, 302, 401, 500, 999, 20]),
    st.sampled_from(
        [
            *("A: b", "Content-Length: 3", "Content-Length: 3, 4", "Content-Length: -1", CHUNKED),
            *(f"{CHUNKED}\r\nContent-Length: 9", "Content-Encoding: gzip", f"Location: /{KEY}"),
            *("Upgrade: websocket\r\nConnection: Upgrade", f"X: {KEY}", f"{KEY}: x", KEY),
        ]
    ),
    st.sampled_from(
        [
            "",
            "abc",
            f"{KEY}",
            "3\r\nabc\r\n0\r\n\r\n",
            f"19\r\n{KEY}\r\n0\r\n\r\n",
            "3\r\nabcd",
            OK.decode(),
        ]
    ),
).map(str.encode)


@settings(deadline=None)
@given(ANSWERS, st.sampled_from(["GET", "HEAD", "POST"]))
def test_whatever_a_service_answers_is_no_defect_and_no_key(answer: bytes, method: str) -> None:
    async def say(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del upstream, head
        await stream.send_all(answer)
        await stream.aclose()

    async def talk() -> bytes:
        async with scene(say) as it:
            return await it.get("/llm/x", method=method)

    got = trio.run(talk)
    assert re.match(rb"HTTP/1\.1 [2-5][0-9]{2} |HTTP/1\.1 999 ", got)
    assert KEY.encode() not in got
    assert KEY.lower().encode() not in got


@pytest.mark.parametrize("begins", [False, True])
async def test_leaving_before_the_tokens_are_said_is_not_free(begins: bool) -> None:
    async def answer(upstream: Upstream, stream: trio.SocketStream, head: bytes) -> None:
        del head
        if begins:
            text = b'{"choices": [{"message": {"content": "the whole of it"}}], '
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + text)
        asked.set()
        await upstream.until(stream, b"never")

    asked = trio.Event()
    body = b"x" * 4000
    async with scene(answer, secrets=[], tokens_per_day=1000) as it:
        async with await it.connect() as agent:
            await agent.send_all(
                b"POST /llm/x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            await asked.wait()
            if begins:
                got = b""
                while b"the whole of it" not in got:
                    got += await agent.receive_some()
        await it.upstream.left.wait()
        await trio.testing.wait_all_tasks_blocked()
        [record] = it.records
        assert record.charged >= 1000
        assert record.tokens_in is None
        again = await it.get("/llm/x")
    assert status(again) == 429
    assert "tokens_per_day" in message(again)
