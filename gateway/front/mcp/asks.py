"""An agent's questions as forms for the client's user, and the answers as the agent gets them.

A question ends the agent's turn; nobody waits for its answer. In the newest version of the protocol
the client sends the call again, with the answers and with a *state* that it cannot read anything
into: the state says which call by whose key the questions belong to, and is authenticated by a
secret of this process. So the answers to one call's questions cannot be given to another call, nor
by another key, and nothing is kept here meanwhile. In the older versions the client is asked while
its call goes on, and the agent is called anew with the answers.

A form is an object of plain values. A question whose schema is one is asked as it is; any other is
asked for one value, `answer`.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from gateway.errors import InvalidRequest
from gateway.front.mcp.schemas import plain_text
from protocol import on_one_line

if TYPE_CHECKING:
    from protocol import Outcome

    Json: TypeAlias = dict[str, Any]

STATE_SECONDS = 3600.0
"""For which questions may be answered: a person may be away from their desk."""

MOST_SCHEMA = 8 * 1024
"""Bytes of a question's schema that is looked at: a form has a few fields."""

MOST_FIELDS = 32

ANSWER = "answer"

_PLAIN = frozenset({"boolean", "integer", "number", "string"})
_encode = msgspec.json.encode


class Ask(Struct, gc=False):
    """A question, as `protocol.events.check_asks` has checked it."""

    id: str
    message: str
    schema: Raw | UnsetType = UNSET


class Form(Struct, frozen=True):
    """What the user is asked. `kind` says what of the answer the agent gets: the whole form, its
    one field, or the JSON value whose text this holds."""

    message: str
    schema: dict[str, Any]
    kind: Literal["whole", "field", "json"]


class _Reply(Struct, gc=False):
    """How the user answered."""

    action: Literal["accept", "decline", "cancel"]
    content: Raw = Raw(b"null")


class _State(Struct, frozen=True, gc=False, array_like=True):
    owner: str
    call: str
    until: float
    kinds: dict[str, str]


_decode_asks = msgspec.json.Decoder(list[Ask]).decode
_decode_any = msgspec.json.Decoder().decode
_decode_replies = msgspec.json.Decoder(dict[str, _Reply]).decode
_decode_field = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_state = msgspec.json.Decoder(_State).decode


def forms_of(outcome: Outcome | None) -> dict[str, Form]:
    """The forms for an answer's questions, by the ids of these; empty if it ended without any."""
    if outcome is None or outcome.asks is None or outcome.finish != "input_required":
        return {}
    return {ask.id: _form(ask) for ask in _decode_asks(outcome.asks)}


def _form(ask: Ask) -> Form:
    schema: object = None
    if isinstance(ask.schema, Raw) and len(text := bytes(ask.schema)) <= MOST_SCHEMA:
        try:
            schema = _decode_any(text)
        except (msgspec.MsgspecError, RecursionError):
            schema = None
    message = ask.message or "The agent asks for something."
    fields = _fields(schema)
    if fields is not None:
        required = schema.get("required") if isinstance(schema, dict) else None
        shown: Json = {"type": "object", "properties": fields}
        if isinstance(required, list):
            shown["required"] = [name for name in fields if name in required]
        return Form(message, shown, "whole")
    field = _field(schema)
    kind: Literal["field", "json"] = "field"
    if field is None:
        field = {"type": "string"}
        if isinstance(ask.schema, Raw):
            kind, field["description"] = "json", "A JSON value."
    return Form(
        message,
        {"type": "object", "properties": {ANSWER: field}, "required": [ANSWER]},
        kind,
    )


