"""What an agent must have declared before it is given a request."""

from __future__ import annotations

import pytest

from gateway.agents.declared import Declared
from gateway.call import Call
from gateway.errors import HandlerNotImplemented, InvalidRequest
from protocol import Ready


def call(*needs: str, method: str = "chat") -> Call:
    return Call(
        agent="a",
        method=method,  # type: ignore[arg-type]
        payload=b"[]",
        stream=True,
        request_id="r",
        needs=frozenset(needs),
    )


def ready(**declared: object) -> Ready:
    return Ready(protocol=1, handlers=("chat",), **declared)  # type: ignore[arg-type]


def heard(declaration: Ready | None) -> Declared:
    declared = Declared()
    declared.heard(declaration)
    return declared


def test_nothing_is_refused_before_a_worker_has_spoken() -> None:
    Declared().check(call("image", "tools", "asks"))
    Declared().check(call(method="invoke"))


def test_an_agent_is_given_what_it_declared() -> None:
    declared = heard(ready(modes=("text", "image"), tools=True, asks=True))
    declared.check(call("image", "tools", "asks"))
    declared.check(call())


@pytest.mark.parametrize(
    ("need", "field", "declaration"),
    [
        ("image", "messages", '"modes" with "image" in it'),
        ("audio", "messages", '"modes" with "audio" in it'),
        ("tools", "tools", '"tools": true'),
        ("asks", "resume", '"asks": true'),
    ],
)
@pytest.mark.parametrize("declaration_of_the_worker", [None, ready()])
def test_what_is_lacking_is_named_with_the_declaration_that_would_help(
    need: str, field: str, declaration: str, declaration_of_the_worker: Ready | None
) -> None:
    declared = heard(declaration_of_the_worker)
    with pytest.raises(InvalidRequest) as caught:
        declared.check(call(need))
    assert declaration in caught.value.message
    assert caught.value.details == {"field": field}
    declared.check(call())


def test_a_handler_that_was_not_declared_is_refused_and_one_of_a_bare_worker_never() -> None:
    with pytest.raises(HandlerNotImplemented):
        heard(ready()).check(call(method="invoke"))
    heard(None).check(call(method="invoke"))
