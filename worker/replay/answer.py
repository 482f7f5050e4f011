"""What came of one request, however it was said: the chunks of a stream are one text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from protocol import Burst, Chunk, End, Event, Failure, Malformed, Ready, Result

if TYPE_CHECKING:
    from protocol import FromWorker, Method, Outcome, Payload


class Answer:
    """Collects what a connection says about a request. Times are in seconds since the request."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.value: dict[str, Any] = {}
        """As far as it came: `text`, `events`, `output` or `message`, what an outcome has, `error`
        (code and message), `violation`, or `ended` if no answer came."""
        self.is_whole = False
        """Whether nothing more comes."""
        self.first: float | None = None
        self.last = 0.0

    def add(self, message: FromWorker | Burst, at: float) -> None:
        """Take what a worker said; everything after the end is left out."""
        if self.is_whole or isinstance(message, Ready):
            return
        self.first = at if self.first is None else self.first
        self.last = at
        if isinstance(message, Chunk | Burst):
            texts = message.texts if isinstance(message, Burst) else [message.text]
            said = "".join(str(_decoded(text)) for text in texts)
            self.value["text"] = self.value.get("text", "") + said
        elif isinstance(message, Event):
            self.value.setdefault("events", []).append(_decoded(message.event))
        else:
            self._end(message)

    def _end(self, message: Result | End | Failure | Malformed) -> None:
        self.is_whole = True
        if isinstance(message, Failure):
            self.value["error"] = {"code": message.code, "message": message.message}
        elif isinstance(message, Malformed):
            self.value["violation"] = message.error.message
        else:
            if isinstance(message, Result):
                key = "output" if self.method == "invoke" else "message"
                self.value[key] = _decoded(message.value)
            self.value |= _members(message.outcome)

    def end_without(self, why: str) -> None:
        """No answer comes any more."""
        self.is_whole = True
        self.value["ended"] = why


def _decoded(value: Payload) -> Any:
    """A JSON value; its text where it is none that Python has, such as 1e400."""
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return bytes(value).decode()


def _members(outcome: Outcome | None) -> dict[str, Any]:
    if outcome is None:
        return {}
    members: dict[str, Any] = {} if outcome.finish is None else {"finish": outcome.finish}
    for key, value in (("usage", outcome.usage), ("asks", outcome.asks)):
        if value is not None:
            members[key] = _decoded(value)
    return members
