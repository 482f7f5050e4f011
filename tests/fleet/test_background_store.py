"""What JetStream holds of background runs, on a real nats-server with little room."""

from __future__ import annotations

from contextlib import suppress

import pytest

from gateway.fleet import background
from gateway.fleet.background import Outcome, Store
from gateway.fleet.jetstream import FullError
from tests.fleet.buses import running, settings
from tests.fleet.nats import NatsServer, needs_nats
from tests.fleet.test_forging import a_job

pytestmark = needs_nats

ENDS = Outcome(b"", None, handed_over=True)


async def test_runs_that_have_ended_leave_room_and_those_that_wait_can_be_taken_without_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "MOST_BYTES", 4 * 1024 * 1024)  # three of these jobs
    record, job = a_job()
    with NatsServer(jetstream=True) as nats:
        async with running(settings(nats.url), settings(nats.url)) as (front, host):
            at_front, at_host = (Store(bus, "gw", ttl=60) for bus in (front, host))
            await at_front.prepare()
            for number in range(12):
                await at_front.keep(f"t{number}", record, job)
                await at_front.announce("echo", f"t{number}")
                assert await at_host.take("echo", "h.0") == f"t{number}"
                assert await at_host.job("echo", f"t{number}") == job
                await at_host.finish("echo", f"t{number}", ENDS)
                await at_front.tidy("echo", f"t{number}")
            assert await at_front.find("t11") == record
            assert await at_front.outcome("echo", "t11") == ENDS
            waiting = keys = 0
            with suppress(FullError):
                while True:
                    await at_front.keep(f"w{waiting}", record, job)
                    await at_front.announce("echo", f"w{waiting}")
                    waiting += 1
            assert waiting
            with suppress(FullError):  # until there is no room for anything
                while True:
                    await at_front.keep_key(b"%d" % keys, background.Key("x" * 10_000, b""))
                    keys += 1
            assert await at_host.take("echo", "h.0") == "w0"
            assert await at_host.job("echo", "w0") == job
            await at_host.finish("echo", "w0", ENDS)
            assert await at_front.taken_by("echo", "w0") == background.ENDED
