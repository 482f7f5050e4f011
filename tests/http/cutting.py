"""A proxy that cuts connections in the middle of responses, and clients that come back."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


class CuttingProxy:
    """Forwards to a port. Each of the next `cuts` connections is cut after a random part of the
    response, which may end within its head, within an event, or before the first byte."""

    def __init__(self, to: int, *, cuts: int, most: int, seed: int) -> None:
        self.port = 0
        self.cuts = cuts
        self._to = to
        self._most = most
        self._random = random.Random(seed)

    async def serve(self, client: trio.SocketStream) -> None:
        left: float = float("inf")
        if self.cuts:
            self.cuts -= 1
            left = self._random.randrange(self._most)
        try:
            async with (
                client,
                await trio.open_tcp_stream("127.0.0.1", self._to) as gateway,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(_forward, client, gateway)
                while left > 0 and (data := await gateway.receive_some()):
                    part = data[: int(min(left, len(data)))]
                    left -= len(part)
                    await client.send_all(part)
                nursery.cancel_scope.cancel()
        except trio.BrokenResourceError:
            pass  # either side has left


async def _forward(source: trio.SocketStream, to: trio.SocketStream) -> None:
    async for data in source:
        await to.send_all(data)


@asynccontextmanager
async def cutting_proxy(to: int, *, cuts: int, most: int, seed: int) -> AsyncIterator[CuttingProxy]:
    proxy = CuttingProxy(to, cuts=cuts, most=most, seed=seed)
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy.port = listener.socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, proxy.serve, [listener])
        yield proxy
        nursery.cancel_scope.cancel()
