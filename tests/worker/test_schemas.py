"""What the SDK declares of a handler by its annotations, and that it refuses nothing that the
handler takes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, NotRequired, TypedDict

import jsonschema_rs
import msgspec
import pydantic
import pytest

from worker import Agent, Ask, Context


@dataclass
class City:
    name: str
    people: int = 0


class Trip(msgspec.Struct):
    cities: list[City]
    kind: Literal["work", "fun"] = "fun"


class Options(TypedDict):
    depth: int
    note: NotRequired[str]


class Person(pydantic.BaseModel):
    name: str
    age: int = pydantic.Field(ge=0)


def schemas_of(function: Callable[..., object]) -> dict[str, Any]:
    agent = Agent("a")
    agent.invoke(function)
    found = {what: json.loads(text) for what, text in agent.handlers["invoke"].schemas().items()}
    for schema in found.values():
        jsonschema_rs.meta.validate(schema)
    return found


def takes(schema: Any, value: Any) -> bool:
    return jsonschema_rs.validator_for(schema, offline=True).is_valid(value)


def plan(trip: Trip) -> list[str]: ...  # type: ignore[empty-body]
def walk(city: City, options: Options, context: Context) -> City: ...  # type: ignore[empty-body]
def greet(person: Person) -> Person: ...  # type: ignore[empty-body]
def shout(text: str = "hey") -> None: ...
def price(input: Decimal) -> float: ...  # type: ignore[empty-body]  # noqa: A002
async def words(text: str) -> AsyncIterator[str]:
    yield text


def several(
    name: str, people: list[Person], depth: int = 1, _private: int = 2
) -> dict[str, int]: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("function", "good", "bad"),
    [
        (plan, {"cities": [{"name": "Oslo"}]}, {"cities": [{"name": 7}]}),
        (plan, {"trip": {"cities": [], "kind": "work"}}, {"cities": [], "kind": "war"}),
        (walk, {"city": {"name": "Oslo"}, "options": {"depth": 1}}, {"city": {"name": "Oslo"}}),
        (walk, {"city": {"name": ""}, "options": {"depth": 1}, "more": 1}, {"options": {}}),
        (greet, {"name": "Ada", "age": 36}, {"name": "Ada", "age": -1}),
        (greet, {"person": {"name": "Ada", "age": 36}}, {"person": {"name": "Ada"}}),
        (shout, "hello", 5),
        (shout, {"text": "hello"}, {"text": 5}),
        (shout, {}, []),
        (price, 1.5, True),
        (price, "1.5", None),
        (several, {"name": "", "people": [{"name": "", "age": 1}]}, {"name": "", "people": [5]}),
    ],
)
def test_annotations_of_parameters_are_the_schema_of_the_input(
    function: Callable[..., object], good: Any, bad: Any
) -> None:
    schema = schemas_of(function)["input"]
    assert takes(schema, good)
    assert not takes(schema, bad)
    agent = Agent("a")
    agent.invoke(function)
    agent.handlers["invoke"].call(msgspec.json.encode(good), Context())  # takes it as well


@pytest.mark.parametrize(
    ("function", "schema"),
    [
        (plan, {"type": "array", "items": {"type": "string"}}),
        (words, {"type": "string"}),
        (price, {"type": "number"}),
        (shout, {"type": "null"}),
    ],
)
def test_the_annotation_of_the_result_is_the_schema_of_the_output(
    function: Callable[..., object], schema: Any
) -> None:
    assert schemas_of(function)["output"] == schema


def test_models_are_described_as_outputs_too() -> None:
    assert takes(schemas_of(greet)["output"], {"name": "Ada", "age": 1})
    assert takes(schemas_of(walk)["output"], {"name": "Oslo", "people": 1})


def test_what_is_not_annotated_or_cannot_be_told_is_not_declared() -> None:
    class Strange:
        pass

    def bare(value, context): ...  # type: ignore[no-untyped-def]
    def anything(value: Any) -> Any: ...
    def strange(value: Strange) -> Strange: ...  # type: ignore[empty-body]
    def missing(value: Missing) -> Missing: ...  # type: ignore[name-defined, empty-body]  # noqa: F821
    def asking(value: Any) -> str | Ask: ...  # type: ignore[empty-body]

    for function in (bare, anything, strange, missing, asking):
        assert schemas_of(function) == {}


def test_what_cannot_be_told_of_one_parameter_leaves_the_others_described() -> None:
    def mixed(name: str, other: Missing, plain=None) -> None: ...  # type: ignore[name-defined, no-untyped-def]  # noqa: F821

    schema = schemas_of(mixed)["input"]
    assert schema["properties"] == {"name": {"type": "string"}, "other": {}}
    assert schema["required"] == ["name", "other"]


def test_a_chat_declares_no_schemas() -> None:
    agent = Agent("a")

    @agent.chat
    def chat(messages: list[Any]) -> str: ...  # type: ignore[empty-body]

    assert agent.handlers["chat"].schemas() == {}
