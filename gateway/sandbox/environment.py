"""The environment of an agent's workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.services import key_variables
from gateway.sandbox.bwrap import HOME
from gateway.sandbox.files import node
from gateway.sandbox.files.commands import UNBUFFERED
from gateway.sandbox.network import listener
from gateway.sandbox.refusals import SandboxError
from gateway.sandbox.tools import SYSTEM_PATH

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.config.sandbox import SandboxSettings
    from gateway.config.services import Service

_LOADER_PREFIX = "LD_"
_LOADER = {"GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH"}
"""Variables that make the C library load code and data from elsewhere."""


def worker_environment(
    settings: SandboxSettings,
    environ: Mapping[str, str],
    *,
    bin_dirs: Sequence[str],
    services: Sequence[Service] = (),
) -> dict[str, str]:
    """The whole environment of an agent's workers; `environ` is the gateway's.

    The later of these wins: what every worker has, what `services` say, and what the agent's own
    settings do. Raises SandboxError.
    """
    loaded = [
        name for name in (*settings.env, *settings.env_allow) if name.startswith(_LOADER_PREFIX)
    ]
    if loaded or (loaded := sorted(_LOADER.intersection((*settings.env, *settings.env_allow)))):
        raise SandboxError(
            f"env: {loaded[0]} would act on the sandbox's own programs, before they give up their "
            f'rights: put it into the command ("env {loaded[0]}=... PROGRAM")'
        )
    missing = [name for name in settings.env_allow if name not in environ]
    if missing:
        raise SandboxError(
            f"env_allow: {', '.join(missing)} is not set in the gateway's environment"
        )
    check_keys_apart(settings, services)
    path = ":".join(dict.fromkeys([*bin_dirs, *SYSTEM_PATH.split(":")]))
    own = {"PATH": path, "HOME": HOME, "LANG": "C.UTF-8", **UNBUFFERED}
    if settings.network_hosts:
        proxy = f"http://127.0.0.1:{listener.PROXY_PORT}"
        for name in ("http_proxy", "https_proxy"):
            own |= {name: proxy, name.upper(): proxy}
        own |= {"no_proxy": "127.0.0.1,localhost", "NO_PROXY": "127.0.0.1,localhost"}
    own |= service_variables(services)
    agents = {**{name: environ[name] for name in settings.env_allow}, **settings.env}
    of_node = node.environment(
        memory_bytes=settings.memory_bytes,
        proxied=bool(settings.network_hosts),
        own_options=agents.pop("NODE_OPTIONS", ""),
    )
    return {**own, **of_node, **agents}


def service_variables(services: Sequence[Service]) -> dict[str, str]:
    """What these services say."""
    found: dict[str, str] = {}
    for service in services:
        url = f"http://127.0.0.1:{listener.DOOR_PORT}/{service.name}"
        found |= {name: value.replace("{url}", url) for name, value in service.env.items()}
    return found


def check_keys_apart(settings: SandboxSettings, services: Sequence[Service]) -> None:
    """Check that the agent is not given the key of a service of its own. Raises SandboxError."""
    for service in services:
        shown = {*settings.env_allow}.intersection(key_variables(service.settings))
        if shown:
            raise SandboxError(
                f"env_allow: {min(shown)} is the key of services.{service.name}, which the agent "
                "is not to have"
            )
