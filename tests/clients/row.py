"""What stands in a row of the table: a client, and the protocol that it speaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tests.clients.scenarios import Check, Failed, Scenario


@dataclass(frozen=True)
class Api:
    """A protocol, or one of its APIs."""

    name: str
    """As the table has it."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """The columns that it has nothing for, and the reason for each."""
    checks: Mapping[str, Check] = field(default_factory=dict)
    """What must come back instead of what the scenario says, by its task, or by its name."""
    has_statuses: bool = True
    """Whether its errors have the status of a response, which its clients give."""

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True)
class Client:
    """One client, with one of the APIs that it speaks."""

    name: str
    api: Api
    program: str
    """A file in `runners`."""
    package: str
    """Whose version is told."""
    way: str = ""
    """The program's word for this way of using the client, if it is not the API's name."""
    lacks: Mapping[str, str] = field(default_factory=dict)
    """The columns that the client has nothing for, though its API has; and the reason for each."""

    def __str__(self) -> str:
        return f"{self.program}:{self.does}".replace("with_", "").replace(" ", "-")

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def does(self) -> str:
        """The `api` of its orders."""
        return self.way or self.api.name

    def lacks_column(self, column: str) -> bool:
        return column in self.api.lacks or column in self.lacks

    def is_asked(self, scenario: Scenario) -> bool:
        """Whether there is anything to be seen of a scenario with this client."""
        return scenario.without is not None or not self.lacks_column(scenario.column)

    def check(self, scenario: Scenario) -> Check:
        """What must come back."""
        if scenario.without is not None and self.lacks_column(scenario.column):
            return scenario.without
        checks = self.api.checks
        check = checks.get(scenario.name) or checks.get(scenario.task) or scenario.check
        if isinstance(check, Failed) and not self.api.has_statuses:
            return replace(check, status=None)
        return check

    def token(self, scenario: Scenario) -> str:
        """What names a request of this client in the agent's log."""
        return f"{self}:{scenario.name}"
