"""Descriptions (OpenAPI 3.1) of what dialects read and write: parts from which `docs` makes the
whole document.

A body is described by the very Struct that checks it. Members that the Struct keeps as they came
(`Raw`) are checked in a second step by another type, which is named here beside them: `described`
fails for a member that has neither. tests/unit/test_described.py holds that what a description
allows and what the check accepts are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, TypeAlias, get_args

import msgspec
from msgspec import NODEFAULT, UNSET, Raw, Struct, UnsetType

from gateway.errors import GatewayError

Json: TypeAlias = dict[str, Any]

REF = "#/components/schemas/{name}"


class AgentView(Struct, frozen=True):
    """What is told of one agent. The schemas are those of an invoke, fit to be embedded."""

    name: str
    description: str | None = None
    handlers: tuple[str, ...] | None = None
    """None: not known yet."""
    input: Json | bool | None = None
    output: Json | bool | None = None

    def has(self, handler: str) -> bool:
        """Whether the agent has the handler, as far as is known."""
        return self.handlers is None or handler in self.handlers


class Part(Struct, frozen=True):
    """What one dialect adds to the document."""

    paths: Json
    types: Sequence[type[Struct]] = ()
    schemas: Json = {}
    responses: Json = {}
    tags: Sequence[Json] = ()


def described(
    checked: type[Struct], name: str, /, needed: str = "", **members: Any
) -> type[Struct]:
    """A Struct that describes the same as `checked` does, named `name`. `members` are the types of
    those that `checked` keeps as they came, or that a later step allows less of; `needed` is one
    that a later step requires."""
    fields: list[Any] = []
    for field in msgspec.structs.fields(checked):
        kind = members.pop(field.name, field.type)
        kept = {kind, *get_args(kind)}
        if kept & {Raw, UnsetType}:
            raise TypeError(f"nothing describes {checked.__name__}.{field.name}")
        required = field.required or field.default is UNSET or field.name == needed
        default = None if isinstance(field.default, Raw) else field.default
        if field.default_factory is not NODEFAULT:
            default = field.default_factory()
        declared = (field.name, kind) if required else (field.name, kind, default)
        if field.encode_name != field.name:
            described_field = msgspec.field(
                default=NODEFAULT if required else default, name=field.encode_name
            )
            declared = (field.name, kind, described_field)
        fields.append(declared)
    if members:
        raise TypeError(f"{checked.__name__} has no {', '.join(members)}")
    forbids = checked.__struct_config__.forbid_unknown_fields
    return msgspec.defstruct(name, fields, kw_only=True, forbid_unknown_fields=forbids)


def ref(kind: type[Struct] | str) -> Json:
    """A reference to the schema of a type."""
    return {"$ref": REF.format(name=kind if isinstance(kind, str) else kind.__name__)}


@cache
def error_types() -> dict[int, list[str]]:
    """The types of errors by their status, of all that there are."""
    found: dict[int, set[str]] = {}
    for kind in _kinds(GatewayError):
        found.setdefault(kind.status, set()).add(kind.type)
    return {status: sorted(types) for status, types in sorted(found.items())}


def _kinds(kind: type[GatewayError]) -> Iterator[type[GatewayError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


REASONS = {
    400: "The request is wrong; the message says where.",
    401: "No key, or one that is not good.",
    403: "The key may not be used for this.",
    404: "There is no such agent, run or path.",
    405: "The method is not supported here.",
    408: "The body did not come in time.",
    410: "What was there is not kept any more.",
    413: "The body is too large.",
    415: "The body is not JSON in UTF-8.",
    421: "The gateway does not answer for this host.",
    422: "The Idempotency-Key was used for another request.",
    429: "A limit of the caller's, or of the agent, is reached.",
    431: "The head of the request is too large.",
    499: "The run was cancelled.",
    500: "The handler failed and said so (`agent_error`), or there is a defect of the gateway.",
    501: "There is no such handler, or its worker ended (`worker_crashed`).",
    502: "The worker wrote something that is not the protocol.",
    503: "Nothing can take the request now; `Retry-After` says when.",
    504: "A clock of the agent's settings ran out; `clock` says which.",
    505: "The version of HTTP is not supported.",
}
"""What each status of an error means."""

ANY_ROUTE = (400, 401, 403, 404, 405, 421, 429, 431, 500, 505)
"""Statuses of errors that every path may respond with."""

CALL = (*ANY_ROUTE, 408, 410, 413, 415, 422, 499, 501, 502, 503, 504)
"""Those of a path that calls an agent."""

RUN = (*ANY_ROUTE, 408, 410, 413, 499, 501, 502, 503, 504)
"""Those of the path of a run."""


def error_responses(prefix: str, statuses: Sequence[int]) -> Json:
    """References to the responses that `errors_of` makes, by status."""
    known = error_types()
    return {
        str(status): {"$ref": f"#/components/responses/{prefix}{status}"}
        for status in sorted(statuses)
        if status in known
    }


def errors_of(
    prefix: str, schema: Callable[[Sequence[str]], Json], *, kind: str = "application/json"
) -> Json:
    """The responses of one dialect to all errors, where `schema` gives what the body, of the media
    type `kind`, is for errors of some types."""
    return {
        f"{prefix}{status}": {
            "description": REASONS[status],
            "headers": headers("X-Request-Id", *_HEADERS_OF.get(status, ())),
            "content": {kind: {"schema": schema(types)}},
        }
        for status, types in error_types().items()
    }


LIMITED = ("RateLimit", "RateLimit-Policy")
"""Headers where the caller or the agent has a limit."""

_HEADERS_OF = {
    401: ("WWW-Authenticate",),
    405: ("Allow",),
    429: ("Retry-After", *LIMITED),
    500: ("X-Should-Retry",),
    501: ("X-Should-Retry",),
    502: ("X-Should-Retry",),
    503: ("Retry-After", "X-Should-Retry"),
    504: ("X-Should-Retry",),
}


def headers(*names: str) -> Json:
    """References to headers of responses, which `docs` describes."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def parameters(*names: str) -> list[Json]:
    """References to header fields of requests, which `docs` describes."""
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


