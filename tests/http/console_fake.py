"""A server of the console's page and of its API, with agents that do not exist: as many as are
wanted, in any state, which a real gateway cannot be brought to in a test.

    with fake_console(Fleet.of(300)) as fake:
        page = chromium.open(f"{fake.url}/console")
        fake.tell("agents", {"agents": [{"name": "agent-007", "state": "open"}]})

Everything that is shown is made up from a seed, and the same each time.
"""

from __future__ import annotations

import json
import queue
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from gateway.front.console.workers import STATES

PAGE = Path(__file__).parents[2] / "gateway" / "front" / "console" / "page"
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; base-uri 'none'; connect-src 'self'; font-src 'self'; form-action 'none'; "
    "frame-ancestors 'none'; img-src 'self' blob: data:; media-src blob: data:; "
    "require-trusted-types-for 'script'; script-src 'self'; style-src 'self'; trusted-types 'none'"
)
BUCKET, BUCKETS = 5, 60

NAMES = (
    "billing",
    "claims",
    "code-review",
    "contracts",
    "emails",
    "forecast",
    "helpdesk",
    "intake",
)
PURPOSES = (
    "Answers questions about invoices, and explains what was charged.",
    "Reads a claim and says what is missing in it.",
    "Reviews a change and names what would break.",
    "Compares two versions of a contract, clause by clause.",
    "Sorts letters by what they ask for, and drafts replies.",
    "Forecasts next week's orders from the last two years.",
    "First help for everything that has a plug.",
    "Turns what people tell on the telephone into a record.",
)


@dataclass
class Fleet:
    """What there is to be shown: bodies of the console's API."""

    agents: list[dict[str, Any]] = field(default_factory=list)
    workers: dict[str, dict[str, list[Any]]] = field(default_factory=dict)
    """By the names of their agents: each by its id."""
    series: dict[str, list[list[Any]]] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    hosts: list[dict[str, Any]] = field(default_factory=list)
    """Of a fleet, where there is one."""

    @classmethod
    def of(cls, count: int, workers: int = 8) -> Fleet:
        """`count` agents with up to `workers` workers each, some of them in trouble."""
        chance = random.Random(count)
        fleet = cls()
        for number in range(count):
            fleet.add(make_agent(chance, number, workers), number, chance)
        for number in range(min(12 * count, 160)):
            fleet.requests.append(make_request(chance, number, chance.choice(fleet.agents)["name"]))
        fleet.lines += [make_line(chance, n, chance.choice(fleet.agents)) for n in range(120)]
        return fleet

    def add(self, agent: dict[str, Any], number: int, chance: random.Random) -> None:
        name = agent["name"]
        self.agents.append(agent)
        count = agent["started"] - 3
        self.workers[name] = {
            str(index): make_worker(chance, number * 10_000 + index, agent["state"])
            for index in range(count)
        }
        agent["cells"] = cells_of(self.workers[name])
        self.series[name] = [] if agent["state"] in ("cold", "open") else make_series(chance)
        self.about[name] = make_about(agent)


def make_agent(chance: random.Random, number: int, workers: int) -> dict[str, Any]:
    state = "ready"
    if number % 11 == 4:
        state = "busy"
    elif number % 17 == 6:
        state = "open"
    elif number % 13 == 9:
        state = "cold"
    elif number % 29 == 12:
        state = "starting"
    count = {"cold": 0, "open": 0, "starting": 1}.get(state, chance.randint(1, workers))
    name = NAMES[number % len(NAMES)] + (
        "" if number < len(NAMES) else f"-{number // len(NAMES) + 1}"
    )
    failure = None
    if state == "open":
        failure = {
            "message": "the worker was ended by SIGKILL at its limit of memory, 1 GiB",
            "at": time.time() - 40,
            "pid": 4000 + number,
            "setting": "sandbox.memory",
        }
    return {
        "name": name,
        "description": PURPOSES[number % len(PURPOSES)],
        "handlers": ["invoke", "chat"],
        "state": state,
        "waiting": 7 if state == "busy" else 0,
        "queue": 100,
        "in_flight": count if state == "busy" else count // 2,
        "max_workers": max(workers, 1),
        "started": count + 3,
        "failures": 5 if failure else 0,
        "failure": failure,
        "limit": None,
        "revision": 1,
    }


