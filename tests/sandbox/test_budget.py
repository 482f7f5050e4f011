"""A service's budget: requests in any minute, tokens in a day of UTC, and what is answered then."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.presets import PRESETS, ErrorForm
from gateway.sandbox.network.budget import DAY, Budget, day_of
from gateway.sandbox.network.error_forms import encode_error

NOON = 20_000 * DAY + DAY / 2
"""A Unix time."""


def test_without_limits_everything_is_passed_on() -> None:
    budget = Budget("openai")
    budget.charge(10**12, NOON)
    assert all(budget.take(0, NOON) is None for _ in range(1000))


def test_no_minute_has_more_requests_than_the_setting_says() -> None:
    budget = Budget("openai", requests_per_minute=3)
    assert [budget.take(now, NOON) for now in (0, 10, 20)] == [None] * 3
    refused = budget.take(59.5, NOON)
    assert refused is not None
    assert refused.retry_after == 1
    assert refused.retry
    assert "[services.openai] requests_per_minute" in refused.message
    assert budget.take(60, NOON) is None
    assert budget.take(69, NOON) is not None


@given(
    st.integers(1, 5),
    # Sums of these are exact.
    st.lists(st.integers(0, 30 * 64).map(lambda part: part / 64), max_size=60),
)
def test_in_any_sixty_seconds_at_most_as_many_pass_and_none_is_refused_without_need(
    most: int, waits: list[float]
) -> None:
    budget = Budget("x", requests_per_minute=most)
    now, passed = 0.0, list[float]()
    for wait in waits:
        now += wait
        recent = [at for at in passed if now - at < 60]
        exceeded = budget.take(now, NOON)
        assert (exceeded is None) == (len(recent) < most)
        if exceeded is None:
            passed.append(now)
        else:
            assert budget.take(now + exceeded.retry_after, NOON) is None
            passed.append(now + exceeded.retry_after)
            now += exceeded.retry_after
    assert all(later - first >= 60 for first, later in zip(passed, passed[most:], strict=False))
    assert all(one <= other for one, other in pairwise(passed))


def test_the_request_that_uses_up_the_tokens_is_answered_and_the_next_is_not() -> None:
    budget = Budget("openai", tokens_per_day=100)
    assert budget.take(0, NOON) is None
    assert budget.take(0, NOON) is None
    budget.charge(250, NOON)
    refused = budget.take(1, NOON + 1)
    assert refused is not None
    assert refused.setting == "tokens_per_day"
    assert refused.retry_after == DAY // 2 - 1
    assert not refused.retry
    assert "[services.openai] tokens_per_day" in refused.message
    assert budget.take(2, NOON + DAY / 2) is None


def test_a_new_process_goes_on_with_what_was_used_today_and_not_yesterday() -> None:
    today = day_of(NOON)
    for day, passes in ((today, False), (today - 1, True), (today + 70, True)):
        budget = Budget("openai", tokens_per_day=100)
        budget.restore(day, 100)
        assert (budget.take(0, NOON) is None) == passes


def test_other_limits_count_what_was_used_before() -> None:
    budget = Budget("openai", requests_per_minute=5)
    assert [budget.take(0, NOON) for _ in range(4)] == [None] * 4
    budget.charge(50, NOON)
    budget.change(requests_per_minute=2)
    assert budget.take(1, NOON) is not None
    budget.change(requests_per_minute=10, tokens_per_day=50)
    refused = budget.take(1, NOON)
    assert refused is not None
    assert refused.setting == "tokens_per_day"
    budget.change()
    assert budget.take(1, NOON) is None


@pytest.mark.parametrize("form", get_args(ErrorForm))
@pytest.mark.parametrize("status", [400, 403, 404, 429, 502, 504])
def test_an_error_holds_its_message_where_the_services_clients_look(
    form: ErrorForm, status: int
) -> None:
    body = json.loads(encode_error(form, status, 'why "€"'))
    error = body.get("error", body)
    assert error == 'why "€"' if form == "plain" else error["message"] == 'why "€"'


def test_every_preset_says_where_its_service_is_or_what_to_write() -> None:
    for preset in PRESETS.values():
        assert preset.url.startswith(("https://", "http://127.0.0.1:")) or preset.why_url
        assert not preset.url.endswith("/")
        assert preset.errors in get_args(ErrorForm)
        assert any("{url}" in value for value in preset.env.values())
        # No variable of the worker's holds a key.
        assert not any("$" in value for value in preset.env.values())