CALL_PARAMETERS = (
    "X-Request-Id",
    "X-Conversation-Id",
    "X-Timeout",
    "Idempotency-Key",
    "Prefer",
    "Last-Event-ID",
    "traceparent",
)
"""Header fields that count where an agent is called."""


def call(
    summary: str,
    body: Json,
    example: Any,
    answer: Json,
    *,
    stream: str,
    errors: str,
    **more: Any,
) -> Json:
    """The operation that calls an agent. `stream` says what its events are, and `errors` is the
    prefix of the dialect's error responses."""
    answered = headers("X-Request-Id", "X-Run-Id", "X-Agent-Session", *LIMITED)
    content: Json = {"schema": body}
    if example is not None:
        content["example"] = example
    return {
        "summary": summary,
        **more,
        "parameters": parameters(*CALL_PARAMETERS),
        "requestBody": {"required": True, "content": {"application/json": content}},
        "responses": {
            "200": {
                "description": "The answer, whole or, if the body asks for it, as a stream.",
                "headers": answered,
                "content": {
                    "application/json": {"schema": answer},
                    "text/event-stream": {"schema": {"description": stream}},
                },
            },
            "202": {
                "description": "A run has begun, as `Prefer: respond-async` asked.",
                "headers": {**answered, **headers("Location", "Retry-After", "Preference-Applied")},
                "content": {"application/json": {"schema": ref("Run")}},
            },
            "204": {
                "description": "`Last-Event-ID` is that of the last event: nothing more comes.",
                "headers": answered,
            },
            **error_responses(errors, CALL),
        },
    }


def components(types: Sequence[type[Struct]]) -> dict[str, Json]:
    """The schemas of types, and of all that they refer to, by name."""
    _, found = msgspec.json.schema_components(types, ref_template=REF)
    return {name: _without_null_defaults(schema) for name, schema in found.items()}


def _without_null_defaults(schema: Any) -> Any:
    """A member that may be missing is not there by default, which is not the same as null."""
    if isinstance(schema, list):
        return [_without_null_defaults(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _without_null_defaults(value)
        for name, value in schema.items()
        if name != "default" or value is not None
    }
