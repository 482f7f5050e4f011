"""The table of clients in the README, made from what they gave."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tests.clients.clients import ROOT, Results
from tests.clients.row import Client
from tests.clients.scenarios import COLUMNS, Reply, Scenario

README = ROOT / "README.md"
MARK = "<!-- made by: python -m tests.clients -->\n"
WORKS, FAILS, LACKS = "✓", "✗", "-"

Rows = list[list[str]]


def is_right(client: Client, scenario: Scenario, reply: Reply) -> bool:
    """Whether the client got what it should, for as many runs of the agent as it should take."""
    ran = scenario.runs is None or reply.get("runs") == scenario.runs
    return "broken" not in reply and ran and client.check(scenario)(reply)


def failures(results: Results) -> Iterator[tuple[Client, Scenario, Reply]]:
    """Whatever a client got that it should not have."""
    for client, scenario in results.asked:
        reply = results.replies[client.token(scenario)]
        if not is_right(client, scenario, reply):
            yield client, scenario, reply


def rows(results: Results) -> Rows:
    """The table's cells, the head's included: one row for each client, whose APIs share a cell."""
    failed = {(client, scenario.column) for client, scenario, _ in failures(results)}

    def cell(clients: Sequence[Client], column: str) -> str:
        if any((client, column) in failed for client in clients):
            return FAILS
        able = [each.api.name for each in clients if not each.lacks_column(column)]
        return WORKS if len(able) == len(clients) else ", ".join(able) or LACKS

    table = [["client", "version", "API", *COLUMNS]]
    for name in dict.fromkeys(client.name for client in results.versions):
        clients = [client for client in results.versions if client.name == name]
        apis = ", ".join(client.api.name for client in clients)
        cells = [cell(clients, column) for column in COLUMNS]
        table.append([name, results.versions[clients[0]], apis, *cells])
    return table


def as_markdown(table: Rows) -> str:
    head, *body = (f"| {' | '.join(row)} |\n" for row in table)
    return head + "| --- " * len(table[0]) + "|\n" + "".join(body)


def in_readme() -> Rows:
    """The cells of the table that the README has."""
    head, _, *body = _in_readme()[1].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in (head, *body)]


def write(table: Rows) -> None:
    before, _, after = _in_readme()
    README.write_text(before + as_markdown(table) + after, encoding="utf-8")


def _in_readme() -> Sequence[str]:
    """What stands before the table, the table, and what stands after it."""
    text = README.read_text(encoding="utf-8")
    found = re.fullmatch(rf"(.*{re.escape(MARK)})((?:\|[^\n]*\n)+)(.*)", text, re.DOTALL)
    assert found, f"the README has no table after {MARK!r}"
    return found.groups()
