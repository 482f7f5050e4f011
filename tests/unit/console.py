"""Who looks at the console, what it is told of, and agents that are counted when it looks."""

from __future__ import annotations

from typing import Any

from gateway.call import Call
from gateway.config import CallerKeys, Settings
from gateway.config.keys import KeySettings, hash_key
from gateway.exchange import Exchange
from gateway.front.auth import Caller
from gateway.front.console.console import Console
from gateway.observe.observation import Observation
from gateway.stopping import UntilStop

HOSTILE = "<img src=x onerror=alert(1)>\x1b[2J\u202e\u2028\n"
KEYS = CallerKeys({"ada": KeySettings(hash=hash_key(b"agw_" + b"k" * 43))}, on=True)
ADA = Caller("ada", None)
BOB = Caller("bob", None, frozenset({"a"}))


def call(name: str = "r-1", *, owner: str = "", stream: bool = True) -> Call:
    return Call(
        agent="a", method="chat", payload=b"{}", stream=stream, owner=owner, request_id=name
    )


def observed(name: str = "r-1", *, key: str = "", **more: Any) -> Observation:
    facts: dict[str, Any] = {
        "began": 10.0,
        "request_id": name,
        "handler": "chat",
        "dialect": "native",
        "agent": "a",
        "key": key,
        "status": 200,
    }
    ended = more.pop("ended", 12.5)
    seen = Observation(**{**facts, **more})
    seen.end(ended)
    return seen


class Agents:
    """A dispatcher whose agents are counted each time they are looked at."""

    def __init__(self) -> None:
        self.looks = 0
        self.until_stop = UntilStop()
        self.open: dict[Exchange, None] = {}
        self.new_exchange: Any = Exchange
        self.leaving = False

    @property
    def agents(self) -> dict[str, Any]:
        self.looks += 1
        return {}


def console_of(agents: Agents, keys: CallerKeys | None = None) -> Console:
    found: Any = agents
    return Console(found, Settings(), keys or CallerKeys(), ["127.0.0.1"])
