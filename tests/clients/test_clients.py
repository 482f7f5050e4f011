"""Clients that nobody here wrote, through a real gateway in the strict sandbox.

What is asked of each, and what must come back, stands in `scenarios`; the README's table of them is
what these tests find.
"""

from __future__ import annotations

import re

import pytest

from tests.clients import clients, matrix
from tests.clients.clients import CLIENTS, Results, asked_of
from tests.clients.row import Client
from tests.clients.scenarios import COLUMNS, JQ, Scenario
from tests.harness import GatewayInThread

pytestmark = pytest.mark.timeout(clients.ALL_SECONDS)  # the first test waits for all clients

ASKED = list(asked_of(CLIENTS))


@pytest.fixture(scope="module")
def results(gateway: GatewayInThread, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What every client gave, which takes as long for one as for all."""
    return clients.run_all(gateway, tmp_path_factory.mktemp("clients"))


@pytest.mark.parametrize(
    ("client", "scenario"), [pytest.param(*each, id=each[0].token(each[1])) for each in ASKED]
)
def test_a_client_gets_what_the_agent_said(
    results: Results, client: Client, scenario: Scenario
) -> None:
    reply = results.replies[client.token(scenario)]
    assert matrix.is_right(client, scenario, reply), reply


def test_the_agents_are_in_the_strict_sandbox(gateway: GatewayInThread) -> None:
    for agent in ("told", "fragile", "plain", JQ):
        assert gateway.state(agent)["sandbox"]["level"] == "strict"


@pytest.mark.parametrize("client", CLIENTS, ids=str)
def test_what_a_row_lacks_is_a_column(client: Client) -> None:
    assert {*client.api.lacks, *client.lacks} <= {*COLUMNS}


def test_the_readme_has_the_table_of_this_run(results: Results) -> None:
    found, shown = matrix.rows(results), matrix.in_readme()
    version = found[0].index("version")
    # Versions are those of the day when it was written: packages are taken as they are released.
    assert all(re.fullmatch(r"[\d.]+", row[version]) for row in shown[1:])
    for row in (*found, *shown):
        del row[version]
    assert shown == found
