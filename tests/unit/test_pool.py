"""The pool, scene by scene; `test_pool_machine.py` tries everything else."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.agents.blame import Blame
from gateway.agents.conversations import Conversations
from gateway.agents.crew import RESPITE, SILENCE, SPARE_DELAY
from gateway.agents.pool import CircuitOpenError, QueueFullError, WorkerPhase
from gateway.config import AgentSettings, Restart
from tests.unit.pools import Scene


def test_a_cold_agent_starts_a_worker_for_its_first_request() -> None:
    scene = Scene(workers={"min": 0})
    assert repr(scene.pool) == "<Pool [], 0 waiting, <RestartPolicy closed, 0 in a row>>"
    request = scene.submit()
    assert scene.last.start == [1]
    assert "[<worker 1 spawning 0/1>], 1 waiting" in repr(scene.pool)
    scene.take(scene.pool.spawned(1, scene.now))
    assert scene.last.assign == [(request, 1)]
    assert "[<worker 1 starting 1/1>], 0 waiting" in repr(scene.pool)
    scene.take(scene.pool.ready(1, 8, scene.now))
    scene.finish(request)
    assert "[<worker 1 ready 0/8>], 0 waiting" in repr(scene.pool)


def test_the_minimum_is_started_before_anything_is_asked_and_again_after_a_loss() -> None:
    scene = Scene(workers={"min": 2, "max": 3})
    assert scene.last.start == [1, 2]
    scene.up(1)
    scene.up(2)
    scene.crash(1)
    # Another is ready: the next request gets the processor first.
    assert "[<worker 2 ready 0/1>]" in repr(scene.pool)
    scene.sleep(SPARE_DELAY)
    assert "[<worker 2 ready 0/1>, <worker 3 spawning 0/1>]" in repr(scene.pool)


def test_what_the_minimum_lacks_is_started_at_once_when_a_request_waits_for_it() -> None:
    scene = Scene(workers={"min": 2, "max": 2})
    scene.up(1)
    scene.up(2)
    for _ in range(3):
        scene.submit()
    scene.crash(2)
    assert "[<worker 1 ready 1/1>, <worker 3 spawning 0/1>]" in repr(scene.pool)


def test_requests_wait_when_the_most_are_busy_and_are_served_in_order() -> None:
    scene = Scene(workers={"min": 1, "max": 2})
    scene.up(1)
    first, second, third, fourth = (scene.submit() for _ in range(4))
    scene.up(2)
    assert "[<worker 1 ready 1/1>, <worker 2 ready 1/1>], 2 waiting" in repr(scene.pool)
    assert scene.finish(second).assign == [(third, 2)]
    assert scene.finish(first).assign == [(fourth, 1)]


def test_a_worker_takes_the_smaller_of_what_is_configured_and_what_it_declares() -> None:
    scene = Scene(workers={"min": 2, "max": 2}, concurrency=3)
    scene.up(1, capacity=8)
    scene.up(2, capacity=2)
    for _ in range(9):
        scene.submit()
    assert "[<worker 1 ready 3/3>, <worker 2 ready 2/2>], 4 waiting" in repr(scene.pool)


def test_the_least_loaded_worker_is_chosen() -> None:
    scene = Scene(workers={"min": 2, "max": 2}, concurrency=4)
    scene.up(1, capacity=4)
    scene.up(2, capacity=4)
    for _ in range(4):
        scene.submit()
    assert "[<worker 1 ready 2/4>, <worker 2 ready 2/4>]" in repr(scene.pool)


def test_a_worker_that_is_ready_is_chosen_before_one_that_starts() -> None:
    scene = Scene(workers={"min": 2, "max": 2}, concurrency=4)
    scene.up(1, capacity=4)
    scene.up(2, capacity=4)
    scene.now += 10
    scene.crash(1)
    scene.sleep(SPARE_DELAY)
    scene.take(scene.pool.spawned(3, scene.now))
    for _ in range(2):
        scene.submit()
    assert "[<worker 2 ready 2/4>, <worker 3 starting 0/1>]" in repr(scene.pool)


def test_of_workers_never_used_the_oldest_is_chosen_which_had_the_most_time_to_load() -> None:
    scene = Scene(workers={"min": 2, "max": 2}, max_requests=1)
    scene.up(1)
    scene.up(2)
    scene.now += 1
    request = scene.submit()
    assert scene.last.assign == [(request, 1)]
    scene.finish(request)
    scene.stopped(1)
    scene.sleep(SPARE_DELAY)
    scene.up(3)
    request = scene.submit()
    assert scene.last.assign == [(request, 2)]


def test_a_full_queue_refuses_and_changes_nothing() -> None:
    scene = Scene(workers={"min": 1, "max": 1}, queue=2)
    scene.up(1)
    for _ in range(3):
        scene.submit()
    before = repr(scene.pool)
    with pytest.raises(QueueFullError) as caught:
        scene.submit()
    assert caught.value.retry_after > 0
    assert repr(scene.pool) == before


def test_a_queue_of_none_still_serves_what_can_be_served_at_once() -> None:
    scene = Scene(workers={"min": 1, "max": 1}, queue=0)
    scene.up(1)
    request = scene.submit()
    assert scene.last.assign == [(request, 1)]
    with pytest.raises(QueueFullError):
        scene.submit()


def test_a_queue_of_none_does_not_keep_a_cold_agent_cold() -> None:
    scene = Scene(workers={"min": 0, "max": 1}, queue=0)
    request = scene.submit()
    assert scene.last.start == [1]
    with pytest.raises(QueueFullError):
        scene.submit()
    scene.up(1)
    assert scene.given[request] == 1
    assert request.worker_id == 1


def test_until_the_first_handshake_a_worker_is_thought_to_take_what_is_configured() -> None:
    scene = Scene(workers={"min": 0, "max": 14}, concurrency=100, queue=100)
    burst = [scene.submit() for _ in range(50)]
    assert scene.numbers == [1]
    scene.up(1, capacity=100)
    assert all(scene.given[request] == 1 for request in burst)
    assert scene.numbers == [1]


def test_what_a_burst_lacks_is_started_once_the_first_worker_has_said_how_much_it_takes() -> None:
    scene = Scene(workers={"min": 0, "max": 14}, concurrency=100, queue=100)
    for _ in range(50):
        scene.submit()
    scene.up(1, capacity=10)
    assert scene.last.start == [2, 3, 4, 5]


def test_a_burst_does_not_wait_for_the_first_answer_of_an_agent_without_the_handshake() -> None:
    scene = Scene(workers={"min": 0, "max": 14}, concurrency=100, queue=100)
    for _ in range(5):
        scene.submit()
    scene.take(scene.pool.spawned(1, scene.now))
    assert scene.numbers == [1]
    plans = scene.sleep(SILENCE)
    assert [plan.start for plan in plans] == [[2, 3, 4, 5]]


def test_a_worker_over_the_minimum_goes_after_its_idle_timeout() -> None:
    scene = Scene(workers={"min": 1, "max": 2}, idle_timeout=60)
    scene.up(1)
    requests = scene.submit(), scene.submit()
    scene.up(2)
    for request in requests:
        scene.finish(request)
    assert scene.sleep(59.9) == []
    (plan,) = scene.sleep(0.2)
    assert len(plan.stop) == 1
    assert scene.sleep(10_000) == []


def test_a_worker_is_idle_from_the_end_of_its_last_request() -> None:
    scene = Scene(workers={"min": 0, "max": 1}, idle_timeout=60)
    request = scene.submit()
    scene.up(1)
    scene.sleep(1000)
    scene.finish(request)
    assert scene.sleep(59.9) == []
    (plan,) = scene.sleep(0.2)
    assert plan.stop == [1]


def test_an_idle_agent_with_no_minimum_goes_cold() -> None:
    scene = Scene(workers={"min": 0}, idle_timeout=5)
    request = scene.submit()
    scene.up(1)
    scene.finish(request)
    scene.sleep(6)
    scene.stopped(1)
    assert scene.pool.workers == ()


def test_fresh_processes_for_every_request_come_from_the_spares() -> None:
    scene = Scene(workers={"min": 0, "max": 4, "spare": 2}, max_requests=1)
    scene.sleep(SPARE_DELAY)
    assert scene.last.start == [1, 2]
    scene.up(1)
    scene.up(2)
    served = set()
    for _ in range(5):
        request = scene.submit()
        ((_, worker),) = scene.last.assign  # at once: no start is waited for
        assert scene.last.start == []  # nothing competes with the request that has just come
        scene.sleep(SPARE_DELAY)
        started = scene.last.start
        assert len(started) == 1  # the spare is replaced before the request has ended
        assert worker not in served
        served.add(worker)
        scene.up(started[0])
        assert scene.finish(request).stop == [worker]
        scene.stopped(worker)


def test_max_age_replaces_a_worker_when_it_is_done() -> None:
    scene = Scene(workers={"min": 1, "max": 2}, max_age=100)
    scene.up(1)
    request = scene.submit()
    scene.sleep(101)
    assert "<worker 1 retiring 1/1>" in repr(scene.pool)
    assert scene.finish(request).stop == [1]


def test_what_a_lost_worker_cannot_have_read_is_first_in_the_queue_again() -> None:
    scene = Scene(workers={"min": 1, "max": 1}, concurrency=2)
    scene.up(1, capacity=2)
    first, second, third = scene.submit(), scene.submit(), scene.submit()
    scene.crash(1, unread=(first, second))
    assert scene.pool.queue == (first, second, third)
    scene.take(scene.pool.spawned(2, scene.now))
    assert scene.last.assign == [(first, 2)]


@pytest.mark.parametrize("session", ["none", "sticky", "exclusive"])
def test_what_a_half_closed_worker_has_not_read_is_first_in_the_queue_again(session: str) -> None:
    scene = Scene(workers={"min": 1, "max": 1}, concurrency=3, session=session)
    scene.up(1, capacity=3)
    first, second, third, fourth = (scene.submit("talk") for _ in range(4))
    unread = (second, third)
    scene.take(scene.pool.take_back(1, scene.now, unread=unread, again=unread))
    assert scene.pool.queue == (second, third, fourth)
    assert scene.finish(first).stop == [1]
    scene.stopped(1)
    scene.up(2, capacity=3)
    assert [scene.given[request] for request in (second, third, fourth)] == [2, 2, 2]


FAILING = Restart(backoff=1, failures=3, window=60, cooldown=15)


def fail_until_open(scene: Scene) -> None:
    for worker in (1, 2, 3):
        scene.take(scene.pool.spawned(worker, scene.now))
        scene.crash(worker)
        scene.sleep(2)


def test_a_failing_agent_is_started_one_at_a_time_and_later_each_time() -> None:
    scene = Scene(workers={"min": 2, "max": 4}, restart=FAILING)
    scene.crash(1)
    scene.crash(2)
    assert scene.pool.workers == ()  # the second failure in a row is followed by a delay
    plans = scene.sleep(2)
    assert [plan.start for plan in plans] == [[3]]


def test_an_open_breaker_refuses_at_once_and_what_waited_is_told() -> None:
    scene = Scene(workers={"min": 1, "max": 1}, restart=FAILING)
    waiting = scene.submit()
    unavailable = []
    for worker in (1, 2, 3):
        scene.take(scene.pool.condemn(worker, scene.now, blame=Blame.AGENT))
        unavailable += scene.last.unavailable
        scene.take(scene.pool.gone(worker, scene.now))
        unavailable += scene.last.unavailable
        scene.sleep(2)
    assert unavailable == [waiting]
    before = repr(scene.pool)
    with pytest.raises(CircuitOpenError) as caught:
        scene.submit()
    assert 1 <= caught.value.retry_after <= 15 * 1.2
    assert repr(scene.pool) == before


def test_after_the_cooldown_one_request_is_the_probe_and_its_answer_closes_the_breaker() -> None:
    scene = Scene(workers={"min": 0, "max": 4}, restart=FAILING)
    for worker in (1, 2, 3):
        scene.submit()
        scene.crash(worker)
        scene.sleep(2)
    with pytest.raises(CircuitOpenError):
        scene.submit()
    scene.sleep(20)
    probe = scene.submit()
    assert scene.last.start == [4]
    with pytest.raises(CircuitOpenError):
        scene.submit()
    scene.up(4)
    scene.finish(probe)
    scene.submit()
    assert "<RestartPolicy closed, 0 in a row>" in repr(scene.pool)


def test_until_the_breaker_is_closed_a_worker_has_one_request_at_a_time() -> None:
    scene = Scene(workers={"min": 3, "max": 3}, restart=Restart(failures=2), concurrency=4)
    for worker in (1, 2, 3):
        scene.up(worker, capacity=4)
    scene.crash(1)
    scene.crash(2)
    first, second, third = (scene.submit() for _ in range(3))
    assert scene.given == {first: 3}
    scene.finish(first)
    assert scene.given == {first: 3, second: 3, third: 3}


def test_a_request_that_ends_without_an_answer_lets_one_other_try_an_open_breaker() -> None:
    scene = Scene(workers={"min": 3, "max": 3}, restart=Restart(failures=2), concurrency=4)
    for worker in (1, 2, 3):
        scene.up(worker, capacity=4)
    first = scene.submit()
    for worker in {1, 2, 3} - {scene.given[first]}:
        scene.crash(worker)
    second, third = scene.submit(), scene.submit()
    assert scene.pool.queue == (second, third)
    plan = scene.finish(first, served=False)
    assert plan.assign == [(second, scene.given[first])]


def test_an_answer_closes_the_breaker_and_the_workers_that_are_missing_are_started() -> None:
    scene = Scene(workers={"min": 3, "max": 3}, restart=Restart(failures=2, cooldown=15))
    for worker in (1, 2, 3):
        scene.up(worker)
    requests = [scene.submit() for _ in range(3)]
    scene.crash(1)
    scene.crash(2)
    scene.sleep(1)
    assert scene.numbers == [3]  # the breaker is open: no start before its cooldown
    scene.finish(requests[2])
    scene.sleep(SPARE_DELAY)
    assert scene.numbers == [3, 4, 5]


def test_of_a_full_pool_the_place_that_becomes_free_is_given_to_who_waits() -> None:
    scene = Scene(workers={"min": 1, "max": 1})  # no worker is above the minimum
    scene.up(1)
    first, second, third = (scene.submit() for _ in range(3))
    assert scene.finish(first).assign == [(second, 1)]
    assert scene.finish(second).assign == [(third, 1)]
    assert scene.finish(third).assign == []


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


def test_a_paused_worker_is_given_nothing_and_makes_up_for_it_at_once() -> None:
    scene = Scene(workers={"min": 1, "max": 1}, concurrency=4)
    scene.up(1, capacity=4)
    scene.submit()
    scene.take(scene.pool.pause(1, paused=True, now=scene.now))
    waiting = scene.submit()
    assert scene.pool.is_waiting(waiting)
    scene.take(scene.pool.pause(1, paused=False, now=scene.now))
    assert scene.last.assign == [(waiting, 1)]


def test_a_closed_pool_starts_nothing_and_stops_each_worker_as_it_becomes_idle() -> None:
    scene = Scene(workers={"min": 2, "max": 2})
    scene.up(1)
    scene.up(2)
    request = scene.submit()
    busy = scene.last.assign[0][1]
    assert scene.take(scene.pool.stop(scene.now)).stop == [3 - busy]
    assert scene.finish(request).stop == [busy]
    scene.stopped(1)
    assert scene.stopped(2).start == []


def test_a_worker_that_was_stopped_before_it_was_spawned_is_given_nothing() -> None:
    scene = Scene(workers={"min": 1, "max": 2})
    assert scene.take(scene.pool.retire(1, scene.now)).stop == [1]
    scene.submit()
    assert scene.take(scene.pool.spawned(1, scene.now)).assign == []
    assert "<worker 1 stopping 0/1>" in repr(scene.pool)
