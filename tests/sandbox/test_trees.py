"""What agents have made in their folders, measured and removed while they change it."""

from __future__ import annotations

import errno
import math
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.sandbox.files import trees
from gateway.sandbox.files.trees import bytes_in, empty
from tests.sandbox.users import as_user

Meddle = Callable[[Callable[[int, list[str]], None]], None]


@pytest.fixture
def meddle(monkeypatch: pytest.MonkeyPatch) -> Meddle:
    """Have a function called with each folder that has just been listed, and the folders in it."""
    listed = trees._remove_files

    def meddle(does: Callable[[int, list[str]], None]) -> None:
        def list_and_meddle(folder: int, *, most: int | None) -> tuple[list[str], int]:
            folders, files = listed(folder, most=most)
            does(folder, folders)
            return folders, files

        monkeypatch.setattr(trees, "_remove_files", list_and_meddle)

    return meddle


def test_removal_changes_nothing_by_a_link_that_is_put_in_a_folders_place(
    tmp_path: Path, meddle: Meddle
) -> None:
    outside, removed = tmp_path / "outside", tmp_path / "removed"
    outside.mkdir()
    outside.chmod(0o755)
    (removed / "1/home/swapped").mkdir(parents=True)
    (removed / "2/home").mkdir(parents=True)

    def swap(folder: int, folders: list[str]) -> None:
        if folders == ["swapped"]:
            os.rmdir("swapped", dir_fd=folder)
            os.symlink(outside, "swapped", dir_fd=folder)

    meddle(swap)
    with pytest.raises(NotADirectoryError):
        empty(str(removed))
    assert stat.S_IMODE(outside.stat().st_mode) == 0o755
    assert len(os.listdir(removed)) == 1
    empty(str(removed))
    assert os.listdir(removed) == []
    assert outside.is_dir()


def test_a_folder_that_is_refilled_holds_up_the_removal_of_no_other(
    tmp_path: Path, meddle: Meddle
) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    refilled = (tmp_path / "b").stat().st_ino

    def refill(folder: int, _: list[str]) -> None:
        if os.fstat(folder).st_ino == refilled:
            os.close(os.open("x", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=folder))

    meddle(refill)
    with pytest.raises(OSError, match="not empty"):
        empty(str(tmp_path))
    assert os.listdir(tmp_path) == ["b"]
    refilled = 0
    empty(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_what_is_removed_in_one_go_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "_MAX_VISIT", 5)
    monkeypatch.setattr(trees, "_MAX_REMOVED", 20)
    (tmp_path / "a").mkdir()
    for number in range(50):
        (tmp_path / "a" / str(number)).touch()
    empty(str(tmp_path))
    assert 20 < len(os.listdir(tmp_path / "a")) < 40
    for _ in range(3):
        empty(str(tmp_path))
    assert os.listdir(tmp_path) == []


def descend(folder: int, name: str, times: int) -> int:
    """Make folders within each other, and close all but the innermost."""
    for _ in range(times):
        os.mkdir(name, dir_fd=folder)
        inner = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    return folder


def test_what_lies_deep_counts_and_what_lies_too_deep_is_too_much(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    os.mkdir(home)
    inner = descend(os.open(home, os.O_RDONLY), "x" * 200, 30)  # longer than any path
    with open(os.open("hidden", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=inner), "wb") as file:
        file.write(b"x" * (2 << 20))
    assert 2 << 20 <= bytes_in(home) < 3 << 20
    os.close(descend(inner, "y", trees._MAX_DEPTH))
    assert bytes_in(home) == math.inf
    empty(str(tmp_path))  # or it stays: others remove such a folder by its path


def test_no_link_is_measured(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (2 << 20))
    (tmp_path / "home").mkdir()
    (tmp_path / "home/link").symlink_to(tmp_path)
    assert bytes_in(str(tmp_path / "home")) < 1 << 20
    assert bytes_in(str(tmp_path / "home/link")) == 0
    assert bytes_in(str(tmp_path / "missing")) == 0


def test_more_than_what_is_measured_is_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trees, "_MAX_MEASURED", 10)
    for number in range(10):
        (tmp_path / str(number)).touch()
    assert bytes_in(str(tmp_path)) < 1 << 20
    (tmp_path / "more").touch()
    assert bytes_in(str(tmp_path)) == math.inf


CLOSED = """
import os, tempfile
from gateway.sandbox.files.trees import bytes_in
with tempfile.TemporaryDirectory() as home:
    os.mkdir(f"{home}/closed")
    open(f"{home}/closed/file", "w").close()
    for mode in (0o311, 0o444, 0o700):
        os.chmod(f"{home}/closed", mode)
        print(bytes_in(home) == float("inf"))
"""


def test_a_folder_that_is_closed_to_an_ordinary_users_gateway_is_too_much() -> None:
    command = as_user("user", sys.executable, "-c", CLOSED)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]


def test_a_gateway_that_lacks_descriptors_blames_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(trees.os, "open", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            bytes_in(str(tmp_path))
