"""The requests that the console keeps, and its counts of them: within which bounds, and whose."""

from __future__ import annotations

import gc

import trio
from trio.testing import MockClock

from gateway.config import Clocks
from gateway.errors import ClockRanOut, Overloaded, WorkerCrashed
from gateway.exchange import Exchange
from gateway.front.console.journal import FIRST, LAST, Noted, NotedWithText
from gateway.front.console.requests import LastRequests, id_of, view_running
from gateway.front.console.series import BUCKET, BUCKETS, Series
from tests.unit.console import call, observed


def test_a_key_cannot_push_out_what_another_asked() -> None:
    requests = LastRequests(most=3)
    requests.observe([observed("hers", key="ada")])
    for number in range(10):
        requests.observe([observed(f"his-{number}", key="bob")])
    assert [each.view.request_id for each in requests.of("ada")] == ["hers"]
    assert [each.view.request_id for each in requests.of("bob")] == ["his-7", "his-8", "his-9"]
    assert requests.of("nobody") == []
    everybodys = [each.view.request_id for each in requests.of(None)]
    assert everybodys == ["hers", "his-7", "his-8", "his-9"]


def test_what_is_kept_is_bounded_in_bytes_of_each_key_and_of_all() -> None:
    long = WorkerCrashed("x" * 4000)
    requests = LastRequests(most_bytes=50_000, most_in_all=120_000)
    for key in ("ada", "bob", "eve"):
        for number in range(100):
            requests.observe([observed(f"{key}-{number}", key=key, error=long)])
    kept = {key: len(requests.of(key)) for key in ("ada", "bob", "eve")}
    assert sum(each.cost for key in kept for each in requests.of(key)) <= 120_000
    assert all(1 <= count < 10 for count in kept.values())
    requests.keep({"ada"}, {"a"})
    assert requests.of("bob") == []
    assert len(requests.of("ada")) == kept["ada"]
    requests.keep(None, set())
    assert "0 things" in repr(requests)


def test_a_busy_agent_pushes_out_nothing_of_another() -> None:
    requests = LastRequests(most=3)
    requests.observe([observed("rare", agent="b")])
    for number in range(10):
        requests.observe([observed(f"r-{number}")])
    names = [each.view.request_id for each in requests.of("")]
    assert names == ["rare", "r-7", "r-8", "r-9"]
    assert [each.view.request_id for each in requests.of("", "b")] == ["rare"]


def test_nothing_of_a_request_lives_on_but_what_is_shown() -> None:
    async def ask() -> None:
        exchange = Exchange(asked, Clocks(), 10.0)
        try:
            raise WorkerCrashed("it crashed", setting="sandbox.memory")
        except WorkerCrashed as error:
            seen = observed(exchange=exchange, error=error)
        requests.observe([seen])

    asked = call()
    requests = LastRequests()
    trio.run(ask)
    gc.collect()
    [kept] = requests.of("")
    left = [each for each in gc.get_objects() if isinstance(each, Exchange)]
    assert not any(each.call is asked for each in left)
    assert kept.view.error is not None
    assert (kept.view.error.message, kept.view.error.setting) == ("it crashed", "sandbox.memory")
    assert (kept.seen.error, kept.seen.exchange) == (None, None)


async def test_where_the_time_went_and_how_it_ended(autojump_clock: MockClock) -> None:
    requests = LastRequests()
    exchange = Exchange(call(), Clocks(), 10.5)
    exchange.given_at, exchange.spoke_at, exchange.word_count = 11.0, 12.0, 7
    requests.observe([observed(exchange=exchange, stream=True)])
    requests.observe([observed("r-2", exchange=exchange, error=ClockRanOut("first", 3, 3))])
    requests.observe([observed("r-3", status=429, error=Overloaded("no room"))])
    requests.observe([observed("r-4", status=0, client_left=True)])
    requests.observe([observed("r-5", run="run_x")])  # which is told as a run
    requests.observe([observed("r-6", run="run_x", kind="run", status=0, exchange=exchange)])
    requests.observe([observed("r-7", handler="", agent="a")])  # which calls no agent
    views = [each.view for each in requests.of("")]
    assert [(each.request_id, each.state) for each in views] == [
        ("r-1", "completed"),
        ("r-2", "failed"),
        ("r-3", "refused"),
        ("r-4", "cancelled"),
        ("r-6", "completed"),
    ]
    first = views[0]
    assert (first.queue, first.first, first.total, first.words) == (1.0, 2.0, 2.5, 7)
    assert views[1].error is not None
    assert views[1].error.setting == "clocks.first"
    assert (views[4].run, views[4].status, views[4].bytes_in) == ("run_x", None, None)
    shown = requests.of("")[0].show()
    assert [(each["kind"], each["t"]) for each in shown["events"]] == [
        ("admitted", 0.5),
        ("given", 1.0),
        ("completed", 2.5),
    ]
    assert shown["recorded"] is False


