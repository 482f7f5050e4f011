"""The table of clients, made from what they gave, and its short form for the README."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.clients.clients import ROOT, Results
from tests.clients.row import Client
from tests.clients.scenarios import COLUMNS, Reply, Scenario

README = ROOT / "README.md"
WHOLE = ROOT / "tests" / "clients" / "README.md"
"""Where the whole table is; the README has its short form."""
MARK = "<!-- made by: python -m tests.clients -->\n"
WORKS, FAILS, LACKS = "✓", "✗", "-"
NAMES = ["client", "version", "API"]
"""The columns before those of `scenarios`."""

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

    table = [[*NAMES, *COLUMNS]]
    for name in dict.fromkeys(client.name for client in results.versions):
        clients = [client for client in results.versions if client.name == name]
        apis = ", ".join(client.api.name for client in clients)
        cells = [cell(clients, column) for column in COLUMNS]
        table.append([name, results.versions[clients[0]], apis, *cells])
    return table


def as_markdown(table: Rows) -> str:
    head, *body = (f"| {' | '.join(row)} |\n" for row in table)
    return head + "| --- " * len(table[0]) + "|\n" + "".join(body)


def in_short(table: Rows) -> Rows:
    """The table as the README has it: what works is left out, and all else named in one column."""
    head, *body = table
    short = [[*head[: len(NAMES)], "missing"]]
    for row in body:
        cells = zip(head[len(NAMES) :], row[len(NAMES) :], strict=True)
        missing = [_but(column, cell) for column, cell in cells if cell != WORKS]
        short.append([*row[: len(NAMES)], ", ".join(missing) or "nothing"])
    return short


def _but(column: str, cell: str) -> str:
    if cell == LACKS:
        return column
    return f"**{column} goes wrong**" if cell == FAILS else f"{column} (only in {cell})"


def shown_in(path: Path) -> Rows:
    """The cells of the table that a README has."""
    head, _, *body = _around_table(path)[1].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in (head, *body)]


def write(table: Rows) -> None:
    for path, shown in ((WHOLE, table), (README, in_short(table))):
        before, _, after = _around_table(path)
        path.write_text(before + as_markdown(shown) + after, encoding="utf-8")


def _around_table(path: Path) -> Sequence[str]:
    """What stands before the table, the table, and what stands after it."""
    text = path.read_text(encoding="utf-8")
    found = re.fullmatch(rf"(.*{re.escape(MARK)})((?:\|[^\n]*\n)+)(.*)", text, re.DOTALL)
    assert found, f"{path} has no table after {MARK!r}"
    return found.groups()
