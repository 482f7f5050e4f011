"""Messages of agent frameworks, as the wire has them: an object with `role` and `content`.

No framework is imported here. What an object is, is seen by its attributes: most have `role` and
`content`, or `text`; the rest are in the tables below, which the README repeats ("Messages of
frameworks"). What is not recognised is an error that names its type.
"""

from __future__ import annotations

import sys
import typing
from collections import deque
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from enum import Enum
from typing import Any

import msgspec

_LANGCHAIN_ROLES = {
    "ai": "assistant",
    "AIMessageChunk": "assistant",
    "human": "user",
    "HumanMessageChunk": "user",
    "system": "system",
    "SystemMessageChunk": "system",
    "tool": "tool",
    "ToolMessageChunk": "tool",
}
"""By `type`, which stands for the role."""

_TEXT_OF_A_RESULT = ("output", "final_output", "output_text", "text", "raw")
"""Of the result of a run: pydantic-ai's AgentRunResult, openai-agents' RunResult, OpenAI's own
Response, agent-framework's AgentResponse, crewai's CrewOutput."""

_OUTPUT_OF_A_RUN = ("output", "final_output")
"""The same for an invoke, of whatever type."""

_MESSAGE_OF_A_RESULT = ("message", "response", "raw_item", "chat_message")
"""llama-index's ChatResponse; its AgentOutput, and pydantic-ai's results; openai-agents' items;
autogen's Response."""

_TEXT_OF_A_PIECE = ("delta", "content", "text")
"""llama-index's events and responses also have the whole text so far, and `delta` is what is new;
LangChain's and haystack's chunks; agent-framework's updates."""

_TEXT_BLOCKS = ("text", "output_text", "input_text")

_MOST_NESTING = 3
"""A result holds a response, and that a message."""


def as_message(value: object) -> object:
    """The message that a chat handler has returned, ready to be encoded.

    Raises TypeError for what is none. Of mappings and Structs the encoder finds out.
    """
    if isinstance(value, str):
        return {"role": "assistant", "content": value}
    if isinstance(value, (Mapping, msgspec.Struct, msgspec.Raw)):
        return value
    members = _members(value)
    if "role" in members and "content" in members:
        # What is null is not there: `tool_calls` of most messages.
        return {k: v for k, v in members.items() if v is not None or k == "content"}
    message = _adapted(value)
    if message is None:
        raise TypeError(f"{describe(value)} is no message")
    return message


def as_output(value: object) -> object:
    """What an invoke handler has returned, or what it is made for.

    A dataclass with private fields is a framework's: the result of a run stands for its output,
    without the history that it carries, and a message for its role and content.
    """
    if not any(name.startswith("_") for name in getattr(type(value), "__dataclass_fields__", ())):
        return value
    for name in _OUTPUT_OF_A_RUN:
        if hasattr(value, name):
            return getattr(value, name)
    message = _adapted(value)
    return value if message is None else message


def as_piece(value: object) -> str | None:
    """The text of a message, or of a piece of one, that a handler has yielded; None if it is none.

    A message with more than text in it is JSON text, as where one is returned to a caller that
    streams.
    """
    if isinstance(value, Mapping):
        message: Mapping[str, Any] | None = value if "role" in value else None
    else:
        for name in _TEXT_OF_A_PIECE:
            text = _get(value, name)
            if isinstance(text, str):
                return str.__str__(text)
        if isinstance(_get(value, "choices"), list):  # a completion of OpenAI's, or a piece of one
            choice = next(iter(value.choices), None)  # type: ignore[attr-defined]
            return _get(_get(choice, "delta") or _get(choice, "message"), "content") or ""
        message = _adapted(value)
    if message is None or "content" not in message:
        return None
    content = message["content"]
    if isinstance(content, str) and message.get("tool_calls") is None:
        return content
    return msgspec.json.encode(msgspec.to_builtins(message, enc_hook=to_plain)).decode()


