"""The cases of the suite, read from the `.jsonl` files of this folder.

Each line of a file is one JSON object. The first of a case names it; its steps follow, in order:

    {"case": "what a worker does", "see": "section of protocol/README.md", "needs": ["ready"]}
    {"send": {…}}              one line to the worker's stdin, as it stands here
    {"send": "…"}              the same, as the text of the line
    {"send": …, "pieces": 5}   in so many writes, each when the worker has read the one before
    {"send": [{…}, {…}]}       several lines in one write
    {"expect": {"id": 7, …}}   wait for the answer to a request, which must be like this
    {"expect": [{…}, {…}]}     the same for several, in any order
    {"close": true}            close the worker's stdin
    {"exit": 0}                wait for the worker to end with this status

An expected answer has the members that count. `result` is compared as a JSON value; of `error`,
`code` and `message` (a part of it) where they are given; `chunks` is the text of all chunks
together; `events` are all events, in order, and `outcome` what the answer says of its end. With
`"open": true` the step waits for these chunks only, and not for the end of the
answer. With `id` alone any legal answer is right. The ids in a file increase, as those of a gateway
do.

In texts, `{{x*1000}}` stands for a thousand times `x`, and the string `"{{input}}"` for the input
that the worker's author says it takes.

`needs` says to which workers a case applies: to those that send `ready`, that take two requests at
a time (`concurrency`), that have the handler `invoke`, `chat`, or `no chat`, or that follow the
script of protocol/README.md (`script`).
"""

from __future__ import annotations

import re
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

if TYPE_CHECKING:
    from collections.abc import Iterator

Need: TypeAlias = Literal["ready", "concurrency", "invoke", "chat", "no chat", "script"]

FILES = (
    "life",
    "requests",
    "lines",
    "values",
    "streams",
    "errors",
    "cancel",
    "concurrency",
    "stray",
    "events",
)
"""In this order: what most of the rest depends on comes first."""

_REPEATED = re.compile(r"\{\{(.+?)\*(\d+)\}\}")
_INPUT = '"{{input}}"'


class Header(Struct, forbid_unknown_fields=True):
    """The first line of a case."""

    case: str
    see: str
    needs: tuple[Need, ...] = ()


class Step(Struct, forbid_unknown_fields=True):
    """One of the lines that follow; exactly one of the first four members is set."""

    send: Raw | UnsetType = UNSET
    expect: Raw | UnsetType = UNSET
    close: bool | UnsetType = UNSET
    exit: int | UnsetType = UNSET
    pieces: int = 1
    line: int = 0
    """The number of the line in its file."""


class Case(Struct):
    """What a worker does, and the steps that show it."""

    file: str
    line: int
    header: Header
    steps: list[Step]


class ExpectedError(Struct, forbid_unknown_fields=True):
    code: int | UnsetType = UNSET
    message: str | UnsetType = UNSET


class Expected(Struct, forbid_unknown_fields=True):
    """What an answer must be like."""

    id: int
    chunks: str | UnsetType = UNSET
    events: list[Any] | UnsetType = UNSET
    result: Any = UNSET
    outcome: dict[str, Any] | UnsetType = UNSET
    error: ExpectedError | UnsetType = UNSET
    open: bool = False


def load_cases() -> Iterator[Case]:
    """All cases, file by file. Raises msgspec.ValidationError for a file that is not like this."""
    for name in FILES:
        text = resources.files(__package__).joinpath(f"{name}.jsonl").read_text(encoding="utf-8")
        case: Case | None = None
        for number, line in enumerate(text.split("\n"), 1):
            if line.startswith('{"case"'):
                if case is not None:
                    yield case
                header = msgspec.json.decode(line, type=Header)
                case = Case(f"{name}.jsonl", number, header, [])
            elif line and case is not None:
                step = msgspec.json.decode(line, type=Step)
                step.line = number
                case.steps.append(step)
        if case is not None:
            yield case


def lines_to_send(step: Step, *, agent_input: str) -> list[bytes]:
    """The lines that a `send` step writes, without their newlines."""
    assert step.send is not UNSET
    whole = _expanded(bytes(step.send).decode(), agent_input)
    if whole.startswith("["):
        return [bytes(each) for each in msgspec.json.decode(whole, type=list[Raw])]
    return [msgspec.json.decode(whole, type=str).encode() if whole[0] == '"' else whole.encode()]


def answers_expected(step: Step, *, agent_input: str) -> list[Expected]:
    """What an `expect` step waits for."""
    assert step.expect is not UNSET
    whole = _expanded(bytes(step.expect).decode(), agent_input)
    if whole.startswith("["):
        return msgspec.json.decode(whole, type=list[Expected])
    return [msgspec.json.decode(whole, type=Expected)]


def _expanded(text: str, agent_input: str) -> str:
    repeated = _REPEATED.sub(lambda found: found[1] * int(found[2]), text)
    return repeated.replace(_INPUT, agent_input).replace(_INPUT.replace('"', '\\"'), agent_input)
