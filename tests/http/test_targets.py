"""What a request is for: hosts, paths and methods, with one verdict for every route."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import get_args, get_type_hints

import pytest

from gateway.config import ServerSettings
from tests.http.carrier import an_app, bare_server
from tests.http.conftest import Shared
from tests.http.raw import Answer, connected


async def ask(
    port: int, target: str, *, method: str = "GET", host: str | None = "localhost"
) -> Answer:
    """One request, of HTTP/1.0 if there is no Host; POST has a body for an agent."""
    body = json.dumps({"input": 1}) if method.upper() == "POST" else ""
    lines = [
        f"{method} {target} HTTP/{'1.0' if host is None else '1.1'}",
        *([] if host is None else [f"Host: {host}"]),
        *(["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []),
        "Connection: close",
    ]
    async with connected(port) as connection:
        await connection.send("\r\n".join([*lines, "", body]).encode())
        if method == "HEAD":
            return Answer(await connection.until(rb"\r\n\r\n"), await connection.rest())
        return await connection.answer()


def check_error(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == answer.error["request_id"]
    assert answer.error["message"]
    assert "location" not in answer.headers


# Paths: `{}` stands for the path of a call, and of a route that is read

ROUTES = {"POST": "/agent/scripted/invoke", "GET": "/agent/scripted/health"}


@pytest.mark.parametrize("method", ROUTES)
@pytest.mark.parametrize(
    "form",
    [
        "{}",
        "{}?x=1",
        "{}?//x/../%2F",
        "http://localhost{}",
        "HTTP://LOCALHOST:1{}?x=http://y",
        "https://127.0.0.1{}",
        "/agents{rest}",
        "/%61gent{rest}",
        "/agent/s%63ripted/{last}",
    ],
)
async def test_what_means_the_same_is_the_same_for_every_route(shared, method, form) -> None:
    path = ROUTES[method]
    _, _, rest = path.removeprefix("/").partition("/")
    target = form.format(path, rest=f"/{rest}", last=path.rpartition("/")[2])
    assert (await ask(shared.port, target, method=method)).status == 200


@pytest.mark.parametrize("method", [*ROUTES, "HEAD", "OPTIONS", "PUT"])
@pytest.mark.parametrize(
    "form",
    [
        "/{}",
        "//{}",
        "http://localhost/{}",
        "{}/",
        "{}//",
        "{}/.",
        "{}%2F",
        "{}%2f..",
        "/.{}",
        "/x/..{}",
        "/x/%2e%2e{}",
        "{}/../invoke",
        "{};x",
        "{}#x",
        "{}%00",
        "/agent//scripted{rest}",
        "/agent/./scripted{rest}",
        "/agent%2Fscripted{rest}",
        "/agent%2fscripted%2F{last}",
        "/Agent/scripted{rest}",
        "/agent/scripted/%2E/{last}",
    ],
)
async def test_what_does_not_is_404_for_every_route_and_no_redirect(shared, method, form) -> None:
    path = ROUTES.get(method, ROUTES["GET"])
    last = path.rpartition("/")[2]
    target = form.format(path, rest=f"/{last}", last=last)
    answer = await ask(shared.port, target, method=method)
    if method == "HEAD":
        assert (answer.status, answer.body) == (404, b"")
    else:
        check_error(answer, 404)


@pytest.mark.parametrize("method", [*ROUTES, "OPTIONS", "CONNECT"])
@pytest.mark.parametrize(
    "target", ["?x", "agents", "localhost:80", "ftp://localhost/agents", "http:/agents"]
)
async def test_what_is_neither_a_path_nor_a_url_is_400(shared: Shared, method, target) -> None:
    check_error(await ask(shared.port, target, method=method), 400)


# Methods


@pytest.mark.parametrize("path", ["/health", "/agents", "/nothing", *ROUTES.values()])
@pytest.mark.parametrize("method", ["get", "Get", "post", "options"])
async def test_a_method_in_other_letters_is_another_method(shared: Shared, method, path) -> None:
    check_error(await ask(shared.port, path, method=method), 400)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "TRACE", "PROPFIND", "FOO"])
@pytest.mark.parametrize(
    ("path", "allow"), [(ROUTES["POST"], "POST"), ("/agents", "GET, HEAD, OPTIONS")]
)
async def test_a_method_that_is_not_for_a_path_is_405_with_those_that_are(
    shared: Shared, method: str, path: str, allow: str
) -> None:
    answer = await ask(shared.port, path, method=method)
    check_error(answer, 405)
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/agents", "/live", "/agent/scripted"])
async def test_options_say_what_a_route_takes(shared: Shared, path: str) -> None:
    answer = await ask(shared.port, path, method="OPTIONS")
    assert (answer.status, answer.body) == (200, b"")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
    answer = await ask(shared.port, "*", method="OPTIONS")
    assert (answer.status, answer.body) == (200, b"")
    assert "POST" in answer.headers["allow"]
    check_error(await ask(shared.port, "*"), 400)


# Hosts

EVERYTHING = [("GET", "/agents"), ("GET", "/nothing"), ("GET", "/live"), ("POST", ROUTES["POST"])]


@pytest.mark.parametrize(("method", "path"), EVERYTHING)
@pytest.mark.parametrize(
    "host", ["a..b", "", "a b", "x" * 300, "[::1", "localhost:99999", "user@localhost", "é"]
)
async def test_a_host_that_cannot_be_read_is_400(shared: Shared, method, path, host) -> None:
    check_error(await ask(shared.port, path, method=method, host=host), 400)


@pytest.mark.parametrize(("method", "path"), EVERYTHING)
async def test_a_host_that_does_not_belong_here_is_421_and_learns_nothing(
    shared: Shared, method: str, path: str
) -> None:
    for target, host in ((path, "evil.example:80"), (f"http://evil.example{path}", "localhost")):
        answer = await ask(shared.port, target, method=method, host=host)
        check_error(answer, 421)
        for words in ("evil.example", "127.0.0.1", "localhost", "[server] hosts"):
            assert words in answer.error["message"]
        assert b"scripted" not in answer.body


@pytest.mark.parametrize("host", [None, "LOCALHOST.", "127.0.0.1:1", "[::1]", "x.localhost"])
@pytest.mark.parametrize(("method", "path"), EVERYTHING)
async def test_one_that_does_is_answered(shared: Shared, method, path, host) -> None:
    assert (await ask(shared.port, path, method=method, host=host)).status in {200, 404}


async def test_a_websocket_of_a_page_from_elsewhere_is_refused_for_its_host(shared) -> None:
    headers = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    async with connected(shared.port) as connection:
        lines = ["GET /agents HTTP/1.1", "Host: evil.example", *headers, key, "", ""]
        await connection.send("\r\n".join(lines).encode())
        check_error(await connection.answer(), 421)


async def test_hosts_of_the_settings_are_answered_besides() -> None:
    app = an_app(ServerSettings(hosts=["gateway.example", "*.example.org"]))
    async with bare_server(app) as port:
        for host in ("Gateway.Example", "a.b.example.org:443", "localhost", "127.0.0.1"):
            assert (await ask(port, "/agents", host=host)).status == 200
        for host in ("example.org", "evil.example"):
            check_error(await ask(port, "/agents", host=host), 421)


async def test_a_dialect_that_is_off_has_no_paths() -> None:
    app = an_app(ServerSettings(dialects=["native"]))
    async with bare_server(app) as port:
        for path in ("/v1/models", "/v1/chat/completions", "/v1/messages"):
            check_error(await ask(port, path), 404)
    app = an_app(ServerSettings(dialects=["openai"]))
    async with bare_server(app) as port:
        assert (await ask(port, "/v1/models")).status == 200
        assert (await ask(port, "/agents")).status == 200
        check_error(await ask(port, "/agent/a/invoke"), 404)


def test_a_dialect_that_is_off_is_not_imported() -> None:
    """None of all that there are: whatever `[server] dialects` may name is a package in `front`."""
    code = (
        "import sys; from gateway.front.dialects import serve_dialects; serve_dialects(['native']);"
        "print(*sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    names = get_args(get_args(get_type_hints(ServerSettings)["dialects"])[0])
    packages = {f"gateway.front.{name.replace('-', '_')}" for name in names if name != "native"}
    assert packages >= {f"gateway.front.{name}" for name in ("openai", "ag_ui", "anthropic")}
    sdks = {"mcp", "mcp_types", "pydantic", "starlette"}
    assert not (packages | sdks) & set(found.stdout.split())
