"""The rows of the table: one module for each protocol, with its `CLIENTS`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from tests.clients.row import Client

OF_PROTOCOL: dict[str, tuple[Client, ...]] = {
    module.name: import_module(f"{__name__}.{module.name}").CLIENTS
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda each: each.name != "openai")
}
"""By the names of the modules, in their order; the one that most know comes first."""
