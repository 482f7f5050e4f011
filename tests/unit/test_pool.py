"""The pool, scene by scene; `test_pool_machine.py` tries everything else."""

from __future__ import annotations

import pytest

from gateway.agents.crew import SILENCE, SPARE_DELAY
from gateway.agents.pool import QueueFullError
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


def test_of_a_full_pool_the_place_that_becomes_free_is_given_to_who_waits() -> None:
    scene = Scene(workers={"min": 1, "max": 1})  # no worker is above the minimum
    scene.up(1)
    first, second, third = (scene.submit() for _ in range(3))
    assert scene.finish(first).assign == [(second, 1)]
    assert scene.finish(second).assign == [(third, 1)]
    assert scene.finish(third).assign == []


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
