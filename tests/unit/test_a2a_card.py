"""A2A's cards: what an agent tells of itself, and to whom."""

from __future__ import annotations

import json

from gateway.front.a2a.card import Described, agent_card, gateway_card, strangers_card
from gateway.front.a2a.sending import TOOLS
from protocol import Ready


def test_a_card_says_what_the_agent_declared() -> None:
    ready = Ready(
        protocol=1,
        handlers=("chat", "invoke"),
        description="Knows the weather.",
        metadata=b'{"version":"2.1"}',
        modes=("text", "image", "x-own"),
        tools=True,
        input=b'{"type":"object"}',
    )
    card = json.loads(agent_card(Described("bot", None, ready), "https://h:1", keys=True))
    assert card["supportedInterfaces"] == [
        {"url": "https://h:1/a2a/bot", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"}
    ]
    assert (card["version"], card["description"]) == ("2.1", "Knows the weather.")
    assert card["defaultInputModes"] == ["text/plain", "application/json", "image/*"]
    assert [skill["id"] for skill in card["skills"]] == ["chat", "invoke"]
    assert card["capabilities"]["extendedAgentCard"] is True
    assert card["capabilities"]["extensions"][0]["uri"] == TOOLS
    assert card["capabilities"]["extensions"][1]["params"] == {"input": {"type": "object"}}
    assert set(card["securitySchemes"]) == {"bearer", "apiKey"}
    bare = json.loads(agent_card(Described("jq"), "http://h", keys=False))
    assert "securitySchemes" not in bare
    assert bare["capabilities"] == {
        "streaming": True,
        "pushNotifications": False,
        "extendedAgentCard": False,
    }
    invoking = Described("i", "Adds.", Ready(protocol=1, handlers=("invoke",), metadata=b"[]"))
    [skill] = json.loads(agent_card(invoking, "http://h", keys=False))["skills"]
    assert (skill["id"], skill["inputModes"]) == ("invoke", ["text/plain", "application/json"])


def test_a_stranger_learns_nothing_from_a_card() -> None:
    one, other = strangers_card("x", "http://h"), strangers_card("y", "http://h")
    assert one.replace(b"/x", b"/y").replace(b'"x"', b'"y"') == other
    several = json.loads(gateway_card([Described("x"), Described("y", "Z")], "http://h", keys=True))
    assert [each["tenant"] for each in several["supportedInterfaces"]] == ["x", "y"]
    assert [each["description"] for each in several["skills"]] == ["The agent 'x'.", "Z"]
