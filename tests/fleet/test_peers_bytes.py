"""Whatever bytes a process of a fleet sends, the others refuse them where they read them: an
exception anywhere else ends the process that has received them."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from gateway.fleet.background import Outcome, Record, Store
from gateway.fleet.front.described import read_description
from gateway.fleet.front.hosts import Hosts
from gateway.fleet.front.status import read_told
from gateway.fleet.messages import (
    VERSION,
    AgentBeat,
    Beat,
    Claim,
    Described,
    Error,
    Failed,
    FrameError,
    Given,
    Reader,
    Refused,
    encode,
)
from gateway.fleet.subjects import Peer, digest_of
from tests.fleet.claimants import SUBJECTS, Host, run
from tests.fleet.fakes import FakeNats
from tests.fleet.front_scene import description
from tests.fleet.host_scene import submit
from tests.fleet.test_outcomes import Written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = Peer("h1", "0")

_pack = msgspec.msgpack.encode


def altered(data: bytes) -> Iterator[bytes]:
    """The beginnings of a message, and the message with one byte that is another one."""
    for at in range(len(data)):
        yield data[:at]
        for byte in {0, 0x7F, 0x80, 0xC1, 0xD9, 0xDF, 0xFF, data[at] ^ 1}:
            yield data[:at] + bytes([byte]) + data[at + 1 :]


def hear_claim(data: bytes) -> None:
    nats = FakeNats()
    host = Host(nats, "h1")
    host.enter()
    other = nats.bus("other", held=True)
    subject = SUBJECTS.conversation("a", digest_of("c"))
    other.publish(subject, data, SUBJECTS.asked(Peer("h2", "0"), "a.b.c"))
    run(nats)


def read_frames(make: Callable[[], Reader[Any]], data: bytes) -> None:
    with suppress(FrameError):
        make().feed(data)


def stored(data: bytes) -> Any:
    return Store(Written(data), "gw", ttl=60)


ERROR = Error("agent_error", "a message", 1.5, {"setting": "queue"})
RECORD = Record("echo", "/a", {b"a": b"b"}, b"", "http", b"body", "r", "", b"c", None, b"f")
STATUS = {
    "workers": [
        {
            "pid": 1,
            "state": "ready",
            "age": 1.5,
            "served": 1,
            "in_flight": 0,
            "capacity": 1,
            "memory": 7,
        }
    ],
    "started": 1,
    "failures": 0,
    "last_failure": {"message": "m", "at": 1.5, "pid": None},
    "last_limit": None,
    "sandbox": {"mode": "off"},
}

READERS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "a beat": (
        _pack(Beat(VERSION, "1.2", False, {"echo": AgentBeat("ready", 8, 0, 0, 1)})),
        lambda data: Hosts().heard(HOST, data),
    ),
    "a description": (description(description="an agent"), read_description),
    "a status": (json.dumps(STATUS).encode(), read_told),
    "a claim": (_pack(Claim(1, "h2.0")), hear_claim),
    "a frame of a front": (
        encode(submit(1, tools=b"[]", conversation="c", needs=["tools"])),
        lambda data: read_frames(Reader.up, data),
    ),
    "frames of a host": (
        b"".join(
            [
                encode(Given(1, 77, "new", 0.5)),
                encode(Refused(1, ERROR, elsewhere=True, owner="h2.0")),
                encode(Failed(2, ERROR, handed_over=True)),
                encode(Described("echo", 2, b"x")),
            ]
        ),
        lambda data: read_frames(Reader.down, data),
    ),
    "an outcome": (
        _pack(Outcome(b"x", ERROR, handed_over=True)),
        lambda data: trio.run(stored(data).outcome, "echo", "t"),
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_bytes_that_are_no_message_raise_nothing(name: str) -> None:
    data, read = READERS[name]
    read(data)
    for each in altered(data):
        read(each)
    read(b"\x92" * 100_000)
    read(b"[" * 100_000)


def test_what_a_background_run_was_left_as_may_be_anything() -> None:
    found: list[bytes] = []

    class Kept:
        async def get_last_msg(self, stream: str, subject: str, *, direct: bool) -> Any:
            del stream, direct
            return type("Message", (), {"data": found[0] if ".key." not in subject else b"echo"})

        async def run(self, function: Any) -> Any:
            return await function(self)

    async def look() -> None:
        for each in altered(b"\0\0\0\1" + _pack(RECORD)):
            found[:] = [each]
            await Store(Kept(), "gw", ttl=60).find("t")

    trio.run(look)
