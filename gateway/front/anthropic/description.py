"""Anthropic's API as it is served here, described: see `gateway.front.described`.

The parameters are those of the body; what is refused unless it asks for what is anyway is described
by the values that may stand there. What a content block may hold is checked where it is read, and
described in the README beside this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from gateway.front.anthropic.conversation import Turn
from gateway.front.anthropic.models import MOST_AT_ONCE
from gateway.front.anthropic.parameters import Format, MessagesBody, OutputConfig
from gateway.front.anthropic.request import KNOWN_VERSIONS, VERSION
from gateway.front.anthropic.tools import Tool, ToolChoice
from gateway.front.chats.tools import ToolName
from gateway.front.described import (
    ANY_ROUTE,
    AgentView,
    Json,
    Part,
    call,
    described,
    error_responses,
    errors_of,
    headers,
    parameters,
    ref,
)
from protocol.tools import MAX_TOOLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PREFIX = "AnthropicError"

_Object: TypeAlias = dict[str, Any]

_Block: TypeAlias = Annotated[
    _Object,
    Meta(extra_json_schema={"properties": {"type": {"type": "string"}}, "required": ["type"]}),
]
_Text: TypeAlias = Annotated[
    _Object,
    Meta(
        extra_json_schema={
            "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
            "required": ["type", "text"],
        }
    ),
]

_Turn: Any = described(Turn, "AnthropicTurn", content=str | list[_Block])
_Tool: Any = described(
    Tool,
    "AnthropicTool",
    needed="name",
    name=ToolName,
    type=Literal["custom"] | None,
    input_schema=_Object,
)
_Format: Any = described(Format, "AnthropicFormat", schema=_Object)
_Output: Any = described(
    OutputConfig, "AnthropicOutputConfig", format=_Format | None, task_budget=Any
)
_Choice: Any = described(ToolChoice, "AnthropicToolChoice")

CreateMessage = described(
    MessagesBody,
    "AnthropicMessageRequest",
    messages=Annotated[list[_Turn], Meta(min_length=1)],
    system=str | list[_Text] | None,
    tools=Annotated[list[_Tool], Meta(max_length=MAX_TOOLS)] | None,
    tool_choice=_Choice | None,
    output_config=_Output | None,
    output_format=_Format | None,
    compaction=None,
    container=None,
    fallback_credit_token=None,
    fallbacks=Literal["default"] | Annotated[list[Any], Meta(max_length=0)] | None,
    inference_geo=None,
    mcp_servers=Annotated[list[Any], Meta(max_length=0)] | None,
    thread=None,
    billing_policy=Any,
    cache_control=Any,
    context_management=Any,
    diagnostics=Any,
)

_MESSAGE: Json = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "type": {"const": "message"},
        "role": {"const": "assistant"},
        "model": {"type": "string"},
        "content": {"type": "array", "items": {"type": "object"}},
        "stop_reason": {"enum": ["end_turn", "max_tokens", "tool_use", "refusal"]},
        "stop_sequence": {"type": "null"},
        "usage": {
            "type": "object",
            "properties": {
                "input_tokens": {"type": "integer"},
                "output_tokens": {"type": "integer"},
            },
            "required": ["input_tokens", "output_tokens"],
        },
    },
    "required": ["id", "type", "role", "model", "content", "stop_reason", "usage"],
}
_MODEL: Json = {
    "type": "object",
    "properties": {
        "type": {"const": "model"},
        "id": {"type": "string"},
        "display_name": {"type": "string"},
        "created_at": {"type": "string", "format": "date-time"},
        "lifecycle": {"const": "active"},
        "description": {"type": "string"},
    },
    "required": ["type", "id", "display_name", "created_at", "lifecycle"],
}
_MODELS: Json = {
    "type": "object",
    "properties": {
        "data": {"type": "array", "items": ref("AnthropicModel")},
        "has_more": {"type": "boolean"},
        "first_id": {"type": ["string", "null"]},
        "last_id": {"type": ["string", "null"]},
    },
    "required": ["data", "has_more", "first_id", "last_id"],
}
_ERROR: Json = {
    "type": "object",
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "details": {
                    "type": "object",
                    "properties": {
                        "error_code": {"type": "string"},
                        "param": {"type": "string"},
                        "output_begun": {"type": "boolean"},
                    },
                    "required": ["error_code"],
                },
            },
            "required": ["type", "message", "details"],
        },
        "request_id": {"type": "string"},
    },
    "required": ["type", "error", "request_id"],
}

_EVENTS = "Server-Sent Events from `message_start` to `message_stop`, or to an `error`."


def describe(agents: Iterable[AgentView]) -> Part:
    """The paths of the dialect. The agents are its models."""
    models = [agent.name for agent in agents if agent.has("chat")]
    model = {"properties": {"model": {"enum": models}}} if models else {}
    example = {
        "model": models[0] if models else "agent",
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    create = call(
        "Create a Message",
        {"allOf": [ref(CreateMessage), model]},
        example,
        ref("AnthropicMessage"),
        stream=_EVENTS,
        errors=_PREFIX,
        operationId="create_message",
        tags=["anthropic"],
    )
    create["parameters"] = [*create["parameters"], _VERSION]
    return Part(
        paths={
            "/v1/messages": {"post": create},
            "/v1/models": {"get": _read("List the agents", "AnthropicModelList", "list_models")},
            "/v1/models/{model}": {
                "get": _read("Show an agent", "AnthropicModel", "get_model"),
                "parameters": [_model_in_path(models)],
            },
        },
        types=(CreateMessage,),
        schemas={
            "AnthropicMessage": _MESSAGE,
            "AnthropicModel": _MODEL,
            "AnthropicModelList": _MODELS,
            "AnthropicError": _ERROR,
        },
        responses=errors_of(_PREFIX, lambda _: ref("AnthropicError")),
        tags=({"name": "anthropic", "description": "Anthropic's Messages, for all agents."},),
    )


_VERSION: Json = {
    "name": VERSION.decode(),
    "in": "header",
    "required": True,
    "description": "The version of Anthropic's API, whose clients all send it.",
    "schema": {"enum": list(KNOWN_VERSIONS)},
}
_ANY_VERSION: Json = {
    **_VERSION,
    "required": False,
    "description": "A client that sends it is answered as Anthropic's API does.",
    "schema": {"type": "string"},
}


def _read(summary: str, schema: str, name: str) -> Json:
    limit = {"type": "integer", "minimum": 1, "maximum": MOST_AT_ONCE}
    pages = [
        {"name": "limit", "in": "query", "schema": limit},
        {"name": "after_id", "in": "query", "schema": {"type": "string"}},
        {"name": "before_id", "in": "query", "schema": {"type": "string"}},
    ]
    return {
        "summary": summary,
        "operationId": name,
        "tags": ["anthropic"],
        "parameters": [
            *parameters("X-Request-Id"),
            _ANY_VERSION,
            *(pages if name == "list_models" else []),
        ],
        "responses": {
            "200": {
                "description": "As Anthropic's API has it.",
                "headers": headers("X-Request-Id"),
                "content": {"application/json": {"schema": ref(schema)}},
            },
            **error_responses(_PREFIX, ANY_ROUTE),
        },
    }


def _model_in_path(models: Sequence[str]) -> Json:
    schema: Json = {"type": "string", "minLength": 1}
    if models:
        schema["examples"] = list(models)
    return {"name": "model", "in": "path", "required": True, "schema": schema}