def make_worker(chance: random.Random, number: int, state: str = "ready") -> list[Any]:
    choice = {"busy": "busy", "starting": "starting"}.get(state) or chance.choices(
        ("ready", "busy", "starting", "retiring", "failing"), (60, 30, 3, 2, 1)
    )[0]
    return [
        1000 + number,
        choice,
        time.time() - chance.expovariate(1 / 9000),
        int(chance.expovariate(1 / 400)),
        8 if state == "busy" else int(choice == "busy"),
        8,
        None if choice == "starting" else int(chance.gauss(58e6, 9e6)),
    ]


LETTERS = {name: letter for letter, name in STATES.items()}


def cells_of(workers: dict[str, list[Any]]) -> str:
    """A letter for each worker's state."""
    return "".join(LETTERS[worker[1]] for worker in workers.values())


def make_series(chance: random.Random) -> list[list[Any]]:
    now = int(time.time() / BUCKET) * BUCKET
    level, speed, points = chance.uniform(1, 60), chance.uniform(0.05, 1.5), []
    for place in range(BUCKETS):
        level = max(0, level + chance.gauss(0, 4))
        count = int(level)
        if count:
            median = speed * chance.uniform(0.8, 1.25)
            high = median * chance.uniform(1.5, 3.5)
            errors = int(chance.random() < 0.02)
            points.append([now - (BUCKETS - 1 - place) * BUCKET, count, errors, median, high])
    return points


def make_about(agent: dict[str, Any]) -> dict[str, Any]:
    return {
        **{name: agent[name] for name in ("name", "description", "handlers", "state")},
        "metadata": {"version": "2.4.1"},
        "input": {
            "type": "object",
            "properties": {
                "question": {"type": "string", "description": "What is asked."},
                "customer": {"type": "integer", "description": "The number on the invoice."},
                "tone": {"enum": ["plain", "formal"], "default": "plain"},
                "sources": {"type": "boolean", "description": "Whether to name them."},
            },
            "required": ["question"],
        },
        "output": None,
        "input_unchecked": None,
        "workers": [
            {"host": "host-0", "state": "ready", "pid": 4711 + number}
            | {"age": 90.0, "served": 12, "in_flight": 0, "capacity": 8, "memory": 58_000_000}
            for number in range(2)
        ],
        "hosts": [{"name": "host-0", "answered": True}, {"name": "host-1", "answered": False}],
        "modes": ["stream"],
        "tools": False,
        "asks": True,
        "in_words": {
            "can see": [
                "Files that they can read and not change: /srv/agents, /usr, /lib.",
                "An empty /tmp for each worker, up to 64 MiB, which is gone when it ends.",
                "No other file of this machine.",
            ],
            "can reach": ["api.example.com:443, and no other network."],
            "can exhaust": [
                "Memory: 1 GiB. Held by the kernel (cgroup v2).",
                "Processes and threads: 256. Held by the kernel (rlimit).",
            ],
        },
        "sandbox": {
            "level": "strict",
            "network": ["api.example.com:443"],
            "limits": {"memory": {"value": 1 << 30, "enforced": True, "by": "cgroup v2"}},
        },
        "services": {"llm": {"requests": 1204, "refused": 2, "bytes_out": 81_920_000}},
        "network": {},
        "settings": {
            "command": "agent-worker agent.py:agent",
            "session": "sticky",
            "concurrency": 8,
            "clocks": {"start": 60, "first": 300, "idle": 120, "total": 600},
            "workers": {"min": 1, "max": 8, "spare": 0},
        },
    }


def make_host(number: int, agents: list[dict[str, Any]], state: str = "beating") -> dict[str, Any]:
    """A host that has these agents."""
    name = f"host-{number}"
    return {
        "id": f"{name}.{number:016x}",
        "name": name,
        "version": "0.1.0",
        "state": state,
        "heard": None if state in ("beating", "draining") else time.time() - 5,
        "agents": {
            each["name"]: [each["state"], 32, each["in_flight"], each["waiting"], number % 3]
            for each in agents
        },
    }


