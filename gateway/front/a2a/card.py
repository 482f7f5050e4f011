"""Agent cards: what is true of an agent, as A2A 1.0 has it (4.4, 8).

An agent declares its handlers, the kinds of content that it takes, and whether it calls the
client's tools; before its first worker has spoken, or if it has no handshake, nothing of that is
known, and the card promises nothing but text and data. Where the gateway has keys, a stranger gets
a card that is the same for any name, whether there is such an agent or not: it says how to get in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw, Struct

from gateway.front.a2a.rpc import VERSION
from gateway.front.a2a.sending import TOOLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from protocol import Ready

Json = dict[str, Any]

SCHEMAS = "urn:agent-gateway:a2a:schemas:1"
"""The extension whose parameters are the JSON Schemas of an invoke's input and output."""

_TEXT = ["text/plain", "application/json"]

_MEDIA_TYPES = {
    "image": ["image/*"],
    "audio": ["audio/wav", "audio/mpeg"],
    "file": ["*/*"],
}
"""What the kinds of content that an agent can declare are in a card."""

_KEYS: Json = {
    "securitySchemes": {
        "bearer": {
            "httpAuthSecurityScheme": {
                "scheme": "Bearer",
                "description": "One of the gateway's keys.",
            }
        },
        "apiKey": {
            "apiKeySecurityScheme": {
                "location": "header",
                "name": "X-API-Key",
                "description": "The same key.",
            }
        },
    },
    "securityRequirements": [
        {"schemes": {"bearer": {"list": []}}},
        {"schemes": {"apiKey": {"list": []}}},
    ],
}


class Described(Struct, frozen=True):
    """What is known of one agent."""

    name: str
    description: str | None = None
    ready: Ready | None = None

    @property
    def text(self) -> str:
        declared = None if self.ready is None else self.ready.description
        return self.description or declared or f"The agent {self.name!r}."


class _Metadata(Struct, gc=False):
    version: str | None = None


def agent_card(agent: Described, base: str, *, keys: bool) -> bytes:
    """The card of one agent, a JSON text. `base` is the gateway's URL, without a slash at its end,
    and `keys` whether callers need one."""
    ready = agent.ready
    inputs = [*_TEXT]
    for mode in () if ready is None else ready.modes:
        inputs += [each for each in _MEDIA_TYPES.get(mode, ()) if each not in inputs]
    card = {
        "name": agent.name,
        "description": agent.text,
        "version": _version_of(agent),
        "supportedInterfaces": [_interface(agent.name, base)],
        "capabilities": _capabilities(_extensions(ready), keys=keys),
        "defaultInputModes": inputs,
        "defaultOutputModes": _TEXT,
        "skills": _skills(agent, inputs),
        **(_KEYS if keys else {}),
    }
    return msgspec.json.encode(card)


def gateway_card(agents: Sequence[Described], base: str, *, keys: bool) -> bytes:
    """The card of a gateway with several agents: one interface and one skill for each."""
    card = {
        "name": "agent-gateway",
        "description": "A gateway to several agents. Each interface is one of them, and each skill "
        f"says which; the card of each is at {base}/a2a/NAME/.well-known/agent-card.json.",
        "version": VERSION,
        "supportedInterfaces": [
            {**_interface(agent.name, base), "tenant": agent.name} for agent in agents
        ],
        "capabilities": _capabilities([], keys=keys),
        "defaultInputModes": _TEXT,
        "defaultOutputModes": _TEXT,
        "skills": [
            {"id": agent.name, "name": agent.name, "description": agent.text, "tags": ["agent"]}
            for agent in agents
        ],
        **(_KEYS if keys else {}),
    }
    return msgspec.json.encode(card)


def strangers_card(name: str, base: str) -> bytes:
    """The card for whoever has no key: the same for any name."""
    card = {
        "name": name,
        "description": "What is here is told to whoever has a key: GetExtendedAgentCard, or this "
        "card with the key.",
        "version": VERSION,
        "supportedInterfaces": [_interface(name, base)],
        "capabilities": _capabilities([], keys=True),
        "defaultInputModes": _TEXT,
        "defaultOutputModes": _TEXT,
        "skills": [
            {
                "id": "extended-card",
                "name": "Extended card",
                "description": "The skills are in the extended card, which needs a key.",
                "tags": ["key"],
            }
        ],
        **_KEYS,
    }
    return msgspec.json.encode(card)


def _interface(name: str, base: str) -> Json:
    return {
        "url": f"{base}/a2a/{name}",
        "protocolBinding": "JSONRPC",
        "protocolVersion": VERSION,
    }


def _capabilities(extensions: list[Json], *, keys: bool) -> Json:
    capabilities: Json = {
        "streaming": True,
        "pushNotifications": False,
        "extendedAgentCard": keys,
    }
    return {**capabilities, "extensions": extensions} if extensions else capabilities


def _extensions(ready: Ready | None) -> list[Json]:
    if ready is None:
        return []
    found: list[Json] = []
    if ready.tools:
        found.append(
            {
                "uri": TOOLS,
                "description": "The client's own tools: a list in the metadata of the message, "
                "under this URI. Calls of them end in TASK_STATE_INPUT_REQUIRED.",
                "required": False,
            }
        )
    schemas = {
        name: Raw(schema)
        for name, schema in (("input", ready.input), ("output", ready.output))
        if schema is not None
    }
    if schemas:
        found.append(
            {
                "uri": SCHEMAS,
                "description": "The JSON Schemas of what the skill 'invoke' takes and gives.",
                "required": False,
                "params": schemas,
            }
        )
    return found


def _skills(agent: Described, inputs: list[str]) -> list[Json]:
    handlers = ("chat", "invoke") if agent.ready is None else agent.ready.handlers
    skills: list[Json] = []
    if "chat" in handlers:
        skills.append(
            {
                "id": "chat",
                "name": "Chat",
                "description": f"{agent.text} Answers messages.",
                "tags": ["chat"],
                "inputModes": inputs,
                "outputModes": _TEXT,
            }
        )
    if "invoke" in handlers or not skills:
        takes = ["application/json"] if "chat" in handlers else _TEXT
        skills.append(
            {
                "id": "invoke",
                "name": "Invoke",
                "description": f"{agent.text} Takes one input: a message that is one part of data.",
                "tags": ["invoke"],
                "inputModes": takes,
                "outputModes": _TEXT,
            }
        )
    return skills


def _version_of(agent: Described) -> str:
    """The agent's version, if its metadata say one."""
    if agent.ready is not None:
        try:
            version = msgspec.json.decode(agent.ready.metadata, type=_Metadata).version
        except msgspec.MsgspecError:
            version = None
        if version:
            return version
    return "0"
