"""AG-UI as it is served here, described: see `gateway.front.described`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from gateway.front.ag_ui.messages import MOST_THINGS, Message
from gateway.front.ag_ui.run_input import Context, ResumeEntry, RunInput, Tool
from gateway.front.described import REF, AgentView, Json, Part, call, described, errors_of, ref
from protocol.events import MAX_ASKS
from protocol.tools import MAX_TOOLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PREFIX = "AGUIError"

_Tool: Any = described(Tool, "AGUITool", parameters=dict[str, Any] | None)
_Resume: Any = described(
    ResumeEntry, "AGUIResumeEntry", payload=Any, metadata=dict[str, Any] | None
)
_Context: Any = described(Context, "AGUIContext")

(_MESSAGE,), _PARTS_OF_MESSAGES = msgspec.json.schema_components(
    [Message], ref_template=REF.format(name="AGUI{name}")
)
_Messages: Any = Annotated[
    list[Any],
    Meta(min_length=1, max_length=MOST_THINGS, extra_json_schema={"items": _MESSAGE}),
]

RunAgentInput = described(
    RunInput,
    "AGUIRunAgentInput",
    needed="messages",
    messages=_Messages,
    tools=Annotated[list[_Tool], Meta(max_length=MAX_TOOLS)] | None,
    context=Annotated[list[_Context], Meta(max_length=MOST_THINGS)] | None,
    resume=Annotated[list[_Resume], Meta(max_length=MAX_ASKS)] | None,
    state=Any,
    forwarded_props=Any,
)

_STREAM = (
    "Server-Sent Events, each of which is an event of AG-UI 1.0. The first is RUN_STARTED, the "
    "last RUN_FINISHED or RUN_ERROR."
)

_EXAMPLE: Json = {
    "threadId": "thread-1",
    "runId": "run-1",
    "messages": [{"id": "m1", "role": "user", "content": "Hello"}],
}

_ERROR: Json = {
    "type": "object",
    "description": "What went wrong, as RUN_ERROR tells it.",
    "properties": {
        "message": {"type": "string"},
        "code": {"type": "string"},
        "metadata": {
            "type": "object",
            "description": "Which request it was. Further members tell more of some errors.",
            "properties": {
                "request_id": {"type": "string"},
                "output_begun": {"type": "boolean"},
            },
            "required": ["request_id"],
        },
    },
    "required": ["message", "code", "metadata"],
}


def describe(agents: Iterable[AgentView]) -> Part:
    """The paths of these agents."""
    return Part(
        paths={f"/ag-ui/{agent.name}": _path_of(agent) for agent in agents if agent.has("chat")},
        types=(RunAgentInput,),
        schemas={"AGUIError": _ERROR}
        | {f"AGUI{name}": schema for name, schema in _PARTS_OF_MESSAGES.items()},
        responses=errors_of(_PREFIX, _error),
        tags=({"name": "ag-ui", "description": "AG-UI 1.0, for user interfaces."},),
    )


def _path_of(agent: AgentView) -> Json:
    more = {} if agent.description is None else {"description": agent.description}
    operation = call(
        f"Run {agent.name}",
        ref(RunAgentInput),
        _EXAMPLE,
        {},
        stream=_STREAM,
        errors=_PREFIX,
        operationId=f"run_{agent.name}",
        tags=["ag-ui"],
        **more,
    )
    answered = operation["responses"]["200"]
    del answered["content"]["application/json"]
    answered["description"] = "The events of the run: every answer is a stream."
    return {"post": operation}


def _error(types: Sequence[str]) -> Json:
    return {"allOf": [ref("AGUIError"), {"properties": {"code": {"enum": list(types)}}}]}
