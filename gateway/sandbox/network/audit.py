"""One record for each decision of the network's processes, and the bound on their number.

This module owns the record and its way out of a process: one packet of JSON for each, on a socket
that the gateway reads. It does not know what is decided (`egress` and `door` do), nor what becomes
of a record (`metering` does).

# Theory of operation

An agent can ask for what is refused as often as it likes, and each answer is a decision. So records
have a rate, one for what was allowed and a lower one for everything else, so that refusals never
hide what went through. Records above the rate are not lost: they are summed, by what they have in
common, and sent as one record with a `count` every `SUM_SECONDS`. The same happens to records that
the socket does not take, because the gateway is busy or stopped. So sums of requests, bytes and
tokens are exact, no process ever waits for the gateway, and the memory for it is bounded.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import trio
from msgspec import Meta, Struct, structs

if TYPE_CHECKING:
    from collections.abc import Callable

Amount = Annotated[int, Meta(ge=0, le=2**53)]
"""At most what a reader of JSON can hold exactly whose numbers are all doubles."""

MAX_NAME = 256
"""Characters of a service, a host with its port, a rule or a method."""
MAX_PATH = 1024
"""Characters of a path: what APIs have, and enough of anything else to recognise it."""
MAX_WHY = 512
"""Characters of a reason."""
MAX_PACKET = 16 * 1024
"""Bytes of an encoded record. The longest has about 10,000: its bounded texts, escaped as JSON."""

ALLOWED_PER_SECOND, ALLOWED_BURST = 100, 1000
"""Records of what was allowed that are sent one by one: more calls than a person reads, and few
enough that their lines in the log cost the gateway one percent of a CPU."""
OTHERS_PER_SECOND, OTHERS_BURST = 10, 100
"""Records of refusals and failures that are sent one by one."""
SUM_SECONDS = 1.0
"""Between two rounds of sums."""
MAX_SUMS = 64
"""Different sums at a time. What does not fit is summed by verdict alone."""

Name = Annotated[str, Meta(max_length=MAX_NAME)]
Verdict = Literal["allowed", "refused", "failed"]

_NOT_SENT_AS_IT_IS = re.compile(r"[^ -~]")


class Record(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One decision, once its request or tunnel is over.

    `failed` is what was allowed and did not come about: nobody answered, or not as HTTP asks.
    """

    at: Literal["service", "network"]
    name: Name
    """The service, or `host:port`; empty where the request did not say."""
    verdict: Verdict
    rule: Name = ""
    """The pattern or the setting that decided."""
    method: Name = ""
    path: Annotated[str, Meta(max_length=MAX_PATH)] = ""
    """Without the query, in which keys and data may stand."""
    status: Annotated[int, Meta(ge=0, le=999)] = 0
    sent: Amount = 0
    """Bytes from the agent: of a request's body, or of everything in a tunnel."""
    received: Amount = 0
    duration: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    """Seconds from the request to the end of its answer or tunnel."""
    tokens_in: Amount | None = None
    tokens_out: Amount | None = None
    charged: Amount = 0
    """Tokens that the budget of the service was charged."""
    began: Annotated[float, Meta(ge=0, le=1e12)] = 0.0
    """When the request came, in seconds of the machine's monotonic clock; set by `Auditor.note`."""
    worker: Amount = 0
    """Which worker asked, by the number that the gateway has announced it with."""
    why: Annotated[str, Meta(max_length=MAX_WHY)] = ""
    """Why it was refused or failed, with the setting that moves it."""
    count: Annotated[int, Meta(ge=1, le=2**53)] = 1
    """How many decisions this is the sum of; then it has neither path, duration nor worker."""


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Record)


def read_record(packet: bytes) -> Record | None:
    """The record in a packet; None for anything else, for its sender is not trusted."""
    try:
        return _decoder.decode(packet)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


class Auditor:
    """Sends the records of one process. `run` must be running, or sums are kept until `flush`."""

    def __init__(self, send: Callable[[bytes], bool]) -> None:
        """`send` passes a packet on without waiting, and returns whether it could."""
        self._send = send
        self._allowed = Rate(ALLOWED_PER_SECOND, ALLOWED_BURST)
        self._others = Rate(OTHERS_PER_SECOND, OTHERS_BURST)
        self._sums: dict[tuple[str, ...], Record] = {}

    def __repr__(self) -> str:
        waiting = sum(record.count for record in self._sums.values())
        return f"<Auditor {waiting} records to be summed>"

    def note(self, record: Record) -> None:
        """Send a record, or add it to a sum. Neither waits nor fails."""
        record = _bounded(record)
        rate = self._allowed if record.verdict == "allowed" else self._others
        if not (rate.take(trio.current_time()) and self._send(_encoder.encode(record))):
            self._add(record)

    async def run(self) -> None:
        """Send the sums, until cancelled."""
        while True:
            await trio.sleep(SUM_SECONDS)
            self.flush()

    def flush(self) -> None:
        """Send the sums that the socket takes now."""
        for key, record in list(self._sums.items()):
            if not self._send(_encoder.encode(record)):
                break
            del self._sums[key]

    def _add(self, record: Record) -> None:
        # A host is the agent's own choice, a service with a verdict and a rule is the operator's.
        name = record.name if record.at == "service" else ""
        counted = "tokens" if record.tokens_in is not None else ""
        key = (record.at, record.verdict, counted, name, record.rule)
        if key not in self._sums and len(self._sums) >= MAX_SUMS:
            key = (*key[:3], "", "")
        self._sums[key] = _sum_of(record, name=key[3], rule=key[4], known=self._sums.get(key))


def _sum_of(record: Record, *, name: str, rule: str, known: Record | None) -> Record:
    before = known or Record(
        at=record.at, name=name, verdict=record.verdict, rule=rule, why=record.why, count=1
    )
    return structs.replace(
        before,
        count=record.count + (0 if known is None else known.count),
        sent=before.sent + record.sent,
        received=before.received + record.received,
        tokens_in=_plus(before.tokens_in, record.tokens_in),
        tokens_out=_plus(before.tokens_out, record.tokens_out),
        charged=before.charged + record.charged,
    )


def _plus(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)


def _bounded(record: Record) -> Record:
    """The record with its time, and with texts that fit, and are printable ASCII: they may repeat
    what agents say."""
    return structs.replace(
        record,
        name=_text(record.name, MAX_NAME),
        rule=_text(record.rule, MAX_NAME),
        method=_text(record.method, MAX_NAME),
        path=_text(record.path, MAX_PATH),
        why=_text(record.why, MAX_WHY),
        began=max(0.0, time.monotonic() - record.duration),
    )


def _text(text: str, most: int) -> str:
    return _NOT_SENT_AS_IT_IS.sub("?", text[:most])


class Rate:
    """A token bucket, full at first."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second, self._burst = per_second, burst
        self._allowance, self._at = float(burst), 0.0

    def take(self, now: float) -> bool:
        earned = (now - self._at) * self._per_second
        self._allowance = min(self._allowance + earned, self._burst)
        self._at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True
