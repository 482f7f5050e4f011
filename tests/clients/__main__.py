"""`python -m tests.clients`: ask every client everything, and make the READMEs' tables of it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.clients import clients, matrix
from tests.clients.protocols import OF_PROTOCOL
from tests.clients.runners import KEY
from tests.harness import gateway_in_thread


def main() -> int:
    """Print the table. 1 if a client did not get what it should have."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put it into the READMEs")
    parser.add_argument("--only", choices=OF_PROTOCOL, help="ask the clients of one protocol")
    options = parser.parse_args()
    if options.only and options.write:
        parser.error("the READMEs have all protocols: --write goes without --only")
    asked = OF_PROTOCOL[options.only] if options.only else clients.CLIENTS
    with tempfile.TemporaryDirectory(prefix="clients-") as name:
        folder = Path(name)
        with gateway_in_thread(clients.toml(), folder, key=KEY) as gateway:
            results = clients.run_all(gateway, folder, asked)
    table = matrix.rows(results)
    print(matrix.as_markdown(table))
    failed = list(matrix.failures(results))
    for client, scenario, reply in failed:
        print(f"{client.token(scenario)}: {reply}", file=sys.stderr)
    if options.write:
        matrix.write(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
