"""Encoding of what handlers return, yield and raise, as lines of the wire.

The functions here are pure: they check and encode, and raise errors worded for an agent's author.
They run no handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from protocol import ErrorCode, LocalProtocolError
from protocol.payloads import check_chat_message

from .context import InvalidInput
from .events import Event
from .messages import as_message, as_output, as_piece, describe, to_plain
from .turn import Turn, take_apart

MAX_ERROR_TEXT = 4096
"""Characters of an exception's text that a caller is shown: some exceptions quote their whole
input. The complete text is on stderr."""

_HAS_NO_JSON_FORM = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


def encode_answer(turn: Turn, result: object) -> bytes:
    """The lines that answer a request with what its handler returned.

    Raises TypeError or ValueError, worded for the agent's author, when the result cannot be sent.
    """
    if isinstance(result, Event):
        return turn.note(result) + encode_end(turn)
    method, lines = turn.method, b""
    send: Callable[..., bytes] = turn.connection.send_output
    if method == "invoke":
        value = as_output(result)
    else:
        send = turn.connection.send_message
        try:
            value = as_message(result)
        except TypeError:
            raise _not_a_message(result) from None
        if isinstance(value, Mapping):
            lines, value = take_apart(turn, value)
    send = partial(send, outcome=turn.outcome())
    try:
        try:
            return lines + send(turn.id, value)
        except TypeError:
            return lines + send(turn.id, msgspec.to_builtins(value, enc_hook=to_plain))
    except LocalProtocolError as error:
        if problem := _problem_of(value) if method == "chat" else None:
            raise _not_a_message(result, f": {problem}") from None
        raise ValueError(f"the {method} handler's answer cannot be sent: {error}") from None
    except _HAS_NO_JSON_FORM as error:
        raise TypeError(f"the {method} handler's answer cannot be sent as JSON: {error}") from error


def encode_end(turn: Turn) -> bytes:
    """The line that ends an answer of chunks."""
    try:
        return turn.connection.send_end(turn.id, outcome=turn.outcome())
    except LocalProtocolError as error:
        raise ValueError(f"the {turn.method} handler's answer cannot end: {error}") from None


def chunk_encoder(turn: Turn) -> Callable[[object], bytes]:
    """A function that encodes one value that a generator yielded as lines, or as nothing.

    The function raises TypeError for anything but a string, an event or a message, and ValueError
    for one that cannot be sent.
    """
    method = turn.method
    send = turn.connection.chunk_sender(turn.id)

    def encode(chunk: object) -> bytes:
        if type(chunk) is not str:
            if not isinstance(chunk, str):
                lines, text = _read_piece(turn, chunk)
                # A piece of a message may say nothing, such as a tool's call.
                return lines + encode(text) if text else lines
            chunk = str.__str__(chunk)
        try:
            return send(chunk)
        except (UnicodeEncodeError, LocalProtocolError) as error:
            raise ValueError(f"a chunk of the {method} handler cannot be sent: {error}") from error

    return encode


def _read_piece(turn: Turn, chunk: object) -> tuple[bytes, str]:
    """Lines for the events, and the text, of a value that is no string."""
    lines = b""
    if isinstance(chunk, Event):
        return turn.note(chunk), ""
    if isinstance(chunk, Mapping):
        if "role" in chunk:
            lines, chunk = take_apart(turn, chunk)
        elif "type" in chunk:
            return turn.note(chunk), ""
    text = as_piece(chunk)
    if text is None:
        raise TypeError(f"the {turn.method} handler yielded {describe(chunk)}, expected str")
    return lines, text


def explain_exception(error: BaseException) -> tuple[int, str]:
    """The error code and the text that a caller is shown for an exception.

    An exception group with one member stands for that member: task groups wrap every exception.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    text = _text_of(error)
    if isinstance(error, InvalidInput):
        return ErrorCode.INVALID_INPUT, _presentable(text or "the agent refused its input")
    said = _named(error, text)
    cause = _first_cause(error)
    if cause is not error and _text_of(cause) not in text:
        # Clients of models raise "Connection error." from what tells that there is no network.
        said += f" (caused by {_named(cause, _text_of(cause))})"
    return ErrorCode.INTERNAL, _presentable(said)


def _first_cause(error: BaseException) -> BaseException:
    """Where a chain of `raise … from` begins."""
    seen = {id(error)}
    while error.__cause__ is not None and id(error.__cause__) not in seen:
        error = error.__cause__
        seen.add(id(error))
    return error


def _named(error: BaseException, text: str) -> str:
    kind = type(error).__name__
    return f"{kind}: {text}" if text else kind


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  (an agent's own exception class may have any defect)
        return ""


def _presentable(text: str) -> str:
    if len(text) > MAX_ERROR_TEXT:
        text = f"{text[:MAX_ERROR_TEXT]}…"
    return text.encode("utf-8", "backslashreplace").decode()


def _not_a_message(result: object, problem: str = "") -> TypeError:
    return TypeError(
        f"the chat handler's answer cannot be sent: it returned {describe(result)}, expected a "
        f"string, or a message with `role` and `content`{problem}"
    )


def _problem_of(message: object) -> str | None:
    """What is wrong with a message, if that is why it could not be sent."""
    return check_chat_message(msgspec.json.encode(message, enc_hook=to_plain))
