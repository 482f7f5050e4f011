"""The routes `/openapi.json` and `/docs`.

The page and its files are the same for everybody, and need no key: a browser cannot send one with a
page that it is told to go to. What the page then fetches, `/openapi.json`, needs the key as any
request does; the page asks for it. Nothing on the page comes from anywhere else, and its policy
(Content-Security-Policy) has the browser see to that, whatever an agent writes into a description.
"""

from __future__ import annotations

import gzip
from collections import deque
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio
from quart import Blueprint, Response, request

from gateway.errors import NotFound
from gateway.front.auth import ANONYMOUS
from gateway.front.described import AgentView
from gateway.front.docs.document import make_document
from gateway.front.docs.embedding import UnfitError, embedded
from gateway.front.status import caller, visible_agents

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from gateway.agents.dispatcher import Dispatcher
    from gateway.config import ServerSettings
    from gateway.front.dialects import Served
    from protocol import Ready

PAGE = Path(__file__).parent / "page"

MOST_TEXTS = 4
"""Documents that are kept: callers see others where their keys are for other agents."""

_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".png": "image/png"}

POLICY = "; ".join(
    (
        "default-src 'none'",
        "base-uri 'none'",
        "connect-src 'self'",
        "font-src 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "img-src 'self' data:",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Swagger UI sets the sizes of what it draws
    )
)

_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Shown(NamedTuple):
    """An agent that a caller may see, as it is at one moment."""

    name: str
    description: str | None
    """The configuration's."""
    ready: Ready | None


class _Views:
    """The agents' parts of the document. Not for several threads at a time."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Ready, AgentView]] = {}

    def keep(self, agents: Container[str]) -> None:
        """Forget all others: they are gone."""
        self._made = {name: made for name, made in self._made.items() if name in agents}

    def of(self, agent: _Shown) -> AgentView:
        """The same as long as its worker's declaration is: a schema is read once."""
        if agent.ready is None:
            return AgentView(agent.name, agent.description)
        made = self._made.get(agent.name)
        if made is None or made[0] is not agent.ready:
            made = self._made[agent.name] = agent.ready, _view(agent, agent.ready)
        return made[1]


class _Texts:
    """The last documents. Whoever may see the same is sent the same text: each may have megabytes,
    and hundreds of clients may read it slowly."""

    def __init__(self) -> None:
        self._made: deque[tuple[Sequence[_Shown], bool, bytes]] = deque(maxlen=MOST_TEXTS)

    def find(self, agents: Sequence[_Shown], *, keys: bool) -> bytes | None:
        return next((text for *of, text in self._made if of == [agents, keys]), None)

    def add(self, agents: Sequence[_Shown], text: bytes, *, keys: bool) -> None:
        self._made.append((agents, keys, text))


def make_docs_blueprint(
    dispatcher: Dispatcher, dialects: Sequence[Served], settings: ServerSettings
) -> Blueprint:
    """Make the routes for the agents of one gateway, which is called in these dialects."""
    routes = Blueprint("docs", __name__)
    views, texts = _Views(), _Texts()
    one_at_a_time = trio.Lock()

    def make(agents: Sequence[_Shown], names: Container[str], *, keys: bool) -> bytes:
        views.keep(names)
        document = make_document(
            [views.of(agent) for agent in agents],
            [each.describe for each in dialects],
            version=_version(),
            keys=keys,
            metrics=settings.metrics is not False,
        )
        return msgspec.json.encode(document)

    @routes.get("/openapi.json")
    async def description() -> Response:
        shown = [
            _Shown(agent.name, agent.settings.description, agent.declared.ready)
            for agent in visible_agents(dispatcher)
        ]
        keys = caller() is not ANONYMOUS
        async with one_at_a_time:
            text = texts.find(shown, keys=keys)
            if text is None:
                # In a thread: reading the largest schemas takes 40 ms for each agent.
                made = partial(make, shown, frozenset(dispatcher.agents), keys=keys)
                text = await trio.to_thread.run_sync(made)
                texts.add(shown, text, keys=keys)
        return Response(text, content_type="application/json")

    @routes.get("/docs")
    async def page() -> Response:
        return _file("index.html")

    @routes.get("/docs/<name>")
    async def file(name: str) -> Response:
        return _file(name)

    return routes


def _view(agent: _Shown, ready: Ready) -> AgentView:
    schemas = {}
    for what, schema in (("input", ready.input), ("output", ready.output)):
        if schema is not None:
            try:
                place = f"#/components/schemas/{agent.name}.{what}"
                schemas[what] = embedded(schema, place)
            except UnfitError as error:
                schemas[what] = {"description": f"The declared schema cannot be shown: {error}"}
    return AgentView(
        agent.name,
        agent.description or ready.description,
        ready.handlers,
        schemas.get("input"),
        schemas.get("output"),
    )


@cache
def _version() -> str:
    try:
        return version("agent-gateway")
    except PackageNotFoundError:  # run from a folder of sources
        return "0"


@cache
def files() -> dict[str, bytes]:
    """The page's files by name, compressed where that is how they are kept."""
    return {path.name: path.read_bytes() for path in PAGE.iterdir()}


@cache
def _unpacked(name: str) -> bytes:
    """A file that is kept compressed. One for all: anybody may ask for it, and read it slowly."""
    return gzip.decompress(files()[name])


def _file(name: str) -> Response:
    """A file of the page. The large ones are kept compressed. Raises NotFound."""
    packed, plain = files().get(f"{name}.gz"), files().get(name)
    kind = _TYPES.get(Path(name).suffix)
    if kind is None or (packed is None and plain is None):
        raise NotFound(f"there is nothing at {request.path[:80]!r}")
    response = Response(b"", content_type=kind)
    response.headers.update(_HEADERS)
    response.headers["Cache-Control"] = "no-cache"
    if packed is None:
        response.set_data(plain or b"")
    else:
        response.headers["Vary"] = "Accept-Encoding"
        if request.accept_encodings["gzip"]:
            response.headers["Content-Encoding"] = "gzip"
            response.set_data(packed)
        else:
            response.set_data(_unpacked(f"{name}.gz"))
    return response
