"""The messages of a chat: from the UI messages that a page keeps to those that agents get.

| part | message |
| --- | --- |
| `text` | the text of a message with the same role; those of one step together |
| `file` of a user | a part, see `files` |
| `tool-…`, `dynamic-tool` that the page has run | a tool call of the assistant's, and a `tool` |
| `data-ask` | the question, as text of the assistant's |
| `data-answer` | the user's answer, as text; of the last message, an answer to a question |
| `steering-message` | a message of the user's |
| `step-start` | divides an assistant's messages |

Any other part is what an agent has told beside its answer, or what the page keeps for itself: none
of it is given to an agent.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct, field

from gateway.errors import InvalidRequest
from gateway.front.bodies import readable
from gateway.front.chats.chat import Chat, of_parts
from gateway.front.chats.parameters import NOTHING, given, is_string
from gateway.front.chats.refusals import refuse, unsupported
from gateway.front.ui import files
from gateway.front.ui.parts import Part


class UIMessage(Struct, gc=False):
    """A message as a page keeps it; its `metadata` is the page's own."""

    role: Literal["system", "user", "assistant"]
    parts: Raw
    id: str = ""


class Answer(Struct, gc=False):
    """The `data` of a `data-answer`."""

    id: str
    payload: Raw = NOTHING
    status: Literal["resolved", "cancelled"] = "resolved"


class _Question(Struct, gc=False):
    message: str = ""


_DATA = "data-"
_UNSEEN = frozenset(
    {"reasoning", "reasoning-file", "source-url", "source-document", "custom", "file"}
)
"""What of an assistant's message is not given back to an agent."""

_DENIED = "The user has denied this call."

_decode_messages = msgspec.json.Decoder(list[UIMessage]).decode
_decode_parts = msgspec.json.Decoder(list[Part]).decode
_decode_answer = msgspec.json.Decoder(Answer).decode
_decode_question = msgspec.json.Decoder(_Question).decode


class Conversation(Struct):
    """The messages of a body, and what must be known of the last one."""

    chat: Chat = field(default_factory=lambda: Chat("messages"))
    answers: list[dict[str, Any]] = field(default_factory=list)
    """To questions, in the form of the wire."""
    message_id: str = ""
    """Of the message that the answer is added to; empty if it is a new one."""
    calls: set[str] = field(default_factory=set)
    """The ids of the calls in that message."""
    approved: dict[str, bool] = field(default_factory=dict)
    """The calls that the user has just allowed or denied."""

    def add(self, message: UIMessage, place: str, *, last: bool) -> None:
        """Raises InvalidRequest."""
        parts = _read_parts(message.parts, f"{place}.parts", self.chat)
        match message.role:
            case "system":
                texts = [part.text or "" for part in parts if part.type == "text"]
                self.chat.add_text("system", "".join(texts))
            case "user":
                self._add_user(parts, f"{place}.parts", last=last)
            case "assistant":
                self._add_assistant(parts, f"{place}.parts")
                if last:
                    self.message_id = message.id
                    self._take_last(parts)

    def _add_user(self, parts: list[Part], place: str, *, last: bool) -> None:
        said, answered = [], False
        for index, part in enumerate(parts):
            where = f"{place}[{index}]"
            if part.type == "data-answer":
                answer = _read_answer(part, where)
                if last:
                    self.answers.append(answer)
                    answered = True
                elif "payload" in answer:
                    said.append({"type": "text", "text": _as_text(answer["payload"])})
            elif (shown := _shown(part, where, self.chat)) is not None:
                said.append(shown)
        if said or not answered:
            self.chat.add_text("user", of_parts(said) if said else "")

    def _add_assistant(self, parts: list[Part], place: str) -> None:
        step: list[Part] = []
        for index, part in enumerate(parts):
            where = f"{place}[{index}]"
            if part.type == "step-start":
                self._add_step(step)
                step = []
            elif part.type == "steering-message":
                self._add_step(step)
                step = []
                steered = _read_parts(part.parts, f"{where}.parts", self.chat)
                self._add_user(steered, f"{where}.parts", last=False)
            elif part.tool is not None or part.type in {"text", "data-ask"}:
                _check_call(part, where)
                step.append(part)
            elif part.type not in _UNSEEN and not part.type.startswith(_DATA):
                raise _unknown(part, where)
        self._add_step(step)

    def _add_step(self, step: list[Part]) -> None:
        """Add what was said in one step, and the calls that the page has run in it."""
        texts: list[str] = []
        calls, results = [], []
        for part in step:
            if part.tool is None:
                question = part.type == "data-ask"
                text = _question_of(part) if question else part.text or ""
                if text:
                    texts.append(f"\n\n{text}" if question and texts else text)
            elif not part.provider_executed and (result := _result_of(part)) is not None:
                arguments = bytes(part.input).decode() if given(part.input) else "{}"
                function = {"name": part.tool, "arguments": arguments}
                calls.append({"id": part.tool_call_id, "type": "function", "function": function})
                results.append((part.tool_call_id or "", result))
        if texts or calls:
            message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
            if calls:
                message["tool_calls"] = calls
            self.chat.messages.append(message)
        for call_id, result in results:
            self.chat.add_result(call_id, result)

    def _take_last(self, parts: list[Part]) -> None:
        """Of the message that is gone on with: its calls, and what the user has said to them."""
        starts = [index for index, part in enumerate(parts) if part.type == "step-start"]
        for index, part in enumerate(parts):
            if part.tool is None or part.tool_call_id is None:
                continue
            self.calls.add(part.tool_call_id)
            is_old = bool(starts) and index < starts[-1]
            approval = part.approval
            if part.state != "approval-responded" or is_old or approval is None:
                continue
            payload: dict[str, Any] = {"approved": bool(approval.approved)}
            if approval.reason is not None:
                payload["reason"] = approval.reason
            self.answers.append({"id": approval.id, "payload": payload})
            self.approved[part.tool_call_id] = bool(approval.approved)


