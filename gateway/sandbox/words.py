"""What the workers of an agent can see, reach and exhaust, in sentences for a person.

Owns the words of `gateway --check`, which have to be understood without knowing the settings or how
a sandbox is made. Pure: what is true comes from `Launcher.describe`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.sandbox.files.places import contains

if TYPE_CHECKING:
    from gateway.sandbox.bwrap import Confinement
    from gateway.sandbox.files.state import AgentState

Sentences = dict[str, list[str]]
"""Sentences under "can see", "can reach" and "can exhaust"."""

_WITHOUT = {
    "can see": (
        "There is no sandbox: a worker can read and change every file that the gateway's user can, "
        "and sees the gateway's environment, with any passwords and keys in it."
    ),
    "can reach": (
        "There is no sandbox: a worker can reach every network and every service of this machine, "
        "and can end every process that the gateway's user can, the gateway itself among them."
    ),
    "can exhaust": "There is no sandbox: nothing is limited.",
}
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def in_words(described: Mapping[str, Any], *, workers: int) -> Sentences:
    """The sentences on an agent; `described` is as `Launcher.describe` returns it.

    `workers`: the most that the agent may have at once.
    """
    if described["level"] == "off":
        return {key: [sentence] for key, sentence in _WITHOUT.items()}
    return {
        "can see": list(_see(described)),
        "can reach": list(_reach(described)),
        "can exhaust": list(_exhaust(described, workers)),
    }


def _see(described: Mapping[str, Any]) -> Iterable[str]:
    mounts: Mapping[str, str] = described["mounts"]
    writable = [path for path, how in mounts.items() if how == "read-write"]
    inside = [
        path
        for path, how in mounts.items()
        if how == "read-only" and any(contains(folder, path) for folder in writable)
    ]
    own = [path for path in mounts if path not in {*writable, *inside}]
    system = _listed(described["system"])
    yield (
        f"Files that they can read and not change, of this system's own: {system}, and the time "
        "zone."
    )
    if own:
        yield f"Files that they can read and not change, for this agent: {_listed(own)}."
    if writable:
        yield (
            f"Files that they can read AND CHANGE: {_listed(writable)}. What a worker leaves there "
            "stays when it ends, and every other worker of this agent sees it."
        )
    if inside:
        yield (
            f"In these, they can read and not change {_listed(inside)}, because other programs "
            "would execute what is there."
        )
    for key, sentence in (
        ("masked", "Among these, files that they cannot open, because they look like secrets"),
        ("secrets_shown", "Among these, files that look like secrets and that they CAN read"),
        ("not_shown", "Named by the command, but not shown unless the settings name it"),
    ):
        if described[key]:
            yield f"{sentence}: {_listed(described[key])}."
    if (state := described.get("state")) is not None:
        whose = "; a worker sees only that of its own" if "conversation" in state["of"] else ""
        ttl = f" for {state['ttl']:g} s after its last use" if state["ttl"] else ""
        yield (
            f"A folder for {state['of']}, {state['home']}, that they can read and change, and that "
            f"stays{ttl} when they end{whose}. On this machine: {state['folder']}."
        )
    tmp = _size(described["limits"]["tmp"]["value"])
    yield (
        f"An empty /tmp and an empty /dev/shm for each worker, up to {tmp} each, which are gone "
        "when it ends."
    )
    yield (
        "No other file of this machine: no home folder, no other agent's files, not the "
        "gateway's configuration."
    )
    yield (
        f"These environment variables: {_listed(described['env'])}. No others of the gateway's, "
        "whatever passwords and keys it has there."
    )
    yield (
        "Their own processes. Not the gateway's, not those of other agents, and a worker does not "
        "see those of another worker."
    )
    yield "What kind of machine this is: its processors, memory, load and versions."


def _reach(described: Mapping[str, Any]) -> Iterable[str]:
    hosts: Sequence[str] = described["network"] or ()
    services: Mapping[str, Any] = described.get("services") or {}
    for name, service in services.items():
        what = _listed(service["allow"]) if service["allow"] != ["*"] else "everything"
        yield (
            f"The service {name} at {service['url']} ({what} below it), through a process of the "
            "gateway that adds the key. They cannot read the key, and can do what it allows."
        )
    if not hosts:
        other = "other " if services else ""
        yield f"No {other}network: not the internet, not the local network, not this machine."
    else:
        all_hosts = "*:*" in hosts
        which = "every host on the internet" if all_hosts else f"these hosts: {_listed(hosts)}"
        yield (
            f"By network, {which}, through a process of the gateway that lets nothing else pass. "
            "What a worker can read, it can send there."
        )
        yield (
            "Never this machine itself, nor the services that tell a cloud's machines their keys, "
            "and hosts of a private network only if they are named in full."
        )
    yield "No service of this machine, such as a database or Docker, through a socket file."
    if described["user"].endswith("always the same"):
        yield (
            f"They run as {described['user']}, who owns on this machine what they have left behind "
            "and nothing else, and cannot become another user."
        )
    elif described["user"].startswith("an own"):
        yield (
            "Each worker runs as a user of its own, who owns nothing on this machine, and cannot "
            "become another."
        )
    else:
        yield (
            "They run as the gateway's own user, but shut in: that user's other files and "
            "processes are out of reach, and they cannot become root."
        )


def _exhaust(described: Mapping[str, Any], workers: int) -> Iterable[str]:
    limits: Mapping[str, Mapping[str, Any]] = described["limits"]
    yield f"There can be {workers} workers at once. These limits are for each worker by itself:"
    yield _limit(
        "Memory",
        limits["memory"],
        amount=_size,
        watched="the gateway looks several times a second and ends a worker that has more, so that "
        "it may have more for a moment; files in /tmp and /dev/shm do not count, nor do shared "
        "pages that no process has mapped any more",
        unlimited="a worker can take all of this machine's",
    )
    yield _limit(
        "Processors",
        limits["cpu"],
        amount=lambda value: f"{value:g} of them at a time",
        unlimited="a worker can keep all of them busy while nobody else needs them",
    )
    if described["busy_cpus"] == "watch":
        yield (
            "When others need processors too: a worker with many busy processes gets a lower "
            "priority once the gateway has noticed, within seconds."
        )
    else:
        yield (
            "When others need processors too: each worker counts as one, however many processes "
            f"it has, and for half of the gateway. Held by the kernel ({described['busy_cpus']})."
        )
    yield _limit(
        "Processes and threads", limits["pids"], unlimited="a worker can take all that its user may"
    )
    if (together := limits["pids"].get("of_all_workers")) is not None:
        yield (
            f"Since all workers have one user id, the kernel counts these together: {together} in "
            "all, which one worker can take from the others."
        )
    yield _limit("Open files", limits["nofile"], amount=lambda value: f"{value} in each process")
    writable = [path for path, how in described["mounts"].items() if how == "read-write"]
    state = described.get("state")
    if state is not None:
        size = state["size"]["value"]
        yield (
            f"The disk that {state['folder']} is on: "
            + (
                f"{_size(size)} for each folder, and workers that write more are ended some "
                "seconds late."
                if size
                else "NOT limited, since no size is set."
            )
        )
    if writable:
        fsize = limits["fsize"]["value"]
        most = f"one file has at most {_size(fsize)}" if fsize else "one file may have any size"
        yield (
            f"The disk: NOT limited. They can fill the one that {_listed(writable)} is on; "
            f"{most}, but their number is not limited."
        )
    elif state is None:
        yield "The disk: they can write nothing to it."
    shared = described.get("shared_limits", ())
    if shared:
        why = described.get("why_shared")
        yield (
            "Some limits of the user that the gateway runs as count for workers too. They can use "
            "these up, also for the gateway and for that user's other programs"
            + (f" (since {why}):" if why else ":")
        )
        yield from (f"Shared: {phrase}." for phrase in shared)


def _limit(
    name: str,
    limit: Mapping[str, Any],
    *,
    amount: Callable[[Any], str] = str,
    watched: str = "",
    unlimited: str = "",
) -> str:
    if limit["value"] is None:
        return f"{name}: NOT limited, since no limit is set: {unlimited}."
    most = amount(limit["value"])
    if not limit["enforced"]:
        return (
            f"{name}: NOT limited. {most} is set, but cannot be held here ({limit['reason']}): "
            f"{unlimited}."
        )
    if limit["by"] == "watch":
        return f"{name}: {most}. Not held by the kernel here ({limit['reason']}): {watched}."
    return f"{name}: {most}. Held by the kernel ({limit['by']})."


def _listed(paths: Iterable[str]) -> str:
    return ", ".join(paths)


def _size(count: float) -> str:
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.4g} {unit}"


def user_in_words(confinement: Confinement, state: AgentState | None) -> str:
    """Which user an agent's workers are, whose folder is `state`, if it has one."""
    if confinement.as_root:
        if state is None:
            return "an own user id for each worker"
        of = "each conversation" if state.per_conversation else "the agent"
        return f"an own user id for {of}, always the same"
    if confinement.subordinate:
        return "an own user id for each worker, of the user's subordinate ids"
    return "the gateway's own, without its rights, in a user namespace"
