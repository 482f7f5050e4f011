"""What a worker of an ordinary user's gateway shares with the gateway: the limits of their user.

# Theory of operation

The kernel keeps some limits by user id, and of those there are two kinds.

*By the id alone*: epoll watches, descriptors in flight over unix sockets, the pages of pipes. Who
has another id, a subordinate one for example, has limits of its own. Of workers with the gateway's
id, the number of watches cannot be bounded: a process with n descriptors can put half of them into
each of the other half.

*By the id within a user namespace, and above it* (`struct ucounts`): processes, pending signals and
timers, message queues, inotify instances and watches. What is counted in a namespace counts for the
user who made it as well, whatever the id inside. So these are shared in any case, unless root made
the sandbox, and each is denied or bounded:

- inotify, fanotify, message queues and locked shared memory are denied by the filter (`seccomp`);
- what processes of a namespace may count above it is the limit that its maker had: bubblewrap is
  started with seven eighths of the user's processes, and half of its pending signals. The rest is
  left to the gateway and to the user's other programs, whatever the workers do together.
"""

from __future__ import annotations

import functools
import resource
from pathlib import Path


def shared_limits(*, nofile: int, pids: int, own_ids: bool) -> tuple[str, ...]:
    """The limits that a worker shares with its gateway's user, one phrase each.

    `nofile` and `pids` are the worker's (0: no limit). `own_ids`: the worker has a user id of its
    own, though not from root.
    """
    found = [] if own_ids else [_watches(nofile, pids), _in_flight(nofile), _pipes()]
    most = most_processes()
    if most is not None:
        one = f"one worker has up to {pids}" if pids else "one worker can have as many"
        found.append(f"processes and threads: all workers can have {most} together, {one}")
    signals = resource.getrlimit(resource.RLIMIT_SIGPENDING)[0]
    if signals != resource.RLIM_INFINITY:
        found.append(f"pending signals and timers: all workers can have {signals} together")
    return tuple(found)


def _watches(nofile: int, pids: int) -> str:
    most = _number("/proc/sys/fs/epoll/max_user_watches")
    one = (nofile // 2) ** 2 * pids
    if pids and most is not None and one < most:
        return f"epoll watches: one worker can have {one} of the user's {most}"
    return f"epoll watches: one worker can take all{_shown(most)} of the user's"


def _in_flight(nofile: int) -> str:
    return f"descriptors in flight over socket pairs: all workers can have about {nofile} together"


def _pipes() -> str:
    pages = _number("/proc/sys/fs/pipe-user-pages-soft")
    return f"pages of pipes: one worker can take all{_shown(pages)}, and further pipes are small"


@functools.cache
def _number(path: str) -> int | None:
    """A limit of this machine; None where the kernel does not tell it."""
    try:
        return int(Path(path).read_text())
    except OSError:
        return None


def _shown(number: int | None) -> str:
    return "" if number is None else f" {number}"


def most_processes() -> int | None:
    """How many processes of the gateway's user there may be for a worker to start one more."""
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    return None if limit == resource.RLIM_INFINITY else limit - limit // 8


@functools.cache
def keep_half_of_the_signals() -> None:
    """Lower this process's own limit of pending signals, which every sandbox inherits. The gateway
    itself queues none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_SIGPENDING)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_SIGPENDING, (soft // 2, hard))
