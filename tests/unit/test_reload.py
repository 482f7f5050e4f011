"""What a reload does where an agent's process cannot be told of a change."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio
from msgspec import structs

from gateway.agents.supervisor import AgentSupervisor
from gateway.composition.reload import Reloader
from gateway.config import AgentSettings, CallerKeys, FleetSettings, SandboxSettings, Settings
from gateway.config.keys import hash_key
from gateway.config.services import Service, ServiceSettings
from gateway.front.auth import Keys
from tests.unit.workers import NoLauncher


class Launcher(NoLauncher):
    """Takes every change, or none for lack of memory (`full`)."""

    def __init__(self, services: Sequence[Service] = ()) -> None:
        self.services = services
        self.network: tuple[str, ...] = ()
        self.full = False

    def can_change(self, wanted: SandboxSettings, services: Sequence[Service]) -> bool:
        return True

    def check_services(self, services: Sequence[Service], hidden: Iterable[str]) -> None:
        pass

    def change_network(self, wanted: SandboxSettings) -> None:
        self._fail_if_full()
        self.network = wanted.network_hosts

    def change_services(self, services: Sequence[Service]) -> None:
        self._fail_if_full()
        self.services = services

    def _fail_if_full(self) -> None:
        if self.full:
            raise OSError(errno.EMFILE, "Too many open files")


class Agents:
    """One agent, `a`, which is never replaced: nothing else of it differs."""

    def __init__(self, launcher: Launcher) -> None:
        self.launchers: dict[str, Any] = {"a": launcher}

    def prepare(self, settings: Settings, names: Collection[str]) -> dict[str, Any]:
        raise AssertionError(f"to be replaced: {names}")

    async def start(
        self, settings: Settings, launchers: Mapping[str, Any]
    ) -> dict[str, AgentSupervisor]:
        assert not launchers
        return {}

    def put(self, agents: Iterable[AgentSupervisor]) -> None:
        assert not list(agents)

    def remove(self, name: str, seconds: float) -> None:
        raise AssertionError(f"to be removed: {name}")

    def generations(self, name: str) -> int:
        raise AssertionError(f"to be replaced: {name}")


def settings(key: Path, *hosts: str, services: tuple[str, ...] = ("x",)) -> Settings:
    service = ServiceSettings(url="http://x/", header={"K": f"file:{key}"})
    agent = AgentSettings(
        command="true", services=services, sandbox=SandboxSettings(network=hosts or ("a:1",))
    )
    return Settings(agents={"a": agent}, services=dict.fromkeys(services, service))


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    lines = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return lines


async def test_a_change_that_fails_is_named_and_made_at_the_next_reload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "key"
    key.write_text("one")
    before, after = settings(key), settings(key, "b:2", services=())
    launcher = Launcher()
    wanted = [before]
    reloader = Reloader(lambda: wanted[0], before, Agents(launcher), callers=Keys())
    caplog.set_level("INFO", "gateway")
    await reloader.reload()
    assert said(caplog) == ["reload: services changed", "reload: done"]

    restart = "reload: needs a restart of the gateway:"
    wanted[0], launcher.full = after, True
    await reloader.reload()
    assert said(caplog) == [
        "reload: network could not be changed: Too many open files",
        "reload: services could not be changed: Too many open files",
        f"{restart} agents.a.sandbox.network, agents.a.services, services.x (removed)",
        "reload: nothing has changed",
    ]
    # The service that is still in use still has its key.
    launcher.full = False
    key.write_text("two")
    await reloader.read_keys()
    assert said(caplog) == ["reload: services changed"]
    [service] = launcher.services
    assert service.header == {"K": "two"}

    await reloader.reload()
    assert said(caplog) == [
        "reload: network changed",
        "reload: services changed",
        "reload: done",
    ]
    assert launcher.network == ("b:2",)
    assert launcher.services == []
    await reloader.reload()
    assert said(caplog) == ["reload: nothing has changed"]


async def test_a_key_that_cannot_be_read_leaves_the_last_one_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "key"
    key.write_text("sk-4711")
    launcher = Launcher()
    reloader = Reloader(lambda: settings(key), settings(key), Agents(launcher), callers=Keys())
    await reloader.read_keys()
    key.unlink()
    await reloader.read_keys()
    await reloader.reload()
    assert "keys: the last ones stay in use: services.x.header.K" in caplog.text
    assert "reload: refused as a whole, nothing has changed: services.x.header.K" in caplog.text
    [service] = launcher.services
    assert service.header == {"K": "sk-4711"}
    assert "sk-4711" not in repr(service)


async def test_no_configuration_ends_the_gateway_and_no_key_either(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text("sk-4711")

    def read() -> Settings:
        raise OverflowError("a defect")

    reloader = Reloader(read, settings(key), Agents(Launcher()), callers=Keys())
    await reloader.reload()
    assert "reload: refused as a whole, nothing has changed: this is a defect" in caplog.text
    monkeypatch.setattr("gateway.composition.reload.reloader.read_services", lambda *_: read())
    await reloader.read_keys()
    assert "keys: the last ones stay in use: this is a defect" in caplog.text


async def test_keys_of_a_file_that_changes_while_the_reload_that_brings_it_goes_on_are_read_again(
    tmp_path: Path,
) -> None:
    key, file, changed = tmp_path / "key", tmp_path / "keys.toml", trio.Event()
    key.write_text("sk-4711")
    file.write_text(f'[keys.revoked]\nhash = "{hash_key(b"one")}"\n')

    class SlowAgents(Agents):
        async def start(self, *_: Any) -> dict[str, AgentSupervisor]:
            file.write_text(f'[keys.other]\nhash = "{hash_key(b"two")}"\n')
            return {}

    def look(_: Settings, keys: CallerKeys) -> None:
        if set(keys.by_name) == {"other"}:
            changed.set()

    before = settings(key)
    after = structs.replace(before, keys_file=str(file))
    agents = SlowAgents(Launcher())
    reloader = Reloader(lambda: after, before, agents, [look], callers=Keys())
    reloader.ask()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reloader.run)
        with trio.fail_after(20):
            await changed.wait()
        nursery.cancel_scope.cancel()


async def test_what_differs_of_a_fleet_needs_a_restart_and_another_role_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = tmp_path / "key"
    key.write_text("one")
    host = FleetSettings(role="host", servers=["nats://a"], user="h", password="sesame")
    before = structs.replace(settings(key), fleet=host)
    wanted = [before]
    reloader = Reloader(lambda: wanted[0], before, Agents(Launcher()), callers=Keys())
    caplog.set_level("INFO", "gateway")
    await reloader.reload()
    said(caplog)
    for _ in range(2):  # a reload changes nothing of what is in force
        fleet = structs.replace(host, servers=["nats://b"], password="other")
        wanted[0] = structs.replace(before, fleet=fleet)
        await reloader.reload()
        assert said(caplog) == [
            "reload: needs a restart of the gateway: fleet.servers, fleet.password",
            "reload: nothing has changed",
        ]
    wanted[0] = structs.replace(before, fleet=FleetSettings(role="front"))
    await reloader.reload()
    (line,) = said(caplog)
    assert line.startswith(
        "reload: refused as a whole, nothing has changed: fleet.role has changed"
    )
