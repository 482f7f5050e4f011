"""What the console keeps and watches, in one place. `observe` must be told of every request, and
`run` must be running while anybody reads."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from gateway.errors import NotFound
from gateway.front.console.journal import Noted, NotedWithText
from gateway.front.console.lines import LastLines
from gateway.front.console.requests import LastRequests
from gateway.front.console.rights import ALWAYS, Moment, Rights
from gateway.front.console.series import Series
from gateway.front.console.watch import Watch
from gateway.front.sockets import has_console
from gateway.observe import logs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.agents.dispatcher import Dispatcher
    from gateway.config import CallerKeys, Settings
    from gateway.config.keys import KeySettings
    from gateway.front.auth import Caller
    from gateway.front.console.fleet import Fleet
    from gateway.observe.observation import Observation


log = logging.getLogger("gateway")


class Console:
    """The console of one gateway."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        settings: Settings,
        keys: CallerKeys,
        addresses: list[str],
        *,
        catch_up: Callable[[], None] = lambda: None,
        fleet: Fleet | None = None,
    ) -> None:
        """`catch_up` has all told that has ended. `fleet` is the one that this is a front of."""
        self.fleet = fleet
        self.catch_up = catch_up
        self.dispatcher = dispatcher
        self.settings = settings
        self._addresses = addresses
        self._keys = keys
        self._made: dict[str, Moment] = {}
        """When the keys were made that were not there at first, by their names."""
        self.payloads = settings.server.log_payloads
        self.requests = LastRequests()
        self.series = Series()
        self.lines = LastLines()
        self.watch = Watch(dispatcher, NotedWithText if self.payloads else Noted, fleet)

    def __repr__(self) -> str:
        return f"<Console {self.requests!r} {self.lines!r} {self.watch!r}>"

    def observe(self, ended: Sequence[Observation]) -> None:
        """Be told of requests and runs, which have ended; an `Observer`."""
        self.requests.observe(ended)
        self.series.observe(ended)

    async def run(self) -> None:
        """Watch, and keep the lines of the log, until cancelled."""
        with logs.kept_by(self.lines):
            try:
                await self.watch.run()
            except Exception:  # the boundary: a defect of what shows agents ends none of them
                log.exception("the console has failed, and shows nothing until the next start")
                self.watch.close()
                await trio.sleep_forever()

    def change(self, settings: Settings, keys: CallerKeys) -> None:
        """Go by these settings and keys from now on. Whoever reads has to begin anew."""
        if keys != self._keys:
            self.watch.generation += 1
            self._made = {
                name: Moment.now() if _is_another(self._keys.by_name.get(name), key) else made
                for name, key in keys.by_name.items()
                for made in [self._made.get(name, ALWAYS)]
            }
        self.settings, self._keys = settings, keys
        names = keys.by_name if keys.on else None
        agents = {*settings.agents, *self.dispatcher.agents}  # of a front, hosts have others
        self.series.keep(agents)
        self.lines.keep(names, agents)
        self.requests.keep(names, agents)

    @property
    def keys(self) -> bool:
        """Whether callers need keys."""
        return self._keys.on

    def check_on(self) -> None:
        """Raises NotFound: with its keys, a gateway may lose what made a console safe."""
        if not has_console(self.settings.server, self._keys, self._addresses):
            raise NotFound("there is no console: [server] console")

    def rights_of(self, caller: Caller) -> Rights:
        return Rights(caller, self._keys.on, self._made.get(caller.name, ALWAYS))


def _is_another(former: KeySettings | None, key: KeySettings) -> bool:
    """Whether a key is not the former one of its name, nor one that replaces it step by step."""
    return former is None or not set(former.hashes) & set(key.hashes)
