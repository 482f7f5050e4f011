"""`Agent`: a name, its handlers, and what a worker declares about them.

This module does not know how handlers are run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeVar, get_args

import msgspec

from protocol import Method

from .context import Context
from .handler import Handler, name_of
from .schemas import encode_schema

if TYPE_CHECKING:
    from .loops import Backend

DEFAULT_CONCURRENCY = 8
"""Requests that one worker runs at the same time: enough to overlap the waiting that agents mostly
do, few enough to keep threads and memory small."""


Mode: TypeAlias = Literal["text", "image", "audio", "file"]
"""A kind of content that a message may hold."""

MODES: tuple[Mode, ...] = get_args(Mode)


class _TakesContextByName(Protocol):
    def __call__(self, messages: list[Any], /, *, context: Context) -> object: ...


_ChatFunction: TypeAlias = (
    Callable[[list[Any]], object] | Callable[[list[Any], Context], object] | _TakesContextByName
)
_I = TypeVar("_I", bound=Callable[..., object])
_C = TypeVar("_C", bound=_ChatFunction)


class Agent:
    """Something that answers requests, with one handler for `invoke`, one for `chat`, or both.

    `name` identifies the agent in error messages: letters, digits, `-` and `_`. The gateway shows
    `description` and `metadata`. At most `concurrency` requests run at the same time in one worker.

        agent = Agent("greeter")

        @agent.invoke
        def greet(input, context):
            return f"Hello, {input['name']}!"

    What else callers may know of it: `input` and `output`, the JSON Schemas of an invoke (a dict,
    or a type that stands for one); `modes`, the kinds of content that its messages may hold
    ("text", "image", "audio", "file"); `tools`, that it calls tools of the client's
    (`context.tools`); `asks`, that it asks questions (`Ask`) and takes their answers
    (`context.resume`). What an agent has not declared, the gateway refuses.

    A handler may be a function (which runs in a thread), a coroutine function, a generator or an
    async generator. Raises ValueError or TypeError for impossible settings.
    """

    def __init__(
        self,
        name: str,
        *,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        input: object = None,  # noqa: A002  (its name on the wire)
        output: object = None,
        modes: Collection[Mode] = (),
        tools: bool = False,
        asks: bool = False,
    ) -> None:
        if not (name.isascii() and name.replace("-", "a").replace("_", "a").isalnum()):
            raise ValueError(f"the name {name!r} may hold only letters, digits, '-' and '_'")
        if concurrency < 1:
            raise ValueError(f"concurrency is {concurrency}, expected 1 or more")
        if isinstance(modes, str) or not set(modes) <= set(MODES):
            raise ValueError(f"modes are {modes!r}, expected some of {', '.join(MODES)}")
        self.name = name
        self.description = description
        self.metadata = dict(metadata or {})
        self.concurrency = concurrency
        self.handlers: dict[Method, Handler] = {}
        self.modes: Sequence[str] = tuple(modes)
        self.tools = tools
        self.asks = asks
        self._encoded_metadata = _encode_metadata(self.metadata)
        self._schemas = {
            what: encode_schema(what, schema)
            for what, schema in (("input", input), ("output", output))
            if schema is not None
        }

    def __repr__(self) -> str:
        return f"<Agent {self.name}: {', '.join(self.handlers) or 'no handlers'}>"

    def invoke(self, function: _I) -> _I:
        """Decorate the function that processes structured input.

        It takes (input) or (input, context), or parameters of its own, which are given the input's
        members of their names. What is annotated is checked before the function is called.

        Its return value is the output: anything that msgspec encodes as JSON, or a Pydantic model.
        """
        self._register("invoke", function)
        return function

    def chat(self, function: _C) -> _C:
        """Decorate the function of (messages) or (messages, context) that answers in conversations.

        The function returns the assistant's words, or a message: an object with `role` and
        `content`.
        """
        self._register("chat", function)
        return function

    def run(self, *, backend: Backend = "asyncio") -> None:
        """Serve requests from stdin until stdin ends. Call this once, on the main thread.

        From then on the process's stdin is empty and its stdout is its stderr: whatever an agent
        prints is log output. Exits the process on a signal (see the README); returns at the end of
        stdin.
        """
        # An agent that is only imported needs neither.
        from .start import serve  # noqa: PLC0415
        from .stdio import take_stdio  # noqa: PLC0415

        serve(self, take_stdio(), backend=backend)

    def encoded_metadata(self) -> bytes:
        """`metadata` as JSON text."""
        return self._encoded_metadata

    def encoded_schemas(self) -> Mapping[str, bytes]:
        """The JSON Schemas of "input" and "output", as JSON text, as far as they are declared."""
        return self._schemas

    def _register(self, method: Method, function: Callable[..., object]) -> None:
        if method in self.handlers:
            raise ValueError(
                f"agent {self.name!r} has a handler for {method} already; "
                f"{name_of(function)} would be a second one"
            )
        self.handlers[method] = Handler(method, function)


def _encode_metadata(metadata: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(metadata)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"metadata cannot be sent as JSON: {error}") from error
