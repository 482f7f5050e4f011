"""The pure parts of the SDK: what an agent is, what a handler is, what an answer is."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import functools
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest
import trio

from protocol import ErrorCode, Result
from protocol.gateway_side import GatewayConnection
from protocol.worker_side import WorkerConnection
from worker import Agent, Context, InvalidInput
from worker.answer import MAX_ERROR_TEXT, chunk_encoder, encode_answer, explain_exception
from worker.context import read_context
from worker.handler import Handler
from worker.outbox import HIGH_WATER_BYTES, Outbox
from worker.turn import Turn

# Agents


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "a.b"])
def test_a_name_that_no_url_can_hold_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="may hold only letters, digits, '-' and '_'"):
        Agent(name)


@pytest.mark.parametrize("name", ["a", "A-1_b", "-", "_"])
def test_a_name_of_letters_digits_dashes_and_underscores_is_taken(name: str) -> None:
    assert Agent(name).name == name


def test_a_concurrency_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="concurrency is 0, expected 1 or more"):
        Agent("a", concurrency=0)


def test_metadata_that_is_no_json_is_refused() -> None:
    with pytest.raises(TypeError, match="metadata cannot be sent as JSON"):
        Agent("a", metadata={"what": object()})


def test_a_second_handler_for_a_method_is_refused() -> None:
    agent = Agent("a")

    @agent.invoke
    def first(value: object) -> object:
        return value

    with pytest.raises(ValueError, match=r"has a handler for invoke already; .*second"):

        @agent.invoke
        def second(value: object) -> object:
            return value

    assert repr(agent) == "<Agent a: invoke>"


def test_a_decorated_function_is_still_itself() -> None:
    agent = Agent("a")

    @agent.invoke
    def double(value: int) -> int:
        return 2 * value

    assert double(4) == 8


# Handlers


def plain(value: object) -> object:
    return value


def with_context(value: object, context: Context) -> object:
    return value, context


async def coroutine(value: object) -> object:
    return value


async def generator(value: object, context: object) -> Any:
    yield value


def option(value: object, model: str = "best") -> object:
    return value, model


def optional_context(value: object, context: Context | None = None) -> object:
    return value, context


def anything(*args: object, **kwargs: object) -> object:
    return args, kwargs


class Callee:
    async def __call__(self, value: object) -> object:
        return value

    def method(self, value: object, context: object) -> object:
        return value, context


@functools.wraps(coroutine)
def wrapper(*args: Any, **kwargs: Any) -> object:
    return coroutine(*args, **kwargs)


@pytest.mark.parametrize(
    ("function", "takes_context", "is_async"),
    [
        (plain, False, False),
        (with_context, True, False),
        (coroutine, False, True),
        (generator, True, True),
        (option, False, False),
        (optional_context, True, False),
        (anything, True, False),
        (Callee(), False, True),
        (Callee().method, True, False),
        (functools.partial(coroutine), False, True),
        (functools.partial(option, model="worst"), False, False),
        (wrapper, False, False),
        (lambda value, *, flag=True: (value, flag), False, False),
    ],
)
def test_what_a_function_takes_is_found_out(
    function: Callable[..., object], takes_context: bool, is_async: bool
) -> None:
    handler = Handler("invoke", function)
    assert handler.takes_context == takes_context
    assert handler.is_async == is_async


def nothing() -> None:
    """Takes nothing."""


def context_alone(context: Context) -> None:
    """Takes nothing of the caller's input."""


@pytest.mark.parametrize("function", [nothing, context_alone])
def test_a_function_that_takes_no_input_is_refused(function: Callable[..., object]) -> None:
    with pytest.raises(
        TypeError, match=rf"{function.__name__}\(.*\).* must take \(input\) or \(input, context\)"
    ):
        Handler("invoke", function)
    with pytest.raises(TypeError, match=r"must take \(messages\) or \(messages, context\)"):
        Handler("chat", function)


def too_much(a: object, b: object, c: object) -> None:
    """Takes three."""


def test_a_chat_has_nothing_to_give_but_messages_and_a_context() -> None:
    with pytest.raises(TypeError, match=r"must take \(messages\) or \(messages, context\)"):
        Handler("chat", too_much)


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match="the chat handler is int, not a function"):
        Handler("chat", 3)  # type: ignore[arg-type]


# Contexts


def test_a_context_can_be_made_for_tests_of_handlers() -> None:
    context = Context(user_id="u")
    assert (context.user_id, context.custom, context.cancelled) == ("u", {}, False)


def test_contexts_share_nothing() -> None:
    Context().custom["a"] = 1
    assert Context().custom == {}


@pytest.mark.parametrize("text", [b"{}", b"null", b'{"custom":null}'])
def test_an_empty_context_has_everything_empty(text: bytes) -> None:
    assert read_context(text, request_id="r", stream=True) == Context(request_id="r", stream=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[]", "context is list, expected an object"),
        (b'{"conversation_id":1}', "context.conversation_id is int, expected a string or null"),
        (b'{"custom":"x"}', "context.custom is str, expected an object or null"),
        (b'{"x":1e999}', "context cannot be decoded: "),
    ],
)
def test_a_wrong_context_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_context(text, request_id="r", stream=False)


