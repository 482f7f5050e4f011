"""The command `python -m protocol.conformance`: run the suite and say what is wrong.

Exits with 0 when every case that applies was passed, with 1 when one was not, and with 2 when the
command line is wrong or the worker cannot be started.
"""

from __future__ import annotations

import argparse
import sys
import textwrap

import msgspec

from protocol.conformance.conversation import Clocks
from protocol.conformance.suite import Suite

_START = 60.0
"""Seconds that a worker may take to start, besides `--patience`."""


def main() -> int:
    options = _parse()
    suite = Suite(
        options.command,
        script=options.script,
        agent_input=options.input,
        clocks=Clocks(step=options.patience, start=_START),
    )
    passed = failed = skipped = 0
    try:
        for outcome in suite.run(only=options.only):
            place = f"{outcome.case.header.case} ({outcome.case.file})"
            if outcome.failure:
                failed += 1
                _say(f"FAILED   {place}\n{textwrap.indent(outcome.failure, ' ' * 9)}")
            elif outcome.skipped:
                skipped += 1
                _say(f"skipped  {place}: {outcome.skipped}")
            else:
                passed += 1
                _say(f"passed   {place}")
    except OSError as error:
        sys.stderr.write(f"the worker cannot be started: {error}\n")
        return 2
    _say(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(text.encode(errors="backslashreplace").decode() + "\n")
    sys.stdout.flush()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m protocol.conformance",
        description="Whether a worker, in whatever language, speaks the gateway's protocol.",
    )
    parser.add_argument(
        "--script", action="store_true", help="the agent follows the script of protocol/README.md"
    )
    parser.add_argument(
        "--input", type=_json, default='"hello"', metavar="JSON", help="an input that it takes"
    )
    parser.add_argument(
        "--patience", type=float, default=10.0, metavar="SECONDS", help="for each step; 10"
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="the cases with this in their names"
    )
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="the worker, after --")
    return parser.parse_args()


def _json(text: str) -> str:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from None
    return text


if __name__ == "__main__":
    sys.exit(main())
