"""The trial of a sandbox, before anything is served in it.

This module owns the verdict: a trial process is started exactly as the agent's workers will be,
attempts what they must not be able to do (`inside`), and is inspected from outside. It does not
know how a sandbox is made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gateway.sandbox import inside
from gateway.sandbox.files.discover import own_interpreter
from gateway.sandbox.files.mounts import plan_mounts
from gateway.sandbox.refusals import SandboxError
from gateway.sandbox.strict import StrictLauncher

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.sandbox.launch import Launcher

TRIAL_TIMEOUT = 20.0
"""Seconds for the trial, which takes 0.1 s on an idle machine."""

_NO_CAPABILITIES = "0" * 16
_OWN_PROCESSES = 2
"""bubblewrap's init and the trial itself."""


class Findings(msgspec.Struct, frozen=True):
    """The report of `inside`."""

    readable: list[str]
    writable: list[str]
    connected: bool
    unix_socket: bool
    rlimits: dict[str, int]
    processes: int
    CapInh: str
    CapPrm: str
    CapEff: str
    CapBnd: str
    CapAmb: str
    NoNewPrivs: str
    Seccomp: str


def try_sandbox(launcher: Launcher, *, secrets: Sequence[str] = ()) -> tuple[str, ...]:
    """Try the sandbox of `launcher`; returns what was found to hold, one phrase each.

    `secrets` are paths that must not be readable inside; the trial adds a canary file and a
    listening port. A launcher without a sandbox guarantees nothing, and is not tried. Blocks for
    about a tenth of a second. Raises SandboxError, in one line, if anything does not hold.
    """
    if not isinstance(launcher, StrictLauncher):
        return ()
    try:
        with _canary() as canary, _listener() as port:
            return _try(launcher, secrets=[canary, *secrets], port=port)
    except OSError as error:
        raise SandboxError(f"the sandbox cannot be tried: {error.strerror or error}") from error


def _try(launcher: StrictLauncher, *, secrets: Sequence[str], port: int) -> tuple[str, ...]:
    trial = _trial_launcher(launcher, arguments=[str(port), *secrets])
    with trial.launch() as launch:
        process = subprocess.Popen(
            launch.argv,
            env=dict(launch.env),
            cwd=launch.cwd,
            pass_fds=launch.pass_fds,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    try:
        line = _first_line(process)
        uid = _uid_of_last_descendant(process.pid) if line else None
        _, stderr = process.communicate(timeout=TRIAL_TIMEOUT)
        no_network = trial.why_no_network()
    except subprocess.TimeoutExpired:
        raise SandboxError(f"the sandbox could not be tried within {TRIAL_TIMEOUT:g} s") from None
    finally:
        # bubblewrap's death takes the whole tree along.
        process.kill()
        process.wait()
        launch.release()
        trial.remove_groups()
        trial.forget_trial()
    if no_network is not None:
        raise SandboxError(no_network)
    if not line or process.returncode:
        tail = stderr.decode(errors="replace").strip().splitlines()
        why = trial.explain(process.returncode, tail) or (tail[-1] if tail else "it said nothing")
        raise SandboxError(f"the sandbox cannot be put in force: {why}")
    findings = msgspec.json.decode(line, type=Findings)
    return _judge(
        findings, uid=uid, as_root=trial.confinement.changes_user, rlimits=trial.rlimits()
    )


def _judge(
    findings: Findings, *, uid: int | None, as_root: bool, rlimits: dict[str, int]
) -> tuple[str, ...]:
    capabilities = {
        findings.CapInh,
        findings.CapPrm,
        findings.CapEff,
        findings.CapBnd,
        findings.CapAmb,
    }
    expected_uid = (
        "an unprivileged user id outside" if as_root else "the gateway's own user id outside"
    )
    verdicts = (
        (not findings.readable, "secrets cannot be read", f"it can read {findings.readable}"),
        (
            not findings.writable,
            "the system cannot be written",
            f"it can write {findings.writable}",
        ),
        (not findings.connected, "the gateway's ports cannot be reached", "it can connect to one"),
        (findings.NoNewPrivs == "1", "no new privileges", "it can gain privileges"),
        (
            findings.Seccomp == "2" and not findings.unix_socket,
            "system calls are filtered",
            "system calls are not filtered",
        ),
        (
            capabilities == {_NO_CAPABILITIES},
            "no capabilities",
            f"it has capabilities ({', '.join(sorted(capabilities))})",
        ),
        (
            findings.rlimits | rlimits == findings.rlimits,
            "resource limits are in force",
            f"its limits are {findings.rlimits} instead of {rlimits}",
        ),
        (
            findings.processes == _OWN_PROCESSES,
            "no other process can be seen",
            f"it sees {findings.processes} processes",
        ),
        (
            uid is not None and (uid not in {0, os.geteuid()} if as_root else uid == os.geteuid()),
            expected_uid,
            f"its user id outside is {uid}",
        ),
    )
    failed = [complaint for holds, _, complaint in verdicts if not holds]
    if failed:
        raise SandboxError(f"the sandbox does not hold: {'; '.join(failed)}")
    return tuple(claim for _, claim, _ in verdicts)


def _trial_launcher(launcher: StrictLauncher, *, arguments: Sequence[str]) -> StrictLauncher:
    """The same sandbox around the trial, with the gateway's own interpreter mounted as well."""
    confinement = launcher.confinement
    paths = own_interpreter()
    added = plan_mounts(found=paths, mounts_ro=(), mounts_rw=(), secrets=(), cwd="/")
    known = {mount.path for mount in confinement.mounts}
    script = Path(inside.__file__).read_text()
    return launcher.with_confinement(
        dataclasses.replace(
            confinement,
            argv=(sys.executable, "-I", "-S", "-c", script, *arguments),
            mounts=(*confinement.mounts, *(mount for mount in added if mount.path not in known)),
        )
    )


@contextlib.contextmanager
def _canary() -> Iterator[str]:
    """A file that everybody may read, so that nothing but the sandbox can hide it."""
    with tempfile.TemporaryDirectory(prefix="agent-gateway-") as folder:
        path = Path(folder, "canary")
        path.write_text("nobody shall read this\n")
        path.chmod(0o644)
        Path(folder).chmod(0o755)
        yield str(path)


@contextlib.contextmanager
def _listener() -> Iterator[int]:
    """A listening port of this machine, which stands for the gateway's own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        # The control: the port can be reached from outside.
        socket.create_connection(("127.0.0.1", port), timeout=inside.CONNECT_TIMEOUT).close()
        yield port


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    """The line with the trial's report; empty when the trial ended without one."""
    assert process.stdout is not None
    if not select.select([process.stdout], [], [], TRIAL_TIMEOUT)[0]:
        raise subprocess.TimeoutExpired(process.args, TRIAL_TIMEOUT)
    return process.stdout.readline()


def _uid_of_last_descendant(pid: int) -> int | None:
    """The user id, as seen from the host, of the last process in the chain, which is the trial."""
    children: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(entry.path, "stat").read_text()
                parent = int(stat.rpartition(")")[2].split()[1])
                children[parent] = int(entry.name)
    last = pid
    while last in children:
        last = children[last]
    if last == pid:
        return None
    with contextlib.suppress(OSError):
        for line in Path("/proc", str(last), "status").read_text().splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
    return None
