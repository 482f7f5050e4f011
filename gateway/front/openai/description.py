"""OpenAI's API as it is served here, described: see `gateway.front.described`.

The parameters are those of the two bodies; what is refused unless it asks for what is anyway is
described by the values that may stand there. What an item or a part may hold is checked where it is
read, and described in the README beside this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from msgspec import Meta

from gateway.front.described import (
    RUN,
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
from gateway.front.openai.chat_request import ChatBody
from gateway.front.openai.content import MODES, ChatMessage
from gateway.front.openai.parameters import Function, NamedChoice
from gateway.front.openai.response_request import ResponseBody
from gateway.front.openai.tools import FlatTool, Tool, ToolFunction
from protocol import Role
from protocol.tools import MAX_TOOLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PREFIX = "OpenAIError"

_Object: TypeAlias = dict[str, Any]

_Part: TypeAlias = Annotated[
    _Object,
    Meta(extra_json_schema={"properties": {"type": {"enum": list(MODES)}}, "required": ["type"]}),
]
"""As `content.modes_of` reads it."""

_Message: Any = described(
    ChatMessage,
    "OpenAIMessage",
    role=Role | Literal["developer"],
    content=str | list[_Part] | _Object | None,
)
_Choice: Any = described(NamedChoice, "OpenAINamedChoice", function=Function | None)
_Function: Any = described(ToolFunction, "OpenAIFunction", parameters=_Object | None)
_Tool: Any = described(Tool, "OpenAITool", type=Literal["function"], function=_Function)
_FlatTool: Any = described(
    FlatTool,
    "OpenAIResponsesTool",
    type=Literal["function"],
    name=_Function.__annotations__["name"],
    parameters=_Object | None,
    asynchronous=Literal[False] | None,
)

_SHARED: dict[str, Any] = {
    "tool_choice": Literal["none", "auto", "required"] | _Choice | None,
    "top_logprobs": Literal[0] | None,
    "moderation": None,
    "prompt_cache_options": Any,
}
ChatCompletion = described(
    ChatBody,
    "OpenAIChatCompletion",
    messages=Annotated[list[_Message], Meta(min_length=1)],
    tools=Annotated[list[_Tool], Meta(max_length=MAX_TOOLS)] | None,
    response_format=_Object | None,
    n=Literal[1] | None,
    logprobs=Annotated[bool | None, Meta(extra_json_schema={"enum": [False, None]})],
    modalities=Annotated[list[Literal["text"]], Meta(min_length=1, max_length=1)] | None,
    audio=None,
    functions=None,
    function_call=None,
    web_search_options=None,
    prediction=Any,
    **_SHARED,
)
CreateResponse = described(
    ResponseBody,
    "OpenAIResponseRequest",
    needed="input",
    input=str | list[_Object],
    instructions=str | None,
    tools=Annotated[list[_FlatTool], Meta(max_length=MAX_TOOLS)] | None,
    prompt=None,
    access_programs=None,
    context_management=None,
    background_options=Any,
    image=Any,
    stream_options=Any,
    text=Any,
    **_SHARED,
)

_COMPLETION: Json = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "chat.completion"},
        "created": {"type": "integer"},
        "model": {"type": "string"},
        "choices": {"type": "array", "items": {"type": "object"}},
        "usage": {"type": "object"},
    },
    "required": ["id", "object", "created", "model", "choices"],
}
_RESPONSE: Json = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "response"},
        "created_at": {"type": "integer"},
        "status": {
            "enum": ["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
        },
        "model": {"type": "string"},
        "output": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["id", "object", "created_at", "status", "model", "output"],
}
_MODEL: Json = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "object": {"const": "model"},
        "created": {"type": "integer"},
        "owned_by": {"type": "string"},
        "description": {"type": "string"},
    },
    "required": ["id", "object", "created", "owned_by"],
}
_MODELS: Json = {
    "type": "object",
    "properties": {"object": {"const": "list"}, "data": {"type": "array", "items": ref("Model")}},
    "required": ["object", "data"],
}

_CHUNKS = "Server-Sent Events, each a `chat.completion.chunk`, and `data: [DONE]` at the end."
_EVENTS = "Server-Sent Events of the types `response.…`, the last of which has the whole Response."


def describe(agents: Iterable[AgentView]) -> Part:
    """The paths of the dialect. The agents are its models."""
    models = [agent.name for agent in agents if agent.has("chat")]
    example = models[0] if models else "agent"
    model = {"properties": {"model": {"enum": models}}} if models else {}
    tags = {"tags": ["openai"]}
    return Part(
        paths={
            "/v1/models": {
                "get": _read("List the agents", "ModelList", tags, "list_models"),
            },
            "/v1/models/{model}": {
                "get": _read("Show an agent", "Model", tags, "get_model"),
                "parameters": [_in_path("model", models)],
            },
            "/v1/chat/completions": {
                "post": call(
                    "Chat with an agent",
                    {"allOf": [ref(ChatCompletion), model]},
                    {"model": example, "messages": [{"role": "user", "content": "Hello"}]},
                    ref("OpenAICompletion"),
                    stream=_CHUNKS,
                    errors=_PREFIX,
                    operationId="create_chat_completion",
                    **tags,
                )
            },
            "/v1/responses": {
                "post": call(
                    "Create a Response",
                    {"allOf": [ref(CreateResponse), model]},
                    {"model": example, "input": "Hello"},
                    ref("OpenAIResponse"),
                    stream=_EVENTS,
                    errors=_PREFIX,
                    operationId="create_response",
                    **tags,
                )
            },
            "/v1/responses/{response}": {
                "get": _kept("Show a Response that is kept", tags, "get_response"),
                "parameters": [_in_path("response", [])],
            },
            "/v1/responses/{response}/cancel": {
                "post": _kept("Cancel a Response that is kept", tags, "cancel_response"),
                "parameters": [_in_path("response", [])],
            },
        },
        types=(ChatCompletion, CreateResponse),
        schemas={
            "OpenAICompletion": _COMPLETION,
            "OpenAIResponse": _RESPONSE,
            "OpenAIError": _ERROR,
            "Model": _MODEL,
            "ModelList": _MODELS,
        },
        responses=errors_of(_PREFIX, _error),
        tags=({"name": "openai", "description": "OpenAI's API, with the agents as models."},),
    )


def _read(summary: str, schema: str, tags: Json, name: str) -> Json:
    return {
        "summary": summary,
        "operationId": name,
        **tags,
        "parameters": parameters("X-Request-Id"),
        "responses": {
            "200": {
                "description": "As OpenAI's API has it.",
                "headers": headers("X-Request-Id"),
                "content": {"application/json": {"schema": ref(schema)}},
            },
            **error_responses(_PREFIX, (400, 401, 403, 404, 405, 421, 429, 431, 500, 505)),
        },
    }


def _kept(summary: str, tags: Json, name: str) -> Json:
    operation = _read(summary, "OpenAIResponse", tags, name)
    responses = operation["responses"] | error_responses(_PREFIX, RUN)
    more = []
    if name == "get_response":
        responses["200"]["content"]["text/event-stream"] = {"schema": {"description": _EVENTS}}
        responses["204"] = {"description": "There are no more events."}
        more = [
            {"name": "stream", "in": "query", "schema": {"enum": ["true", "false"]}},
            {
                "name": "starting_after",
                "in": "query",
                "description": "The `sequence_number` of the last event that is known.",
                "schema": {"type": "integer", "minimum": 0},
            },
            *parameters("Last-Event-ID"),
        ]
    return {
        **operation,
        "parameters": [*operation["parameters"], *more],
        "responses": dict(sorted(responses.items())),
    }


def _in_path(name: str, values: Sequence[str]) -> Json:
    schema: Json = {"type": "string", "minLength": 1}
    if values:
        schema["examples"] = list(values)
    return {"name": name, "in": "path", "required": True, "schema": schema}


_ERROR: Json = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
                "request_id": {"type": "string"},
                "output_begun": {"type": "boolean"},
            },
            "required": ["message", "type", "param", "code", "request_id"],
        }
    },
    "required": ["error"],
}


def _error(types: Sequence[str]) -> Json:
    del types  # `code` may be a name of OpenAI's instead
    return ref("OpenAIError")
