"""What the log says at the start."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.composition.report import log_agents
from gateway.config import AgentSettings, FleetSettings, Settings


@pytest.mark.parametrize(
    ("role", "said"),
    [
        (None, "serving http://h:1/agent/echo"),
        ("host", "serving the agent echo to the fronts of the fleet"),
    ],
)
def test_who_an_agent_is_served_to(caplog: pytest.LogCaptureFixture, role: Any, said: str) -> None:
    settings = Settings(
        agents={"echo": AgentSettings(command="cat")}, fleet=FleetSettings(role=role)
    )
    with caplog.at_level("INFO", logger="gateway"):
        log_agents(settings, "http://h:1")
    assert caplog.messages == [said]
