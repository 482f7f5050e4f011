"""The pool of an agent with conversations: which worker each has, and when it loses it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.agents.conversations import Conversations
from gateway.agents.crew import RESPITE
from gateway.agents.pool import QueueFullError, WorkerPhase
from gateway.config import AgentSettings
from tests.unit.pools import Scene


def test_a_conversation_stays_with_its_worker_while_that_one_lives() -> None:
    scene = Scene(workers={"min": 2, "max": 2}, session="sticky", concurrency=4)
    scene.up(1, capacity=4)
    scene.up(2, capacity=4)
    first = scene.submit("a")
    ((_, home),) = scene.last.assign
    scene.finish(first)
    for _ in range(3):
        scene.submit("b")
    again = scene.submit("a")
    assert scene.last.assign == [(again, home)]
    assert again.session == "kept"
    assert first.session == "new"
    scene.crash(home)
    lost = scene.submit("a")
    assert lost.session == "lost"


def test_conversations_are_sticky_unless_it_is_said_otherwise() -> None:
    assert AgentSettings(command="x").session == "sticky"


def sticky(workers: int, capacity: int = 1, **settings: Any) -> Scene:
    """Workers that are ready, under session "sticky"."""
    limits = {"min": workers, "max": settings.pop("most", workers)}
    scene = Scene(workers=limits, session="sticky", concurrency=capacity, **settings)
    for number in scene.numbers:
        scene.up(number, capacity)
    return scene


def test_no_worker_is_started_for_a_request_that_waits_for_the_worker_of_its_conversation() -> None:
    scene = sticky(1, most=4)
    scene.submit("a")
    for _ in range(3):
        scene.submit("a")
    assert scene.last.start == []
    scene.submit("b")
    assert scene.last.start == [2]
    scene.submit("b")
    assert scene.last.start == [], "both go to one worker"
    scene.submit()
    assert scene.last.start == [3]


def test_workers_are_started_for_what_a_lost_worker_leaves_behind() -> None:
    scene = sticky(1, most=4)
    scene.submit("a")
    again = scene.submit("a")
    scene.crash(1)
    scene.up(2)
    assert (scene.given[again], again.session) == (2, "lost")


def test_a_conversation_that_waits_for_its_worker_holds_up_nobody_and_fills_no_queue() -> None:
    scene = sticky(2, queue=2)
    scene.submit("a")
    waiting = [scene.submit("a"), scene.submit("a")]
    plain = scene.submit()
    assert scene.given[plain] == 2
    assert plain.session is None
    assert scene.pool.queue == tuple(waiting)
    with pytest.raises(QueueFullError):
        scene.submit()


def test_new_conversations_are_spread_over_equally_loaded_workers() -> None:
    scene = sticky(3)
    homes = []
    for number in range(6):
        request = scene.submit(f"{number}")
        homes.append(scene.given[request])
        scene.finish(request)
    assert sorted(homes) == [1, 1, 2, 2, 3, 3]


def test_a_request_without_a_conversation_goes_to_the_worker_used_last_whoever_talks_there() -> (
    None
):
    scene = sticky(3)
    scene.finish(scene.submit("a"))
    home = scene.given[scene.made[0]]
    for _ in range(3):
        plain = scene.submit()
        assert scene.given[plain] == home
        scene.finish(plain)


def test_a_worker_with_conversations_is_kept_idle_until_they_were_silent_for_long() -> None:
    scene = sticky(1, most=2, idle_timeout=60, session_timeout=600)
    a, b = scene.submit("a"), scene.submit("b")
    scene.up(2)
    scene.finish(a)
    scene.finish(b)
    assert [plan.stop for plan in scene.sleep(599) if plan.stop] == []
    scene.finish(scene.submit("a"))
    assert [plan.stop for plan in scene.sleep(2) if plan.stop] == [[scene.given[b]]]


def test_a_worker_without_conversations_is_stopped_although_others_have_some() -> None:
    scene = sticky(1, most=3, idle_timeout=60, session_timeout=600)
    requests = [scene.submit("a"), scene.submit("b"), scene.submit()]
    scene.up(2)
    scene.up(3)
    for request in requests:
        scene.finish(request)
    stops = [plan.stop for plan in scene.sleep(61) if plan.stop]
    assert stops == [[scene.given[requests[2]]]]


def test_a_worker_that_retires_loses_its_conversations_and_each_is_told_once() -> None:
    scene = sticky(2, capacity=2)
    first = scene.submit("a")
    scene.take(scene.pool.retire(scene.given[first], scene.now))
    lost, kept = scene.submit("a"), scene.submit("a")
    assert (lost.session, kept.session) == ("lost", "kept")
    assert scene.given[lost] == scene.given[kept] != scene.given[first]


def test_the_conversations_that_are_remembered_are_bounded_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.agents.conversations._REMEMBERED", 3)
    conversations = Conversations()
    assert [conversations.hand_over(name, 1) for name in "abc"] == ["new"] * 3
    assert conversations.hand_over("a", 2) == "lost"
    assert (conversations.count(1), conversations.count(2)) == (2, 1)
    conversations.hand_over("d", 2)
    assert conversations.worker_of("b") is None, "the longest silent is forgotten"
    assert (conversations.count(1), conversations.count(2)) == (1, 2)
    conversations.hand_over("e", 2)
    assert conversations.count(1) == 0


def exclusive(**settings: Any) -> Scene:
    """Two workers that have answered a conversation each: "a", and half a second later "b"."""
    scene = Scene(
        workers={"min": 1, "max": 2},
        session="exclusive",
        session_timeout=100,
        concurrency=4,
        **settings,
    )
    scene.up(1, capacity=4)
    a, b = scene.submit("a"), scene.submit("b")
    assert scene.last.start == [2]
    scene.up(2, capacity=4)
    assert (scene.given[a], scene.given[b]) == (1, 2)
    scene.finish(a)
    scene.sleep(0.5)
    scene.finish(b)
    return scene


def test_an_exclusive_conversation_has_a_worker_of_its_own_until_it_was_silent_for_long() -> None:
    scene = exclusive()
    scene.sleep(99)
    again = scene.submit("a")
    assert (scene.given[again], again.session) == (1, "kept")
    assert [plan.stop for plan in scene.sleep(0.9)] == [[]]
    assert [plan.stop for plan in scene.sleep(0.2)] == [[2]]
    scene.stopped(2)
    lost = scene.submit("b")
    assert scene.last.start == [3]
    scene.up(3)
    assert lost.session == "lost"


def test_a_conversation_for_which_no_worker_is_left_takes_the_one_that_was_idle_longest() -> None:
    scene = exclusive()
    scene.sleep(10)
    c = scene.submit("c")
    assert scene.last.stop == [1]
    assert scene.stopped(1).start == [3]
    scene.up(3)
    assert (scene.given[c], c.session) == (3, "new")
    scene.finish(c)
    scene.sleep(10)
    kept = scene.submit("b")
    assert (scene.given[kept], kept.session) == (2, "kept")
    scene.finish(kept)
    scene.sleep(10)
    lost = scene.submit("a")
    assert scene.last.stop == [3]
    scene.stopped(3)
    scene.up(4)
    assert (scene.given[lost], lost.session) == (4, "lost")


def test_each_conversation_that_waits_takes_one_place_and_all_its_requests_no_more() -> None:
    scene = exclusive()
    scene.sleep(10)
    for _ in range(3):
        scene.submit("c")
    assert [worker.phase for worker in scene.pool.workers].count(WorkerPhase.STOPPING) == 1
    scene.submit("d")
    assert scene.last.stop == [2]
    scene.submit("e")
    assert scene.last.stop == []


def test_a_conversation_that_was_busy_a_moment_ago_keeps_its_worker() -> None:
    scene = exclusive()
    c = scene.submit("c")
    assert scene.last.stop == []
    scene.sleep(RESPITE - 0.6)
    again = scene.submit("a")
    assert again.session == "kept"
    plans = scene.sleep(0.6)
    assert [plan.stop for plan in plans if plan.stop] == [[2]]
    scene.stopped(2)
    scene.up(3)
    assert scene.given[c] == 3


def test_a_worker_with_a_request_is_never_taken_for_another_conversation() -> None:
    scene = exclusive()
    scene.submit("a")
    scene.submit("b")
    scene.submit("c")
    assert [plan.stop for plan in scene.sleep(99)] == []


def test_a_worker_that_retires_with_a_request_keeps_its_place_and_an_idle_one_is_taken() -> None:
    scene = exclusive()
    scene.submit("a")
    scene.take(scene.pool.retire(1, scene.now))
    scene.sleep(10)
    scene.submit("c")
    assert scene.last.stop == [2]


def test_while_an_agent_fails_one_worker_at_a_time_is_taken_for_others() -> None:
    scene = exclusive()
    scene.submit("a")
    scene.crash(1)
    again = scene.submit("a")
    scene.up(3)
    scene.finish(again, served=False)
    assert "1 in a row" in repr(scene.pool)
    scene.sleep(10)
    scene.submit("c")
    assert scene.last.stop == [2]
    scene.submit("d")
    assert scene.last.stop == []
    assert scene.stopped(2).start == [4]
    scene.up(4)
    assert scene.last.stop == [3]  # the one before has come up


def test_an_exclusive_request_without_a_conversation_is_one_of_its_own() -> None:
    scene = Scene(workers={"min": 0, "max": 2}, session="exclusive")
    request = scene.submit()
    scene.up(1)
    assert request.session is None
    assert scene.finish(request).stop == [1]
