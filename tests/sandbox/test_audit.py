"""Each decision is one record, floods are summed without losing a byte, and nobody waits."""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import Any

import msgspec
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gateway.observe.formats import TextFormatter
from gateway.sandbox.network import audit, metering
from gateway.sandbox.network.audit import Auditor, Record, read_record
from gateway.sandbox.network.budget import DAY
from gateway.sandbox.network.metering import Meter, RecordReader

NOON = 20_000 * DAY + DAY / 2


def call(**fields: Any) -> Record:
    return Record(**({"at": "service", "name": "openai", "verdict": "allowed"} | fields))


class Sent:
    """What an auditor has sent; `full`: the socket takes nothing."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.full = False

    def __call__(self, packet: bytes) -> bool:
        if self.full:
            return False
        assert len(packet) <= audit.MAX_PACKET
        record = read_record(packet)
        assert record is not None
        self.records.append(record)
        return True


async def test_a_record_is_sent_as_it_is() -> None:
    sent = Sent()
    record = call(rule="GET /models", method="GET", path="/models", status=200, duration=0.5)
    Auditor(sent).note(record)
    [said] = sent.records
    assert said.began > 0
    assert structs.replace(said, began=0.0) == record


async def test_a_flood_is_summed_up_and_refusals_do_not_hide_what_was_allowed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    sent = Sent()
    auditor = Auditor(sent)
    for number in range(10_000):
        auditor.note(call(at="network", name=f"h{number}:1", verdict="refused", rule="network"))
    assert len(sent.records) == audit.OTHERS_BURST
    auditor.note(call(received=7))
    assert (sent.records[-1].verdict, sent.records[-1].received) == ("allowed", 7)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(auditor.run)
        await trio.sleep(1.5 * audit.SUM_SECONDS)
        nursery.cancel_scope.cancel()
    assert sent.records[-1].count == 10_000 - audit.OTHERS_BURST
    assert sent.records[-1].name == ""


async def test_what_the_gateway_does_not_take_is_sent_when_it_does() -> None:
    sent = Sent()
    auditor = Auditor(sent)
    sent.full = True
    for _ in range(3):
        auditor.note(call(sent=1, received=10, tokens_in=5, tokens_out=7, charged=12))
    auditor.note(call(sent=1))
    auditor.flush()
    assert sent.records == []
    sent.full = False
    auditor.flush()
    auditor.flush()
    first, second = sent.records
    assert first.count == 3
    assert (first.sent, first.received, first.charged) == (3, 30, 36)
    assert (first.tokens_in, first.tokens_out) == (15, 21)
    # Answers that said nothing of tokens are told apart.
    assert (second.count, second.tokens_in) == (1, None)


async def test_the_memory_for_sums_is_bounded() -> None:
    sent = Sent()
    sent.full = True
    auditor = Auditor(sent)
    for number in range(1000):
        auditor.note(call(name=f"s{number}", rule="x" * 10_000))
    assert len(auditor._sums) <= audit.MAX_SUMS + 3
    sent.full = False
    auditor.flush()
    assert sum(record.count for record in sent.records) == 1000


@given(
    st.builds(
        call,
        name=st.text(max_size=300),
        rule=st.text(max_size=300),
        method=st.text(max_size=300),
        path=st.text(max_size=2000),
        why=st.text(max_size=1000),
    )
)
def test_texts_of_agents_fit_into_a_packet(record: Record) -> None:
    async def note() -> None:
        sent = Sent()
        Auditor(sent).note(record)
        assert len(sent.records) == 1

    trio.run(note)


HOSTILE = [
    b"",
    b"{",
    b"\xff",
    b"[" * 16_000,
    b"{}",
    b'{"at":"service","name":"x","verdict":"allowed","sent":-1}',
    b'{"at":"service","name":"x","verdict":"allowed","sent":1e400}',
    b'{"at":"service","name":"x","verdict":"allowed","received":99999999999999999999}',
    b'{"at":"service","name":"x","verdict":"allowed","count":0}',
    b'{"at":"service","name":"x","verdict":"allowed","duration":-1}',
    b'{"at":"elsewhere","name":"x","verdict":"allowed"}',
    b'{"at":"service","name":"' + b"x" * 5000 + b'","verdict":"allowed"}',
]


@pytest.mark.parametrize("packet", HOSTILE, ids=lambda packet: repr(packet[:60]))
def test_a_packet_that_is_no_record_is_none(packet: bytes) -> None:
    assert read_record(packet) is None


def test_sums_are_kept_by_service_and_a_process_cannot_name_services_without_end() -> None:
    meter = Meter()
    meter.add(call(sent=2, received=30, tokens_in=5, tokens_out=7, charged=12), NOON)
    meter.add(call(count=4, sent=8), NOON)
    meter.add(call(verdict="refused"), NOON)
    meter.add(call(verdict="failed"), NOON)
    meter.add(call(at="network", name="a:1", received=9), NOON)
    meter.budgets["openai"] = 100
    described = meter.describe(NOON)
    assert described["services"]["openai"] == {
        "requests": 5,
        "refused": 1,
        "failed": 1,
        "sent": 10,
        "received": 30,
        "tokens": {"input": 5, "output": 7},
        "without_usage": 4,
        "tokens_today": 12,
        "tokens_per_day": 100,
    }
    assert described["network"] == {
        "requests": 1,
        "refused": 0,
        "failed": 0,
        "sent": 0,
        "received": 9,
    }
    meter.add(call(name="", verdict="refused"), NOON)
    assert meter.services["(others)"].refused == 1
    for number in range(1000):
        meter.add(call(name=f"s{number}"), NOON)
    assert len(meter.services) <= metering.MAX_SERVICES + 1


def test_what_a_budget_was_charged_is_of_its_day() -> None:
    meter = Meter()
    meter.add(call(charged=12), NOON)
    meter.add(call(charged=3), NOON)
    assert meter.spent() == {"openai": (20_000, 15)}
    assert meter.describe(NOON + DAY)["services"]["openai"]["tokens_today"] == 0
    meter.add(call(charged=1), NOON + DAY)
    assert meter.spent() == {"openai": (20_001, 1)}


def test_a_record_is_of_the_request_that_its_worker_was_serving_alone_all_the_while() -> None:
    meter = Meter()

    def request_of(began: float) -> str | None:
        return meter.request_of(call(worker=3, began=began))

    before = time.monotonic()
    assert request_of(before) is None
    meter.serves(3, "r-1", alone=True)
    now = time.monotonic()
    # A call that began earlier may be a former request's.
    assert (request_of(before), request_of(now)) == (None, "r-1")
    assert meter.request_of(call(worker=4, began=now)) is None
    meter.serves(3, "r-2", alone=False)
    assert request_of(time.monotonic()) is None
    meter.serves(3, "r-3", alone=True)
    assert request_of(time.monotonic()) == "r-3"
    meter.forget(3)
    assert request_of(time.monotonic()) is None


async def test_records_are_logged_with_their_fields_and_hostile_ones_do_no_harm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    meter = Meter()
    meter.serves(3, "r-1", alone=True)
    with ours, theirs, caplog.at_level(logging.INFO, "gateway.agent"):
        for packet in HOSTILE[1:]:
            theirs.send(packet)
        for record in (
            call(
                method="POST",
                path="/chat",
                status=200,
                worker=3,
                began=time.monotonic(),
                tokens_in=5,
                tokens_out=7,
            ),
            call(verdict="refused", why="\x1b[2J\nnot allowed", count=9),
        ):
            theirs.send(msgspec.json.encode(record))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(RecordReader(ours.fileno(), meter, "bot").run)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    *_, allowed, refused = [TextFormatter().format(record) for record in caplog.records]
    assert "INFO POST /chat service=openai status=200" in allowed
    assert "tokens_in=5 tokens_out=7 seconds=0.0 request=r-1 agent=bot" in allowed
    assert "WARNING further ones in sum, such as refused: " in refused
    assert " count=9 " in refused
    assert not {"\x1b", "\n"} & set(refused)


@pytest.mark.parametrize("packet", [msgspec.json.encode(call(sent=3)), b""])
async def test_a_process_that_floods_the_gateway_with_records_is_read_and_logged_within_bounds(
    packet: bytes,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As one might that was taken over."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    read: list[bytes] = []

    def packets(descriptor: int, most: int) -> list[bytes]:
        read.extend(batch := [packet] * most)
        return batch

    meter = Meter()
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.INFO, "gateway.agent"):
        patch.setattr(metering, "_packets", packets)
        os.write(writer, b"x")
        with trio.move_on_after(1):
            await RecordReader(reader, meter, "bot").run()
    os.close(reader)
    os.close(writer)
    assert len(read) <= metering.PACKETS_AT_ONCE * (1 / metering.PAUSE + 2)
    assert len(caplog.records) <= metering.LINES_BURST + 2 * metering.LINES_PER_SECOND
    if packet:
        assert meter.services["openai"].sent == 3 * len(read)