async def test_a_request_has_one_id_while_it_runs_and_when_it_has_ended() -> None:
    requests = LastRequests()
    exchange = Exchange(call(owner="ada"), Clocks(), trio.current_time())
    view = view_running(exchange)
    assert (view.id, view.state, view.key) == (id_of(exchange), "queued", "ada")
    requests.observe([observed(key="ada", exchange=exchange)])
    assert requests.find(view.id, "ada") is not None
    assert requests.find(view.id, None) is not None
    assert requests.find(view.id, "bob") is None


# Journals


async def test_the_first_and_the_last_words_are_noted_and_never_their_text() -> None:
    exchange = Noted(call(), Clocks(), 10.0)
    for number in range(1000):
        exchange.add_words([b'"a secret"', b'{"type":"status","text":"a secret"}'], float(number))
        exchange.take()
    exchange.end()
    exchange.add_words([b'"late"'], 2000.0)
    entries = exchange.journal.entries
    assert len(entries) == FIRST + LAST
    assert exchange.journal.left_out == 2000 - FIRST - LAST
    assert [each.kind for each in entries[:2]] == ["chunk", "status"]
    assert entries[-1].at == 999.0
    assert not any(each.text for each in entries)
    assert "secret" not in repr(entries)


async def test_words_of_one_kind_that_come_together_are_one_entry() -> None:
    exchange = NotedWithText(call(), Clocks(), 10.0)
    words = [b'"ab"', b'"cd"', b'{"text":"x","type":"reasoning"}', b'{"type":"x-own"}', b'"e"']
    exchange.add_words(words, 11.0)
    shown = [entry.show(10.0) for entry in exchange.journal.entries]
    assert [(each["kind"], each["count"], each["size"]) for each in shown] == [
        ("chunk", 2, 8),
        ("reasoning", 1, 31),
        ("event", 1, 16),
        ("chunk", 1, 3),
    ]
    assert shown[0]["text"] == "abcd"
    assert {each["t"] for each in shown} == {1.0}
    assert exchange.take() == words


# Series


def test_requests_are_counted_in_the_bucket_in_which_they_end() -> None:
    now = [1000.0]
    series = Series(lambda: now[0])
    for seconds in (1, 2, 3, 4):
        series.observe([observed(ended=10.0 + seconds)])
    series.observe([observed(ended=11.0, error=WorkerCrashed("x"))])
    now[0] += 2 * BUCKET
    series.observe([observed(ended=10.5)])
    series.observe([observed(agent="", ended=10.5)])
    series.observe([observed(run="run_x", ended=10.5)])
    assert series.read("a") == [(1000, 5, 1, 2.0, 4.0), (1010, 1, 0, 0.5, 0.5)]
    assert series.read("a", since=1005) == [(1010, 1, 0, 0.5, 0.5)]
    assert series.read("b") == []
    now[0] += BUCKET * BUCKETS
    assert [point[0] for point in series.read("a")] == [1010]
    series.keep({"b"})
    assert series.read("a") == []


def test_a_flood_takes_no_more_than_a_trickle() -> None:
    now = [1000.0]
    series = Series(lambda: now[0])
    for number in range(BUCKETS * 3):
        now[0] += BUCKET
        for _ in range(3 if number < BUCKETS * 3 - 1 else 10_000):
            series.observe([observed(ended=10.1)])
    points = series.read("a")
    assert len(points) <= BUCKETS + 1
    assert points[-1][1:4] == (10_000, 0, 0.1)
