"""Each setting of the systemd units that a deployment needs, and what would be without it."""

from __future__ import annotations

import re

import pytest

from gateway.sandbox.limits.cgroups import CONTROLLERS
from tests.deploy.conftest import PROJECT

DEPLOY = PROJECT / "gateway" / "deploy"

BOTH = {
    "Type=notify": "it counts as started, and what is ordered after it starts, before it listens",
    "ExecReload=/bin/kill -HUP $MAINPID": "`systemctl reload` is an error",
    "WatchdogSec=30": "a gateway whose event loop is stuck stays so",
    "Restart=on-failure": "one that was killed stays away",
    "RestartSec=1": "it is started again after 0.1 s, and given up after five of these",
    "RestartPreventExitStatus=2": "one whose settings are wrong is started again for ever",
    "DynamicUser=yes": "it is root, or a user that another service has, too",
    "EnvironmentFile=-/etc/agent-gateway/environment": "keys stand in the unit, which all can read",
    "LimitNOFILE=65536": "how many connections there may be is up to the manager's default",
    "ProtectSystem=strict": "files of the system can be written to",
    "ProtectHome=yes": "homes can be read",
    "PrivateTmp=yes": "other services' files in /tmp can be seen",
    "PrivateDevices=yes": "disks and terminals are there",
    "UMask=0077": "what it writes can be read by others",
    "NoNewPrivileges=yes": "a setuid program makes root of it",
    "CapabilityBoundingSet=": "a program with capabilities passes them on",
    "AmbientCapabilities=": "what the manager has is inherited",
    "RestrictSUIDSGID=yes": "it can leave setuid files behind",
    "LockPersonality=yes": "programs can switch randomized addresses off",
    "RestrictRealtime=yes": "one task can take a processor for itself",
    "RemoveIPC=yes": "shared memory is left behind for who gets the user id next",
    "SystemCallArchitectures=native": "the filter is gone around by system calls of 32 bits",
    "SystemCallErrorNumber=EPERM": "a program that merely tries is killed",
    "ProtectKernelModules=yes": "modules of the kernel can be read",
    "ProtectClock=yes": "the clock's devices are there",
}
HOST = {
    "KillMode=mixed": "SIGTERM ends the workers before their requests were drained",
    "StateDirectory=agent-gateway": "agents' state is lost with the user id",
    "StateDirectoryMode=0700": "agents' state can be read by others",
    "SystemCallFilter=@system-service @mount seccomp sethostname": "any system call is allowed, or "
    "the sandbox cannot be made",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK": "raw packets can be sent, or a "
    "worker's loopback cannot be set up",
}
FRONT = {
    "RestrictNamespaces=yes": "a defect of the kernel's namespaces can be reached",
    "PrivateUsers=yes": "other users' ids are there",
    "ProtectKernelTunables=yes": "/proc/sys can be read and written to",
    "ProtectKernelLogs=yes": "the kernel's log can be read",
    "ProtectControlGroups=yes": "control groups can be written to",
    "ProtectHostname=yes": "the machine's name can be changed",
    "ProtectProc=invisible": "other users' processes are seen",
    "ProcSubset=pid": "what /proc says of the machine is seen",
    "MemoryDenyWriteExecute=yes": "code can be written into memory and run",
    "SystemCallFilter=@system-service": "any system call is allowed",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6": "raw packets can be sent",
}
NEEDED = {
    "agent-gateway.service": {**BOTH, **HOST},
    "agent-gateway-front.service": {**BOTH, **FRONT},
}
"""What the lines of each unit's [Service] are for: without one, this is so. Some are implied by
DynamicUser=, and have to be said where an operator names a user instead."""

ELSEWHERE = {"ExecStart", "TimeoutStopSec", "Delegate"}
"""Settings that other tests compare with the gateway's own."""


def lines(unit: str) -> list[str]:
    """The settings of a unit's service, in order."""
    text = (DEPLOY / unit).read_text(encoding="utf-8")
    service = text.partition("[Service]\n")[2].partition("\n[")[0]
    return [line for line in service.splitlines() if line and not line.startswith("#")]


@pytest.mark.parametrize(
    ("unit", "setting"), [(unit, setting) for unit, needed in NEEDED.items() for setting in needed]
)
def test_a_unit_has_the_setting_without_which_it_would_be_worse(unit: str, setting: str) -> None:
    assert setting in lines(unit), f"without it, {NEEDED[unit][setting]}"


@pytest.mark.parametrize("unit", NEEDED)
def test_a_unit_has_no_setting_without_a_reason_and_none_twice(unit: str) -> None:
    found = [line for line in lines(unit) if line.partition("=")[0] not in ELSEWHERE]
    assert sorted(found) == sorted(NEEDED[unit])


def test_a_gateway_with_workers_is_handed_the_controllers_that_hold_their_limits() -> None:
    [delegated] = [line for line in lines("agent-gateway.service") if line.startswith("Delegate=")]
    assert set(CONTROLLERS) <= set(delegated.removeprefix("Delegate=").split())


@pytest.mark.parametrize(("unit", "role"), [(each, each.count("front")) for each in NEEDED])
def test_a_unit_starts_the_installed_gateway_after_the_network_and_at_boot(
    unit: str, role: int
) -> None:
    text = (DEPLOY / unit).read_text(encoding="utf-8")
    program = "/opt/agent-gateway/bin/agent-gateway"
    options = "--role front " if role else ""
    assert f"ExecStart={program} {options}--config /etc/agent-gateway/gateway.toml\n" in text
    assert re.search(r"^After=network-online\.target\b", text, re.MULTILINE)
    assert re.search(r"^Wants=network-online\.target$", text, re.MULTILINE)
    assert text.endswith("[Install]\nWantedBy=multi-user.target\n")
