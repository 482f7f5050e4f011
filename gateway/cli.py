"""The command `gateway`: its options, its exit codes, and what it puts together.

Exit codes: 0 after a drain or a good check, 1 if the gateway cannot serve or a check fails, 2 if
the settings are wrong, 128 and the number of the signal that cut a drain short.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio

from gateway.commands import Commands
from gateway.composition.check import check_agents, check_files
from gateway.composition.fleet import membership
from gateway.composition.launchers import LauncherMaker, States
from gateway.composition.notify import ServiceManager
from gateway.composition.reload import watch_agents, watch_configuration
from gateway.composition.server import serve
from gateway.composition.shutdown import hold_hangups
from gateway.config import (
    ConfigError,
    load,
    parse_agent_option,
    read_keys,
)
from gateway.config.effective import print_settings
from gateway.front.sockets import ListenError, refuse_strangers, resolve
from gateway.observe import logs
from gateway.observe.recording import recording
from gateway.sandbox import (
    SandboxError,
)

log = logging.getLogger("gateway")


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--agent",
    "agents",
    multiple=True,
    metavar="NAME=COMMAND",
    help="An agent and its command, split into words as a POSIX shell does; may be repeated.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE.toml",
    help="Settings; the options override what it says.",
)
@click.option("--host", metavar="ADDRESS", help="Where to listen.  [default: 127.0.0.1]")
@click.option("--port", type=int, metavar="PORT", help="0 picks a free one.  [default: 8080]")
@click.option(
    "--role",
    type=click.Choice(["front", "host"]),
    help="One part of a fleet on NATS: HTTP without workers, or workers for fronts.",
)
@click.option(
    "--nats",
    "servers",
    multiple=True,
    metavar="URL",
    help="A NATS server of the fleet; may be repeated.  [default: nats://127.0.0.1:4222]",
)
@click.option(
    "--sandbox",
    type=click.Choice(["strict", "off"]),
    help="The isolation of every worker; never weaker than asked for.  [default: strict]",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="What is logged, to stderr.  [default: info]",
)
@click.option(
    "--record",
    metavar="DIR",
    help="Record what is said with the workers, for `agent-worker replay`. Payloads are in it.",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "text"]),
    help="auto: text on a terminal, else JSON.  [default: auto]",
)
@click.option(
    "--watch",
    is_flag=True,
    help="Reload, as SIGHUP does, when a file of the configuration changes.",
)
@click.option(
    "--reload",
    "follow",
    is_flag=True,
    help="Replace an agent's workers when its files change: for whoever writes agents.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Try the sandbox and each agent's handshake, print what was found, and exit.",
)
@click.option(
    "--print-config",
    is_flag=True,
    help="Print the settings in force as TOML, with defaults and without secrets, and exit.",
)
@click.version_option(package_name="agent-gateway", prog_name="gateway")
@click.pass_context
def main(
    context: click.Context,
    /,
    agents: tuple[str, ...],
    config_path: Path | None,
    *,
    check: bool,
    follow: bool,
    print_config: bool,
    role: str | None,
    servers: tuple[str, ...],
    watch: bool,
    **server: Any,
) -> None:
    """Serve commands as HTTP agents, each in worker processes of its own.

    \b
    Example:
      gateway --agent echo="agent-worker worker.examples.echo:agent"
      curl --json '{"input": "hello"}' http://127.0.0.1:8080/agent/echo/invoke
    """
    if context.invoked_subcommand is not None:
        if any(context.params.values()):
            raise click.UsageError("the options of serving are for no subcommand")
        return
    _open_standard_streams()
    manager = ServiceManager.of(os.environ)
    try:
        if watch and config_path is None:
            raise ConfigError("--watch: there is no file to watch; expected --config FILE.toml")
        read = partial(
            load,
            config_path,
            agents=_commands(agents),
            server={key: value for key, value in server.items() if value is not None},
            fleet=({"role": role} if role else {}) | ({"servers": [*servers]} if servers else {}),
        )
        settings = read()
        check_files(settings)
        keys = read_keys(settings, os.environ)
        if print_config:
            click.echo(print_settings(settings), nl=False)
            return
        if not check:
            hold_hangups()
        logs.setup(settings.server.log_level, settings.server.log_format)
        with ExitStack() as stack:
            recorder = None if check else stack.enter_context(recording(settings.server))
            states = States(settings.server, stack, serving=not check)
            maker = LauncherMaker(states)
            launchers = maker.make(settings, progress=_show_progress)
            for launcher in launchers.values():
                stack.callback(launcher.close)
            if check:
                refuse_strangers(settings.server, keys, resolve(settings.server.host))
                code = trio.run(check_agents, settings, launchers)
            else:
                code = trio.run(
                    partial(
                        serve,
                        keys=keys,
                        maker=maker,
                        states=states,
                        read=read,
                        join=membership(settings),
                        announce=_announce,
                        recorder=recorder,
                        manager=manager,
                        watchers=[
                            *([watch_configuration] if watch else []),
                            *([partial(watch_agents, maker.authored)] if follow else []),
                        ],
                    ),
                    settings,
                    launchers,
                )
        sys.exit(code)
    except ConfigError as error:
        _fail(str(error), 2)
    except (ListenError, SandboxError) as error:
        _fail(str(error), 1)


def _announce(address: str) -> None:
    # Not through Python's buffer: what a reader that has left did not take would be written again
    # at the end of the process, and fail again.
    with suppress(OSError):
        os.write(1, f"listening on {address}\n".encode())


def _open_standard_streams() -> None:
    """Open what was closed of stdin, stdout and stderr.

    The next file or socket would have its number otherwise, and be written to.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # Takes the lowest number that is free. Programs that are started inherit it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _show_progress(done: int, count: int) -> None:
    """On a terminal, and where there is something to wait for."""
    if count > 1 and sys.stderr.isatty():
        line = f"trying sandboxes: {done} of {count}" if done < count else ""
        click.echo(f"\r\x1b[K{line}", err=True, nl=False)


def _fail(message: str, code: int) -> None:
    # After what was logged; and not at all where nobody has read that, or this would wait for ever.
    if logs.flush():
        with suppress(OSError):
            click.echo(f"gateway: {message}", err=True)
    sys.exit(code)


def _commands(options: tuple[str, ...]) -> dict[str, str]:
    commands: dict[str, str] = {}
    for option in options:
        name, command = parse_agent_option(option)
        if name in commands:
            raise ConfigError(f"--agent {name}=…: given twice")
        commands[name] = command
    return commands