# Answers


class Point(msgspec.Struct):
    x: int


@dataclasses.dataclass
class Line:
    start: Point


class Model(pydantic.BaseModel):
    when: datetime.date


class Word(str):
    __slots__ = ()


class Size(int):
    def __str__(self) -> str:
        return "three"


class Share(float):
    __slots__ = ()


class Array:
    """As NumPy's."""

    def tolist(self) -> list[float]:
        return [1.5]


class Choice(str, enum.Enum):  # noqa: UP042  (StrEnum is another case)
    A = "a"


def answer(method: str, result: object) -> Any:
    """What the gateway is told when a handler returns this."""
    gateway, worker = GatewayConnection(ids=count(1)), WorkerConnection()
    request_id, line = gateway.send_request(method, b"[]", stream=False, request_id="r")  # type: ignore[arg-type]
    worker.receive_data(b"".join(line))
    (event,) = gateway.receive_data(encode_answer(Turn(worker, request_id, method), result))  # type: ignore[arg-type]
    assert isinstance(event, Result)
    return msgspec.json.decode(event.value)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (None, None),
        ({"a": (1, 2.5, "ü")}, {"a": [1, 2.5, "ü"]}),
        (Point(1), {"x": 1}),
        ([Line(Point(1))], [{"start": {"x": 1}}]),
        (Model(when=datetime.date(2026, 1, 2)), {"when": "2026-01-02"}),
        ({"deep": [Model(when=datetime.date(2026, 1, 2))]}, {"deep": [{"when": "2026-01-02"}]}),
        (float("nan"), None),
        ({"a": Word("x"), "b": [Size(3), Share(0.5)]}, {"a": "x", "b": [3, 0.5]}),
        (collections.ChainMap({"a": collections.deque([1])}), {"a": [1]}),
        ([range(2), {"k": 1}.keys()], [[0, 1], ["k"]]),
        (Array(), [1.5]),
        (msgspec.Raw(b'{"a":\n1}'), {"a": 1}),
    ],
)
def test_anything_with_a_json_form_is_an_output(output: object, expected: object) -> None:
    assert answer("invoke", output) == expected


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("hi", {"role": "assistant", "content": "hi"}),
        (Word("hi"), {"role": "assistant", "content": "hi"}),
        ({"role": "tool", "content": [1]}, {"role": "tool", "content": [1]}),
        (msgspec.defstruct("M", [("role", str), ("content", None)])("user", None),
         {"role": "user", "content": None}),
    ],
)  # fmt: skip
def test_a_string_or_a_message_answers_a_chat(message: object, expected: object) -> None:
    assert answer("chat", message) == expected


@pytest.mark.parametrize(
    ("method", "result", "message"),
    [
        ("invoke", object(), "answer cannot be sent as JSON: object has no JSON form"),
        ("invoke", {"a": {1j}}, "answer cannot be sent as JSON: complex has no JSON form"),
        ("invoke", "\ud800", "the invoke handler's answer cannot be sent as JSON: "),
        ("invoke", "x" * 9_000_000, "the invoke handler's answer cannot be sent: a line of"),
        ("chat", None, "the chat handler's answer cannot be sent: "),
        ("chat", 7, "the chat handler's answer cannot be sent: "),
        ("chat", {"content": "x"}, "missing required field `role`"),
        ("chat", {"role": "robot", "content": "x"}, "the role is 'robot', expected one of system"),
        ("chat", {"role": "assistant"}, "missing required field `content`"),
        ("chat", {"role": "assistant", "content": 7}, "the content is a number, expected a string"),
    ],
)  # fmt: skip
def test_what_cannot_be_an_answer_is_explained(method: str, result: object, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        answer(method, result)


def test_a_cyclic_output_is_explained() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises((TypeError, ValueError), match="the invoke handler's answer cannot be sent"):
        answer("invoke", cycle)


@pytest.mark.parametrize("chunk", ["a\nb", Word("a\nb")])
def test_a_chunk_is_a_string_of_any_kind(chunk: str) -> None:
    worker = WorkerConnection()
    worker.receive_data(b'{"id":1,"method":"invoke","params":{"input":1}}\n')
    encode = chunk_encoder(Turn(worker, 1, "invoke"))
    assert b'"chunk":"a\\nb"' in encode(chunk)
    assert b'"chunk":"a"' in encode(Choice.A)


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        (b"x", "the chat handler yielded bytes, expected str"),
        (None, "the chat handler yielded None, expected str"),
        ("\ud800", "a chunk of the chat handler cannot be sent: "),
        ("x" * 9_000_000, "a chunk of the chat handler cannot be sent: a line of"),
    ],
)
def test_what_cannot_be_a_chunk_is_explained(chunk: object, message: str) -> None:
    worker = WorkerConnection()
    worker.receive_data(b'{"id":1,"method":"chat","params":{"messages":[]}}\n')
    encode = chunk_encoder(Turn(worker, 1, "chat"))
    with pytest.raises((TypeError, ValueError), match=message):
        encode(chunk)


