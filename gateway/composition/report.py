"""What the log says at the start: which agents are served, and what does not hold for them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.config.origins import ANY_ORIGIN
from gateway.observe import logs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config import Settings
    from gateway.sandbox.launch import Launcher

log = logging.getLogger("gateway")


def log_agents(settings: Settings, address: str) -> None:
    """One line for each agent: where it is served, and what runs for it."""
    for name in settings.run_here:
        where = f"{address}/agent/{name}"
        if settings.fleet.role == "host":
            where = f"the agent {name} to the fronts of the fleet"
        logs.event(
            log,
            logging.INFO,
            f"serving {where}",
            agent=name,
            command=settings.shown_command(name),
            sandbox=settings.server.sandbox,
        )


def _log_open_to_pages(settings: Settings, *, keys: bool) -> None:
    if ANY_ORIGIN in settings.server.cors and not keys:
        message = "cors is '*' and there are no keys: any page that somebody here opens can call"
        logs.event(log, logging.WARNING, message)


def log_warnings(settings: Settings, launchers: Mapping[str, Launcher], *, keys: bool) -> None:
    """One line for each guarantee that does not hold here. `keys`: whether callers need keys."""
    _log_open_to_pages(settings, keys=keys)
    _log_what_the_kernel_does_not_hold(launchers)
    _log_what_is_shared(launchers)


def _log_what_the_kernel_does_not_hold(launchers: Mapping[str, Launcher]) -> None:
    """One line for each limit that is set and has no control group."""
    lines: dict[str, list[str]] = {}
    for name, launcher in launchers.items():
        for limit, found in launcher.describe().get("limits", {}).items():
            if found["value"] is not None and "reason" in found:
                held = "held by a watch, a moment late" if found["enforced"] else "NOT enforced"
                lines.setdefault(f"{limit} is {held}: {found['reason']}", []).append(name)
    for line, names in lines.items():
        logs.event(log, logging.WARNING, line, agents=",".join(names))


def _log_what_is_shared(launchers: Mapping[str, Launcher]) -> None:
    """One line for each reason for which workers have the gateway's own user id."""
    lines: dict[str, list[str]] = {}
    for name, launcher in launchers.items():
        why = launcher.describe().get("why_shared")
        if why:
            lines.setdefault(why, []).append(name)
    for why, names in lines.items():
        message = (
            "workers share limits of the gateway's user (epoll watches, descriptors in flight, "
            f"pipes; see gateway --check), since {why}"
        )
        logs.event(log, logging.WARNING, message, agents=",".join(names))
