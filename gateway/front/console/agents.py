"""Agents as the console shows them, and what has changed since a reader has seen them.

`Glances.look` makes the views of one moment. What has not changed is the very object that it was
the time before, so that readers find out what is new to them by comparing identities. An agent's
workers are a letter each here: thousands of them are a glance, and a short text to send. All about
them, `gateway.front.console.workers` tells whoever has opened their agent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct, structs

from gateway.agents.status import LastFailure, LimitMet
from gateway.front.console.workers import letter_of
from gateway.front.slices import Slices, pieces
from gateway.observe.harmless import printable, shortened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from gateway.agents.agent import Agent

MOST_DESCRIPTION = 500
MOST_MESSAGE = 2000
MOST_HANDLERS = 100

MOST_AGENTS = 50
"""That are told of in one event."""


class AgentView(Struct, frozen=True, kw_only=True):
    """AGENT, as the README has it, with all members."""

    name: str
    description: str | None
    handlers: tuple[str, ...] | None
    state: str
    waiting: int
    queue: int
    in_flight: int
    max_workers: int
    started: int
    failures: int
    failure: LastFailure | None
    limit: LimitMet | None
    revision: int
    cells: str


_MEMBERS = tuple(name for name in AgentView.__struct_fields__ if name != "name")


class _Texts(NamedTuple):
    """What costs most to show of an agent, and changes seldom: with what it was made of, which is
    compared by identity, as none of it is ever changed."""

    made_of: tuple[object, ...]
    description: str | None
    handlers: tuple[str, ...] | None
    failure: LastFailure | None
    limit: LimitMet | None
    revision: int


class Glances:
    """Of the agents of one gateway."""

    def __init__(self) -> None:
        self._last: dict[str, AgentView] = {}
        self._texts: dict[str, _Texts] = {}
        self._revision = 0

    def __repr__(self) -> str:
        return f"<Glances at {len(self._last)} agents>"

    async def look(self, agents: Iterable[Agent]) -> Mapping[str, AgentView]:
        """The views by name. Each is of one moment; other tasks run in between."""
        slices = Slices()
        views = {}
        for agent in tuple(agents):
            views[agent.name] = self._view(agent)
            await slices.pause()
        for gone in self._texts.keys() - views.keys():
            del self._texts[gone]
        self._last = views
        return views

    def _view(self, agent: Agent) -> AgentView:
        summary, texts = agent.summary, self._texts_of(agent)
        view = AgentView(
            name=summary.name,
            description=texts.description,
            handlers=texts.handlers,
            state=summary.state.value,
            waiting=summary.waiting,
            queue=agent.settings.queue,
            in_flight=summary.in_flight,
            max_workers=agent.settings.workers.max,
            started=agent.started,
            failures=summary.failures,
            failure=texts.failure,
            limit=texts.limit,
            revision=texts.revision,
            cells="".join(map(letter_of, agent.workers)),
        )
        last = self._last.get(agent.name)
        return last if last is not None and last == view else view

    def _texts_of(self, agent: Agent) -> _Texts:
        settings, ready = agent.settings, agent.declared.ready
        made_of = (settings, ready, agent.last_failure, agent.last_limit)
        known = self._texts.get(agent.name)
        if known is not None and all(map(_is, known.made_of, made_of)):
            return known
        # Another number when the agent's details are other ones than before.
        if known is not None and known.made_of[0] is settings and known.made_of[1] is ready:
            revision = known.revision
        else:
            revision = self._revision = self._revision + 1
        summary = agent.summary
        texts = self._texts[agent.name] = _Texts(
            made_of,
            _cut(summary.description, MOST_DESCRIPTION),
            None if summary.handlers is None else summary.handlers[:MOST_HANDLERS],
            None if agent.last_failure is None else _with_cut_message(agent.last_failure),
            None if agent.last_limit is None else _with_cut_message(agent.last_limit),
            revision,
        )
        return texts


def _is(one: object, other: object) -> bool:
    return one is other


def _cut(text: str | None, most: int) -> str | None:
    return None if text is None else printable(shortened(text, most))


def _with_cut_message(told: Any) -> Any:
    return structs.replace(told, message=_cut(told.message, MOST_MESSAGE))


class SeenAgents:
    """What one reader has been told."""

    def __init__(self, may_see: Callable[[str], bool], *, keys: bool) -> None:
        self._may_see = may_see
        self._keys = keys
        self._told: dict[str, AgentView] = {}

    def news(self, views: Mapping[str, AgentView]) -> Iterator[dict[str, Any]]:
        """What has changed, and is told now, in pieces: `agents` and `removed`."""
        before = self._told
        self._told = {name: view for name, view in views.items() if self._may_see(name)}
        removed = [name for name in before if name not in self._told]
        changed = [view for name, view in self._told.items() if before.get(name) is not view]
        for piece in pieces(changed, MOST_AGENTS) if changed or not removed else ([],):
            changes = [self._change(before.get(view.name), view) for view in piece]
            yield {"agents": changes, "removed": removed}
            removed = []

    def _change(self, last: AgentView | None, view: AgentView) -> dict[str, Any]:
        change: dict[str, Any] = {
            name: getattr(view, name)
            for name in _MEMBERS
            if last is None or getattr(last, name) != getattr(view, name)
        }
        if self._keys and change.get("limit") is not None:
            # It quotes what the agent told the caller that has met the limit.
            change["limit"] = structs.replace(change["limit"], message="")
        return {"name": view.name, **change}
