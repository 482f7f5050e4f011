"""What the log says at the start of what the kernel does not hold, of what is shared, and of what
is open to anybody."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.composition import report
from gateway.config import ServerSettings, Settings
from tests.unit.workers import NoLauncher


class Described(NoLauncher):
    """Launches nothing, and is described as it was told."""

    def __init__(self, **description: Any) -> None:
        self.description = description

    def describe(self) -> dict[str, Any]:
        return self.description


def limit(value: object = 1, *, enforced: bool = False, **more: str) -> dict[str, object]:
    return {"value": value, "enforced": enforced, **more}


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    """Level, agents and text of each record."""
    return [(r.levelname, r.fields["agents"], r.getMessage()) for r in caplog.records]


def test_a_limit_that_the_kernel_does_not_hold_is_a_warning_for_all_its_agents(
    caplog: pytest.LogCaptureFixture,
) -> None:
    none = limit(reason="there is no group")
    watched = limit(enforced=True, reason="there is no group")
    report._log_what_the_kernel_does_not_hold(
        {
            "a": Described(limits={"cpu": none, "memory": watched}),
            "b": Described(limits={"cpu": none, "memory": limit(enforced=True, by="cgroup")}),
            "c": Described(limits={"cpu": limit(None, reason="no limit was set")}),
            "d": Described(),
        }
    )
    assert lines(caplog) == [
        ("WARNING", "a,b", "cpu is NOT enforced: there is no group"),
        ("WARNING", "a", "memory is held by a watch, a moment late: there is no group"),
    ]


def test_what_workers_share_is_a_warning_with_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    report._log_what_is_shared(
        {
            "a": Described(why_shared="there is no newuidmap"),
            "b": Described(why_shared=None),
            "c": Described(),
            "d": Described(why_shared="there is no newuidmap"),
        }
    )
    [(level, agents, text)] = lines(caplog)
    assert (level, agents) == ("WARNING", "a,d")
    assert text.startswith("workers share limits of the gateway's user (epoll watches, ")
    assert text.endswith(", since there is no newuidmap")


@pytest.mark.parametrize(
    ("cors", "keys", "warned"),
    [(["*"], False, True), (["*"], True, False), (["https://app.example"], False, False)],
)
def test_a_gateway_that_any_page_can_call_says_so(
    caplog: pytest.LogCaptureFixture, cors: list[str], keys: bool, warned: bool
) -> None:
    report._log_open_to_pages(Settings(server=ServerSettings(cors=cors)), keys=keys)
    assert ("any page" in caplog.text) is warned
