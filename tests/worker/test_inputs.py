"""Annotations of handlers: what a payload is read as, what is refused, and with what words."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from protocol import ErrorCode
from worker import Context, InvalidInput
from worker.handler import Handler

from .conftest import Serve

CONTEXT = Context(user_id="u")
T = TypeVar("T")


@dataclasses.dataclass
class Trip:
    city: City  # defined further down
    days: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class City:
    name: str
    size: int = 0


class Point(msgspec.Struct):
    x: int
    kind: Literal["a", "b"] = "a"


class Model(pydantic.BaseModel):
    name: str
    age: Annotated[int, pydantic.Field(gt=0)] = 1

    @pydantic.field_validator("name")
    @classmethod
    def is_decent(cls, name: str) -> str:
        if name == "rude":
            raise ValueError("no such words")
        return name


@pydantic.dataclasses.dataclass
class Checked:
    n: Annotated[int, pydantic.Field(gt=0)]


@dataclasses.dataclass
class Mixed:
    model: Model


@dataclasses.dataclass
class Nested:
    checked: Checked


class Pair(NamedTuple):
    a: int
    b: str


class Options(TypedDict, total=False):
    limit: int


class Box(msgspec.Struct, Generic[T]):
    item: T


class Tone(enum.Enum):
    WARM = "warm"


@dataclasses.dataclass
class Even:
    n: int

    def __post_init__(self) -> None:
        if self.n % 2:
            raise ValueError("n is odd")


class Opaque:
    """A class that no JSON stands for."""


def name(name: str) -> Any:
    return name


def greeting(name: str = "World") -> Any:
    return name


def city(city: City) -> Any:
    return city


def trip(trip: Trip) -> Any:
    return trip


def point(p: Point) -> Any:
    return p


def model(m: Model) -> Any:
    return m


def models(ms: list[Model]) -> Any:
    return ms


def checked(c: Checked) -> Any:
    return c


def mixed(m: Mixed) -> Any:
    return m


def nested(n: Nested) -> Any:
    return n


def either(x: Point | Model) -> Any:
    return x


def trips(x: list[Trip | City]) -> Any:
    return x


def pair(p: Pair) -> Any:
    return p


def options(o: Options) -> Any:
    return o


def box(b: Box[int]) -> Any:
    return b


def tone(t: Tone) -> Any:
    return t


def even(e: Even) -> Any:
    return e


def day(when: datetime.date) -> Any:
    return when


def above(n: Annotated[int, msgspec.Meta(gt=3)]) -> Any:
    return n


def above_by_pydantic(n: Annotated[int, pydantic.Field(gt=3)]) -> Any:
    return n


def maybe(x: int | None) -> Any:
    return x


def anything(x: Any) -> Any:
    return x


def many(
    a: int,
    b: float = 2.5,
    *,
    c: Literal["x", "y"] = "x",
    d: str = None,  # type: ignore[assignment]  # noqa: RUF013  (many write it so)
    context: Context,
) -> Any:
    return a, b, c, d, context.user_id


def three(a, b, c):  # type: ignore[no-untyped-def]
    return a, b, c


def by_place(a: int, b: int, /, c: int = 3) -> Any:
    return a, b, c


def private(query: str, limit: int = 10, _key: str = "secret", cache=None) -> Any:  # type: ignore[no-untyped-def]
    return query, limit, _key, cache


class Service:
    def __call__(self, a: int, b: str) -> Any:
        return a, b


@functools.wraps(city)
def around(*args: Any) -> Any:
    return city(*args)


def call(function: Callable[..., object], payload: object, *, method: Any = "invoke") -> object:
    """What the function answers to a payload, as the server calls it; or what the caller is told"""
    handler = Handler(method, function)
    assert handler.prepare() == []
    try:
        return handler.call(msgspec.json.encode(payload), CONTEXT)
    except InvalidInput as error:
        return str(error)


@pytest.mark.parametrize(
    ("function", "payload", "answer"),
    [
        (name, "Ada", "Ada"),
        (name, {"name": "Ada"}, "Ada"),
        (name, 5, "input: expected str, got int"),
        (name, {"name": 5}, "input.name: expected str, got int"),
        (name, {"name": "Ada", "age": 3}, "input: expected str, got object"),
        (name, {}, "input: expected str, got object"),
        (name, None, "input: expected str, got null"),
        (greeting, {}, "World"),
        (greeting, "Ada", "Ada"),
        (city, {"name": "Rome"}, City("Rome")),
        (city, {"city": {"name": "Rome", "size": 3}}, City("Rome", 3)),
        (city, {"city": {"name": 5}}, "input.city.name: expected str, got int"),
        (city, {"name": 5}, "input.name: expected str, got int"),
        (city, {}, "input: object missing required field name"),
        (city, [], "input: expected object, got array"),
        (trip, {"city": {"name": "Rome"}, "days": [1]}, Trip(City("Rome"), [1])),
        (trip, {"city": {"name": "R"}, "days": [1, "2"]}, "input.days[1]: expected int, got str"),
        (trip, {"city": {}}, "input.city: object missing required field name"),
        (point, {"x": 1}, Point(1)),
        (point, {"p": {"x": 1, "kind": "c"}}, "input.p.kind: invalid enum value 'c'"),
        (model, {"name": "Ada"}, Model(name="Ada")),
        (model, {"name": 1}, "input.name: input should be a valid string, got int"),
        (model, {}, "input.name: field required"),
        (model, {"m": {"name": "rude"}}, "input.m.name: value error, no such words, got str"),
        (models, [{"name": "A"}, {"name": "B", "age": 0}],
         "input[1].age: input should be greater than 0, got int"),
        (checked, {"n": 0}, "input.n: input should be greater than 0, got int"),
        (mixed, {"model": {"name": "Ada"}}, Mixed(Model(name="Ada"))),
        (mixed, {"model": {"name": 1}},
         "input.model.name: input should be a valid string, got int"),
        (nested, {"checked": {"n": 0}},
         "input.checked.n: input should be greater than 0, got int"),
        (either, {"x": 1}, Point(1)),
        (either, {"name": "Ada"}, Model(name="Ada")),
        (either, {}, ("input: expected Point or Model (input: object missing required field x; "
                      "input.name: field required)")),
        (trips, [{"name": "Rome"}, {"city": {"name": "Rome"}}], [City("Rome"), Trip(City("Rome"))]),
        (pair, [1, "b"], Pair(1, "b")),
        (pair, [1, 2], "input[1]: expected str, got int"),
        (options, {"limit": 3}, {"limit": 3}),
        (options, {"limit": "3"}, "input.limit: expected int, got str"),
        (box, {"item": "x"}, "input.item: expected int, got str"),
        (tone, "warm", Tone.WARM),
        (tone, "cold", "input: invalid enum value 'cold'"),
        (even, {"n": 3}, "input: n is odd"),
        (day, "2026-01-02", datetime.date(2026, 1, 2)),
        (above, 3, "input: expected int >= 4"),
        (above_by_pydantic, 3, "input: input should be greater than 3, got int"),
        (maybe, None, None),
        (maybe, "x", "input: expected int | null, got str"),
        (anything, {"x": 1}, {"x": 1}),
        (many, {"a": 1}, (1, 2.5, "x", None, "u")),
        (many, {"a": 1, "b": 2, "c": "y", "d": None, "e": 0}, (1, 2.0, "y", None, "u")),
        (many, {"a": 1, "c": "z"}, "input.c: invalid enum value 'z'"),
        (many, {"b": 1}, "input.a is missing"),
        (many, 7, "input: expected object, got int"),
        (many, {"a": None}, "input.a: expected int, got null"),
        (three, {"a": 1, "b": None, "c": []}, (1, None, [])),
        (by_place, {"a": 1, "b": 2}, (1, 2, 3)),
        (private, {"query": "q", "limit": 3, "_key": "mine", "cache": "mine"},
         ("q", 3, "secret", None)),
        (Service(), {"a": 1, "b": "x"}, (1, "x")),
        (around, {"city": {"name": "Rome"}}, City("Rome")),
        (functools.partial(many, c="y"), {"a": 1, "c": "x"}, (1, 2.5, "y", None, "u")),
    ],
)  # fmt: skip
def test_an_input_is_what_the_annotations_say_or_is_refused_with_its_place(
    function: Callable[..., object], payload: object, answer: object
) -> None:
    assert call(function, payload) == answer


def unannotated(data, ctx):  # type: ignore[no-untyped-def]
    return data, ctx.user_id


def option(data, limit=10):  # type: ignore[no-untyped-def]
    return data, limit


def a_dict(data: dict, ctx) -> Any:  # type: ignore[type-arg, no-untyped-def]
    return data, ctx.user_id


def the_input(input: dict[str, Any], limit: int = 10) -> Any:  # noqa: A002
    return input, limit


def optional_context(data: dict[str, Any], context: Context | None = None) -> Any:
    return data, context and context.user_id


def rest(*args: Any) -> Any:
    data, context = args
    return data, context.user_id


def payload_alone(context) -> Any:  # type: ignore[no-untyped-def]
    return context, "u"


@pytest.mark.parametrize("data", [{"limit": 1, "data": 2}, {"data": {}}, {}])
@pytest.mark.parametrize(
    ("function", "second"),
    [
        (unannotated, "u"),
        (option, 10),
        (a_dict, "u"),
        (the_input, 10),
        (optional_context, "u"),
        (rest, "u"),
        (payload_alone, "u"),
    ],
)
def test_handlers_without_annotations_or_of_a_dict_are_given_the_whole_input(
    function: Callable[..., object], second: object, data: object
) -> None:
    assert call(function, data) == (data, second)


class Said(msgspec.Struct):
    role: str
    content: str


def of_messages(messages: list[Said]) -> Any:
    return messages


def of_many(messages: Sequence[dict[str, Any]], *, context: Context) -> Any:
    return messages, context.user_id


def test_messages_are_read_as_what_they_are_annotated_with() -> None:
    hi = {"role": "user", "content": "hi"}
    assert call(of_messages, [hi], method="chat") == [Said("user", "hi")]
    wrong = [hi, {"role": "user", "content": None}]
    assert call(of_messages, wrong, method="chat") == (
        "messages[1].content: expected str, got null"
    )
    assert call(of_many, [hi], method="chat") == ([hi], "u")


class Converted:
    """As haystack's."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def from_openai_dict_format(cls, message: dict[str, Any]) -> Converted:
        return cls(message["content"])


