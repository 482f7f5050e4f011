"""From a message that goes on with a task to the `Call` that does.

A task waits for its client either with questions (`asks`), to which a message holds the answers, or
with calls of the client's tools, of which it holds the results. One that waits for one thing is
answered by a text or by data; for more, or to withdraw a question, the message is one part of data:

    {"resume": [{"id": "a1", "status": "resolved", "payload": true}]}
    {"toolResults": [{"call": "c1", "content": "12 °C"}]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import Call
from gateway.front.a2a.errors import UNSUPPORTED_OPERATION, invalid, refuse
from gateway.front.a2a.task import INPUT_REQUIRED, TERMINAL
from gateway.front.bodies import check_size
from gateway.front.dialect import caller_timeout
from gateway.observe.tracecontext import read_trace_context
from protocol import on_one_line
from protocol.tools import check_resume

if TYPE_CHECKING:
    from gateway.front.a2a.sending import Sent
    from gateway.front.a2a.task import Pending, Record
    from gateway.front.dialect import RequestHead

PARTS = "message.parts"

_QUOTE = ord('"')

_encode = msgspec.json.encode


class _Ask(Struct, gc=False):
    id: str


class _Answer(Struct, gc=False):
    resume: Raw = Raw(b"null")


class _Answered(Struct, gc=False):
    id: str


class _Result(Struct, gc=False, rename="camel"):
    call: str
    content: Raw = Raw(b"null")


class _Results(Struct, gc=False, rename="camel"):
    tool_results: list[_Result] | None = None


_decode_asks = msgspec.json.Decoder(list[_Ask]).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_answered = msgspec.json.Decoder(list[_Answered]).decode
_decode_results = msgspec.json.Decoder(_Results).decode
_decode_messages = msgspec.json.Decoder(list[Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode


def go_on(head: RequestHead, agent: str, sent: Sent, record: Record) -> Call:
    """The call that goes on with a task. Raises InvalidRequest and RequestTooLarge."""
    task = record.task
    if sent.message.context_id not in {None, "", task.context}:
        raise invalid("message.contextId is not the context of the task", "message.contextId")
    if task.state in TERMINAL:
        raise refuse(
            UNSUPPORTED_OPERATION,
            f"the task is over ({task.state}); begin another one in its context",
        )
    if task.state != INPUT_REQUIRED:
        raise refuse(UNSUPPORTED_OPERATION, f"the task waits for nobody ({task.state})")
    pending = record.waits_for
    if pending is None:
        raise refuse(
            UNSUPPORTED_OPERATION,
            "the messages of the task were too long to be kept; begin another one in its context",
        )
    payload, resume = bytes(pending.payload), None
    tools = sent.tools.wire or _given(pending.tools)
    if _given(pending.asks) is not None:
        resume = _resume(bytes(pending.asks), sent)
    else:
        payload = _with_results(pending, sent)
    context = _context(pending, sent)
    check_size(payload, context, more=len(tools or b"") + len(resume or b""))
    needs = {"asks"} if resume is not None else set()
    return Call(
        agent=agent,
        method="invoke" if pending.method == "invoke" else "chat",
        payload=payload,
        stream=True,
        context=context,
        conversation=task.context,
        owner=head.owner,
        request_id=head.request_id,
        total=caller_timeout(head),
        events=True,
        tools=tools,
        resume=resume,
        trace=read_trace_context(head.fields),
        needs=frozenset(needs | ({"tools"} if tools is not None else set())),
        continues=True,
    )


def _given(value: Raw) -> bytes | None:
    text = bytes(value)
    return None if text == b"null" else text


def _context(pending: Pending, sent: Sent) -> bytes:
    """The context of the call before, with what the new message has to say beside its parts."""
    members = _decode_members(pending.context)
    parameters = _decode_members(members.get("parameters", b"{}"))
    told = {**parameters, "message_id": sent.message.message_id}
    custom = {"custom": sent.custom} if sent.custom else {}
    return on_one_line(_encode({**members, **custom, "parameters": told}))


def _payload(sent: Sent) -> bytes | None:
    """The one thing that a message says, a JSON text; None if it says more, or has files."""
    content = sent.content
    if content.is_data:
        return content.data[0]
    if len(content.texts) == len(content.parts):
        return on_one_line(_encode("\n\n".join(content.texts)))
    return None


def _resume(asks: bytes, sent: Sent) -> bytes:
    ids = [ask.id for ask in _decode_asks(asks)]
    resume = _member(sent, _decode_answer)
    if resume is not None and _given(resume.resume) is not None:
        wire = bytes(resume.resume)
    elif len(ids) == 1 and (payload := _payload(sent)) is not None:
        wire = b'[{"id":%b,"status":"resolved","payload":%b}]' % (_encode(ids[0]), payload)
    else:
        raise invalid(
            f"{PARTS}: the task waits for answers to {', '.join(ids)}; expected one part of data, "
            '{"resume": [{"id": …, "status": "resolved", "payload": …}]}',
            PARTS,
        )
    if (problem := check_resume(wire)) is not None:
        raise invalid(f"{PARTS}: {problem}", PARTS)
    for answered in _decode_answered(wire):
        if answered.id not in ids:
            raise invalid(
                f"{PARTS}: resume answers {answered.id!r}, which is not one of {', '.join(ids)}",
                PARTS,
            )
    return on_one_line(wire)


def _with_results(pending: Pending, sent: Sent) -> bytes:
    """The messages of the turn before, the agent's calls, and what they have returned."""
    results = {each.call: each for each in _results(pending, sent)}
    calls = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in pending.calls
    ]
    messages: list[Any] = [
        *_decode_messages(pending.payload),
        {"role": "assistant", "content": pending.said or None, "tool_calls": calls},
    ]
    for call in pending.calls:
        if call.id not in results:
            raise invalid(f"{PARTS}: there is no result of the call {call.id!r}", PARTS)
        content = results[call.id].content
        is_text = memoryview(content)[0] == _QUOTE
        messages.append(
            {
                "role": "tool",
                "tool_call_id": call.id,
                "content": content if is_text else bytes(content).decode(),
            }
        )
    return on_one_line(_encode(messages))


def _results(pending: Pending, sent: Sent) -> list[_Result]:
    found = _member(sent, _decode_results)
    if found is not None and found.tool_results is not None:
        results: list[_Result] = found.tool_results
        return results
    if len(pending.calls) == 1 and (payload := _payload(sent)) is not None:
        return [_Result(pending.calls[0].id, Raw(payload))]
    names = ", ".join(call.id for call in pending.calls)
    raise invalid(
        f"{PARTS}: the task waits for the results of {names}; expected one part of data, "
        '{"toolResults": [{"call": …, "content": …}]}',
        PARTS,
    )


def _member(sent: Sent, decode: Any) -> Any:
    """The data of a message as an object of answers; None if it is no such thing."""
    if not sent.content.is_data:
        return None
    try:
        return decode(sent.content.data[0])
    except (msgspec.MsgspecError, RecursionError):
        return None