def make_request(chance: random.Random, number: int, agent: str) -> dict[str, Any]:
    state = chance.choices(
        ("completed", "failed", "cancelled", "speaking", "queued"), (80, 5, 3, 5, 2)
    )[0]
    running = state in ("speaking", "queued")
    queued = chance.expovariate(1 / 0.05)
    first = queued + chance.expovariate(1 / 0.8)
    total = first + chance.expovariate(1 / 1.5)
    began = time.time() - (total if running else 3 * number + 10)
    error = None
    if state == "failed":
        error = {
            "type": "timeout",
            "message": "the clock 'first' (2 s) ran out: the worker has said nothing",
            "setting": "clocks.first",
        }
    return {
        "id": f"r-{number}",
        "request_id": f"9faceace-{number:x}",
        "run": None,
        "agent": agent,
        "handler": chance.choice(("chat", "invoke")),
        "dialect": chance.choice(("native", "openai")),
        "key": None,
        "stream": True,
        "state": state,
        "status": {"completed": 200, "failed": 504}.get(state),
        "error": error,
        "began": began,
        "ended": None if running else began + total,
        "queue": None if state == "queued" else queued,
        "first": first if state in ("completed", "speaking", "cancelled") else None,
        "total": None if running else total,
        "words": 0 if state in ("failed", "queued") else chance.randint(3, 400),
        "bytes_in": 210,
        "bytes_out": 8000,
        "client_left": False,
        "pid": 4711,
        "worker": "1" if state == "speaking" else None,
    }


def make_line(chance: random.Random, number: int, agent: dict[str, Any]) -> dict[str, Any]:
    message, level, fields = chance.choice(
        (
            ("request", "info", {"status": 200, "total": 0.812, "words": 41}),
            ("worker started", "info", {"capacity": 8}),
            ("the model is warm", "info", {}),
            ("worker ended", "warning", {"reason": "it was ended by SIGKILL"}),
            ("no worker can be started", "error", {"cooldown": 15}),
        )
    )
    return {
        "n": number,
        "at": time.time() - (120 - number),
        "level": level,
        "logger": "gateway.agent",
        "message": message,
        "agent": agent["name"],
        "request": f"9faceace-{number:x}" if message == "request" else None,
        "pid": 1000 + number,
        "stderr": message == "the model is warm",
        "fields": fields,
    }


class FakeConsole:
    """The server's url, and what it is told to tell."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.url = ""
        self.payloads = False
        self.live: list[tuple[set[str], str | None, queue.Queue[bytes]]] = []
        """The topics of each stream, the agent that it is of, and what it is told."""
        self.opened: list[str] = []
        """The paths of the streams that were opened."""
        self.cancelled: list[str] = []
        self._lock = threading.Lock()

    def tell(self, topic: str, data: dict[str, Any], agent: str | None = None) -> None:
        """Send an event to all who follow the topic; or the agent that it is about, for workers."""
        with self._lock:
            for topics, of, told in self.live:
                follows = topics & {topic, "agents" if topic == "series" else topic}
                if follows and (topic != "workers" or of == agent):
                    told.put(event(topic, data))

    def cut(self) -> None:
        """End all streams."""
        with self._lock:
            for _, _, told in self.live:
                told.put(b"")

    def join(self, topics: set[str], agent: str | None) -> queue.Queue[bytes]:
        told: queue.Queue[bytes] = queue.Queue()
        fleet = self.fleet
        agents = [each for each in fleet.agents if agent in {None, each["name"]}]
        first = {
            "agents": {"at": time.time(), "agents": agents, "removed": []},
            "series": {
                "series": {each["name"]: fleet.series.get(each["name"], []) for each in agents}
            },
            "workers": {"workers": fleet.workers.get(agent or "", {})},
            "requests": {
                "running": sum(each["ended"] is None for each in fleet.requests),
                "requests": fleet.requests,
                "gone": [],
            },
            "log": {"lines": fleet.lines, "skipped": 0},
            "hosts": {"connected": True, "hosts": fleet.hosts, "removed": []},
        }
        with self._lock:
            for topic, data in first.items():
                if topic in topics or (topic == "series" and "agents" in topics):
                    for piece in in_pieces(topic, {"reset": True, **data}):
                        told.put(event(topic, piece))
            self.live.append((topics, agent, told))
        return told


MOST = {"agents": 50, "series": 4, "workers": 500, "requests": 100, "lines": 100, "hosts": 50}
"""Of each, in one event."""


def in_pieces(topic: str, data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What the gateway sends as several events, each but the last with `more`."""
    name = "lines" if topic == "log" else topic
    things = data[name]
    items = list(things.items() if isinstance(things, dict) else things)
    for start in range(0, max(1, len(items)), MOST[name]):
        piece = items[start : start + MOST[name]]
        more = {"more": True} if start + MOST[name] < len(items) else {}
        yield {**data, name: dict(piece) if isinstance(things, dict) else piece, **more}
        data = {key: value for key, value in data.items() if key != "reset"}


