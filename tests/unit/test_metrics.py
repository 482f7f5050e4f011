"""The metrics of requests, their families and their text, without HTTP and processes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
import trio
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.config import Clocks
from gateway.errors import (
    AgentNotFound,
    Forbidden,
    GatewayError,
    NotFound,
    Overloaded,
    Unauthorized,
    WorkerCrashed,
)
from gateway.exchange import Call, Exchange
from gateway.front.auth import ANONYMOUS, NOBODY, Caller
from gateway.front.metrics import Readers
from gateway.observe.metrics import exposition
from gateway.observe.metrics.distribution import Distribution
from gateway.observe.metrics.exposition import MEMORY_SECONDS, OPENMETRICS, Metrics, Sources
from gateway.observe.metrics.loop_delay import LOOK_SECONDS, LoopDelay
from gateway.observe.metrics.readings import (
    AgentReading,
    ConnectionsReading,
    FleetReading,
    HostReading,
    PlaceReading,
    RunsReading,
    TrafficReading,
)
from gateway.observe.metrics.requests import MAX_KEYS, OTHERS, RequestSums
from gateway.observe.observation import Observation
from tests.test_architecture import ROOT
from tests.unit.workers import NoCarrier

README = ROOT / "gateway" / "observe" / "metrics" / "README.md"

TRAFFIC = TrafficReading(
    requests={"allowed": 3, "refused": 1, "failed": 0},
    sent=10,
    received=20,
    seconds=1.5,
    tokens={"input": 7, "output": 8},
    tokens_today=15,
    tokens_per_day=100,
)


def reading(name: str = "echo", **changes: Any) -> AgentReading:
    values = {
        "name": name,
        "states": {"cold": False, "ready": True},
        "waiting": 2,
        "queue": 100,
        "in_flight": 1,
        "workers": {"idle": 0, "busy": 1},
        "max_workers": 4,
        "starts": 3,
        "ends": {"exited": 2},
        "start_seconds": Distribution((0.1, 1.0)),
        "services": {"openai": TRAFFIC},
        "network": TRAFFIC,
    }
    return AgentReading(**{**values, **changes})


def place() -> PlaceReading:
    return PlaceReading(
        agent="echo", host="h1", draining=False, capacity=8, in_flight=2, waiting=1, given=3
    )


HOST = HostReading(host="h1", version="1.2.3")


class Scene:
    """Metrics of a gateway that does not exist."""

    def __init__(self) -> None:
        self.agents = [reading()]
        self.keys = ["alice"]
        self.fleet: FleetReading | None = None
        self.measured = 0
        self.metrics = Metrics(
            Sources(
                agents=lambda: self.agents,
                streams=lambda: {"echo": 5},
                memory=self.memory,
                connections=lambda: ConnectionsReading(open=3, most=1000, refused=1),
                runs=lambda: RunsReading(going_on=1, kept=2, size=300),
                log_dropped=lambda: 4,
                names=lambda: {each.name for each in self.agents},
                fleet=lambda: self.fleet,
                keys=lambda: self.keys,
            )
        )

    async def memory(self) -> Mapping[str, int]:
        self.measured += 1
        return {"echo": 1_000_000}

    async def samples(self) -> dict[str, float]:
        """What a scrape says, by name and labels as they are written."""
        text = (await self.metrics.scrape("")).body.decode()
        lines = [line for line in text.splitlines() if line.startswith("gateway_")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def exchange(*, queued: float, first: float | None = None, words: int = 0) -> Exchange:
    """A call that was admitted at 10 s."""
    call = Call(agent="echo", method="invoke", payload=b"", stream=False, request_id="r")
    made = Exchange(call, Clocks(), 10.0)
    made.given(10.0 + queued, NoCarrier(), worker_spoke=True)
    if first is not None:
        made.add_words([b'"word"'] * words, 10.0 + first)
    return made


def observed(**values: Any) -> Observation:
    defaults = {"agent": "echo", "dialect": "native", "handler": "invoke", "status": 200}
    seen = Observation(began=10.0, **{**defaults, **values})
    seen.end(12.0)
    return seen


CALL = 'agent="echo",dialect="native",handler="invoke"'


async def test_a_request_counts_in_all_that_is_said_of_requests() -> None:
    scene = Scene()
    scene.metrics.observe(
        [
            observed(
                bytes_in=100,
                bytes_out=50,
                key="alice",
                body_began=11.0,
                exchange=exchange(queued=0.3, first=0.5, words=7),
            )
        ]
    )
    said = await scene.samples()
    assert said[f'gateway_requests_total{{{CALL},status="200",type=""}}'] == 1
    assert said[f"gateway_request_duration_seconds_sum{{{CALL}}}"] == 2.0
    assert said[f'gateway_request_duration_seconds_bucket{{{CALL},le="1.0"}}'] == 0
    assert said[f'gateway_request_duration_seconds_bucket{{{CALL},le="2.5"}}'] == 1
    assert said[f'gateway_request_duration_seconds_bucket{{{CALL},le="+Inf"}}'] == 1
    assert said[f"gateway_request_queue_seconds_sum{{{CALL}}}"] == pytest.approx(0.3)
    assert said[f"gateway_request_first_word_seconds_sum{{{CALL}}}"] == pytest.approx(0.5)
    assert said[f"gateway_request_chunks_total{{{CALL}}}"] == 7
    assert said[f"gateway_request_received_bytes_total{{{CALL}}}"] == 100
    assert said[f"gateway_request_sent_bytes_total{{{CALL}}}"] == 50
    assert said[f"gateway_requests_abandoned_total{{{CALL}}}"] == 0
    assert said['gateway_key_requests_total{key="alice",status="200"}'] == 1


async def test_a_failure_counts_by_its_status_and_its_type() -> None:
    scene = Scene()
    failures: list[tuple[int, GatewayError]] = [
        (503, Overloaded("full", retry_after=1)),
        (200, WorkerCrashed("in the middle of a stream")),
        (200, WorkerCrashed("in the middle of a stream")),
    ]
    for status, error in failures:
        scene.metrics.observe([observed(status=status, error=error)])
    said = await scene.samples()
    assert said[f'gateway_requests_total{{{CALL},status="503",type="overloaded"}}'] == 1
    assert said[f'gateway_requests_total{{{CALL},status="200",type="worker_crashed"}}'] == 2


async def test_the_body_of_an_error_is_no_first_word_and_the_words_before_an_error_are() -> None:
    scene = Scene()
    crash = WorkerCrashed("ended")
    scene.metrics.observe(
        [observed(status=501, error=crash, body_began=11.0, exchange=exchange(queued=0))]
    )
    said = await scene.samples()
    assert said[f"gateway_request_first_word_seconds_count{{{CALL}}}"] == 0
    scene.metrics.observe([observed(error=crash, exchange=exchange(queued=0, first=1, words=1))])
    said = await scene.samples()
    assert said[f"gateway_request_first_word_seconds_count{{{CALL}}}"] == 1


async def test_a_client_that_left_before_there_was_a_status_counts_as_499() -> None:
    scene = Scene()
    scene.metrics.observe([observed(status=0, client_left=True)])
    said = await scene.samples()
    assert said[f'gateway_requests_total{{{CALL},status="499",type=""}}'] == 1
    assert said[f"gateway_requests_abandoned_total{{{CALL}}}"] == 1


async def test_a_run_is_no_request_and_its_call_is_counted_with_it() -> None:
    scene = Scene()
    scene.metrics.observe([observed(status=202)])
    scene.metrics.observe(
        [observed(kind="run", status=0, exchange=exchange(queued=0.2, first=1.0, words=3))]
    )
    said = await scene.samples()
    assert said[f'gateway_requests_total{{{CALL},status="202",type=""}}'] == 1
    assert said[f'gateway_runs_ended_total{{{CALL},type=""}}'] == 1
    assert said[f"gateway_run_duration_seconds_sum{{{CALL}}}"] == 2.0
    assert said[f"gateway_request_duration_seconds_count{{{CALL}}}"] == 1
    assert said[f"gateway_request_chunks_total{{{CALL}}}"] == 3


async def test_what_was_counted_of_an_agent_or_a_key_that_is_gone_is_forgotten() -> None:
    scene = Scene()
    scene.agents = [reading("echo"), reading("other")]
    scene.keys = ["alice", "bob"]
    for agent, key in (("echo", "alice"), ("other", "bob")):
        scene.metrics.observe([observed(agent=agent, key=key)])
    scene.metrics.observe([observed(agent="", handler="", dialect="", status=404)])
    said = " ".join(await scene.samples())
    assert 'agent="other"' in said
    assert 'key="bob"' in said
    scene.agents, scene.keys = [reading("echo")], ["alice"]
    # One of its requests ends after the agent was removed.
    scene.metrics.observe([observed(agent="other", key="bob")])
    said = " ".join(await scene.samples())
    assert "other" not in said
    assert "bob" not in said
    assert 'agent="echo"' in said
    assert 'key="alice"' in said
    assert 'agent="",' in said


def test_keys_beyond_those_that_may_be_labels_are_counted_together() -> None:
    sums = RequestSums()
    for number in range(MAX_KEYS + 5):
        sums.observe([observed(key=f"key-{number}")])
    counts = sums.read_keys()
    assert len(counts) == MAX_KEYS + 1
    assert counts[OTHERS] == {200: 5}
    sums.observe([observed(key="key-0")])
    assert sums.read_keys()["key-0"] == {200: 2}


async def test_a_front_tells_of_its_hosts_and_keeps_what_it_has_counted_of_agents_there() -> None:
    scene = Scene()
    assert not any(name.startswith("gateway_fleet") for name in await scene.samples())
    hostile = HostReading(host="h2", version='2"}\n')
    scene.fleet = FleetReading(
        connected=True, peers=1, places=[place()], hosts=[HOST, hostile], lost=4, again=5
    )
    samples = await scene.samples()
    labels = '{agent="echo",host="h1"}'
    assert samples[f"gateway_fleet_host_capacity{labels}"] == 8
    assert samples[f"gateway_fleet_host_given{labels}"] == 3
    assert samples["gateway_fleet_hosts_lost_total"] == 4
    assert samples['gateway_fleet_host_info{host="h1",version="1.2.3"}'] == 1
    assert samples['gateway_fleet_host_info{host="h2",version="2\\"}\\n"}'] == 1
    assert samples["gateway_fleet_requests_moved_total"] == 5


async def test_sums_that_were_read_do_not_change_while_they_are_written() -> None:
    sums = RequestSums()
    sums.observe([observed()])
    [before] = sums.read().values()
    sums.observe([observed(bytes_in=10)])
    assert before.outcomes == {(200, ""): 1}
    assert sum(before.duration.counts) == 1
    assert before.received == 0


def documented() -> dict[str, tuple[str, set[str]]]:
    """The type and the labels of each metric in the README's tables."""
    rows = re.findall(r"^\| `(gateway_\w+)` \| (\w+) \|([^|]*)\|", README.read_text(), re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


async def test_every_metric_is_in_the_readme_with_its_type_and_labels() -> None:
    scene = Scene()
    scene.fleet = FleetReading(connected=True, peers=1, places=[place()], hosts=[HOST])
    scene.metrics.observe([observed(key="alice", exchange=exchange(queued=0))])
    scene.metrics.observe([observed(kind="run")])
    text = (await scene.metrics.scrape("")).body.decode()
    exposed = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in parse(text)
        if family.name.startswith("gateway_")
    }
    assert all(family.samples for family in parse(text))
    assert exposed == documented()


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain; version=1.0.0; escaping=x", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
        (
            "application/openmetrics-text; version=9.nonsense; escaping=allow-utf-8",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ],
)
async def test_the_format_is_one_of_two_whatever_is_asked_for(
    accept: str, content_type: str
) -> None:
    scene = Scene()
    scene.metrics.observe([observed(exchange=exchange(queued=0))])
    text = await scene.metrics.scrape(accept)
    assert text.content_type.startswith(content_type)
    read = openmetrics.text_string_to_metric_families if OPENMETRICS in content_type else parse
    families: list[Metric] = list(read(text.body.decode()))
    assert {"gateway_requests", "process_open_fds", "python_info"} <= {
        family.name for family in families
    }


