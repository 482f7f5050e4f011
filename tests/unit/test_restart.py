"""The restart policy: backoff that doubles, then the circuit breaker, by its table."""

from __future__ import annotations

import logging
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.agents.restart import Breaker, RestartPolicy
from gateway.config import Restart
from tests.unit.conftest import unhurried


class NoJitter(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return 0.0


def policy(**settings: float) -> RestartPolicy:
    return RestartPolicy(Restart(**settings), rng=NoJitter())  # type: ignore[arg-type]


def test_delays_begin_at_nothing_double_and_stop_at_the_most() -> None:
    restart = policy(backoff=0.1, backoff_max=0.5, failures=100)
    delays = []
    for _ in range(6):
        restart.failed(1000.0)
        delays.append(round(restart.start_at - 1000.0, 6))
    assert delays == [0, 0.1, 0.2, 0.4, 0.5, 0.5]


def test_the_log_says_once_that_the_breaker_opened_and_once_that_it_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "gateway.agent")
    restart = policy(failures=2, window=10, cooldown=5)
    restart.failed(0.0)
    assert caplog.messages == []
    for now in (1.0, 7.0, 13.0):  # the first, and two probes
        restart.failed(now)
    restart.succeeded()
    restart.succeeded()
    assert caplog.messages == [
        (
            "the agent has failed 2 times in a row: it is not started for 5 s, and its requests "
            "are refused (restart.cooldown)"
        ),
        "workers of the agent are started as usual again",
    ]


def test_a_streak_of_thousands_does_not_overflow() -> None:
    restart = policy(backoff=0.1, backoff_max=30, failures=100_000)
    for _ in range(5000):
        restart.failed(0.0)
    assert restart.start_at == 30


def test_a_success_makes_the_next_failure_the_first_one_again() -> None:
    restart = policy(failures=3)
    restart.failed(0.0)
    restart.failed(1.0)
    assert restart.failing
    restart.succeeded()
    assert not restart.failing
    restart.failed(2.0)
    assert (restart.start_at, restart.breaker(2.0)) == (2.0, Breaker.CLOSED)


# What happens, when, and how the breaker stands right after it. Three failures within 10 s open
# it, for 5 s.
TRANSITIONS = {
    "two failures": [("fail", 0, "closed"), ("fail", 1, "closed")],
    "three within the window open it": [
        ("fail", 0, "closed"),
        ("fail", 1, "closed"),
        ("fail", 2, "open"),
    ],
    "three in more than the window do not": [
        ("fail", 0, "closed"),
        ("fail", 1, "closed"),
        ("fail", 10.5, "closed"),
        ("fail", 10.9, "open"),
    ],
    "the cooldown makes it half open": [
        ("fail", 0, "closed"),
        ("fail", 0, "closed"),
        ("fail", 0, "open"),
        ("look", 4.9, "open"),
        ("look", 5, "half-open"),
        ("look", 500, "half-open"),
    ],
    "one failure of the probe opens it again": [
        ("fail", 0, "closed"),
        ("fail", 0, "closed"),
        ("fail", 0, "open"),
        ("look", 5, "half-open"),
        ("fail", 6, "open"),
        ("look", 10.9, "open"),
        ("look", 11, "half-open"),
    ],
    "one success of the probe closes it": [
        ("fail", 0, "closed"),
        ("fail", 0, "closed"),
        ("fail", 0, "open"),
        ("look", 5, "half-open"),
        ("succeed", 5, "closed"),
        ("fail", 6, "closed"),
        ("fail", 6, "closed"),
        ("fail", 6, "open"),
    ],
    "a success between two failures clears the count": [
        ("fail", 0, "closed"),
        ("fail", 0, "closed"),
        ("succeed", 0, "closed"),
        ("fail", 0, "closed"),
        ("fail", 0, "closed"),
        ("fail", 0, "open"),
    ],
    "one that lived long clears the count before it fails": [
        ("fail", 0, "closed"),
        ("fail", 0, "closed"),
        ("fail after a long life", 1, "closed"),
        ("fail", 1, "closed"),
        ("fail", 1, "open"),
    ],
    "but not once it is open": [
        ("fail", 0, "closed"),
        ("fail", 0, "closed"),
        ("fail", 0, "open"),
        ("fail after a long life", 6, "open"),
    ],
}


@pytest.mark.parametrize("steps", TRANSITIONS.values(), ids=TRANSITIONS)
def test_the_breaker_follows_its_table(steps: list[tuple[str, float, str]]) -> None:
    restart = policy(failures=3, window=10, cooldown=5, stable=100)
    seen = []
    for what, at, _ in steps:
        if what == "succeed":
            restart.succeeded()
        elif what != "look":
            restart.failed(at, lived=100 if "long" in what else 0)
        seen.append((what, at, restart.breaker(at).value))
    assert seen == steps


def test_it_reads_as_a_status_line() -> None:
    restart = policy(failures=2)
    restart.failed(0.0)
    assert repr(restart) == "<RestartPolicy closed, 1 in a row>"
    restart.failed(0.0)
    assert repr(restart) == "<RestartPolicy open, 2 in a row>"


@unhurried
@given(
    st.lists(st.tuples(st.sampled_from(["fail", "long", "ok"]), st.floats(0, 100)), max_size=40),
    st.integers(0, 2**32),
)
def test_whatever_happens_a_start_is_never_further_away_than_its_settings_say(events, seed) -> None:
    settings = Restart(backoff_max=7, cooldown=11, failures=3)
    restart = RestartPolicy(settings, rng=random.Random(seed))
    now = 0.0
    for what, later in events:
        now += later
        if what == "ok":
            restart.succeeded()
        else:
            restart.failed(now, lived=1000 if what == "long" else 0)
        most = (11 if restart.breaker(now) is not Breaker.CLOSED else 7) * 1.2
        assert restart.start_at <= now + most + 1e-6
        assert restart.failing == (what != "ok")
