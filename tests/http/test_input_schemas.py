"""Inputs against the schema that an agent declares, through a real gateway.

The agents echo, and each declares another schema. What is asked of a chat makes an agent known: it
has declared itself before it answers.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness import AGENTS, GatewayInThread, descendants, gateway_in_thread

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "integer"}},
        "a/b~c": {"enum": [1, 2]},
        "age": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "nick": {"oneOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]},
        "home": {
            "anyOf": [
                {"type": "null"},
                {"type": "array", "items": {"properties": {"city": {"type": "string"}}}},
            ]
        },
    },
    "required": ["name"],
}

CHAIN = {
    "d": {
        **{str(i): {"not": {"not": {"$ref": f"#/d/{i + 1}"}}} for i in range(1200)},
        "1200": {"items": {"$ref": "#/d/0"}},
    },
    "$ref": "#/d/0",
}
"""Overflows the stack of what follows it down an input that nests."""

DOUBLING = {
    "$defs": {
        **{
            f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}, {"$ref": f"#/$defs/a{i + 1}"}]}
            for i in range(40)
        },
        "a40": {"type": "integer"},
    },
    "$ref": "#/$defs/a0",
}
"""Each of them takes twice as long as the next."""

UNUSABLE = {
    "no-type": {"type": 5},
    "elsewhere": {"$ref": "http://127.0.0.1:9/elsewhere.json"},
    "a-file": {"$ref": "file:///etc/hostname"},
    "no-dialect": {"$schema": "http://127.0.0.1:9/nothing"},
    "no-pattern": {"pattern": "("},
    "nowhere": {"$ref": "#/nowhere"},
    "too-deep": json.loads('{"items":' * 200 + "{}" + "}" * 200),
}

EITHER = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    ]
}
"""As the SDK derives it of `greet(name: str)`."""

ONE_OF = {"oneOf": [{"type": "integer"}, {"minimum": 5}]}

PLACE = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
    "required": ["name"],
}
WRAPPED_PLACE = {
    "type": "object",
    "properties": {"place": PLACE},
    "required": ["place"],
    "additionalProperties": False,
}
"""As the SDK derives both of `visit(place: Place)`."""

ALTERNATIVES = {
    "to": {"anyOf": [PLACE, WRAPPED_PLACE]},
    "mode": {"anyOf": [{"type": "string", "enum": ["fast", "slow"]}, {"type": "null"}]},
    "one": {"oneOf": [{"type": "integer"}, {"minimum": 5}, {"type": "string"}]},
}

SCHEMAS = {
    "person": PERSON,
    "alternatives": {"properties": ALTERNATIVES},
    "one": ONE_OF,
    "either": EITHER,
    "chain": CHAIN,
    "doubling": DOUBLING,
    "tree": {"type": "object", "additionalProperties": {"$ref": "#"}},
    "rows": {"type": "array", "items": {"type": "array"}},
    "patterns": {
        "properties": {
            "regular": {"pattern": "^(a+)+$"},
            "looks": {"pattern": "^(?=(a+)+$)b|^(?=x)x"},
        }
    },
    **UNUSABLE,
}
COLD = {"cold": "", "cold-stream": "", "cold-run": 'on_disconnect = "continue"'}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayInThread]:
    toml = '[server]\nsandbox = "off"\n'
    for name in (*SCHEMAS, *COLD):
        schema = json.dumps(SCHEMAS.get(name, PERSON))
        command = [sys.executable, "-u", str(AGENTS / "declaring.py"), schema]
        toml += f"""
            [agents.{name}]
            command = {json.dumps(command)}
            workers = {{ min = 0, max = 1 }}
            {COLD.get(name, "")}
        """
    with gateway_in_thread(toml, tmp_path_factory.mktemp("schemas")) as gateway:
        yield gateway


@pytest.fixture
def client(gateway: GatewayInThread) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        yield client


def become_known(client: httpx.Client, agent: str) -> None:
    spoken = {"messages": [{"role": "user", "content": "known"}]}
    assert client.post(f"/agent/{agent}/chat", json=spoken).status_code == 200


def refusal(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 400, response.text
    error: dict[str, Any] = response.json()["error"]
    assert error["type"] == "invalid_request"
    return error


def seen(gateway: GatewayInThread, agent: str) -> list[str]:
    """What a worker of the agent was asked, as far as it has come to the log."""
    return [line for line in gateway.log() if "seen" in line and f"agent={agent} " in line]


@pytest.mark.parametrize(
    ("value", "pointer", "message"),
    [
        ({"name": 7}, "/input/name", "input.name: expected string, got integer"),
        (
            {"name": "a", "age": "x"},
            "/input/age",
            "input.age: expected integer or null, got string",
        ),
        ({"name": "a", "nick": "long"}, "/input/nick", "input.nick: the value is longer than 3"),
        (
            {"name": "a", "home": [{"city": 1}]},
            "/input/home/0/city",
            "input.home[0].city: expected string, got integer",
        ),
        ([], "/input", "input: expected object, got array"),
        ({}, "/input", "input: 'name' is missing"),
        (
            {"name": "", "tags": [1, "two"]},
            "/input/tags/1",
            "input.tags[1]: expected integer, got string",
        ),
        ({"name": "", "a/b~c": 3}, "/input/a~1b~0c", "input.a/b~c: "),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_input_that_does_not_match_is_a_400_that_names_the_place_and_what_is_expected(
    client: httpx.Client, value: Any, pointer: str, message: str, stream: bool
) -> None:
    become_known(client, "person")
    body = {"input": value, "stream": stream}
    error = refusal(client.post("/agents/person/invoke", json=body))
    assert error["field"] == "input"
    assert error["pointer"] == pointer
    assert error["message"].startswith(message)
    assert error["expected"]


@pytest.mark.parametrize(
    ("agent", "value", "message"),
    [
        ("either", 3, "input: expected string or object, got integer"),
        ("either", {"nam": "Ada"}, "input: 'name' is missing"),
        ("either", {"name": 3}, "input.name: expected string, got integer"),
        ("one", 7, "input: the value is valid under more than one"),
    ],
)
def test_an_input_that_matches_no_alternative_is_told_what_they_expect(
    client: httpx.Client, agent: str, value: Any, message: str
) -> None:
    become_known(client, agent)
    error = refusal(client.post(f"/agent/{agent}/invoke", json={"input": value}))
    assert error["message"].startswith(message)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"to": {"name": "Rome", "size": "7"}}, "input.to.size: expected integer, got string"),
        ({"to": {"place": {"name": 4}}}, "input.to.place.name: expected string, got integer"),
        ({"to": "Rome"}, "input.to: expected object, got string"),
        ({"to": {}}, "input.to: the value is not valid under any"),
        ({"mode": 7}, "input.mode: expected string or null, got integer"),
        ({"mode": "fest"}, "input.mode: the value is not one of"),
        ({"one": 7}, "input.one: the value is valid under more than one"),
    ],
)
def test_of_alternatives_the_one_that_was_meant_says_what_is_wrong(
    client: httpx.Client, value: Any, message: str
) -> None:
    become_known(client, "alternatives")
    error = refusal(client.post("/agent/alternatives/invoke", json={"input": value}))
    assert error["message"].startswith(message)


def test_no_worker_sees_an_input_that_does_not_match(
    gateway: GatewayInThread, client: httpx.Client
) -> None:
    become_known(client, "person")
    refusal(client.post("/agent/person/invoke", json={"input": {"name": 1, "mark": "unseen"}}))
    marked = {"name": "Ada", "mark": "expected"}
    good = client.post("/agent/person/invoke", json={"input": marked})
    assert good.json()["output"]["input"] == marked
    gateway.logged("seen.*expected.*agent=person")
    assert not any("unseen" in line for line in seen(gateway, "person"))


def test_several_mismatches_are_told_at_once_and_no_value_is_repeated(
    gateway: GatewayInThread, client: httpx.Client
) -> None:
    become_known(client, "person")
    wrong = {"name": 5, "tags": ["a-secret"], "a/b~c": "a-secret"}
    message = refusal(client.post("/agent/person/invoke", json={"input": wrong}))["message"]
    assert "input.name: " in message
    assert "input.tags[0]: " in message
    assert "a-secret" not in message
    gateway.logged(r"400 invalid_request: .*input\.tags\[0\]")
    assert not any("a-secret" in line for line in gateway.log())


@pytest.mark.parametrize("agent", COLD)
def test_the_first_request_of_an_agent_is_checked_once_its_worker_has_spoken(
    client: httpx.Client, agent: str
) -> None:
    body = {"input": {"name": 7}, "stream": agent == "cold-stream"}
    for _ in range(2):  # of a cold agent, and of one that is known
        error = refusal(client.post(f"/agent/{agent}/invoke", json=body))
        assert error["pointer"] == "/input/name"


def test_a_schema_that_takes_too_much_costs_its_own_callers_a_refusal_and_nobody_else(
    client: httpx.Client,
) -> None:
    deep = json.loads("[" * 90 + "]" * 90)
    for agent, value in (("chain", deep), ("doubling", 1), ("chain", deep)):
        become_known(client, agent)
        error = refusal(client.post(f"/agent/{agent}/invoke", json={"input": value}))
        assert "too much" in error["message"]
        assert client.get("/ready").status_code == 200


@pytest.mark.parametrize("value", ["1e400", '"\\ud800"', '{"\\udc00": 1}', "9" * 5000])
def test_an_input_that_cannot_be_read_is_refused_with_what_is_wrong(
    client: httpx.Client, value: str
) -> None:
    become_known(client, "person")
    body = f'{{"input":{{"name":"Ada","more":{value}}}}}'
    headers = {"content-type": "application/json"}
    error = refusal(client.post("/agent/person/invoke", content=body, headers=headers))
    assert "too much" not in error["message"]


def test_a_mismatch_at_a_place_with_a_long_way_there_is_told(client: httpx.Client) -> None:
    become_known(client, "tree")
    value: Any = 1
    for depth in range(60):
        value = {f"{number}{'é' * 290}": value for number in range(1 if depth else 3)}
    error = refusal(client.post("/agent/tree/invoke", json={"input": value}))
    assert error["message"].startswith("input: expected object, got integer")


def test_an_agent_whose_schema_cannot_be_used_serves_unchecked_and_that_is_said_once(
    gateway: GatewayInThread, client: httpx.Client
) -> None:
    for agent in UNUSABLE:
        become_known(client, agent)
        for _ in range(2):
            answer = client.post(f"/agent/{agent}/invoke", json={"input": 7})
            assert answer.status_code == 200
        assert client.get(f"/agent/{agent}").json()["input_unchecked"]
        gateway.logged(f"inputs are not checked.*agent={agent}$")
    said = [line for line in gateway.log() if "inputs are not checked" in line]
    assert len(said) == len(UNUSABLE)


def test_no_pattern_can_be_made_to_take_for_ever(client: httpx.Client) -> None:
    become_known(client, "patterns")
    for name in ("regular", "looks"):
        long = {"input": {name: "a" * 200_000 + "!"}}
        refusal(client.post("/agent/patterns/invoke", json=long))
    matching = {"input": {"looks": "x"}}
    assert client.post("/agent/patterns/invoke", json=matching).status_code == 200


def test_a_large_input_is_checked_and_holds_up_nobody_meanwhile(
    gateway: GatewayInThread, client: httpx.Client
) -> None:
    become_known(client, "rows")
    large = '{"input":[' + ",".join(["[]"] * 2_000_000 + ["7"]) + "]}"
    answers: list[httpx.Response] = []

    def send() -> None:
        headers = {"content-type": "application/json"}
        with httpx.Client(base_url=gateway.url, timeout=60) as other:
            answers.append(other.post("/agent/rows/invoke", content=large, headers=headers))

    sending = threading.Thread(target=send)
    sending.start()
    while sending.is_alive():
        assert client.get("/live").status_code == 200
    sending.join()
    assert refusal(answers[0])["pointer"] == "/input/2000000"


def test_what_checks_inputs_knows_no_secrets_and_is_replaced_when_it_dies(
    client: httpx.Client,
) -> None:
    become_known(client, "person")
    good = {"input": {"name": "Ada"}}
    assert client.post("/agent/person/invoke", json=good).status_code == 200
    checkers = [pid for pid in descendants(os.getpid()) if is_checker(pid)]
    assert checkers
    for pid in checkers:
        names = {each.partition(b"=")[0] for each in of_process(pid, "environ").split(b"\0")}
        assert names <= {b"", b"HOME", b"PATH", b"LD_LIBRARY_PATH", b"PYTHONHOME", b"PYTHONPATH"}
        os.kill(pid, signal.SIGKILL)
    assert client.post("/agent/person/invoke", json=good).status_code == 200
    refusal(client.post("/agent/person/invoke", json={"input": {"name": 1}}))


def is_checker(pid: int) -> bool:
    return b"input_program" in of_process(pid, "cmdline")


def of_process(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
