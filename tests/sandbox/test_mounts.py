"""Which paths a worker sees, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.sandbox import SandboxError
from gateway.sandbox.mounts import Mount, plan_mounts


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("agent/code.py", "agent/gateway.toml", "agent/lib/x.py", "data/models/m", "key"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    return tmp_path


def plan(place: Path, **wanted: list[str]) -> list[str]:
    """The mounts relative to the place, those for writing with a star."""
    arguments: dict[str, list[str]] = {"found": [], "mounts_ro": [], "mounts_rw": [], "secrets": []}
    mounts = plan_mounts(**(arguments | wanted), cwd=str(place))  # type: ignore[arg-type]
    return [
        str(Path(each.path).relative_to(place)) + ("*" if each.writable else "") for each in mounts
    ]


def test_what_was_found_and_what_was_named_is_mounted_parents_first(place: Path) -> None:
    found = [str(place / "agent/lib"), str(place / "data/models")]
    assert plan(place, found=found, mounts_ro=["agent"]) == ["agent", "data/models"]


def test_named_paths_may_be_relative_absolute_or_a_file(place: Path) -> None:
    assert plan(place, mounts_ro=["data", str(place / "key")]) == ["data", "key"]


def test_a_link_is_mounted_under_both_of_its_names(place: Path) -> None:
    (place / "link").symlink_to("data")
    assert plan(place, mounts_ro=["link"]) == ["data", "link"]
    mounts = plan_mounts(found=[], mounts_ro=["link"], mounts_rw=[], secrets=[], cwd=str(place))
    assert Mount(str(place / "link"), str(place / "data")) in mounts


def test_a_named_path_that_is_not_there_is_refused_by_name(place: Path) -> None:
    with pytest.raises(SandboxError, match="mounts_ro: 'nothing' does not exist"):
        plan(place, mounts_ro=["nothing"])


@pytest.mark.parametrize("path", ["/", "/proc", "/sys/kernel", "/dev"])
def test_the_systems_own_trees_are_refused(place: Path, path: str) -> None:
    with pytest.raises(SandboxError, match="may not be mounted"):
        plan(place, mounts_ro=[path])


@pytest.mark.parametrize("secret", ["key", "agent/gateway.toml"])
@pytest.mark.parametrize("key", ["mounts_ro", "mounts_rw"])
def test_a_named_mount_that_would_show_a_secret_is_refused(
    place: Path, key: str, secret: str
) -> None:
    path = place / secret
    for name in (path, path.parent):
        with pytest.raises(SandboxError, match=f"{key}: .* would show the agent .*{path.name}"):
            plan(place, **{key: [str(name)]}, secrets=[str(path)])


def test_a_link_to_a_secret_is_refused_like_the_secret(place: Path) -> None:
    (place / "innocent").symlink_to("key")
    with pytest.raises(SandboxError, match="would show"):
        plan(place, mounts_ro=["innocent"], secrets=[str(place / "key")])


def test_a_secret_that_is_named_by_a_link_is_known_where_it_is(place: Path) -> None:
    (place / "config").symlink_to("agent/gateway.toml")
    with pytest.raises(SandboxError, match="would show"):
        plan(place, mounts_ro=["agent"], secrets=[str(place / "config")])


@pytest.mark.parametrize("secret", ["/usr/bin/env", "/etc/ssl/gateway.key"])
def test_a_secret_among_the_systems_files_is_refused(place: Path, secret: str) -> None:
    with pytest.raises(SandboxError, match=f"{secret} is secret, and lies in what every"):
        plan(place, secrets=[secret])


def test_what_lies_in_a_secret_folder_is_refused(place: Path) -> None:
    with pytest.raises(SandboxError, match="would show"):
        plan(place, mounts_ro=["data/models"], secrets=[str(place / "data")])


def test_beside_a_secret_a_guessed_folder_is_mounted_without_it(place: Path) -> None:
    (place / "agent/link").symlink_to("gateway.toml")
    secrets = [str(place / "agent/gateway.toml")]
    assert plan(place, found=[str(place / "agent")], secrets=secrets) == [
        "agent/code.py",
        "agent/lib",
    ]


def test_a_guess_inside_a_secret_folder_is_left_out(place: Path) -> None:
    assert plan(place, found=[str(place / "data/models")], secrets=[str(place / "data")]) == []


def test_a_writable_mount_may_lie_in_a_readable_one(place: Path) -> None:
    assert plan(place, mounts_ro=["agent"], mounts_rw=["agent/lib"]) == ["agent", "agent/lib*"]


def test_nothing_may_lie_in_a_writable_mount(place: Path) -> None:
    """The agent could put a link in its place, and the next start would follow it on the host."""
    with pytest.raises(SandboxError, match=r"/data/models' lies in .*/data', which the agent may"):
        plan(place, mounts_ro=["data/models"], mounts_rw=["data"])


def test_a_guess_in_a_writable_mount_is_seen_through_it(place: Path) -> None:
    assert plan(place, found=[str(place / "data/models")], mounts_rw=["data"]) == ["data*"]


@pytest.mark.parametrize("path", ["/usr/share", sys.prefix, sys.base_prefix])
def test_what_the_gateway_runs_may_not_be_writable(place: Path, path: str) -> None:
    with pytest.raises(SandboxError, match="mounts_rw"):
        plan(place, mounts_rw=[path])


def test_the_gateways_own_code_may_not_be_writable(place: Path) -> None:
    import gateway

    with pytest.raises(SandboxError, match="which the gateway runs"):
        plan(place, mounts_rw=[str(Path(gateway.__file__).parents[1])])
