"""Files of the configuration that are none, never end, or hold what no configuration does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.config import ConfigError, load, reading
from gateway.config.reading import read_bounded

AGENT = "[agents.a]\ncommand = 'true'\n"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda path: path.symlink_to("/dev/zero"), "is neither a file nor a pipe"),
        (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"#" * 1000), "is longer than 999 bytes"),
    ],
)
def test_what_is_no_file_or_too_long_is_an_error(
    tmp_path: Path, make: Callable[[Path], None], why: str
) -> None:
    make(path := tmp_path / "gateway.toml")
    with pytest.raises(OSError, match=why):
        read_bounded(path, 999)


def test_a_pipe_is_read_to_its_end_and_waited_for_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(path := tmp_path / "gateway.toml")
    end = os.open(path, os.O_RDWR)
    try:
        os.write(end, AGENT.encode())
        monkeypatch.setattr(reading, "PIPE_SECONDS", 0)
        with pytest.raises(ConfigError, match="nobody has ended the pipe"):
            load(path)
    finally:
        os.close(end)
    into, out = os.pipe()  # as a shell's `<(…)`
    os.write(out, AGENT.encode())
    os.close(out)
    try:
        assert load(Path(f"/dev/fd/{into}")).agents["a"].argv == ("true",)
    finally:
        os.close(into)


@pytest.mark.parametrize(
    ("toml", "why"),
    [
        (f"{AGENT}x = {'[' * 50_000}", "too many brackets"),
        (f"[server]\nport = {'9' * 5000}\n{AGENT}", "not valid TOML"),
        (f"[server]\nport = '${{DIGITS}}'\n{AGENT}", "server.port: expected int"),
        (f"[server]\nport = '${{BRACKETS}}'\n{AGENT}", "server.port: expected int"),
        (f"{AGENT}[agents.a.sandbox]\nmemory = '{'9' * 400}G'", "memory is '9"),
        (f"{AGENT}[agents.a.sandbox]\nfsize = {'9' * 30}", "fsize is 9"),
        (f'keys_file = "/a\\u0000b"\n{AGENT}', "keys_file: expected an absolute path"),
        (f'{AGENT}description = "file:\\u0000"', "No such file"),
    ],
)
def test_every_configuration_that_cannot_be_is_refused_by_name(
    tmp_path: Path, toml: str, why: str
) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(toml)
    with pytest.raises(ConfigError) as raised:
        load(path, environ={"DIGITS": "9" * 5000, "BRACKETS": "[" * 50_000})
    assert why in str(raised.value)


def test_a_working_folder_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (gone := tmp_path / "gone").mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="the gateway's working folder: No such file"):
        load(agents={"a": "true"})
    monkeypatch.chdir(tmp_path)