async def test_scrapes_at_the_same_time_share_one_text_and_take_turns_by_format(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()
    rendering, at_once, most = trio.Event(), 0, 0
    go_on = trio.Event()

    async def in_thread(write: Any) -> Any:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        rendering.set()
        await go_on.wait()
        at_once -= 1
        return write()

    monkeypatch.setattr(exposition, "_in_thread", in_thread)
    texts: list[Any] = []

    async def scrape(accept: str) -> None:
        texts.append(await scene.metrics.scrape(accept))

    async with trio.open_nursery() as nursery:
        for accept in ["", OPENMETRICS] * 20:
            nursery.start_soon(scrape, accept)
        await rendering.wait()
        await wait_all_tasks_blocked()
        go_on.set()
    assert most == 1
    assert len(texts) == 40
    assert len({id(text.body) for text in texts}) == 2


async def test_a_scraper_that_leaves_does_not_leave_the_others_without_a_text(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene()
    begun = trio.Event()
    write_now = False

    async def in_thread(write: Any) -> Any:
        if not write_now:
            begun.set()
            await trio.sleep_forever()
        return write()

    monkeypatch.setattr(exposition, "_in_thread", in_thread)
    texts: list[Any] = []

    async def scrape() -> None:
        texts.append(await scene.metrics.scrape(""))

    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()

        async def leave() -> None:
            with first:
                await scene.metrics.scrape("")

        nursery.start_soon(leave)
        await begun.wait()
        for _ in range(3):
            nursery.start_soon(scrape)
        await wait_all_tasks_blocked()
        write_now = True
        first.cancel()
    assert len(texts) == 3


async def test_where_no_thread_can_be_had_the_text_is_written_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def no_thread(*args: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", no_thread)
    assert b"gateway_info" in (await Scene().metrics.scrape("")).body


async def test_memory_is_measured_now_and_then_however_often_it_is_scraped(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock must not jump while a thread works.
    async def in_thread(write: Any) -> Any:
        return write()

    monkeypatch.setattr(exposition, "_in_thread", in_thread)
    scene = Scene()
    for _ in range(20):
        assert (await scene.samples())['gateway_worker_memory_bytes{agent="echo"}'] == 1_000_000
    assert scene.measured == 1
    await trio.sleep(MEMORY_SECONDS)
    await scene.samples()
    assert scene.measured == 2


async def test_a_loop_that_is_held_up_is_seen_to_be_late(mock_clock: MockClock) -> None:
    delay = LoopDelay()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(delay.run)
        await wait_all_tasks_blocked()
        mock_clock.jump(LOOK_SECONDS + 2.0)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert delay.seconds.total == pytest.approx(2.0)
    assert delay.seconds.counts[delay.seconds.bounds.index(5.0)] == 1


def test_an_agent_that_does_not_exist_is_no_label() -> None:
    sums = RequestSums()
    for number in range(100):
        sums.observe([observed(agent="", status=404, error=AgentNotFound(f"no agent {number}"))])
    [labels] = sums.read()
    assert labels == ("", "native", "invoke")


def test_who_may_read_the_metrics_can_change() -> None:
    readers = Readers("open")
    readers.check(NOBODY)
    readers.change(["watcher"])
    watcher, other = (Caller(name, None, frozenset()) for name in ("watcher", "other"))
    readers.check(watcher)
    for reader, error in ((other, Forbidden), (NOBODY, Unauthorized)):
        with pytest.raises(error):
            readers.check(reader)
    readers.change(allowed=True)
    readers.check(ANONYMOUS)
    readers.check(Caller("all", None))
    with pytest.raises(Forbidden):
        readers.check(watcher)
    readers.change(allowed=False)
    with pytest.raises(NotFound):
        readers.check(Caller("all", None))
