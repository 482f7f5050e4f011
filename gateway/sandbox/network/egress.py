"""The proxy that takes an agent to the addresses that it may reach, and the judgement of addresses.

This module owns the process that carries out an agent's network policy: one per agent that has a
network, beside the gateway, so that an agent's traffic costs the gateway nothing and its bytes are
parsed elsewhere. What a request says, and what the settings allow by name, is `targets`'.

A worker has no network of its own but a loopback device. There `listener` opens a port before the
agent starts, and sends that socket out to this process, which accepts on it from outside. So a
worker needs neither unix sockets nor a helper beside it. The proxy speaks HTTP CONNECT, which HTTP
clients use for https: the agent names a host and a port, and gets a tunnel or a refusal. Names are
resolved here, and the address that was judged is the one that is connected to.
"""

from __future__ import annotations

import contextlib
import encodings.idna  # noqa: F401 - loaded before the right to read the interpreter is given up
import errno
import ipaddress
import json
import logging
import os
import resource
import socket as stdlib_socket
import sys

import trio

from gateway.readiness import EXHAUSTED, readable
from gateway.sandbox.network.enclosure import RESOLV_CONF
from gateway.sandbox.network.targets import Policy, ProxyRefusal, parse_connect

MAX_HEAD = 8192
"""Bytes of a request's head. A CONNECT needs a few hundred."""
HEAD_TIMEOUT = 10.0
"""Seconds for a head to arrive. The client is on the same machine."""
CONNECT_TIMEOUT = 15.0
"""Seconds for resolving and connecting, fewer than clients commonly wait."""
MAX_TUNNELS = 64
"""Tunnels of one worker at a time. Further connections wait to be accepted."""
EXHAUSTED_PAUSE = 0.1
"""Seconds before the next attempt to accept when descriptors have run out: a tunnel may end."""
CHUNK = 65536
"""Bytes that a tunnel forwards at once."""
MAX_DESCRIPTORS = 65536
"""Two for each tunnel of every worker; of more workers than that, some wait."""
MAX_THREADS = 64
"""Threads and processes: names are resolved in trio's threads, 40 at a time."""

# IPv6 prefixes that embed an IPv4 address in the last 32 bits, which is the one that is reached.
_EMBEDDING = tuple(ipaddress.IPv6Network(each) for each in ("64:ff9b::/96", "::ffff:0:0:0/96"))

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_log = logging.getLogger(__name__)


def why_refused(address: Address, *, by_name: bool) -> str | None:
    """Why no agent may reach the address, or None.

    `by_name` tells whether the operator named the host without a wildcard: such a host may be in a
    private network. This machine and link-local addresses (metadata services) are always refused.
    """
    address = _meant(address)
    if address.is_multicast or (address.version == 4 and address.is_reserved):
        return "it is no single host"
    if address.is_link_local:
        return "it is link-local, where metadata services are"
    if address.is_loopback or address.is_unspecified or _is_own(address):
        return "it is this machine"
    if not address.is_global and not by_name:
        return "it is in a private network; only a host that is named without * may be"
    return None


def _meant(address: Address) -> Address:
    """The IPv4 address that an IPv6 address embeds, or the address itself."""
    if isinstance(address, ipaddress.IPv6Address):
        if (inner := address.ipv4_mapped or address.sixtofour) is not None:
            return inner
        if any(address in network for network in _EMBEDDING):
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _is_own(address: Address) -> bool:
    """Whether the address is one of this machine's, which are the only ones that can be bound.

    If that cannot be found out, for example for lack of descriptors, the answer is yes.
    """
    family = stdlib_socket.AF_INET if address.version == 4 else stdlib_socket.AF_INET6
    try:
        with stdlib_socket.socket(family, stdlib_socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


async def open_upstream(policy: Policy, host: str, port: int) -> trio.SocketStream:
    """A connection to what the agent asked for. Raises ProxyRefusal."""
    pattern = policy.match(host, port)
    if pattern is None:
        raise ProxyRefusal(403, f"{host}:{port} is not in the agent's network setting")
    by_name = "*" not in pattern.rpartition(":")[0]
    try:
        # As bytes: a str would be changed by IDNA first.
        found = await trio.socket.getaddrinfo(
            host.encode("ascii"), port, type=trio.socket.SOCK_STREAM
        )
    except OSError as error:
        cause = error.strerror or str(error)
        if _was_replaced(RESOLV_CONF):
            cause += f"; {RESOLV_CONF} was replaced since: restart the gateway for its name servers"
        raise ProxyRefusal(502, f"{host} cannot be resolved: {cause}") from None
    complaint = "it has no address"
    for family, kind, protocol, _, address in found:
        judged = ipaddress.ip_address(str(address[0]).partition("%")[0])
        if (why := why_refused(judged, by_name=by_name)) is not None:
            raise ProxyRefusal(403, f"{host} is {judged}: {why}")
        try:
            return await _connect(trio.socket.socket(family, kind, protocol), address)
        except OSError as error:
            complaint = error.strerror or str(error)
    raise ProxyRefusal(502, f"{host}:{port} cannot be reached: {complaint}")


def _was_replaced(path: str) -> bool:
    """Whether a file that is mounted here by itself has no name any more where it came from."""
    try:
        return os.stat(path).st_nlink == 0
    except OSError:
        return False


async def _connect(upstream: trio.socket.SocketType, address: object) -> trio.SocketStream:
    try:
        await upstream.connect(address)
    except BaseException:
        upstream.close()
        raise
    return trio.SocketStream(upstream)


async def serve_client(client: trio.SocketStream, policy: Policy) -> None:
    """Serve one connection of an agent, from its request to the end of its tunnel.

    Raises trio.BrokenResourceError when the agent or the other end is gone before the tunnel is
    open.
    """
    async with client:
        try:
            with trio.fail_after(HEAD_TIMEOUT):
                head, rest = await _read_head(client)
            host, port = parse_connect(head)
            with trio.fail_after(CONNECT_TIMEOUT):
                upstream = await open_upstream(policy, host, port)
        except ProxyRefusal as refused:
            _log.warning("refused: %s", refused)
            await _answer(client, refused.status, str(refused))
            return
        except trio.TooSlowError:
            await _answer(client, 504, "it took too long")
            return
        async with upstream:
            await client.send_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await upstream.send_all(rest)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_pass_on, client, upstream, nursery.cancel_scope)
                nursery.start_soon(_pass_on, upstream, client, nursery.cancel_scope)


