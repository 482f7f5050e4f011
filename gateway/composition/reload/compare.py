"""What differs between two configurations, and what that means for what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct, structs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.config import AgentSettings, ServerSettings

RESTART = (
    *("host", "port", "dialects", "docs", "console"),
    *("access_log", "log_payloads", "record", "record_size", "traces"),
    *("sandbox", "state_dir"),
)
"""Settings of `[server]` that hold from a start to its end: what is listened on and which routes
there are, who is told of requests, and what every agent's processes and folders depend on."""

IN_PLACE = ("limits", "services")
"""Settings of an agent that change without new workers, besides those of its network."""


def in_force(old: ServerSettings, wanted: ServerSettings) -> ServerSettings:
    """What of the wanted settings can be in force before the next start."""
    kept = {name: getattr(old, name) for name in RESTART}
    if not old.metrics:
        kept["metrics"] = old.metrics  # nothing was counted, so that there is nothing to show
    return structs.replace(wanted, **kept)


def needs_new_workers(old: AgentSettings, wanted: AgentSettings) -> bool:
    """Whether something differs that workers have for life."""
    sandbox = structs.replace(
        old.sandbox, network=wanted.sandbox.network, allow_local=wanted.sandbox.allow_local
    )
    changed = {name: getattr(wanted, name) for name in IN_PLACE}
    return structs.replace(old, sandbox=sandbox, **changed) != wanted


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """The paths, with dots, of the settings that differ. No value is told: it may be a secret."""
    if isinstance(old, Struct) and type(old) is type(new):
        old, new = structs.asdict(old), structs.asdict(new)
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            below = f"{path}.{key}" if path else str(key)
            if key not in new:
                yield f"{below} (removed)"
            elif key not in old:
                yield f"{below} (added)"
            else:
                yield from differences(old[key], new[key], below)
    elif old != new:
        yield path
