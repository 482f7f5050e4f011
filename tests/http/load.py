"""Load that notices whatever is lost: clients of the agent "tally" (`agents/tally.py`), which ask
until they are told to stop, each time with a nonce of its own."""

from __future__ import annotations

import trio

from tests.http.raw import Connection, connected


class Load:
    """Clients that ask until they are told to stop, and what came of it."""

    def __init__(self, *ports: int) -> None:
        """The clients take these ports in turn."""
        self.asked = 0
        self.failed: list[str] = []
        self.stop = trio.Event()
        self._ports = ports
        self._least, self._enough = 0, trio.Event()

    async def at_least(self, count: int) -> None:
        """Wait until that many have been asked."""
        self._least = count
        while self.asked < count:
            self._enough = trio.Event()
            await self._enough.wait()

    async def client(self, number: int) -> None:
        """Ask again and again; every third client on a new connection each time."""
        while not self.stop.is_set():
            async with connected(self._ports[number % len(self._ports)]) as connection:
                while await self._ask(connection, number) and number % 3:
                    if self.stop.is_set():
                        break

    async def _ask(self, connection: Connection, number: int) -> bool:
        """Ask once; whether the connection can be used again."""
        self.asked += 1
        if self.asked >= self._least:
            self._enough.set()
        nonce = f"nonce {self.asked}"
        streams = number % 2 == 0
        path = f"/agent/tally/{'chat' if streams else 'invoke'}"
        body = {"messages": [{"role": "user", "content": nonce}]} if streams else {"input": nonce}
        try:
            await connection.request(path, {**body, "stream": streams})
            answer = await connection.answer()
        except (AssertionError, trio.BrokenResourceError, trio.TooSlowError) as error:
            self.failed.append(f"{nonce}: {error!r}")
            return False
        word = nonce.partition(" ")[2].encode()
        end = b'"%b"}\n\ndata: [DONE]\n\n' % word if streams else b' %b"}' % word
        if answer.status != 200 or not answer.body.endswith(end):
            self.failed.append(f"{nonce}: {answer}")
        return answer.headers.get("connection") != "close"
