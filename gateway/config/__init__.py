"""What the gateway is told to serve: the settings, their defaults, and where they come from.

`settings` and `sandbox` hold the values, `load` reads them. The package knows nothing of processes
or of HTTP.
"""

from gateway.config.fleet import FleetSettings
from gateway.config.hosts import ANY_HOST, Address, Host, parse_host, plain_address
from gateway.config.keyring import read_keys
from gateway.config.keys import CallerKeys, KeySettings
from gateway.config.limits import LimitSettings
from gateway.config.load import (
    ConfigError,
    load,
    parse_agent_option,
    read_services,
)
from gateway.config.sandbox import Limit, SandboxSettings, parse_size
from gateway.config.settings import (
    AGENT_NAME,
    AgentSettings,
    Clocks,
    Restart,
    RunSettings,
    ServerSettings,
    Settings,
    StateSettings,
    Workers,
    seconds,
)

__all__ = [
    "AGENT_NAME",
    "ANY_HOST",
    "Address",
    "AgentSettings",
    "CallerKeys",
    "Clocks",
    "ConfigError",
    "FleetSettings",
    "Host",
    "KeySettings",
    "Limit",
    "LimitSettings",
    "Restart",
    "RunSettings",
    "SandboxSettings",
    "ServerSettings",
    "Settings",
    "StateSettings",
    "Workers",
    "load",
    "parse_agent_option",
    "parse_host",
    "parse_size",
    "plain_address",
    "read_keys",
    "read_services",
    "seconds",
]
