"""Handlers: what kind of function each is, and how to call it.

Does not know how or where a handler runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Protocol

from protocol import Method, Payload

from .context import Context, decode
from .inputs import arguments
from .parameters import Roles, roles_of

_ASYNC = 0x80 | 0x200  # inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

_Arguments = Callable[[Payload, Context | None], tuple[list[Any], dict[str, Any]]]


class Handler:
    """One function of an agent, ready to be called.

    Annotations are resolved by `prepare`, once the agent's module is complete: until then a type
    that is defined further down has no meaning.
    """

    __slots__ = ("_function", "_read", "_roles", "_simple", "is_async", "method", "takes_context")

    def __init__(self, method: Method, function: Callable[..., object]) -> None:
        """Raises TypeError for what cannot be a handler of the method."""
        if not callable(function):
            raise TypeError(f"the {method} handler is {type(function).__name__}, not a function")
        self.method: Method = method
        self.is_async = _is_async(function)
        self._function = function
        self._roles = roles_of(method, function)
        self.takes_context = self._roles.context is not None
        self._simple = _is_simple(self._roles)
        self._read: _Arguments | None = None

    def __repr__(self) -> str:
        return f"<Handler {self.method}, {name_of(self._function)}>"

    def prepare(self) -> list[str]:
        """Resolve the annotations; returns what is wrong with those that cannot be honoured."""
        if self._simple:
            return []
        self._read, complaints = arguments(self.method, self._function, self._roles)
        return [f"{name_of(self._function)}: {complaint}" for complaint in complaints]

    def schemas(self) -> Mapping[str, bytes]:
        """The JSON Schemas that the annotations stand for, of "input" and "output" where they say
        anything, as JSON text."""
        if self.method != "invoke":
            return {}
        from .schemas import derived  # noqa: PLC0415  (an agent that is only imported has no need)

        return derived(self._function, self._roles)

    def call(self, payload: Payload, context: Context | None) -> object:
        """Call the function with the JSON text of an input or of messages: an answer, an awaitable
        of one, or an iterator of chunks. Raises InvalidInput for a text that it does not take."""
        if self._simple:
            value = decode(payload, PAYLOAD_NAMES[self.method])
            return self._function(value, context) if self.takes_context else self._function(value)
        if self._read is None:
            self.prepare()
            assert self._read is not None
        positional, named = self._read(payload, context)
        return self._function(*positional, **named)


PAYLOAD_NAMES: Mapping[Method, str] = {"invoke": "input", "chat": "messages"}


class Served(Protocol):
    """An agent, as much of it as serving its requests needs."""

    name: str
    """Stands in messages for callers and authors."""
    concurrency: int
    """How many requests run at the same time, at most."""

    @property
    def handlers(self) -> Mapping[Method, Handler]:
        """One handler for each method that it serves."""


def name_of(function: object) -> str:
    """A function's name, as its author knows it."""
    return getattr(function, "__qualname__", None) or repr(function)


def _is_simple(roles: Roles) -> bool:
    """Whether the first parameter takes any payload, and the second one the context."""
    if roles.whole is None or roles.whole.annotation is not None:
        return False
    given = [each for each in (roles.whole, roles.context) if each is not None]
    return all(
        each is first and not each.by_keyword
        for each, first in zip(given, roles.parameters, strict=False)
    )


def _is_async(function: object) -> bool:
    """Whether a call runs none of the function's code, so that the event loop may make it."""
    while isinstance(function, partial):
        function = function.func
    if not isinstance(function, (FunctionType, MethodType)):
        function = getattr(type(function), "__call__", None)  # noqa: B004  (its code is read)
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & _ASYNC)