def of_converted(messages: list[Converted]) -> Any:
    return messages[-1].text


def test_messages_are_converted_where_their_type_has_a_way_to() -> None:
    assert call(of_converted, [{"role": "user", "content": "hi"}], method="chat") == "hi"
    assert call(of_converted, [{"role": "user"}], method="chat") == "messages: 'content'"


def missing(x: Undefined) -> Any:  # type: ignore[name-defined]  # noqa: F821
    return x


def opaque(x: list[Opaque]) -> Any:
    return x


def iterable(x: Iterable[int]) -> Any:
    return x


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (missing, "NameError: name 'Undefined' is not defined"),
        (opaque, "Opaque cannot be made from JSON"),
        (iterable, "Iterable cannot be made from JSON"),
    ],
)
def test_what_cannot_be_honoured_is_said_at_the_start_and_passed_unread(
    function: Callable[..., object], reason: str
) -> None:
    handler = Handler("invoke", function)
    assert handler.prepare() == [
        f"{function.__name__}: the values of 'x' are not checked: {reason}"
    ]
    assert handler.call(b'["anything"]', None) == ["anything"]


def test_a_context_that_only_checkers_import_is_the_context() -> None:
    source = "def f(data: dict, ctx: Context | None = None): return data, ctx"
    space: dict[str, Any] = {}
    exec(compile(f"from __future__ import annotations\n{source}", "x", "exec"), space)
    assert Handler("invoke", space["f"]).call(b"{}", CONTEXT) == ({}, CONTEXT)


