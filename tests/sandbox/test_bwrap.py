"""The command line of a sandbox, read without starting anything."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from gateway.sandbox import SandboxSettings
from gateway.sandbox.bwrap import (
    Confinement,
    IdMapping,
    System,
    Tools,
    bwrap_options,
    inside_command,
    outside_command,
)
from gateway.sandbox.files.mounts import Mount
from gateway.sandbox.limits.subordinate import Mappers

TOOLS = Tools(bwrap="/usr/bin/bwrap", setpriv="/usr/bin/setpriv", sh="/bin/sh")

PLAIN = Confinement(
    argv=("/usr/bin/true",),
    env={"HOME": "/tmp"},
    cwd="/srv/agent",
    mounts=(Mount("/srv/agent", "/srv/agent"), Mount("/srv/data", "/data/real", writable=True)),
    settings=SandboxSettings(tmp="1M"),
    seccomp=b"",
    as_root=False,
    system=System(links=(("/bin", "usr/bin"),), shown=("/usr",), hidden=("/usr/secret",)),
)


def follow(options: list[str], *words: str) -> int:
    """Where these words stand one after the other."""
    found = [i for i in range(len(options)) if options[i : i + len(words)] == list(words)]
    assert len(found) == 1, (words, options)
    return found[0]


def confined(**changes: Any) -> list[str]:
    return bwrap_options(dataclasses.replace(PLAIN, **changes), files={"/etc/hosts": 7})


def test_an_ordinary_users_sandbox_is_a_user_namespace_without_rights() -> None:
    options = confined()
    follow(options, "--unshare-user", "--disable-userns", "--cap-drop", "ALL")
    assert "--cap-add" not in options


def test_a_sandbox_for_a_subordinate_id_is_a_user_namespace_that_keeps_as_little() -> None:
    options = confined(subordinate=True)
    assert "--unshare-user" in options
    assert "--disable-userns" not in options
    assert "--uid" not in options
    kept = [options[i + 1] for i, each in enumerate(options) if each == "--cap-add"]
    assert kept == ["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"]
    words = inside_command(
        TOOLS, dataclasses.replace(PLAIN, subordinate=True), uid=1000, rlimits={}, mark="m"
    )
    assert {"--reuid=1000", "--regid=1000", "--clear-groups", "--bounding-set=-all"} < set(words)


def test_ids_are_mapped_beside_bubblewrap_by_the_programs_that_were_found() -> None:
    mapping = IdMapping(
        Mappers("/u b/newuidmap", "/newgidmap", "/nsenter", "/unshare"),
        ("0", "1", "1", "1000", "7", "1"),
        ("0", "2", "1", "1000", "8", "1"),
    )
    script = outside_command(TOOLS, [], mapping=mapping)[2]
    assert """'/u b/newuidmap' "$pid" 0 1 1 1000 7 1 && /nsenter""" in script
    assert """/newgidmap "$pid" 0 2 1 1000 8 1 )""" in script


def test_processes_of_a_user_are_bounded_before_a_namespace_is_made_of_them() -> None:
    assert "ulimit -S -p 70" in outside_command(TOOLS, [], most_processes=70)[2]
    assert "ulimit" not in outside_command(TOOLS, [])[2]


def test_roots_sandbox_keeps_only_what_the_drop_of_privileges_needs() -> None:
    options = confined(as_root=True)
    assert "--unshare-user" not in options
    kept = [options[i + 1] for i, each in enumerate(options) if each == "--cap-add"]
    assert kept == ["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"]


def test_mounts_follow_what_they_are_put_on_and_the_root_is_made_read_only_last() -> None:
    options = confined()
    order = [
        follow(options, "--perms", "0755", "--dir", "/srv"),
        follow(options, "--ro-bind", "/usr", "/usr"),
        follow(options, "--tmpfs", "/usr/secret"),
        follow(options, "--ro-bind", "/srv/agent", "/srv/agent"),
        follow(options, "--bind", "/data/real", "/srv/data"),
        follow(options, "--remount-ro", "/"),
    ]
    assert order == sorted(order)


def test_no_folder_is_made_within_a_mount() -> None:
    options = confined(cwd="/srv/agent/deeper")
    assert "/srv/agent/deeper" not in [
        options[i + 1] for i, each in enumerate(options) if each == "--dir"
    ]


def test_the_environment_is_exactly_what_was_given() -> None:
    options = confined()
    assert follow(options, "--clearenv") < follow(options, "--setenv", "HOME", "/tmp")
    assert options.count("--setenv") == 1


@pytest.mark.parametrize(("groups", "word"), [((), "--clear-groups"), ((5, 6), "--groups=5,6")])
def test_with_root_the_worker_changes_its_user_after_its_limits_are_set(
    groups: tuple[int, ...], word: str
) -> None:
    confinement = dataclasses.replace(PLAIN, as_root=True, groups=groups)
    words = inside_command(TOOLS, confinement, uid=77, rlimits={"nofile": 64, "nproc": 9}, mark="m")
    assert words.index("set-limits") < words.index("--reuid=77") < words.index(word)
    assert words[-1] == "--"
    assert "ulimit -n 64" in words[2]


def test_an_ordinary_users_worker_has_no_other_user_to_change_to() -> None:
    words = inside_command(TOOLS, PLAIN, uid=1000, rlimits={"nofile": 64, "fsize": 1024}, mark="m")
    assert "ulimit -f 2" in words[2]
    assert TOOLS.setpriv not in words


def test_the_groups_are_joined_before_bubblewrap_starts() -> None:
    words = outside_command(TOOLS, ["/g/tasks"])
    assert words[-3:] == ("join-cgroup", "/g/tasks", "--")
