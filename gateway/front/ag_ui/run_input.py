"""From a `RunAgentInput` to a checked `Call`.

What the input has for the agent reaches it: messages, tools and answers in the form of the wire,
and the rest as members of the context:

    {"conversation_id": threadId, "run_id": runId, "parent_run_id": …, "state": …, "context": […],
     "forwarded_props": …}

Members that AG-UI 1.0 does not know are passed over, as it asks of whoever reads an input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.call import Call
from gateway.errors import InvalidRequest
from gateway.front.ag_ui.errors import refuse
from gateway.front.ag_ui.messages import MOST_THINGS, read_messages
from gateway.front.bodies import check_nesting, check_size, check_utf8, decode_body, readable
from gateway.front.dialect import MOST_CONVERSATION_ID, caller_timeout, conversation_of
from gateway.observe.tracecontext import read_trace_context
from protocol import on_one_line
from protocol.events import MAX_ASKS
from protocol.tools import MAX_TOOLS, check_resume, check_tools
from protocol.wording import read_mismatch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.front.dialect import RequestHead

_NULL = Raw(b"null")

_Name = Annotated[str, Meta(min_length=1, max_length=MOST_CONVERSATION_ID)]


class Tool(Struct, gc=False):
    """A tool that the client runs. Its `metadata` is for the client itself."""

    name: str
    description: str
    parameters: Raw = _NULL


class Context(Struct, gc=False):
    description: str
    value: str


class ResumeEntry(Struct, gc=False, rename="camel"):
    """An answer to a question that an earlier run has ended with."""

    interrupt_id: str
    status: Literal["resolved", "cancelled"]
    payload: Raw = _NULL
    metadata: dict[str, Raw] | None = None


class RunInput(Struct, kw_only=True, gc=False, rename="camel"):
    """A body, of which the parts are checked in a second step."""

    thread_id: _Name
    run_id: _Name
    parent_run_id: _Name | None = None
    protocol_version: str | None = None
    messages: Raw
    tools: Raw = _NULL
    context: Raw = _NULL
    resume: Raw = _NULL
    state: Raw = _NULL
    forwarded_props: Raw = _NULL


_decode = msgspec.json.Decoder(RunInput).decode
_LISTS = {
    "tools": msgspec.json.Decoder(Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None).decode,
    "context": msgspec.json.Decoder(
        Annotated[list[Context], Meta(max_length=MOST_THINGS)] | None
    ).decode,
    "resume": msgspec.json.Decoder(
        Annotated[list[ResumeEntry], Meta(max_length=MAX_ASKS)] | None
    ).decode,
}
_encode = msgspec.json.encode


class RunRequest(Struct, frozen=True, gc=False):
    """What the response needs of the request."""

    thread: str
    run: str
    parent: str | None
    tools: frozenset[str]
    """The names of the client's tools."""
    calls: Mapping[str, str | None]
    """As `Conversation` has them."""
    resumes: bool
    """Whether the request has answers to questions."""
    versioned: bool
    """Whether the client says which version it speaks: those before 1.0 have no word for that."""


def read_run(agent: str, head: RequestHead, body: bytes) -> tuple[Call, RunRequest]:
    """Check the body. Raises InvalidRequest and RequestTooLarge."""
    check_utf8(body)
    decoded: RunInput = decode_body(_decode, body, _refusal)
    check_nesting(body)
    conversation = read_messages(decoded.messages)
    payload = on_one_line(_encode(conversation.messages))
    tools, names = _read_tools(decoded)
    resume = _read_resume(decoded)
    thread = conversation_of(head, decoded.thread_id)
    context = _context_of(decoded)
    check_size(payload, context, more=len(tools or b"") + len(resume or b""))
    needs = set(conversation.modes)
    if tools is not None:
        needs.add("tools")
    if resume is not None:
        needs.add("asks")
    call = Call(
        agent=agent,
        method="chat",
        payload=payload,
        stream=True,
        context=context,
        conversation=thread,
        owner=head.owner,
        request_id=head.request_id,
        total=caller_timeout(head),
        events=True,
        tools=tools,
        resume=resume,
        trace=read_trace_context(head.fields),
        needs=frozenset(needs),
    )
    request = RunRequest(
        thread=decoded.thread_id,
        run=decoded.run_id,
        parent=decoded.parent_run_id,
        tools=names,
        calls=conversation.calls,
        resumes=resume is not None,
        versioned=decoded.protocol_version is not None,
    )
    return call, request


def _refusal(error: Exception) -> InvalidRequest:
    mismatch = read_mismatch(error)
    place = mismatch.path.lstrip(".") or mismatch.subject.strip("`")
    return InvalidRequest(readable(error), field=place[:80])


def _read_list(name: str, text: Raw) -> list[Any]:
    try:
        return _LISTS[name](text) or []
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(readable(error, name), field=name) from None


def _read_tools(body: RunInput) -> tuple[bytes | None, frozenset[str]]:
    """The tools as the wire has them, and their names."""
    tools = _read_list("tools", body.tools)
    if not tools:
        return None, frozenset()
    return _checked("tools", tools, check_tools), frozenset(tool.name for tool in tools)


def _read_resume(body: RunInput) -> bytes | None:
    answers = [_answer(entry) for entry in _read_list("resume", body.resume)]
    return _checked("resume", answers, check_resume) if answers else None


def _answer(entry: ResumeEntry) -> dict[str, Any]:
    answer: dict[str, Any] = {"id": entry.interrupt_id, "status": entry.status}
    if bytes(entry.payload) != b"null":
        answer["payload"] = entry.payload
    return answer if entry.metadata is None else {**answer, "metadata": entry.metadata}


def _checked(name: str, things: list[Any], check: Any) -> bytes:
    text = on_one_line(_encode(things))
    if (problem := check(text)) is not None:
        raise refuse(problem.removeprefix(f"{name}: "), name)
    return text


def _context_of(body: RunInput) -> bytes:
    """The context as a JSON text: what is absent, and what is as good as absent, is left out."""
    members: dict[str, Any] = {"conversation_id": body.thread_id, "run_id": body.run_id}
    if body.parent_run_id is not None:
        members["parent_run_id"] = body.parent_run_id
    if context := _read_list("context", body.context):
        members["context"] = context
    values = {"state": body.state, "forwarded_props": body.forwarded_props}
    members |= {name: value for name, value in values.items() if bytes(value) not in _NOTHING}
    return on_one_line(_encode(members))


_NOTHING = frozenset({b"null", b"{}"})
"""What AG-UI's client sends where its application has set nothing."""
