"""One connection to NATS, from its making to its end, in asyncio.

nats-py makes it and speaks the protocol. What is done here besides:

- Messages are received without a queue or a task per subscription: each subscription gets a
  "future", in which nats-py puts every message as it is parsed (`subscribe(future=…)`).
- nats-py does not reconnect: what it would send again by itself, and to whom, is for the fleet to
  decide. Each connection is a new client.
- It can neither abort a connection, nor say whether it is encrypted before it sends a password, nor
  be kept from waiting for a socket that takes nothing. So the event loop remembers the transport
  (`Loop`).
- The server is asked for a sign of life all the time. A silent one is given up; time in which this
  process stood still does not count.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from nats.aio.client import Client
from nats.errors import Error

from gateway.fleet.bus import Delivery
from gateway.fleet.nats_login import (
    ENDED,
    LoginError,
    check_server,
    ended_early,
    needs_tls,
    options,
    problem,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from gateway.config import FleetSettings

CONNECT_SECONDS = 3.0
"""To connect, with TLS and the greeting."""

ASK_SECONDS = 0.2
"""Between two signs of life of the server."""

SILENCE_SECONDS = 3.0
"""Of a server, after which its connection is given up. Longer than what a restarted network takes;
until then nothing is lost."""

FLUSH_SECONDS = 1.0
"""At the end of this process, for what was published last."""

CLOSE_SECONDS = 0.5
"""For nats-py to notice that its connection was aborted."""

MAX_WAITING = 32 * 1024 * 1024
"""Bytes of one connection that wait for the server, or for this process, to take them. Whoever does
not is cut off: a fleet sends again what was not acknowledged."""

MESSAGE_COST = 128
"""Bytes that a message takes besides its payload."""

BY_JETSTREAM = {"Nats-Stream", "Status"}
"""Headers with which JetStream answers: a message that it keeps, or that there is none."""

NOBODY = {"Status": "503"}
"""All headers of the message by which NATS says that nobody listens."""


class Loop(asyncio.SelectorEventLoop):
    """Remembers the connection that was made last, and whether it is encrypted."""

    transport: asyncio.Transport | None = None
    encrypted = False

    async def create_connection(self, *arguments: Any, **named: Any) -> Any:
        self.encrypted = False
        made = await super().create_connection(*arguments, **named)
        self.transport = made[0]
        return made

    async def start_tls(self, *arguments: Any, **named: Any) -> Any:
        made = await super().start_tls(*arguments, **named)
        self.encrypted = True
        return made

    async def getaddrinfo(self, *arguments: Any, **named: Any) -> Any:
        """As always, but on a thread that nobody waits for: a resolver may take half a minute."""
        found: asyncio.Future[Any] = self.create_future()

        def settle(set_to: Callable[[Any], None], value: Any) -> None:
            if not found.done():
                set_to(value)

        def look_up() -> None:
            try:
                result = socket.getaddrinfo(*arguments, **named)
            except OSError as error:
                outcome: tuple[Any, Any] = (found.set_exception, error)
            else:
                outcome = (found.set_result, result)
            with suppress(RuntimeError):  # the loop has ended
                self.call_soon_threadsafe(settle, *outcome)

        threading.Thread(target=look_up, name="nats-resolver", daemon=True).start()
        return await found

    def abort(self) -> None:
        """End the connection at once, whatever it has still to send."""
        if self.transport is not None:
            self.transport.abort()
            self.transport = None


class Publish(NamedTuple):
    subject: str
    data: bytes
    reply: str


class Subscribe(NamedTuple):
    id: int
    subject: str
    receive: Callable[[Delivery], None]


class Unsubscribe(NamedTuple):
    id: int


class Link:
    """One connection. Made in asyncio; what trio's thread may do with it says so.

    `post` takes what trio's thread is to do: a function, its argument, and its size in bytes.
    """

    def __init__(
        self,
        settings: FleetSettings,
        server: str,
        loop: Loop,
        *,
        name: str,
        inbox: str,
        post: Callable[[Callable[[Any], None], Any, int], None],
    ) -> None:
        self.server = server
        self.version = ""
        self.said: deque[Publish | Subscribe | Unsubscribe] = deque()
        """What trio's thread has to say."""
        self.bytes_said = 0
        """All that was put there; counted by trio's thread."""
        self.bytes_sent = 0
        """What nats-py has taken of it."""
        self.bytes_received = 0
        self.bytes_taken = 0
        """What trio's thread has taken of it; counted there."""
        self.awake = False
        """Whether it has been told to look at `said`."""
        self.warn: Callable[[str], None] = lambda _: None
        self._settings = settings
        self._loop = loop
        self._name = name
        self._inbox = inbox
        self._post = post
        self._client = Client()
        self._subscriptions: dict[int, Subscription] = {}
        self._woken = asyncio.Event()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._works: set[asyncio.Task[Any]] = set()
        self._open = False
        self._closed = False

    @property
    def encrypted(self) -> bool:
        return self._loop.encrypted

    # Its life

    async def connect(self) -> None:
        """Raises LoginError, whose message goes on after the server's URL."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connect()
        except BaseException as error:
            await self.close()
            if isinstance(error, LoginError | Error | OSError | TimeoutError):
                why = problem(error, self._settings)
                if why == ENDED:
                    why = ended_early(self._settings, self.server)
                raise LoginError(why) from None
            raise

    async def _connect(self) -> None:
        login = options(self._settings, self.server)
        if "password" in login and needs_tls(self._settings, self.server):
            login["password"] = lambda: self._if_encrypted(self._settings.password)
        if "token" in login and needs_tls(self._settings, self.server):
            login["token"] = lambda: self._if_encrypted(self._settings.token)
        await self._client.connect(
            [self.server],
            name=self._name,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            connect_timeout=int(CONNECT_SECONDS),
            no_echo=True,
            inbox_prefix=self._inbox,
            error_cb=self._on_error,
            closed_cb=self._on_closed,
            **login,
        )
        if not self._client.is_connected:  # it was closed after the greeting
            raise LoginError(problem(self._client.last_error, self._settings))
        self._if_encrypted("")
        version = self._client.connected_server_version
        self.version = repr(version).removeprefix("<nats server v").removesuffix(">")
        check_server((version.major or 0, version.minor or 0), self._client.max_payload)
        self._open = True

    def _if_encrypted(self, secret: str) -> str:
        """Whoever is in between may have left out that the server wants TLS."""
        if needs_tls(self._settings, self.server) and not self._loop.encrypted:
            raise LoginError("offers no TLS, which tls:// and fleet.ca, cert ask for")
        return secret

    async def live(self) -> None:
        """Carry messages until the connection ends, or until cancelled. Raises LoginError that says
        why it has ended."""
        works = [self._loop.create_task(each) for each in (self._write(), self._ask())]
        try:
            await asyncio.wait({*works, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for work in works:
                work.cancel()
        for work in works:
            if work.done() and not work.cancelled():
                error = work.exception()
                if isinstance(error, LoginError | Error | OSError):
                    raise LoginError(problem(error, self._settings))
                work.result()
        if self._ended.done():
            self._ended.result()
        raise LoginError(problem(self._client.last_error, self._settings))

    async def flush(self) -> None:
        """Send what was published, within bounds."""
        with suppress(Error, OSError, TimeoutError):
            async with asyncio.timeout(FLUSH_SECONDS):
                await self._say_all()
                await self._client.flush(timeout=10 * int(FLUSH_SECONDS))

    async def close(self) -> None:
        self._open, self._closed = False, True
        self._loop.abort()
        for work in self._works:
            work.cancel()
        with suppress(Exception):  # whatever nats-py finds of what was aborted under it
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._client.close()

    def end(self, reason: str) -> None:
        """The connection is to be no more."""
        if self._open and not self._ended.done():
            self._ended.set_exception(LoginError(reason))
            self._ended.exception()  # whoever lives in it may be ending for another reason

    async def _on_error(self, error: Exception) -> None:
        if self._closed:
            return  # it is of a connection that was aborted
        if not self._open:
            raise LoginError(problem(error, self._settings))  # and not once more, later
        if "permissions violation" in str(error).lower():  # the connection goes on
            self._post(self.warn, f"{self.server} refuses what {self._name} may not do: {error}", 0)

    async def _on_closed(self) -> None:
        if self._open:
            self.end(problem(self._client.last_error, self._settings))

    async def _ask(self) -> None:
        """Ask for signs of life, and give up a silent server."""
        while True:
            # Never cancelled by a timeout of its own: nats-py would stop reading when the answer
            # came late.
            asked = self._loop.create_task(self._client.rtt(timeout=3600))
            try:
                silent = 0.0
                while not asked.done():
                    began = self._loop.time()
                    await asyncio.wait({asked}, timeout=ASK_SECONDS)
                    # A longer time is one in which this process stood still.
                    silent += min(self._loop.time() - began, 2 * ASK_SECONDS)
                    if silent > SILENCE_SECONDS and not asked.done():
                        raise LoginError(f"has been silent for {SILENCE_SECONDS:g} s")
            finally:
                asked.cancel()
            asked.result()
            self._post(_nothing, None, 0)
            await asyncio.sleep(ASK_SECONDS)

    # What is said

    def wake(self) -> None:
        """There is something in `said`."""
        self._woken.set()

    async def _write(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            self.awake = False  # before looking: what is said from now on wakes again
            await self._say_all()

    async def _say_all(self) -> None:
        client, said = self._client, self.said
        while said:
            match said.popleft():
                case Publish(subject, data, reply):
                    # Waits where the socket has not taken what nats-py holds (2 MiB).
                    await client.publish(subject, data, reply)
                    self.bytes_sent += len(data) + MESSAGE_COST
                case Subscribe(number, subject, receive):
                    sink = _Sink(self, receive)
                    self._subscriptions[number] = await client.subscribe(subject, future=sink)
                    self.bytes_sent += MESSAGE_COST
                case Unsubscribe(number):
                    if number in self._subscriptions:
                        await self._subscriptions.pop(number).unsubscribe()
                    self.bytes_sent += MESSAGE_COST

    # What is heard

    def receive(self, receive: Callable[[Delivery], None], message: Msg) -> None:
        data, headers = message.data, message.headers
        nobody = headers == NOBODY and not data
        if headers is not None and not nobody and BY_JETSTREAM & headers.keys():
            return  # whoever asked JetStream for it has chosen the subject, with no right to that
        size = len(data) + MESSAGE_COST
        self.bytes_received += size
        if self.bytes_received - self.bytes_taken > MAX_WAITING:
            self.end(f"was not listened to: {MAX_WAITING >> 20} MiB have waited in this process")
            return
        self._post(receive, Delivery(message.subject, data, message.reply, nobody), size)

    # JetStream

    def work(self, function: Callable[[Any], Awaitable[Any]], done: Callable[[Any], None]) -> Any:
        """Run a coroutine with the connection's JetStream; `done` gets its task, in trio's thread.
        Returns the task."""

        async def run() -> Any:
            return await function(self._client.jetstream())

        task = self._loop.create_task(run())
        self._works.add(task)

        def settle(task: asyncio.Task[Any]) -> None:
            self._works.discard(task)
            self._post(done, task, 0)

        task.add_done_callback(settle)
        return task


class _Sink(asyncio.Future[Any]):
    """Takes every message of a subscription as it is parsed."""

    def __init__(self, link: Link, receive: Callable[[Delivery], None]) -> None:
        super().__init__(loop=link._loop)
        self._link = link
        self._receive = receive

    def set_result(self, message: Msg, /) -> None:
        self._link.receive(self._receive, message)


def _nothing(_: None) -> None:
    """That it came is what counts."""
