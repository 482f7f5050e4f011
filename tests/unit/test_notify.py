"""What a service manager is told, through real datagram sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from gateway.composition import notify
from gateway.composition.notify import ServiceManager


class Listener:
    """A service manager's end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(address.replace("@", "\0", 1))

    def told(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    abstract = f"@gateway-test-{os.getpid()}-{os.urandom(4).hex()}"
    made = Listener(abstract if request.param == "abstract" else str(tmp_path / "notify"))
    yield made
    made.close()


async def test_ready_is_sent_when_the_first_workers_have_started(
    listener: Listener, autojump_clock: trio.testing.MockClock
) -> None:
    manager = ServiceManager(listener.address)
    answers = iter([False, False, True])
    await manager.tell_when_warm(lambda: next(answers), "serving")
    assert listener.told() == ["STATUS=starting the first workers", "READY=1\nSTATUS=serving"]


async def test_ready_does_not_wait_for_ever_for_a_worker_that_says_nothing(
    listener: Listener, autojump_clock: trio.testing.MockClock
) -> None:
    await ServiceManager(listener.address).tell_when_warm(lambda: False, "serving")
    assert trio.current_time() == pytest.approx(notify.WARM_SECONDS, abs=1)
    assert listener.told()[-1] == "READY=1\nSTATUS=serving"


async def test_the_watchdog_is_fed_twice_in_its_time(
    listener: Listener, autojump_clock: trio.testing.MockClock
) -> None:
    manager = ServiceManager(listener.address, watchdog=10)
    with trio.move_on_after(21):
        await manager.feed_watchdog()
    assert listener.told() == ["WATCHDOG=1"] * 5


async def test_a_watchdog_that_nobody_asked_for_is_not_fed(listener: Listener) -> None:
    await ServiceManager(listener.address).feed_watchdog()
    assert listener.told() == []


def test_a_reload_is_announced_with_its_time_and_ends_also_if_it_fails(listener: Listener) -> None:
    manager = ServiceManager(listener.address)
    with pytest.raises(ZeroDivisionError), manager.reloading():
        raise ZeroDivisionError
    began, ended = listener.told()
    assert began.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert began.rpartition("=")[2].isdecimal()
    assert ended == "READY=1"


def test_what_names_the_socket_is_taken_out_of_the_environment(listener: Listener) -> None:
    environ = {
        "NOTIFY_SOCKET": listener.address,
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    manager = ServiceManager.of(environ)
    assert environ == {"HOME": "/"}
    assert repr(manager).endswith("watchdog 30 s>")
    manager.stopping()
    assert listener.told() == ["STOPPING=1\nSTATUS=draining"]


@pytest.mark.parametrize(
    "environ", [{"WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {}]
)
async def test_a_watchdog_of_another_process_is_none(environ: dict[str, str]) -> None:
    assert repr(ServiceManager.of(environ)).endswith("watchdog 0 s>")


async def test_without_a_manager_nothing_is_sent_or_waited_for() -> None:
    manager = ServiceManager.of({})
    await manager.tell_when_warm(lambda: False, "serving")
    await manager.feed_watchdog()
    manager.stopping()


def test_a_manager_that_is_gone_is_one_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ServiceManager(str(tmp_path / "none")).stopping()
    [record] = caplog.records
    assert "was not told STOPPING=1" in record.getMessage()


def test_a_manager_that_does_not_read_is_not_waited_for(listener: Listener) -> None:
    manager = ServiceManager(listener.address)
    for _ in range(2000):
        manager.tell("WATCHDOG=1")
    assert 0 < len(listener.told()) < 2000
