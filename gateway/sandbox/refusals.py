"""Reasons why a sandbox could not be put in force, each one line that says what to install or
allow.

This module translates what bubblewrap, setpriv and the shell print when the system refuses them. It
does not know how they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class SandboxError(Exception):
    """The sandbox that was asked for is not possible. The message is one line for the operator."""


_TOOLS = ("bwrap: ", "setpriv: ", "join-cgroup: ", "set-limits: ", "listener: ")

_APPARMOR = (
    "AppArmor restricts user namespaces: install an AppArmor profile that allows them for "
    "bwrap, or set kernel.apparmor_restrict_unprivileged_userns=0"
)
_NOT_MOUNTED = (
    "the command cannot be started inside the sandbox: it, or its interpreter, is not mounted "
    "there, or the worker's user may not read it; name its folder in mounts_ro"
)

# Part of a tool's message, and what that means here, with the cure. The first match counts.
_MEANINGS = (
    (
        "No permissions to create new namespace",
        (
            "this system forbids user namespaces: inside a container allow them (docker run "
            "--security-opt systempaths=unconfined --security-opt apparmor=unconfined "
            "--security-opt seccomp=unconfined, or the narrower gateway/deploy/seccomp.json), in a "
            "systemd unit take RestrictNamespaces= away, on a machine set "
            "kernel.unprivileged_userns_clone=1"
        ),
    ),
    (
        "setting up uid map: Permission denied",
        _APPARMOR,
    ),
    (
        "RTM_NEWADDR: Operation not permitted",
        _APPARMOR,
    ),
    (
        "Can't mount proc",
        (
            "/proc is masked here, as containers do: run the container with "
            "--security-opt systempaths=unconfined (docker) or procMount: Unmasked (Kubernetes); "
            "in a systemd unit take ProtectKernelTunables=, ProtectKernelLogs=, ProtectProc= and "
            "ProcSubset= away"
        ),
    ),
    (
        "Can't set hostname",
        (
            "sethostname is forbidden here, in a namespace of its own, too: in a systemd unit take "
            "ProtectHostname= away, and let SystemCallFilter= allow it"
        ),
    ),
    (
        "(ENOSPC)",
        (
            "this system allows no more namespaces: raise user.max_user_namespaces "
            "(and the other user.max_*_namespaces)"
        ),
    ),
    (
        "Creating new namespace failed",
        (
            "this system forbids new namespaces: inside a container add CAP_SYS_ADMIN or allow "
            "user namespaces, on a machine raise user.max_*_namespaces"
        ),
    ),
    (
        "Failed to make / slave",
        (
            "this container may not change mounts: add CAP_SYS_ADMIN and --security-opt "
            "apparmor=unconfined, or run the gateway as an ordinary user with user namespaces"
        ),
    ),
    (
        "Unknown option",
        "this bubblewrap is too old: install 0.8 or newer",
    ),
    (
        "prctl(PR_SET_SECCOMP)",
        "the kernel refuses the system call filter: it needs CONFIG_SECCOMP_FILTER",
    ),
    (
        "Can't find source path",
        "what is to be mounted cannot be reached by the user that the gateway runs as",
    ),
    (
        "execvp",
        _NOT_MOUNTED,
    ),
    (
        "failed to execute",
        _NOT_MOUNTED,
    ),
)


def explain_refusal(lines: Sequence[str]) -> str | None:
    """The meaning of the last line that one of the sandbox's own tools wrote, or None.

    A worker may print such a line itself, so the result may inform a message, but not a decision.
    """
    said = next((line for line in reversed(lines) if line.startswith(_TOOLS)), None)
    if said is None:
        return None
    meaning = next((text for part, text in _MEANINGS if part in said), None)
    return said.strip() if meaning is None else f"{meaning} ({said.strip()})"