def read_messages(messages: Raw) -> Conversation:
    """Check and convert the messages of a body. Raises InvalidRequest."""
    try:
        decoded = _decode_messages(messages)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refuse(_wording(error, "messages"), "messages") from None
    if not decoded:
        raise refuse("'messages' is empty; expected at least one message", "messages")
    conversation = Conversation()
    conversation.chat.count(len(decoded))
    for index, message in enumerate(decoded):
        conversation.add(message, f"messages[{index}]", last=index == len(decoded) - 1)
    if not conversation.chat.messages:
        raise refuse("'messages' says nothing to an agent", "messages")
    return conversation


def _read_parts(parts: Raw, place: str, chat: Chat) -> list[Part]:
    try:
        decoded = _decode_parts(parts)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refuse(readable(error, place), place) from None
    chat.count(len(decoded))
    return decoded


def _shown(part: Part, place: str, chat: Chat) -> dict[str, Any] | None:
    """A part of a user's message as an agent gets it; None: it is not shown to one."""
    if part.type == "text":
        return {"type": "text", "text": part.text or ""}
    if part.type == "file":
        return files.convert(part, place, chat)
    if part.type in _UNSEEN or part.type.startswith(_DATA) or part.type == "step-start":
        return None
    raise _unknown(part, place)


def _check_call(part: Part, place: str) -> None:
    if part.tool is not None and (not part.tool or not part.tool_call_id):
        raise refuse(f"{place}: a tool's part has a name and a toolCallId", place)


def _result_of(part: Part) -> Any:
    """What a tool of the page's has returned; None: nothing yet, and nothing will."""
    match part.state:
        case "output-available":
            return part.output if is_string(part.output) else bytes(part.output).decode()
        case "output-error":
            return part.error_text or ""
        case "output-denied":
            return (part.approval and part.approval.reason) or _DENIED
    return None


def _read_answer(part: Part, place: str) -> dict[str, Any]:
    try:
        answer = _decode_answer(part.data)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise refuse(readable(error, f"{place}.data"), f"{place}.data") from None
    told: dict[str, Any] = {"id": answer.id, "status": answer.status}
    return {**told, "payload": answer.payload} if given(answer.payload) else told


def _question_of(part: Part) -> str:
    try:
        return _decode_question(part.data).message
    except (msgspec.MsgspecError, RecursionError):
        return ""  # a part of the page's own, by the same name


def _as_text(payload: Raw) -> Any:
    return payload if is_string(payload) else bytes(payload).decode()


def _unknown(part: Part, place: str) -> InvalidRequest:
    return unsupported(
        f"{place}.type", f"{part.type[:80]!r} is no part of a message that is known here"
    )


def _wording(error: Exception, place: str) -> str:
    """The mismatch; `readable` has the roles of other dialects in it."""
    return readable(error, place).partition(", expected one of")[0]
