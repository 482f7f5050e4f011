"""Symptoms: which limit of the sandbox a worker seems to have met, and the setting that moves it.

A program that meets a limit sees an ordinary error of the system (ENOSPC, EAGAIN, EMFILE, a name
that cannot be resolved) and says so in its own words, on stderr or in the error of a request. This
module knows those words. They are the agent's, and may be false: a diagnosis informs a person, and
nothing is decided by it. Only what the kernel has counted (`out_of_memory`) is certain.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Diagnosis(NamedTuple):
    """A limit, as it is named in the settings, and what it means for the agent."""

    limit: str
    setting: str
    sentence: str


class LimitError(OSError):
    """No worker can be started, because a limit is met. The message is for the caller."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(diagnosis.sentence)
        self.diagnosis = diagnosis


def limit_in(error: Exception) -> dict[str, Any]:
    """The limit that an error names, as details of the error that the caller is told."""
    if not isinstance(error, LimitError):
        return {}
    return {"limit": error.diagnosis.limit, "setting": error.diagnosis.setting}


MEMORY = Diagnosis(
    "memory",
    "sandbox.memory",
    "its processes used more memory than sandbox.memory allows, and the kernel ended them",
)
STATE_SIZE = Diagnosis("state", "state.size", "the state folder holds more than state.size allows")
OUT_OF_MEMORY = Diagnosis(
    "memory", "sandbox.memory", "it seems to have run out of memory: sandbox.memory allows more"
)
TMP = Diagnosis(
    "tmp",
    "sandbox.tmp",
    "/tmp or /dev/shm seems to be full: sandbox.tmp allows more in each",  # noqa: S108 - a message
)
NOFILE = Diagnosis(
    "nofile",
    "sandbox.nofile",
    "it seems to have too many files and sockets open: sandbox.nofile allows more",
)
PIDS = Diagnosis(
    "pids",
    "sandbox.pids",
    "it seems to have too many processes and threads: sandbox.pids allows more",
)
FSIZE = Diagnosis(
    "fsize", "sandbox.fsize", "a file grew larger than sandbox.fsize allows: set it higher"
)
READ_ONLY = Diagnosis(
    "mounts",
    "sandbox.mounts_rw",
    "it seems to write where it may only read: sandbox.mounts_rw names what it may change",
)
NO_NETWORK = Diagnosis(
    "network",
    "sandbox.network",
    'the agent has no network: sandbox.network = ["HOST:PORT"] allows hosts',
)
NOT_ALLOWED = Diagnosis(
    "network",
    "sandbox.network",
    "the agent reaches only the hosts in sandbox.network, through the proxy that its environment "
    "names (HTTPS_PROXY)",
)
NOT_VISIBLE = Diagnosis(
    "mounts",
    "sandbox.mounts_ro",
    "a file that it needs seems not to be visible to it: sandbox.mounts_ro shows more",
)


NOT_INSTALLED = Diagnosis(
    "environment",
    "command",
    "a module that it needs is not in the environment that it runs in: if the project has one of "
    "its own, name that in the command (.venv/bin/agent-worker, .venv/bin/python)",
)


def _words(*words: str) -> re.Pattern[str]:
    """Matches any of these, in any case, but not within another word (ModuleNotFoundError)."""
    return re.compile(rf"(?<![a-z])(?:{'|'.join(map(re.escape, words))})(?![a-z])", re.IGNORECASE)


_SAID: tuple[tuple[Diagnosis, re.Pattern[str]], ...] = (
    (TMP, _words("no space left on device", "ENOSPC")),
    (NOFILE, _words("too many open files", "EMFILE")),
    (FSIZE, _words("file too large", "EFBIG", "file size limit exceeded")),
    (
        PIDS,
        _words(
            "can't start new thread",
            "resource temporarily unavailable",
            "cannot fork",
            "pthread_create",
            "unable to create new native thread",
        ),
    ),
    (
        OUT_OF_MEMORY,
        _words(
            "MemoryError",
            "JavaScript heap out of memory",
            "cannot allocate memory",
            "OutOfMemoryError",
            "bad_alloc",
            "ENOMEM",
        ),
    ),
    (READ_ONLY, _words("read-only file system", "EROFS")),
)
"""What programs say of each limit, the most telling first."""

_NO_HOST = _words(
    "temporary failure in name resolution",
    "name or service not known",
    "nodename nor servname provided",
    "could not resolve host",
    "network is unreachable",
    "EAI_AGAIN",
    "ENOTFOUND",
    "ENETUNREACH",
)

_NO_MODULE = "ModuleNotFoundError: No module named"
_NO_FILE = _words("no such file or directory", "ENOENT", "not found")
"""Both only before the first word: later it is the agent's own business."""


def diagnose(texts: Iterable[str], *, network: bool, started: bool = True) -> Diagnosis | None:
    """The limit that the last of `texts` speaks of, if any does.

    `network`: whether the agent may reach any host. `started`: whether the worker has spoken.
    """
    for text in reversed(list(texts)):
        for diagnosis, words in _SAID:
            if words.search(text):
                return diagnosis
        if _NO_HOST.search(text):
            return NOT_ALLOWED if network else NO_NETWORK
        if not started and _NO_MODULE in text:
            return NOT_INSTALLED
        if not started and _NO_FILE.search(text):
            return NOT_VISIBLE
    return None