def event(topic: str, data: dict[str, Any]) -> bytes:
    return f"event: {topic}\ndata: {json.dumps(data)}\n\n".encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeConsole

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        match target.path.split("/")[1:]:
            case ["console"]:
                self._file("index.html")
            case ["console", "page", name]:
                self._file(name)
            case ["console", "api", "hello"]:
                self._json(self._hello())
            case ["console", "api", "live"]:
                query = parse_qs(target.query)
                self._live(query["topics"][0], query.get("agent", [None])[0])
            case ["console", "api", "agents", name]:
                self._json(self.fake.fleet.about[unquote(name)])
            case ["console", "api", "requests", identifier]:
                self._json(self._request(identifier))
            case _:
                self._json({"error": {"type": "not_found", "message": "there is nothing"}}, 404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        match self.path.split("/")[1:]:
            case ["console", "api", "requests", identifier, "cancel"]:
                self.fake.cancelled.append(identifier)
                self._json(self._request(identifier))
            case _:
                self._json({"error": {"type": "not_found", "message": "there is nothing"}}, 404)

    def _hello(self) -> dict[str, Any]:
        return {
            "version": "0.1.0",
            "hosts": [{"name": "machine", "draining": False}],
            "fleet": bool(self.fake.fleet.hosts),
            "keys": False,
            "key": None,
            "dialects": ["native", "openai"],
            "payloads": self.fake.payloads,
            "docs": True,
            "interval": 1.0,
            "bucket": BUCKET,
            "buckets": BUCKETS,
        }

    def _request(self, identifier: str) -> dict[str, Any]:
        fleet = self.fake.fleet
        request = next(each for each in fleet.requests if each["id"] == identifier)
        more = {"events": [], "left_out": 0, "recorded": True, "stderr": [], "payloads": None}
        if request["queue"] is not None:
            steps = [(0.0, "admitted", 1, 0), (request["queue"], "given", 1, 0)]
            if request["first"] is not None:
                steps += [
                    (request["first"], "reasoning", 4, 310),
                    (request["first"] + 0.2, "tool_call", 1, 96),
                    (request["first"] + 0.4, "chunk", request["words"], 5 * request["words"]),
                ]
            if request["total"] is not None:
                steps.append((request["total"], request["state"], 1, 0))
            more["events"] = [
                {"t": t, "kind": kind, "count": count, "size": size, "text": None}
                for t, kind, count, size in steps
            ]
        return {"request": request, **more, **fleet.details.get(identifier, {})}

    def _file(self, name: str) -> None:
        path = PAGE / name
        self._send(200, TYPES[path.suffix], path.read_bytes())

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        self.wfile.write(body)

    def _live(self, topics: str, agent: str | None) -> None:
        self.close_connection = True
        self.fake.opened.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        told = self.fake.join(set(topics.split(",")), agent)
        try:
            while data := told.get():
                self.wfile.write(data)
        except OSError:
            pass  # the page is gone


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser leaves connections as it likes."""


@contextmanager
def fake_console(fleet: Fleet) -> Iterator[FakeConsole]:
    """A server until the end of the block."""
    fake = FakeConsole(fleet)
    handler = type("Handler", (_Handler,), {"fake": fake})
    server = _Server(("127.0.0.1", 0), handler)
    fake.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield fake
    finally:
        fake.cut()
        server.shutdown()
        server.server_close()
        thread.join()
