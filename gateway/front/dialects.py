"""The client protocols that there are, by the names that `[server] dialects` has for them.

Each is a package beside this module. What is off is not imported: hence the functions.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from gateway.front.native.dialect import NativeDialect

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from quart import Blueprint

    from gateway.agents.dispatcher import Dispatcher
    from gateway.front.auth import Keys
    from gateway.front.calling import Calling
    from gateway.front.chats.models import ModelForms
    from gateway.front.described import AgentView, Part
    from gateway.front.dialect import Dialect
    from gateway.front.mount import Mount
    from gateway.front.runs.service import Runs


class Served(NamedTuple):
    """One client protocol, as it is served."""

    dialect: Dialect
    describe: Callable[[Sequence[AgentView]], Part]
    """Its part of the OpenAPI document."""
    routes: Callable[[Dispatcher], Blueprint] | None = None
    """What it has besides calls of agents: lists, cards."""
    models: ModelForms | None = None
    """How it lists the agents as models, if it does."""
    open_suffix: str | None = None
    """How the paths among its routes end that need no key: they decide what a stranger is told."""
    mount: Callable[[Dispatcher, Calling, Runs, Keys], Mount] | None = None
    """What serves its path where the protocol comes with machinery of its own."""


def _openai() -> Served:
    from gateway.front.openai.dialect import OpenAIDialect  # noqa: PLC0415
    from gateway.front.openai.models import MODELS  # noqa: PLC0415

    def describe(agents: Sequence[AgentView]) -> Part:
        from gateway.front.openai.description import describe  # noqa: PLC0415

        return describe(agents)

    return Served(OpenAIDialect(), describe, models=MODELS)


def _anthropic() -> Served:
    from gateway.front.anthropic.dialect import AnthropicDialect  # noqa: PLC0415
    from gateway.front.anthropic.models import MODELS  # noqa: PLC0415

    def describe(agents: Sequence[AgentView]) -> Part:
        from gateway.front.anthropic.description import describe  # noqa: PLC0415

        return describe(agents)

    return Served(AnthropicDialect(), describe, models=MODELS)


def _ag_ui() -> Served:
    from gateway.front.ag_ui.dialect import AGUIDialect  # noqa: PLC0415

    def describe(agents: Sequence[AgentView]) -> Part:
        from gateway.front.ag_ui.description import describe  # noqa: PLC0415

        return describe(agents)

    return Served(AGUIDialect(), describe)


def _a2a() -> Served:
    from gateway.front.a2a.dialect import CARD, A2ADialect  # noqa: PLC0415
    from gateway.front.a2a.routes import make_blueprint  # noqa: PLC0415

    def describe(agents: Sequence[AgentView]) -> Part:
        from gateway.front.a2a.description import describe  # noqa: PLC0415

        return describe(agents)

    dialect = A2ADialect()
    return Served(dialect, describe, partial(make_blueprint, dialect), open_suffix=CARD)


def _mcp() -> Served:
    from gateway.front.mcp.dialect import McpDialect  # noqa: PLC0415

    def describe(agents: Sequence[AgentView]) -> Part:
        from gateway.front.mcp.description import describe  # noqa: PLC0415

        return describe(agents)

    def mount(dispatcher: Dispatcher, calling: Calling, runs: Runs, keys: Keys) -> Mount:
        from gateway.front.mcp.routes.endpoint import Endpoint  # noqa: PLC0415 - about a second

        return Endpoint(dispatcher, calling, runs, keys)

    return Served(McpDialect(), describe, mount=mount)


def _native(*, serves: bool) -> Served:
    def describe(agents: Sequence[AgentView]) -> Part:
        from gateway.front.native.description import describe  # noqa: PLC0415

        return describe(agents if serves else ())

    return Served(NativeDialect(serves=serves), describe)


def _ui() -> Served:
    from gateway.front.ui.dialect import UIDialect  # noqa: PLC0415

    def describe(agents: Sequence[AgentView]) -> Part:
        from gateway.front.ui.description import describe  # noqa: PLC0415

        return describe(agents)

    return Served(UIDialect(), describe)


_MAKERS: Mapping[str, Callable[[], Served]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "ag-ui": _ag_ui,
    "a2a": _a2a,
    "mcp": _mcp,
    "ui": _ui,
}
"""All but the native one, in the order in which they are asked whose a path is."""


def serve_dialects(names: Collection[str]) -> tuple[Served, ...]:
    """The client protocols with these names.

    The native one is the last, and there in any case: it answers for every path that is nobody's.
    """
    return tuple(_chosen(names))


def _chosen(names: Collection[str]) -> Iterator[Served]:
    for name, make in _MAKERS.items():
        if name in names:
            yield make()
    yield _native(serves="native" in names)
