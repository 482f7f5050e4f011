"""What a process of the network has sent last: it counts, and the next process knows of it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import trio

from gateway.agents.scope import run_agent
from gateway.sandbox.network import metering
from gateway.sandbox.network.audit import Record
from gateway.sandbox.network.budget import day_of
from gateway.sandbox.network.metering import Meter, RecordReader
from gateway.sandbox.network.proxy import Proxy

PROGRAM = """
import json, socket, sys
from gateway.sandbox.network.audit import Auditor, Record
from gateway.sandbox.network import inlets

control_fd, records_fd, first, last = map(int, sys.argv[1:])

class Handler:
    def __init__(self, auditor):
        self.auditor = auditor
    def change(self, rules):
        spent = rules["spent"].get("openai", [0, 0])[1]
        self.auditor.note(Record(at="network", name="", verdict="failed", sent=spent))
        self.say(first)
        print(flush=True)
    def say(self, count):
        for _ in range(count):
            self.auditor.note(Record(
                at="service", name="openai", verdict="allowed", tokens_in=1, tokens_out=2, charged=3
            ))
    async def run(self):
        import trio
        try:
            await trio.sleep_forever()
        finally:
            self.say(last)
    async def serve_client(self, client, worker):
        raise AssertionError

inlets._give_up_rights = lambda uid: None
sys.argv[1:] = ["bot", str(control_fd), str(records_fd), "0"]
inlets.main(Handler, max_clients=1)
"""
"""A process of the network, whose handler records what it is told to: at its beginning, and when it
ends. How much it was told to be spent it says as what was sent to `network`."""


class Network(Proxy):
    """A proxy whose processes are in no sandbox: `first` records at the beginning, `last` at the
    end."""

    first, last = 0, 0

    def _start(self, control: int) -> subprocess.Popen[bytes]:
        records = self._their_records.fileno()
        numbers = map(str, (control, records, self.first, self.last))
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *numbers],
            pass_fds=(control, records),
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        with process.stdout:  # what was to be said at the beginning is in the socket
            assert process.stdout.readline()
        return process

    def work(self) -> None:
        """As when a worker is started."""
        with self.announce():
            pass


@contextmanager
def network(*, first: int = 0, last: int = 0) -> Iterator[tuple[Network, Meter]]:
    meter = Meter()
    made = Network("bot", {"services": {}}, meter=meter, uid=None, tools=TOOLS, seccomp=b"")
    made.first, made.last = first, last
    try:
        yield made, meter
    finally:
        made.close()


TOOLS: Any = type("Tools", (), {"bwrap": "bwrap"})


def spent(meter: Meter) -> int:
    day, tokens = meter.spent().get("openai", (0, 0))
    return tokens if day == day_of(time.time()) else -1


def sums(meter: Meter) -> tuple[int, int, int]:
    found = meter.services["openai"]
    return found.requests, found.tokens_in, found.tokens_out


@pytest.mark.parametrize("how", ["killed", "hung"])
def test_a_process_that_is_started_anew_knows_what_the_last_one_has_spent(how: str) -> None:
    with network(first=40) as (it, meter):
        it.work()
        assert not meter.services  # nobody has read any of it yet
        assert it.pid is not None
        if how == "killed":
            os.killpg(it.pid, 9)
            assert it._process is not None
            it._process.wait()
        else:
            it._replace_hung()
        it.first = 0
        it.work()
        assert sums(meter) == (40, 40, 80)
        assert spent(meter) == 120
        it.close()
        it.records.settle()
        assert meter.network.sent == 120  # of what each of them was told
    assert spent(meter) == 120


@pytest.mark.parametrize("count", [900, 3000])  # one by one, and more than may be so
def test_what_a_process_says_of_its_end_counts_also_where_it_is_more_than_a_socket_holds(
    count: int,
) -> None:
    with network(last=count) as (it, meter):
        it.work()
        it.close()
        it.records.settle()
        assert sums(meter) == (count, count, 2 * count)
        assert spent(meter) == 3 * count
        it.close()  # again: as the gateway does at its own end


def test_a_process_that_hears_of_other_rules_hears_what_was_spent_until_now() -> None:
    with network(first=5) as (it, meter):
        it.work()
        it.change(services={"other": {}})
        assert spent(meter) == 15


def test_what_a_trial_has_recorded_is_forgotten() -> None:
    with network(first=5, last=5) as (it, meter):
        it.work()
        it.forget()
        it.last = 0
        it.change(services={})
        assert not meter.services


def test_no_more_is_held_of_a_process_than_an_honest_one_sends() -> None:
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    packet = msgspec.json.encode(Record(at="service", name="openai", verdict="allowed"))
    reader, sent = RecordReader(ours.fileno(), meter := Meter(), "bot"), 0
    with ours, theirs:
        while reader.hold():
            with contextlib.suppress(BlockingIOError):
                while theirs.send(packet):
                    sent += 1
        reader.settle()
    assert meter.services["openai"].requests == metering.MOST_HELD < sent


async def test_the_last_records_of_an_agent_that_ends_are_added_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with network(first=1, last=1) as (it, meter), caplog.at_level("INFO", "gateway.agent"):

        class Launcher:
            def logs(self) -> list[int]:
                return []

            def records(self) -> list[RecordReader]:
                return [it.records]

            def close(self) -> None:
                it.close()

        class Agent:
            name, launcher = "bot", Launcher()

            async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
                task_status.started()
                it.work()

        async with trio.open_nursery() as nursery:
            await nursery.start(run_agent, Agent())
        assert sums(meter) == (2, 2, 4)
        fields: list[Any] = [each.__dict__["fields"] for each in caplog.records]
        assert [each.get("service") for each in fields].count("openai") == 2
