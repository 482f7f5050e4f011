"""Isolation of workers from the machine, the network, the gateway and one another.

`make_launcher` turns an agent's command and settings into the launcher of its workers;
`try_sandbox` tries that launcher for real before anything is served. The package knows nothing of
pools or HTTP.
"""

from gateway.config.sandbox import SandboxSettings
from gateway.sandbox.files.programs import refuse_runner, why_not_found
from gateway.sandbox.make import Level, check_apart, lasting_ids, make_launcher, working_folder
from gateway.sandbox.refusals import SandboxError
from gateway.sandbox.strict import StrictLauncher
from gateway.sandbox.trial import try_sandbox
from gateway.sandbox.trials import try_sandboxes

__all__ = [
    "Level",
    "SandboxError",
    "SandboxSettings",
    "StrictLauncher",
    "check_apart",
    "lasting_ids",
    "make_launcher",
    "refuse_runner",
    "try_sandbox",
    "try_sandboxes",
    "why_not_found",
    "working_folder",
]
