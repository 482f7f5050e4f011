"""Changing while running: the configuration is read again, and what differs is carried out."""

from gateway.composition.reload.compare import differences
from gateway.composition.reload.reloader import Part, Reloader, Watcher
from gateway.composition.reload.watch import watch_agents, watch_configuration

__all__ = [
    "Part",
    "Reloader",
    "Watcher",
    "differences",
    "watch_agents",
    "watch_configuration",
]
