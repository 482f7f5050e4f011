"""Callers with keys, and a gateway that knows them."""

from __future__ import annotations

import hashlib
import json
import sys

from gateway.config.keys import hash_key
from tests.http.conftest import AGENTS

ALICE, ALICE_NEW, BOB, EXPIRED, WRONG = (
    f"agw_{hashlib.sha256(name).hexdigest()[:43]}"
    for name in (b"alice", b"new", b"bob", b"expired", b"wrong")
)
"""Always the same: they stand in the names of tests."""
COMMAND = json.dumps([sys.executable, str(AGENTS / "remembers.py")])
ECHO = ["--agent", "echo=agent-worker worker.examples.echo:agent", "--sandbox", "off"]


def hash_of(key: str) -> str:
    return hash_key(key.encode())


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


KEYS = f"""
[keys.alice]
hash = ["{hash_of(ALICE)}", "{hash_of(ALICE_NEW)}"]
[keys.bob]
hash = "{hash_of(BOB)}"
agents = ["mem", "alone", "by-user", "by-key"]
[keys.expired]
hash = "{hash_of(EXPIRED)}"
expires = 2026-01-01
"""
ONLY_MEM = KEYS.replace(', "alone", "by-user", "by-key"', "")


def toml(keys: str = KEYS, *, agents: str = "", more: str = "") -> str:
    """Without a sandbox: whatever does not reach a worker here does not with one."""
    return f"""
{more}
[server]
sandbox = "off"
metrics = true
[defaults]
command = {COMMAND}
workers = {{ min = 0 }}
[agents.mem]
workers = {{ max = 1 }}
{agents}
{keys}
"""