def test_the_text_of_an_exception_is_bounded() -> None:
    _, text = explain_exception(ValueError("x" * 100_000))
    assert len(text) == MAX_ERROR_TEXT + 1


def test_an_exception_that_cannot_be_printed_is_named() -> None:
    class Unprintable(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError

    assert explain_exception(Unprintable())[1] == "Unprintable"


# The outbox


def drain(reader: socket.socket) -> bytes:
    data = b""
    try:
        while True:
            data += reader.recv(1 << 20)
    except BlockingIOError:
        return data


async def test_lines_leave_in_order_and_together_in_one_write() -> None:
    # A socket of this type keeps the boundaries of writes.
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with reader, writer:
        outbox = Outbox(writer.fileno(), on_broken=lambda: None)
        assert outbox.put(b"1\n")
        assert not outbox.put(b"2\n")
        outbox.flush()
        assert outbox.put(b"3\n")
        outbox.flush()
        assert [reader.recv(100), reader.recv(100)] == [b"1\n2\n", b"3\n"]


async def test_what_the_reader_does_not_take_waits_and_room_comes_back() -> None:
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        outbox = Outbox(writer.fileno(), on_broken=lambda: None)
        sent = b""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.write_when_possible)
            while outbox.size <= HIGH_WATER_BYTES:
                line = b"%d " % len(sent) * 100 + b"\n"
                sent += line
                outbox.put(line)
                outbox.flush()
            assert "blocked" in repr(outbox)
            nursery.start_soon(outbox.wait_until_empty)
            received = b""
            while len(received) < len(sent):
                await trio.lowlevel.wait_readable(reader)
                received += drain(reader)
            assert received == sent
            await outbox.wait_until_empty()
            assert repr(outbox) == "<Outbox flowing, 0 bytes>"
            nursery.cancel_scope.cancel()


async def test_a_reader_that_has_gone_is_told_once_and_nothing_is_kept() -> None:
    read, write = os.pipe()
    gone = []
    outbox = Outbox(write, on_broken=lambda: gone.append(True))
    os.close(read)
    for _ in range(3):
        outbox.put(b"x" * HIGH_WATER_BYTES)
        outbox.flush()
    os.close(write)
    assert gone == [True]
    assert outbox.size == 0
    assert repr(outbox) == "<Outbox broken, 0 bytes>"


# Types


def test_mypy_takes_right_handlers_and_refuses_wrong_ones(tmp_path: Path) -> None:
    source = tmp_path / "typed.py"
    source.write_text(
        "from collections.abc import AsyncIterator\n"
        "from typing import Any\n"
        "from worker import Agent, Context\n"
        "agent = Agent('a')\n"
        "@agent.invoke\n"
        "async def a(value: dict[str, int], context: Context) -> list[int]: return [1]\n"
        "reveal_type(a)\n"
        "other = Agent('b')\n"
        "@other.chat\n"
        "async def b(messages: list[dict[str, Any]]) -> AsyncIterator[str]: yield ''\n"
        "@other.invoke\n"
        "def c(value: int, *, other: int = 3) -> None: ...\n"
        "@agent.chat\n"
        "def d(messages: str) -> None: ...\n"
        "@agent.chat\n"
        "def e(messages: list[Any], other: int) -> None: ...\n"
        "@agent.chat\n"
        "def f(messages: list[Any], *, context: Context) -> None: ...\n"
        "agent.invoke(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), str(source)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    *lines, summary = done.stdout.splitlines()
    errors = [line for line in lines if ": error: " in line]
    assert any("def (value: dict[str, int], context: worker.context.Context)" in x for x in lines)
    assert [int(line.split(":")[1]) for line in errors] == [13, 15, 19], done.stdout
    assert "Found 3 errors" in summary


# Exceptions


def caused(*texts: str) -> BaseException:
    """A chain of exceptions, the last one caused by the one before, and so on."""
    error: BaseException | None = None
    for text in texts:
        latest = ValueError(text)
        latest.__cause__ = error
        error = latest
    assert error is not None
    return error


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["outer"], "ValueError: outer"),
        (["no route", "inner", "outer"], "ValueError: outer (caused by ValueError: no route)"),
        (["no route", "inner", "outer: no route"], "ValueError: outer: no route"),
        (["", "outer"], "ValueError: outer"),
    ],
)
def test_the_first_cause_of_a_failure_is_told_with_it(texts: list[str], message: str) -> None:
    assert explain_exception(caused(*texts)) == (ErrorCode.INTERNAL, message)


def test_a_failure_that_is_its_own_cause_is_told_once() -> None:
    error = caused("first", "second")
    assert error.__cause__ is not None
    error.__cause__.__cause__ = error
    assert explain_exception(error)[1] == "ValueError: second (caused by ValueError: first)"
