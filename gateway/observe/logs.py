"""Log records with fields: `2026-01-31 12:00:00.000 INFO worker started agent=echo pid=71`.

Every record that concerns a request carries its id as `request`, one that concerns a worker its
agent and pid. Goes to stderr; stdout belongs to the one line that says where the gateway listens.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any

_PLAIN = re.compile(r"[\w./:@+-]+\Z")


class FieldFormatter(logging.Formatter):
    """Appends a record's fields as `key=value`, quoted where they are not one plain word."""

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = getattr(record, "fields", {})
        shown = "".join(
            f" {key}={_quoted(value)}" for key, value in fields.items() if value is not None
        )
        head, newline, rest = super().format(record).partition("\n")
        return f"{head}{shown}{newline}{rest}"


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.match(text) else json.dumps(text, ensure_ascii=False)


def event(logger: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Log `message` with fields; one that is None is left out."""
    if logger.isEnabledFor(level):
        logger.log(level, message, extra={"fields": fields})


def setup(level: str) -> None:
    """Send the gateway's records, and warnings of the libraries below it, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("gateway").setLevel(level.upper())
