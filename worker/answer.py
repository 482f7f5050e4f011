"""What handlers return, yield and raise, turned into what the wire carries.

Pure: checks and encodes, and raises errors in words for an agent's author. Runs no handlers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from protocol import ErrorCode, LocalProtocolError, Method
from protocol.worker_side import WorkerConnection

from .context import InvalidInput

MAX_ERROR_TEXT = 4096
"""Characters of an exception's text that a caller is told: some quote their whole input. All of it
is on stderr."""

_HAS_NO_JSON_FORM = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)


def encode_answer(
    connection: WorkerConnection, request_id: int, method: Method, result: object
) -> bytes:
    """The line that answers a request with what its handler returned.

    Raises TypeError or ValueError, in words for the agent's author, when it cannot be the answer.
    """
    if method == "chat" and isinstance(result, str):
        result = {"role": "assistant", "content": result}
    send: Callable[[int, object], bytes] = (
        connection.send_message if method == "chat" else connection.send_output
    )
    try:
        try:
            return send(request_id, result)
        except TypeError:
            return send(request_id, msgspec.to_builtins(result, enc_hook=_dump_model))
    except LocalProtocolError as error:
        raise ValueError(f"the {method} handler's answer cannot be sent: {error}") from None
    except _HAS_NO_JSON_FORM as error:
        raise TypeError(f"the {method} handler's answer cannot be sent as JSON: {error}") from error


def chunk_encoder(
    connection: WorkerConnection, request_id: int, method: Method
) -> Callable[[object], bytes]:
    """A function that gives the line for one value that a generator yielded.

    It raises TypeError unless that is a string, and ValueError when it cannot be sent.
    """
    send = connection.chunk_sender(request_id)

    def encode(chunk: object) -> bytes:
        if type(chunk) is not str:
            if not isinstance(chunk, str):
                raise TypeError(f"the {method} handler yielded {_describe(chunk)}, expected str")
            chunk = str.__str__(chunk)
        try:
            return send(chunk)
        except (UnicodeEncodeError, LocalProtocolError) as error:
            raise ValueError(f"a chunk of the {method} handler cannot be sent: {error}") from error

    return encode


def explain_exception(error: BaseException) -> tuple[int, str]:
    """The code and the text that a caller is told of an exception.

    A group of one, which task groups make of any exception, is taken for that one.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  (an agent's own class may have any defect)
        text = ""
    if isinstance(error, InvalidInput):
        return ErrorCode.INVALID_INPUT, _presentable(text or "the agent refused its input")
    kind = type(error).__name__
    return ErrorCode.INTERNAL, _presentable(f"{kind}: {text}" if text else kind)


def _presentable(text: str) -> str:
    if len(text) > MAX_ERROR_TEXT:
        text = f"{text[:MAX_ERROR_TEXT]}…"
    return text.encode("utf-8", "backslashreplace").decode()


def _dump_model(value: Any) -> object:
    """Pydantic's models are taken as they are, without importing Pydantic."""
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(f"{_describe(value)} has no JSON form")
    return dump(mode="json")


def _describe(value: object) -> str:
    return "None" if value is None else type(value).__name__