def _fields(schema: object) -> dict[str, Json] | None:
    """The fields of a schema that is a form already."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return None
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not 0 < len(properties) <= MOST_FIELDS:
        return None
    fields = {name: _field(each) for name, each in properties.items()}
    known = {name: each for name, each in fields.items() if each is not None}
    return known if len(known) == len(fields) else None


def _field(schema: object) -> Json | None:
    """The schema of one plain value; None: it is for something else."""
    if not isinstance(schema, dict) or schema.get("type") not in _PLAIN:
        return None
    kind = schema["type"]
    field: Json = {"type": kind}
    for key in ("title", "description"):
        if isinstance(text := schema.get(key), str):
            field[key] = plain_text(text)
    if kind == "string":
        choices = schema.get("enum")
        if isinstance(choices, list) and choices and all(isinstance(each, str) for each in choices):
            field["enum"] = list(dict.fromkeys(choices))
        if schema.get("format") in {"date", "date-time", "email", "uri"}:
            field["format"] = schema["format"]
        bounds: tuple[str, ...] = ("minLength", "maxLength")
    else:
        bounds = () if kind == "boolean" else ("minimum", "maximum")
    for key in bounds:
        bound = schema.get(key)
        if isinstance(bound, int) and not isinstance(bound, bool) and abs(bound) < 2**53:
            field[key] = bound
    return field


def resume_of(kinds: dict[str, str], responses: bytes) -> bytes:
    """The answers, an array as agents get it. `kinds` are the `Form.kind` of each question, and
    `responses` the client's, by the ids of the questions. Raises InvalidRequest."""
    try:
        replies = _decode_replies(responses)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(f"inputResponses: {str(error)[:200]}") from None
    if replies.keys() != kinds.keys():
        expected = ", ".join(repr(each) for each in kinds)
        raise InvalidRequest(f"inputResponses answers other questions, expected {expected}")
    return on_one_line(
        b"[%b]" % b",".join(_resumed(each, kinds[each], replies[each]) for each in kinds)
    )


def _resumed(ask: str, kind: str, reply: _Reply) -> bytes:
    if reply.action != "accept":
        return _encode({"id": ask, "status": "cancelled"})
    payload = bytes(reply.content)
    if kind != "whole":
        try:
            payload = bytes(_decode_field(payload)[ANSWER])
        except (msgspec.MsgspecError, KeyError):
            raise InvalidRequest(
                f"the answer to {ask!r} has no member {ANSWER!r} in its content"
            ) from None
    if kind == "json" and payload[:1] == b'"':
        payload = _read_json(payload)
    return _encode({"id": ask, "status": "resolved", "payload": Raw(payload)})


def _read_json(text: bytes) -> bytes:
    """What a JSON string holds, if that is JSON; else the string itself."""
    inner = msgspec.json.decode(text, type=str).encode("utf-8", "surrogatepass")
    try:
        msgspec.json.decode(inner, type=Raw)
    except (msgspec.MsgspecError, RecursionError):
        return text
    return inner


def digest_of(*parts: bytes) -> str:
    """What stands for a call in a state."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()


class States:
    """Makes the states of questions, and reads those that come back."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def make(self, owner: str, call: str, forms: dict[str, Form], now: float) -> str:
        """The state of questions for the caller `owner` about `call` (`digest_of`)."""
        kinds: dict[str, str] = {ask: form.kind for ask, form in forms.items()}
        text = _encode(_State(owner, call, now + STATE_SECONDS, kinds))
        return urlsafe_b64encode(self._sign(text) + text).decode()

    def read(self, state: str, owner: str, call: str, now: float) -> dict[str, str]:
        """The kinds of the questions' forms, by their ids. Raises InvalidRequest."""
        try:
            signed = urlsafe_b64decode(state.encode("ascii"))
        except ValueError:
            signed = b""
        text = signed[32:]
        if not hmac.compare_digest(signed[:32], self._sign(text)):
            raise InvalidRequest(
                "requestState is not of this gateway, or it was restarted since; "
                "make the call anew, without it"
            )
        known = _decode_state(text)
        if known.owner != owner or known.call != call:
            raise InvalidRequest("requestState is of another call; expected its tool and arguments")
        if known.until <= now:
            raise InvalidRequest(
                "the questions are too old; make the call anew, without requestState"
            )
        return known.kinds

    def _sign(self, text: bytes) -> bytes:
        return hmac.digest(self._secret, text, "sha256")
