"""However a client spells its JSON, a worker reads one line, and what it says is the same.

A body's payload goes from the front to the wire as the bytes that it is, and above 64 KiB without a
copy, so neither side alone answers for its newlines.
"""

from __future__ import annotations

import json

import pytest

from gateway.front.dialect import RequestHead
from gateway.front.native.body import read_call
from protocol.gateway_side import GatewayConnection

AS_A_VIEW = "x" * 64 * 1024
"""Content that makes a payload too long to be copied without need."""


@pytest.mark.parametrize("content", ["short", AS_A_VIEW], ids=["copied", "a view"])
@pytest.mark.parametrize("indent", [None, 2], ids=["compact", "pretty"])
@pytest.mark.parametrize(
    ("method", "payload"),
    [
        ("invoke", {"input": {"text": "CONTENT", "list": [1, {"a": None}]}}),
        ("chat", {"messages": [{"role": "user", "content": "CONTENT"}]}),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "CONTENT"}]}]},
        ),
    ],
    ids=["invoke", "plain chat", "chat"],
)
def test_a_request_is_one_line_however_its_body_is_spelt(method, payload, indent, content) -> None:
    context = {"conversation_id": "c", "custom": {"key": ["value"]}}
    spelt = json.dumps(payload | {"context": context}, indent=indent)
    body = spelt.replace("CONTENT", content).encode()
    call = read_call("agent", method, RequestHead(request_id="r"), body)
    _, line = GatewayConnection().send_request(
        method, call.payload, stream=False, context=call.context, request_id=call.request_id
    )
    written = b"".join(line)
    assert written.count(b"\n") == 1
    assert written.endswith(b"\n")
    params = json.loads(written)["params"]
    sent = json.loads(body)
    assert {key: params[key] for key in sent} == sent
