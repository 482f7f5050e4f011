"""The whole document: OpenAPI 3.1 for what one caller may see. Pure."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from gateway.agents.status import AgentState, AgentStatus, AgentSummary, HostStatus
from gateway.front.described import (
    ANY_ROUTE,
    RUN,
    Json,
    components,
    described,
    error_responses,
    headers,
    parameters,
    ref,
)
from gateway.front.docs.sharing import paths_of
from gateway.front.native.description import open_bodies

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from msgspec import Struct

    from gateway.front.described import AgentView, Part

    Describe = Callable[[Sequence[AgentView]], Part]

_PREFIX = "Error"


class _Status(AgentStatus, frozen=True, kw_only=True):
    """The status of an agent, here or at a front."""

    hosts: list[HostStatus] | None = None


Status = described(
    _Status,
    "AgentStatus",
    metadata=dict[str, Any],
    input=dict[str, Any] | bool | None,
    output=dict[str, Any] | bool | None,
)
Summary = described(AgentSummary, "AgentSummary")

_STATES: Json = {
    "type": "object",
    "additionalProperties": {"enum": [state.value for state in AgentState]},
}

_SCHEMAS: Json = {
    "AgentList": {
        "type": "object",
        "properties": {"agents": {"type": "array", "items": ref(Summary)}},
        "required": ["agents"],
    },
    "AgentHealth": {
        "type": "object",
        "properties": {
            "status": {"enum": ["healthy", "unhealthy"]},
            "state": {"enum": [state.value for state in AgentState]},
        },
        "required": ["status", "state"],
    },
    "Health": {
        "type": "object",
        "properties": {
            "status": {"enum": ["healthy", "unhealthy"]},
            "agents": {"type": "array", "items": {"type": "string"}},
            "states": _STATES,
        },
        "required": ["status", "agents", "states"],
    },
    "Readiness": {
        "type": "object",
        "properties": {"status": {"enum": ["ready", "not ready"]}, "agents": _STATES},
        "required": ["status", "agents"],
    },
    "Liveness": {
        "type": "object",
        "properties": {"status": {"const": "live"}},
        "required": ["status"],
    },
    "Run": {
        "type": "object",
        "description": "A request that goes on without its client.",
        "properties": {
            "id": {"type": "string"},
            "state": {"enum": ["queued", "running", "completed", "failed", "cancelled"]},
            "agent": {"type": "string"},
            "request_id": {"type": "string"},
            "events": {
                "type": "object",
                "properties": {"first": {"type": "integer"}, "next": {"type": "integer"}},
            },
            "answer": {
                "type": "object",
                "description": "The response that the request had, or would have had.",
                "properties": {
                    "status": {"type": "integer"},
                    "headers": {"type": "object"},
                    "body": True,
                },
            },
            "error": {"type": "object"},
            "expires_in": {"type": "integer"},
        },
        "required": ["id", "state", "agent", "request_id"],
    },
}


def _field(description: str, **schema: Any) -> Json:
    return {"description": description, "schema": {"type": "string"} | schema}


_PARAMETERS: Json = {
    name: {"name": name, "in": "header", **field}
    for name, field in {
        "X-Request-Id": _field(
            "Names the request in the log and in its response; one that is not 1 to 128 visible "
            "ASCII characters is replaced."
        ),
        "X-Conversation-Id": _field(
            "The conversation that the request belongs to, if the body does not say.",
            maxLength=256,
        ),
        "X-Timeout": _field(
            "Seconds that the caller is ready to wait.", type="number", exclusiveMinimum=0
        ),
        "Idempotency-Key": _field(
            "The same request under the same key runs once.",
            minLength=1,
            maxLength=255,
            pattern="^[ -~]+$",
        ),
        "Prefer": _field("`respond-async`: be answered at once, and told where the run is."),
        "Last-Event-ID": _field(
            "The id of the last event that the client has of the run's stream: a number."
        ),
        "traceparent": _field("W3C Trace Context; one that is invalid is ignored."),
    }.items()
}

_HEADERS: Json = {
    "X-Request-Id": _field("The request's name in the log."),
    "X-Run-Id": _field("The run that the request is, if it is one."),
    "X-Agent-Session": _field(
        "Whether the worker still has what the conversation built up.",
        enum=["new", "kept", "lost"],
    ),
    "X-Should-Retry": _field("`false`: the agent may have read the request already."),
    "Retry-After": _field("Seconds.", type="integer", minimum=0),
    "RateLimit": _field("What is left of the caller's limits, or of the agent's."),
    "RateLimit-Policy": _field("These limits."),
    "Location": _field("Where the run is."),
    "Preference-Applied": _field("`respond-async`"),
    "Allow": _field("The methods that are supported."),
    "WWW-Authenticate": _field("How to present a key."),
}

_SECURITY: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of the gateway's."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}


def make_document(
    agents: Sequence[AgentView],
    dialects: Sequence[Describe],
    *,
    version: str,
    keys: bool,
    metrics: bool,
) -> Json:
    """The document for these agents. `dialects` describe their parts, the last one first. `keys`: a
    key is needed. `metrics`: they are served."""
    parts = [describe(agents) for describe in reversed(dialects)]
    schemas = dict(_of_types(tuple(each for part in parts for each in part.types)))
    for part in parts:
        schemas |= part.schemas
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Agents",
            "version": version,
            "summary": "Agents served over HTTP",
        },
        "tags": [*_tags(parts), {"name": "runs"}, {"name": "status"}],
        "paths": {
            **paths_of(parts),
            **_runs(),
            **_status(agents),
            **(_METRICS if metrics else {}),
        },
        "components": {
            "schemas": {**schemas, **_SCHEMAS},
            "responses": {key: each for part in parts for key, each in part.responses.items()},
            "parameters": _PARAMETERS,
            "headers": _HEADERS,
        },
    }
    if keys:
        document["components"]["securitySchemes"] = _SECURITY
        document["security"] = [{"bearer": []}, {"key": []}]
        for path in ("/live", "/ready"):
            document["paths"][path]["get"]["security"] = []
    return document


@cache
def _of_types(types: tuple[type[Struct], ...]) -> Json:
    """Never changed: making them takes a tenth of a second."""
    found = components([Status, Summary, *types])
    open_bodies(found)
    return found


def _tags(parts: Sequence[Part]) -> list[Json]:
    return [tag for part in parts for tag in part.tags]


def _get(summary: str, schema: Json, name: str, *, tag: str = "status", also: int = 0) -> Json:
    """An operation that shows something, which is there with the status `also` as well."""
    shown = {
        "headers": headers("X-Request-Id"),
        "content": {"application/json": {"schema": schema}},
    }
    errors = error_responses(_PREFIX, [each for each in ANY_ROUTE if each != also])
    states = {"200": {"description": "As asked for.", **shown}}
    if also:
        states[str(also)] = {"description": "The same, while it is not well.", **shown}
    return {
        "summary": summary,
        "operationId": name,
        "tags": [tag],
        "parameters": parameters("X-Request-Id"),
        "responses": dict(sorted({**errors, **states}.items())),
    }


def _status(agents: Sequence[AgentView]) -> Json:
    name = {
        "name": "name",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "examples": [each.name for each in agents]},
    }
    return {
        "/agents": {"get": _get("List the agents", ref("AgentList"), "list_agents")},
        "/agent/{name}": {
            "get": _get("Show an agent", ref(Status), "get_agent"),
            "parameters": [name],
        },
        "/agent/{name}/health": {
            "get": _get("How an agent is", ref("AgentHealth"), "get_agent_health", also=503),
            "parameters": [name],
        },
        "/health": {"get": _get("How all agents are", ref("Health"), "get_health", also=503)},
        "/live": {"get": _get("Whether the gateway runs", ref("Liveness"), "get_live")},
        "/ready": {
            "get": _get("Whether to send requests here", ref("Readiness"), "get_ready", also=503)
        },
        "/openapi.json": {
            "get": _get("This document", {"type": "object"}, "get_description"),
        },
    }


_METRICS: Json = {
    "/metrics": {
        "get": {
            "summary": "Metrics for Prometheus",
            "operationId": "get_metrics",
            "tags": ["status"],
            "parameters": parameters("X-Request-Id"),
            "responses": {
                "200": {
                    "description": "In Prometheus' text format, or OpenMetrics'.",
                    "headers": headers("X-Request-Id"),
                    "content": {
                        "text/plain": {"schema": {"type": "string"}},
                        "application/openmetrics-text": {"schema": {"type": "string"}},
                    },
                },
                **error_responses(_PREFIX, ANY_ROUTE),
            },
        }
    }
}


def _runs() -> Json:
    run = {
        "name": "run",
        "in": "path",
        "required": True,
        "description": "The `X-Run-Id` of a response.",
        "schema": {"type": "string", "minLength": 1},
    }
    show = _get("Show a run, or read its stream", ref("Run"), "get_run", tag="runs")
    show["responses"]["200"]["content"]["text/event-stream"] = {
        "schema": {"description": "The run's events, as `Accept` asked for."}
    }
    show["responses"] |= {
        "204": {"description": "There are no more events."},
        **error_responses(_PREFIX, RUN),
    }
    show["parameters"] = [*show["parameters"], *parameters("Last-Event-ID")]
    cancel = _get("Cancel a run", ref("Run"), "cancel_run", tag="runs")
    cancel["responses"] |= error_responses(_PREFIX, RUN)
    return {
        "/runs/{run}": {"get": show, "parameters": [run]},
        "/runs/{run}/cancel": {"post": cancel, "parameters": [run]},
    }
