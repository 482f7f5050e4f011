"""A2A 1.0."""

from __future__ import annotations

from tests.clients.row import Api, Client
from tests.clients.scenarios import (
    asked_apart,
    attached,
    broke_off,
    heard_no_thought,
    heard_the_answer,
    showed_its_search,
)

# What an agent does meanwhile is told in a stream only; what has failed is a task all the same,
# with what it had until then.
A2A = Api(
    "A2A 1.0",
    checks={
        "agents-own-tools-stream-search": showed_its_search,
        "agents-own-tools-stream-search-with-tools": showed_its_search,
        "reasoning-answer-think": heard_no_thought,
        "status-answer-work": heard_the_answer,
        "state-answer-change": heard_the_answer,
        "draw": attached,
        "ask": asked_apart,
        "mid-stream-error-answer-crash-later-of-fragile": broke_off,
    },
    has_statuses=False,
)

CLIENTS = (
    Client("a2a-sdk (Python)", A2A, "with_a2a.py", "a2a-sdk"),
    Client("@a2a-js/sdk", A2A, "with_a2a.mjs", "@a2a-js/sdk"),
)