def converter_to(kind: object) -> Callable[[Any], object] | None:
    """What makes a framework's own messages of the wire's, if a parameter is a list of `kind`.

    None for a type that reads `role` and `content` itself, as most do.
    """
    for arm in (kind, *typing.get_args(kind)):
        if getattr(arm, "__module__", "").startswith("langchain_core.messages"):
            return getattr(sys.modules["langchain_core.messages"], "convert_to_messages", None)
        convert = getattr(arm, "from_openai_dict_format", None)  # haystack's
        if convert is not None:
            return lambda messages: [convert(message) for message in messages]
        if arm is not kind and typing.get_args(arm):
            found = converter_to(arm)
            if found is not None:
                return found
    return None


def describe(value: object) -> str:
    """What a value is, for its author: its type, and the keys of a dict."""
    if value is None:
        return "None"
    name = type(value).__name__
    if isinstance(value, Mapping) and value:
        keys = [str(key)[:40] for key in list(value)[:5]]
        return f"{name} ({', '.join(keys)}{', …' if len(value) > 5 else ''})"
    return name


def to_plain(value: Any) -> object:
    """The plain values of what msgspec does not know. Raises TypeError.

    That is Pydantic's models, what is derived from a plain type, any mapping or sequence, and the
    numbers and arrays of NumPy and of those who imitate it.
    """
    # Not str(value), which may be overridden.
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (Sequence, Set, deque)):
        return list(value)
    for name in ("model_dump", "tolist"):
        dump = getattr(value, name, None)
        if callable(dump):
            return dump(mode="json") if name == "model_dump" else dump()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _members(value: object) -> Mapping[str, Any]:
    """Those of an object of values: a dataclass, a model, and so on. Empty if it is none."""
    try:
        plain = msgspec.to_builtins(value, enc_hook=to_plain)
    except Exception:  # noqa: BLE001  (a framework's object may hold anything: it is not sent so)
        return {}
    return plain if isinstance(plain, dict) else {}


def _adapted(value: object, nesting: int = _MOST_NESTING) -> Mapping[str, Any] | None:
    role = _role(value)
    if role is not None:
        content = _content(value)
        return None if content is None else {"role": role, "content": content}
    for name in _TEXT_OF_A_RESULT:
        text = _get(value, name)
        if isinstance(text, str):
            return {"role": "assistant", "content": text}
    for name in _MESSAGE_OF_A_RESULT if nesting else ():
        inner = _get(value, name)
        if inner is not None and not isinstance(inner, str):
            message = _adapted(inner, nesting - 1)
            if message is not None:
                return message
    choices = _get(value, "choices")
    if isinstance(choices, list) and choices and nesting:
        return _adapted(choices[0], nesting - 1)
    return None


def _get(value: object, name: str) -> Any:
    """An attribute, or None if there is none, or none that can be read."""
    with suppress(Exception):
        return getattr(value, name)
    return None


def _role(value: object) -> str | None:
    role = _get(value, "role")
    if isinstance(role, Enum):
        role = role.value
    if isinstance(role, str):
        return role
    if _get(value, "kind") == "response":  # pydantic-ai's ModelResponse
        return "assistant"
    if isinstance(_get(value, "source"), str) and hasattr(value, "content"):
        return "assistant"  # autogen's messages, by the agent's name
    kind = _get(value, "type")
    return _LANGCHAIN_ROLES.get(kind) if isinstance(kind, str) else None


def _content(value: object) -> object:
    """The content as a string, if it is text alone; else as plain values; None if there is none."""
    for name in ("content", "text"):
        content = _get(value, name)
        if isinstance(content, str):
            return str.__str__(content)
        if isinstance(content, (list, tuple)):
            with suppress(Exception):  # as above
                return _text(msgspec.to_builtins(content, enc_hook=to_plain))
    return None


def _text(blocks: list[Any]) -> object:
    texts: list[Any] = []
    for block in blocks:
        if isinstance(block, str):
            texts.append(block)
        elif isinstance(block, dict) and block.get("type") in _TEXT_BLOCKS:
            texts.append(block.get("text"))
        else:
            return blocks
    return "".join(texts) if all(isinstance(text, str) for text in texts) else blocks
