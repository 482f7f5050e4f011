"""The configuration of the gateways whose metrics are looked at."""

from __future__ import annotations

import json

from tests.harness import python_agent

TOML = f"""
[server]
metrics = true

[agents.puppet]
command = {json.dumps(python_agent("puppet.py"))}
workers = {{ min = 1, max = 1 }}

[agents.other]
command = {json.dumps(python_agent("echo.py"))}
"""
