"""The pool of an agent that fails: the breaker, its probe, and how workers are started then."""

from __future__ import annotations

import pytest

from gateway.agents.blame import Blame
from gateway.agents.crew import SPARE_DELAY
from gateway.agents.pool import CircuitOpenError
from gateway.config import Restart
from tests.unit.pools import Scene

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
