"""The configurations in `gateway/deploy/` as tests run them: with other ports and paths."""

from __future__ import annotations

import random
import socket
from pathlib import Path

import trustme

from tests.http.raw import connected
from tests.programs import find_program

DEPLOY = Path(__file__).resolve().parents[2] / "gateway" / "deploy"

FILES = {"nginx": "nginx.conf", "haproxy": "haproxy.cfg"}
FRONTS = {"nginx": "listen 127.0.0.1:8080", "haproxy": "bind 127.0.0.1:8080"}
"""Where the configurations listen without TLS, by the name of the program."""

TLS_FRONTS = {"nginx": "listen 8443", "haproxy": "bind :8443"}
"""Where they do with it."""

GATEWAYS = ("127.0.0.1:8081", "127.0.0.1:8082")
CERTIFICATES = "/etc/agent-gateway/tls"


IDLE = {"nginx": "keepalive_timeout 60s", "haproxy": "pool-purge-delay 30s"}
"""For how long a connection to a gateway is kept without a request."""


def certify(folder: Path, authority: trustme.CA) -> None:
    """Put a new certificate of `localhost` into `folder`, in each form that a proxy wants."""
    made = authority.issue_cert("localhost", "127.0.0.1")
    chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    key = made.private_key_pem.bytes()
    for name, data in {"fullchain": chain, "key": key, "haproxy": chain + key}.items():
        # Replaced as a whole, as whoever renews certificates should.
        new = folder / f"{name}.new"
        new.write_bytes(data)
        new.rename(folder / f"{name}.pem")


def configuration(
    name: str,
    folder: Path,
    port: int,
    gateways: tuple[int, int],
    *,
    addresses: tuple[str, str] = ("127.0.0.1", "127.0.0.1"),
    idle_seconds: int | None = None,
    tls_port: int | None = None,
    authority: trustme.CA | None = None,
) -> Path:
    """Write a proxy's configuration to `folder`, with these ports on the loopback, and gateways
    at `addresses`.

    A certificate of `authority` lies beside it."""
    source = DEPLOY / FILES[name]
    certify(folder, authority or trustme.CA())
    text = source.read_text(encoding="utf-8").replace(CERTIFICATES, str(folder))
    text = _replaced(text, FRONTS[name], FRONTS[name].split()[0] + f" 127.0.0.1:{port}")
    with_tls = TLS_FRONTS[name].split()[0] + f" 127.0.0.1:{tls_port or free_ports(1)[0]}"
    text = _replaced(text, TLS_FRONTS[name], with_tls)
    for there, address, here in zip(GATEWAYS, addresses, gateways, strict=True):
        text = _replaced(text, there, f"{address}:{here}")
    if idle_seconds is not None:
        text = _replaced(text, IDLE[name], f"{IDLE[name].split()[0]} {idle_seconds}s")
    if name == "nginx":
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f" {kind}_temp_path {folder}/{kind};" for kind in kinds)
        text = _replaced(text, "http {\n", f"http {{ access_log off;{paths}\n")
    path = folder / source.name
    path.write_text(text, encoding="utf-8")
    return path


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def command(name: str, path: Path, *, check: bool = False) -> list[str]:
    """Run a proxy in the foreground, or have it check its configuration."""
    found = find_program(name)
    assert found is not None
    if name == "haproxy":
        return [found, *(["-c", "-q"] if check else ["-W", "-db"]), "-f", str(path)]
    directives = f"daemon off; pid {path.parent}/nginx.pid; error_log stderr;"
    words = [found, "-p", str(path.parent), "-e", "stderr", "-g", directives, "-c", str(path)]
    return [*words, "-t", "-q"] if check else words


def free_ports(count: int) -> list[int]:
    """Ports that nobody has, and that no connection is given: a restart must find its own free."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    for port in random.sample(range(10_000, lowest), 1000):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no ports")


async def serves(port: int) -> bool:
    """Whether the proxy is there, and knows a gateway that is ready."""
    try:
        async with connected(port) as connection:
            await connection.request("/ready", method="GET")
            return (await connection.answer()).status == 200
    except OSError:
        return False
