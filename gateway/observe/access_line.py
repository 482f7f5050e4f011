"""A line of the access log, before it is encoded or becomes a record. Pure."""

from __future__ import annotations

import logging
from datetime import datetime

from msgspec import Struct, structs


class AccessLine(Struct, omit_defaults=True, gc=False):
    """What a line says, in this order. What is empty is left out, so that each line holds what
    there is to say. All texts are short: names of the configuration, ids, the gateway's own words.
    """

    timestamp: datetime
    level: str
    logger: str
    event: str
    request: str
    run: str = ""
    agent: str = ""
    key: str = ""
    dialect: str = ""
    handler: str = ""
    method: str = ""
    route: str = ""
    status: int = 0
    bytes_in: int | None = None
    """None of a run, like the next; 0 is written."""
    bytes_out: int | None = None
    client_left: bool = False
    error: str = ""
    trace: str = ""
    total: float | None = None
    first: float | None = None
    queue: float | None = None
    pid: int | None = None
    stream: bool = False
    chunks: int = 0

    @property
    def number(self) -> int:
        """That of the level."""
        return logging.DEBUG if self.level == "debug" else logging.INFO

    @property
    def fields(self) -> dict[str, object]:
        """What it says beside what every record says."""
        empty = structs.asdict(AccessLine(self.timestamp, self.level, self.logger, self.event, ""))
        return {name: value for name, value in structs.asdict(self).items() if value != empty[name]}

    def as_record(self) -> logging.LogRecord:
        """A record that says the same."""
        record = logging.LogRecord(self.logger, self.number, "", 0, self.event, None, None)
        record.created = self.timestamp.timestamp()
        record.__dict__["fields"] = self.fields
        return record
