"""What observers are told of requests and runs, in virtual time."""

from __future__ import annotations

import json
from types import MethodType
from typing import Any

import pytest
import trio
from quart import Quart

from gateway.agents.dispatcher import Dispatcher
from gateway.config import Clocks, RunSettings, ServerSettings
from gateway.errors import AgentFailed, AgentNotFound, GatewayError
from gateway.exchange import Exchange
from gateway.front.app import make_app
from gateway.front.observed import Observing
from gateway.front.requests import CallRoutes
from gateway.front.runs.service import Runs
from gateway.observe.observation import Observation, Tell
from tests.unit.asgi import DIALECTS, HOSTS, FakeClient, FakeDispatcher, Story, get
from tests.unit.runs import ASYNC, Client

JSON = (b"content-type", b"application/json")


class CarrierAt:
    """A worker with a process id."""

    spoke = True
    pid = 4711

    def has_read(self, exchange: Exchange) -> bool:
        del exchange
        return True

    def catch_up(self) -> None:
        pass


class KnowsOneAgent(FakeDispatcher):
    """The agent is called `a`."""

    def agent(self, name: str) -> None:
        if name != "a":
            raise AgentNotFound(f"there is no agent {name!r}")

    def submit(self, call: Any) -> Exchange:
        self.agent(call.agent)
        return super().submit(call)


async def observe(
    client: FakeClient,
    story: Story | None = None,
    *,
    path: str = "/agent/a/invoke",
    method: str = "POST",
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,),
    until: int = 1,
) -> list[Observation]:
    """Send one request; what was observed once there are `until` observations."""
    seen: list[Observation] = []
    enough = trio.Event()

    def note(observation: Observation) -> None:
        seen.append(observation)
        if len(seen) == until:
            enough.set()

    async with trio.open_nursery() as nursery:
        dispatcher = KnowsOneAgent(nursery, story or answer, Clocks(), hands_over=False)
        it: Any = dispatcher
        runs = Runs(it, RunSettings(), note)
        dispatcher.agents = {"a": None}
        await nursery.start(runs.run)
        inner: Any = None
        routes = CallRoutes(
            inner, it, DIALECTS, HOSTS, runs, max_body=100, observing=Observing(note)
        )
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "server": ("127.0.0.1", 8080),
            "headers": [*headers],
        }
        nursery.start_soon(routes, scope, client.receive, client.send)
        await enough.wait()
        nursery.cancel_scope.cancel()
    return seen


async def answer(exchange: Exchange) -> None:
    """Given to a worker after 2 s, answered after 3 more."""
    await trio.sleep(2)
    exchange.given(trio.current_time(), CarrierAt(), worker_spoke=True)
    await trio.sleep(3)
    exchange.end(b'"four"')


async def talk(exchange: Exchange) -> None:
    await trio.sleep(2)
    exchange.given(trio.current_time(), CarrierAt(), worker_spoke=True)
    await trio.sleep(1)
    exchange.add_words([b'"a"', b'"b"'], trio.current_time())
    await trio.sleep(5)
    exchange.add_words([b'"c"'], trio.current_time())
    exchange.end()


async def fail_at_once(exchange: Exchange) -> None:
    exchange.fail(AgentFailed("it broke"))
    await trio.lowlevel.checkpoint()


async def test_a_call_is_observed_with_its_times_sizes_and_worker(autojump_clock: object) -> None:
    body = b'{"input": 1}'
    client = FakeClient(body)
    (seen,) = await observe(client, headers=(JSON, (b"x-request-id", b"r-1")))
    assert (seen.kind, seen.request_id, seen.run) == ("request", "r-1", "")
    assert (seen.method, seen.route) == ("POST", "/agent/{name}/invoke")
    assert (seen.dialect, seen.handler, seen.agent) == ("native", "invoke", "a")
    assert (seen.status, seen.error, seen.client_left) == (200, None, False)
    assert (seen.bytes_in, seen.bytes_out) == (len(body), len(client.body))
    assert (seen.queued, seen.first, round(seen.total, 3)) == (2, 5, 5)
    assert (seen.pid, seen.chunks, seen.stream) == (4711, 0, False)
    assert seen.exchange is None  # which has what was asked


async def test_the_first_word_of_a_stream_is_when_the_worker_said_it(
    autojump_clock: object,
) -> None:
    (seen,) = await observe(FakeClient(b'{"input": 1, "stream": true}'), talk)
    assert (seen.first, round(seen.total, 3)) == (3, 8)
    assert (seen.chunks, seen.stream) == (3, True)


