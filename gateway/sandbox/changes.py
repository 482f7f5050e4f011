"""What of a confinement changes while its agent runs, when the configuration is read again.

Each function returns another confinement, for workers that start from then on. Those that run have
their environment and mounts for life.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

from msgspec import structs

from gateway.sandbox.environment import service_variables
from gateway.sandbox.files.places import contains
from gateway.sandbox.refusals import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.config.sandbox import SandboxSettings
    from gateway.config.services import Service
    from gateway.sandbox.bwrap import Confinement


def with_network(confinement: Confinement, wanted: SandboxSettings) -> Confinement:
    """The confinement of an agent with a network, to which other hosts belong."""
    settings = structs.replace(
        confinement.settings, network=wanted.network_hosts, allow_local=wanted.allow_local
    )
    return dataclasses.replace(confinement, settings=settings)


def with_services(
    confinement: Confinement, old: Sequence[Service], new: Sequence[Service]
) -> Confinement:
    """The confinement of an agent with services, which are others now."""
    settings = confinement.settings
    own = {*settings.env, *settings.env_allow}
    gone = service_variables(old).keys() - own
    kept = {name: value for name, value in confinement.env.items() if name not in gone}
    added = {name: value for name, value in service_variables(new).items() if name not in own}
    return dataclasses.replace(confinement, env={**kept, **added})


def check_hidden(confinement: Confinement, paths: Iterable[str]) -> None:
    """Check that workers are not shown these files, which are secret. Raises SandboxError."""
    shown = [mount.source for mount in confinement.mounts] + list(confinement.system.shown)
    for path in paths:
        real = os.path.realpath(path)
        if folder := next((each for each in shown if contains(each, real)), None):
            raise SandboxError(f"{path} is secret, and the agent is shown {folder}")