async def test_a_mismatch_is_a_400_and_an_error_of_the_same_kind_within_the_handler_a_500(
    serve: Serve,
) -> None:
    source = """
        import dataclasses, msgspec, pydantic
        agent = Agent("a")

        @agent.invoke
        async def run(city: "City"):
            if city.name == "msgspec":
                msgspec.json.decode(b"1", type=str)
            if city.name == "pydantic":
                Model(n="x")
            return city

        class Model(pydantic.BaseModel):
            n: int

        @dataclasses.dataclass
        class City:
            name: str
    """
    async with serve(source) as worker:
        assert (await worker.invoke({"city": {"name": "Rome"}})).value == {"name": "Rome"}
        assert (await worker.invoke({"city": {"name": 5}})).failure == (
            ErrorCode.INVALID_INPUT,
            "input.city.name: expected str, got int",
        )
        assert (await worker.invoke(b'{"name":1e999}')).failure[0] == ErrorCode.INVALID_INPUT
        for kind in ("msgspec", "pydantic"):
            code, message = (await worker.invoke({"name": kind})).failure
            assert code == ErrorCode.INTERNAL
            assert message.startswith("ValidationError: ")
        assert await worker.finish() == 0
        assert "are not checked" not in worker.stderr


async def test_an_annotation_that_cannot_be_honoured_is_one_line_on_stderr(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        def run(x: "Nowhere"): return x
    """
    async with serve(source) as worker:
        assert (await worker.invoke(1)).value == 1
        await worker.said_on_stderr("worker: run: the values of 'x' are not checked: NameError")


async def test_an_agent_that_does_not_use_pydantic_does_not_import_it(serve: Serve) -> None:
    source = """
        import dataclasses
        agent = Agent("a")
        @dataclasses.dataclass
        class Point:
            x: int
        @agent.invoke
        def run(p: Point, q: list[Point] | None = None): return "pydantic" in sys.modules
    """
    async with serve(source) as worker:
        assert (await worker.invoke({"p": {"x": 1}})).value is False
