"""A configuration with every setting, its default and its meaning: what `gateway init` writes.

It is made from the types that a configuration is checked by, and from what is said of their fields
in the source. So there is nothing that it leaves out or says otherwise.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import NODEFAULT, UNSET, Struct, structs

from gateway.config.fleet import FleetSettings
from gateway.config.keys import KeySettings
from gateway.config.services import ServiceClocks, ServiceSettings
from gateway.config.settings import AgentSettings, ServerSettings, StateSettings, TraceSettings
from gateway.config.toml import to_value

if TYPE_CHECKING:
    from collections.abc import Iterator

WIDTH = 98

EXAMPLES: dict[str, Any] = {
    "console": True,
    "command": "agent-worker worker.examples.echo:agent",
    "cwd": "agents/echo",
    "description": "Says what it was told",
    "expires": "2027-01-31T00:00:00Z",
    "hash": "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "lame_duck": 5,
    "max_rss": "512M",
    "preset": "openai",
    "role": "front",
    "ca": "/etc/ssl/certs/own.pem",
    "env": {"OPENAI_BASE_URL": "{url}"},
}
"""What is shown of settings that have no default."""

HEAD = """\
# The configuration of a gateway: gateway --config gateway.toml
#
# Every setting stands here. What is commented out has the value that it has by default, but for
# examples, which say that they are some. Sizes are bytes, with K, M, G or T; times are seconds.
#
# In any text, ${NAME} stands for a variable of the gateway's environment, and a text that begins
# with file: for the content of that file, as in "file:secrets/token"; $${ and $$file: stand for ${
# and file:. `gateway --print-config` shows the settings in force, `gateway --check` tries them.
"""


def template() -> str:
    """The text of the configuration, with one agent."""
    return "\n".join([HEAD, *_lines(), ""])


def _lines() -> Iterator[str]:
    yield from _remark("A TOML file with more tables [keys.NAME], read again when it changes.")
    yield '# keys_file = ""'
    yield from _table("server", ServerSettings)
    yield from _table("server.traces", TraceSettings, off=True)
    yield from _table("fleet", FleetSettings, off=True)
    yield ""
    yield from _remark("What [agents.NAME] may hold, [defaults] may hold for all agents.")
    yield "[defaults]"
    yield from _table("agents.echo", AgentSettings, given=("command",))
    yield from _table("agents.echo.state", StateSettings, off=True)
    yield from _table("services.openai", ServiceSettings, off=True)
    yield from _table("services.openai.clocks", ServiceClocks, off=True)
    yield from _table("keys.someone", KeySettings, off=True)


def _table(
    name: str, kind: type[Struct], *, given: tuple[str, ...] = (), off: bool = False
) -> Iterator[str]:
    """One table. `given` are settings that are not commented out; `off`: the table is, with all."""
    yield ""
    yield from _remark(_documentation(kind))
    yield f"# [{name}]" if off else f"[{name}]"
    meanings = meanings_of(kind)
    inner: list[tuple[str, type[Struct]]] = []
    for field in structs.fields(kind):
        default = field.default if field.default is not NODEFAULT else None
        if field.default_factory is not NODEFAULT:
            default = field.default_factory()
        if isinstance(default, Struct):
            inner.append((field.name, type(default)))
            continue
        if default in ("", None, UNSET) and field.name == "traces":
            continue  # a table of its own
        yield from _remark(meanings[field.name])
        shown = EXAMPLES[field.name] if default is None or default is UNSET else default
        line = f"{field.name} = {_value(field.name, shown)}"
        if field.name in given:
            yield line
        else:
            yield f"# {line}" + ("  # an example" if default is None or default is UNSET else "")
    for field_name, inside in inner:
        if off:
            continue  # said of agents, or by its own table
        yield from _table(f"{name}.{field_name}", inside)


def _value(name: str, value: Any) -> str:
    plain = msgspec.to_builtins(value)
    return str(plain) if name == "expires" else to_value(plain)


def meanings_of(kind: type[Struct]) -> dict[str, str]:
    """What is said of each field of a type in its source; empty where nothing is."""
    body = _body(kind)
    found = dict.fromkeys((field.name for field in structs.fields(kind)), "")
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            said = following.value if isinstance(following, ast.Expr) else None
            if isinstance(said, ast.Constant) and statement.target.id in found:
                found[statement.target.id] = str(said.value)
    return found


def _body(kind: type[Struct]) -> list[ast.stmt]:
    source = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
    return next(
        node.body
        for node in source.body
        if isinstance(node, ast.ClassDef) and node.name == kind.__name__
    )


def _documentation(kind: type[Struct]) -> str:
    return (kind.__doc__ or "").partition("\n\n")[0]


def _remark(text: str) -> Iterator[str]:
    plain = re.sub(r"\s+", " ", text.replace("`", "")).strip()
    return (f"# {line}" for line in textwrap.wrap(plain, WIDTH - 2))
