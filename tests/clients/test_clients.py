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
from tests.clients.scenarios import COLUMNS, JQ, KEY, Scenario
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


def test_the_readme_says_what_clients_were_asked_for() -> None:
    section = " ".join(matrix.README.read_text(encoding="utf-8").split())
    *asked, key, jq = COLUMNS
    assert (key, jq) == (KEY, JQ)
    assert f"asked for: {', '.join(asked)}, and with a wrong {key}" in section


def test_what_works_is_left_out_of_the_short_table_and_all_else_is_named() -> None:
    rows = [
        [*matrix.NAMES, "answer", "file", "state", "stream"],
        ["a", "1", "chat", *[matrix.WORKS] * 4],
        ["b", "2", "chat, responses", matrix.WORKS, "responses", matrix.LACKS, matrix.FAILS],
    ]
    assert matrix.in_short(rows) == [
        [*matrix.NAMES, "missing"],
        ["a", "1", "chat", "nothing"],
        ["b", "2", "chat, responses", "file (only in responses), state, **stream goes wrong**"],
    ]


def test_the_readmes_have_the_tables_of_this_run(results: Results) -> None:
    found = matrix.rows(results)
    assert without_versions(matrix.shown_in(matrix.WHOLE)) == without_versions(found)
    short = matrix.in_short(found)
    assert without_versions(matrix.shown_in(matrix.README)) == without_versions(short)


def without_versions(table: matrix.Rows) -> matrix.Rows:
    """Those shown are of the day when it was written: packages are taken as they are released."""
    at = matrix.NAMES.index("version")
    assert all(re.fullmatch(r"[\d.]+", row[at]) for row in table[1:])
    return [[*row[:at], *row[at + 1 :]] for row in table]