async def _read_head(client: trio.SocketStream) -> tuple[bytes, bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        if len(received) > MAX_HEAD:
            raise ProxyRefusal(431, "the head is too long")
        more = await client.receive_some(MAX_HEAD)
        if not more:
            raise ProxyRefusal(400, "the request ended within its head")
        received += more
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


async def _answer(client: trio.SocketStream, status: int, reason: str) -> None:
    """Refuse a request. The reason stands in the status line too: HTTP clients show only that."""
    body = reason.encode("ascii") + b"\n"
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(HEAD_TIMEOUT):
        await client.send_all(head.encode("ascii") + body)


async def _pass_on(
    source: trio.SocketStream, target: trio.SocketStream, tunnel: trio.CancelScope
) -> None:
    """Forward one direction of a tunnel. Its end is passed on, its failure ends both directions."""
    try:
        while data := await source.receive_some(CHUNK):
            await target.send_all(data)
        await target.send_eof()
    except trio.BrokenResourceError:
        tunnel.cancel()


async def serve_worker(worker: trio.socket.SocketType, policy: Policy) -> None:
    """Serve one worker's port, from its arrival until the sandbox is gone.

    `worker` is the socket on which the port arrives; the sandbox holds its other end open.
    """
    with worker:
        _, descriptors = await _receive_descriptors(worker)
        if not descriptors:
            return  # the sandbox ended before it opened a port
        listener = trio.socket.from_stdlib_socket(stdlib_socket.socket(fileno=descriptors[0]))
        with listener:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_accept, listener, policy)
                # Whatever arrives next, data or the end, ends the service.
                _, more = await _receive_descriptors(worker)
                for descriptor in more:
                    os.close(descriptor)
                nursery.cancel_scope.cancel()


async def _accept(listener: trio.socket.SocketType, policy: Policy) -> None:
    free = trio.Semaphore(MAX_TUNNELS)

    async def serve(client: trio.socket.SocketType) -> None:
        try:
            await serve_client(trio.SocketStream(client), policy)
        except trio.BrokenResourceError:
            pass  # the agent is gone
        except Exception:  # noqa: BLE001 - the boundary of a tunnel: the others go on
            _log.exception("a defect in a tunnel")
        finally:
            free.release()

    async with trio.open_nursery() as nursery:
        while True:
            await free.acquire()
            nursery.start_soon(serve, await _accept_one(listener))


async def _accept_one(listener: trio.socket.SocketType) -> trio.socket.SocketType:
    while True:
        try:
            client, _ = await listener.accept()
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            await trio.sleep(EXHAUSTED_PAUSE)
        else:
            return client


async def _receive_descriptors(source: trio.socket.SocketType) -> tuple[bytes, list[int]]:
    """One byte and the descriptor that came with it; nothing at the end of the stream."""
    while True:
        await readable(source.fileno())
        borrowed = stdlib_socket.socket(fileno=source.fileno())
        try:
            said, descriptors, _, _ = stdlib_socket.recv_fds(borrowed, 1, 1)
        except BlockingIOError:
            continue
        except ConnectionResetError:
            return b"", []
        finally:
            borrowed.detach()
        return said, list(descriptors)


async def serve(control: trio.socket.SocketType, policy: Policy) -> None:
    """Serve every worker that the gateway announces, until the gateway is gone."""
    async with trio.open_nursery() as nursery:
        while True:
            said, descriptors = await _receive_descriptors(control)
            if not said:
                break
            for descriptor in descriptors:
                worker = trio.socket.from_stdlib_socket(stdlib_socket.socket(fileno=descriptor))
                nursery.start_soon(serve_worker, worker, policy)
        nursery.cancel_scope.cancel()


def main() -> None:
    """The program that `proxy` starts, with the arguments AGENT CONTROL_FD UID HOSTS."""
    agent, descriptor, uid, hosts = sys.argv[1:]
    logging.basicConfig(format=f"network of agent {agent!r}: %(message)s")
    _give_up_rights(int(uid))

    async def run() -> None:
        control = trio.socket.from_stdlib_socket(stdlib_socket.socket(fileno=int(descriptor)))
        with control:
            await serve(control, Policy(tuple(json.loads(hosts))))

    with contextlib.suppress(
        KeyboardInterrupt
    ):  # from the terminal: this process ends with the gateway
        trio.run(run)


def _give_up_rights(uid: int) -> None:
    """Take on the user id `uid`, with root, and limits as low as tunnels allow."""
    # Every tunnel takes two descriptors, which soon exceeds the usual soft limit.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else MAX_DESCRIPTORS
    for limit, value in (
        (resource.RLIMIT_NOFILE, min(most, MAX_DESCRIPTORS)),
        (resource.RLIMIT_NPROC, MAX_THREADS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