async def test_a_call_of_another_dialect_is_observed_with_its_agent(
    autojump_clock: object,
) -> None:
    body = {"model": "a", "messages": [{"role": "user", "content": "hello"}]}
    client = FakeClient(json.dumps(body).encode())
    (seen,) = await observe(client, path="/v1/chat/completions")
    assert (seen.dialect, seen.handler, seen.agent) == ("openai", "chat", "a")
    assert seen.route == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("path", "body", "status", "error", "route"),
    [
        ("/agent/made-up/invoke", b'{"input": 1}', 404, "agent_not_found", "/agent/{name}/invoke"),
        (
            "/v1/chat/completions",
            b'{"model": "made-up", "messages": [{"role": "user", "content": "x"}]}',
            404,
            "agent_not_found",
            "/v1/chat/completions",
        ),
        ("/runs/made-up", b"", 404, "not_found", "/runs/{id}"),
        ("/agent/a/invoke", b"{", 400, "invalid_request", "/agent/{name}/invoke"),
        ("/agent/a/invoke", b"1" * 200, 413, "request_too_large", "/agent/{name}/invoke"),
        ("//made-up", b"", 404, "not_found", ""),
    ],
)
async def test_what_a_client_makes_up_is_in_no_field(
    path: str, body: bytes, status: int, error: str, route: str
) -> None:
    method = "GET" if path.startswith("/runs") else "POST"
    (seen,) = await observe(FakeClient(body), path=path, method=method)
    assert (seen.status, seen.error_type, seen.route) == (status, error, route)
    assert seen.agent in {"", "a"}
    assert (seen.queued, seen.first is None, seen.pid, seen.chunks) == (None, False, None, 0)


async def test_an_unknown_method_has_one_name_for_all() -> None:
    (seen,) = await observe(FakeClient(b""), method="MADEUP")
    assert (seen.method, seen.status) == ("_OTHER", 405)


async def test_a_client_that_leaves_is_observed_as_gone(autojump_clock: object) -> None:
    leaves = trio.Event()

    async def leave_meanwhile(exchange: Exchange) -> None:
        await trio.sleep(7)
        leaves.set()

    (seen,) = await observe(FakeClient(b'{"input": 1}', leaves=leaves), leave_meanwhile)
    assert (seen.client_left, seen.status, seen.error_type) == (True, 0, "")
    assert round(seen.total, 3) == 7


async def test_what_an_agent_fails_with_is_observed() -> None:
    (seen,) = await observe(FakeClient(b'{"input": 1}'), fail_at_once)
    assert (seen.status, seen.error_type) == (500, "agent_error")


async def test_a_run_is_one_observation_besides_the_request_that_starts_it(
    autojump_clock: object,
) -> None:
    client = Client(b'{"input": 1}')
    fields = tuple((name.encode(), value.encode()) for name, value in ASYNC.items())
    request, run = await observe(client, talk, headers=(JSON, *fields), until=2)
    assert (request.kind, request.status, request.run) == ("request", 202, client.run)
    assert (request.chunks, request.pid, request.queued) == (0, None, None)
    assert (run.kind, run.run, run.request_id) == ("run", client.run, request.request_id)
    assert (run.agent, run.handler, run.dialect) == ("a", "invoke", "native")
    assert (run.chunks, run.pid, run.queued, run.total) == (3, 4711, 2, 8)


@pytest.mark.parametrize(
    ("path", "status", "error", "route"),
    [
        ("/live", 200, "", "/live"),
        ("/agents", 200, "", "/agents"),
        ("/agents/made-up/health", 404, "agent_not_found", "/agent/{name}/health"),
        ("/agent/made-up", 404, "agent_not_found", "/agent/{name}"),
        ("/made-up", 404, "not_found", ""),
    ],
)
async def test_a_route_of_the_application_is_observed_by_its_rule(
    path: str, status: int, error: str, route: str
) -> None:
    told: list[Observation] = []
    assert (await get(an_app(told.append), path, (b"x-request-id", b"mine"))).status == status
    (seen,) = told
    assert (seen.status, seen.error_type, seen.route, seen.agent) == (status, error, route, "")
    assert seen.bytes_out > 0
    assert seen.request_id == "mine"


async def test_without_observers_nothing_is_wrapped() -> None:
    app = an_app(None)
    assert app.calls._observing is None
    assert app.calls._inner == Quart.asgi_app.__get__(app)
    assert not isinstance(an_app(print).calls._inner, MethodType)


def an_app(tell: Tell | None) -> Any:
    dispatcher = Dispatcher({})
    runs = Runs(dispatcher, RunSettings(), tell)
    return make_app(dispatcher, runs, ServerSettings(), tell)


async def test_a_defect_of_the_application_is_observed() -> None:
    told: list[Observation] = []

    async def breaks(_scope: Any, _receive: Any, _send: Any) -> None:
        raise RuntimeError("a defect")

    dispatcher: Any = Dispatcher({})
    runs = Runs(dispatcher, RunSettings())
    observing = Observing(told.append)
    routes = CallRoutes(
        breaks, dispatcher, DIALECTS, HOSTS, runs, max_body=100, observing=observing
    )
    scope = {"type": "http", "method": "GET", "path": "/other", "raw_path": b"/other"}
    client = FakeClient(b"")
    with pytest.raises(RuntimeError):
        await routes({**scope, "headers": []}, client.receive, client.send)
    assert (told[0].status, told[0].error_type) == (500, GatewayError.type)
