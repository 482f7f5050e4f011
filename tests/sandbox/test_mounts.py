"""Which paths a worker sees, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gateway.sandbox import SandboxError
from gateway.sandbox.files.mounts import (
    Mount,
    check_mounts_apart,
    find_masked,
    find_protected,
    find_shown_secrets,
    plan_mounts,
)
from gateway.sandbox.files.sources import Sources


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


def test_a_folder_of_the_import_path_may_not_be_writable(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plan(place, mounts_rw=["data"]) == ["data*"]
    for path in ("data", "data/models", "data/later"):
        monkeypatch.setattr(sys, "path", [*sys.path, str(place / path)])
        with pytest.raises(SandboxError, match="which the gateway runs"):
            plan(place, mounts_rw=["data"])
        monkeypatch.undo()
    monkeypatch.setattr(sys, "path", [*sys.path, str(place)])
    with pytest.raises(SandboxError, match="which the gateway runs"):
        plan(place, mounts_rw=["data"])


def test_the_folder_that_modules_are_imported_from_by_no_name_may_not_be_writable(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place / "data")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    with pytest.raises(SandboxError, match="which the gateway runs"):
        plan(place, mounts_rw=["data"])


@pytest.mark.parametrize("holds", [".ssh/", ".aws/", ".gnupg/", ".bashrc", ".profile"])
def test_a_home_may_not_be_writable_whatever_its_name(place: Path, holds: str) -> None:
    path = place / "data" / holds
    if holds.endswith("/"):
        path.mkdir()
    else:
        path.write_text("")
    with pytest.raises(SandboxError, match=r"mounts_rw: .*/data' is a home"):
        plan(place, mounts_rw=["data"])
    assert plan(place, mounts_rw=["data/models"]) == ["data/models*"]


@pytest.mark.parametrize("inside", [".", "..", ".local", ".config"])
def test_the_gateways_own_home_may_not_be_writable(
    place: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    for name in (".local", ".config", "work"):
        (place / "data" / name).mkdir()
    monkeypatch.setenv("HOME", str(place / "data"))
    with pytest.raises(SandboxError, match="mounts_rw"):
        plan(place, mounts_rw=[str(place / "data" / inside)])
    assert plan(place, mounts_rw=["data/work"]) == ["data/work*"]


@pytest.mark.parametrize("path", ["/tmp", "/etc", "/var", "/root", "/home"])
def test_a_folder_of_unrelated_things_may_not_be_writable(place: Path, path: str) -> None:
    with pytest.raises(SandboxError, match="mounts_rw"):
        plan(place, mounts_rw=[path])


@pytest.mark.parametrize("name", [".git", ".venv", "agent/.git/hooks"])
def test_what_is_executed_by_tools_may_not_be_writable(place: Path, name: str) -> None:
    (place / name).mkdir(parents=True)
    with pytest.raises(SandboxError, match="is executed when its project is worked with"):
        plan(place, mounts_rw=[name])


def test_what_tools_execute_is_protected_in_a_writable_mount(place: Path) -> None:
    for name in (".git", "env", "notes"):
        (place / "data" / name).mkdir()
    (place / "data/env/pyvenv.cfg").write_text("")
    (place / "data/gateway.toml").write_text("")
    writable = Mount(str(place / "link"), str(place / "data"), writable=True)
    assert find_protected([writable, Mount(str(place / "agent"), str(place / "agent"))]) == tuple(
        Mount(str(place / "link" / name), str(place / "data" / name))
        for name in (".git", "env", "gateway.toml")
    )


def test_a_link_that_cannot_be_protected_is_refused(place: Path) -> None:
    (place / "data/.git").symlink_to(place / "agent")
    with pytest.raises(SandboxError, match=r"data/.git is a link"):
        find_protected([Mount(str(place / "data"), str(place / "data"), writable=True)])


@pytest.mark.parametrize("leads", [".", "data", "/etc", "/"])
def test_beside_a_secret_no_link_out_of_a_guessed_folder_is_mounted(
    place: Path, leads: str
) -> None:
    (place / "agent/out").symlink_to(place / leads)
    (place / "agent/within").symlink_to("lib")
    secrets = [str(place / "agent/gateway.toml")]
    assert plan(place, found=[str(place / "agent")], secrets=secrets) == [
        "agent/code.py",
        "agent/lib",
        "agent/within",
    ]


def mounted(place: Path, *names: str) -> list[Mount]:
    return [Mount(str(place / n.rstrip("*")), str(place / n.rstrip("*")), "*" in n) for n in names]


@pytest.mark.parametrize(
    ("other", "code"),
    [(["data/models"], []), (["data/models*"], []), ([], ["data/models/m"]), ([], ["data"])],
)
def test_what_one_agent_may_change_no_other_is_shown_or_runs(
    place: Path, other: list[str], code: list[str]
) -> None:
    mounts = {"a": mounted(place, "data*"), "b": mounted(place, *other)}
    runs = {"a": [str(place / "data/models")], "b": [str(place / path) for path in code]}
    with pytest.raises(SandboxError, match=r"agent 'b': .*/data.* which agent 'a' may change"):
        check_mounts_apart(mounts, runs)


def test_neither_is_any_other_shown_what_it_may_lead_elsewhere_by_a_link(place: Path) -> None:
    (place / "data/link").symlink_to(place / "agent")
    linked = Mount(str(place / "data/link"), str(place / "agent"))
    with pytest.raises(SandboxError, match=r"agent 'b': .*/data/link lies in .*/data, which"):
        check_mounts_apart({"a": mounted(place, "data*"), "b": [linked]}, {"a": [], "b": []})
    with pytest.raises(SandboxError, match=r"/data/link' lies in .*/data', which the agent may"):
        plan(place, mounts_ro=["data/link"], mounts_rw=["data"])


@pytest.mark.parametrize("other", [["data*"], ["data"], ["agent"], ["data-too"]])
def test_agents_may_share_a_whole_folder(place: Path, other: list[str]) -> None:
    mounts = {"a": mounted(place, "data*"), "b": mounted(place, *other)}
    check_mounts_apart(mounts, {"a": [], "b": []})


def masked(place: Path, *mounts: str, projects: list[str], named: list[str]) -> list[str]:
    found = find_masked(
        mounted(place, *mounts),
        projects=[str(place / each) for each in projects],
        named=[str(place / each) for each in named],
    )
    return sorted(str(Path(each.path).relative_to(place)) for each in found)


KEY = "-----BEGIN CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n"
SECRETS = {
    ".env": "",
    ".env.production": "",
    "prod.env": "",
    "sub/credentials.json": "",
    "sub/deeper/id_ed25519": "",
    "server.pem": KEY,
    "server.key": KEY,
    "store.p12": "",
    "sub/.npmrc": "//registry.example.invalid/:_authToken=npm_x\n",
}
ORDINARY = {
    ".env.example": "",
    "credentials.py": "",
    "id_ed25519.pub": "",
    ".npmrc": "registry=https://registry.example.invalid/\n",
    "ca.pem": "-----BEGIN CERTIFICATE-----\n",
    "sort.key": "name",
    "env/pyvenv.cfg": "",
    "env/lib/test.pem": KEY,
    "node_modules/x/.env": "",
}


def test_what_looks_secret_in_a_guessed_folder_is_masked(place: Path) -> None:
    for name, text in (SECRETS | ORDINARY).items():
        (place / "agent" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "agent" / name).write_text(text)
    (place / "agent/secrets.txt").symlink_to("code.py")
    (place / "agent/secrets.env").symlink_to(place / "key")
    expected = sorted([*(f"agent/{name}" for name in SECRETS), "agent/code.py"])
    assert masked(place, "agent", projects=["agent"], named=[]) == expected
    assert masked(place, "agent", projects=["data"], named=[]) == []
    assert masked(place, "agent*", projects=["agent"], named=[]) == []
    expected.remove("agent/.env")
    assert masked(place, "agent", projects=["agent"], named=["agent/.env"]) == expected


def test_what_a_file_with_another_name_is_a_link_to_is_masked_all_the_same(place: Path) -> None:
    (place / "agent/.env").write_text("")
    (place / "agent/settings").symlink_to(".env")
    assert masked(place, "agent", projects=["agent"], named=["agent/settings"]) == ["agent/.env"]


def test_a_secret_that_was_guessed_by_itself_is_masked(place: Path) -> None:
    (place / "agent/.env").write_text("")
    assert masked(place, "agent/.env", projects=["agent"], named=[]) == ["agent/.env"]


def test_what_looks_secret_in_a_named_mount_is_told(place: Path) -> None:
    (place / "data/.env").write_text("")
    mounts = mounted(place, "data", "agent")
    shown = find_shown_secrets(mounts, named=[str(place / "data")])
    assert shown == (str(place / "data/.env"),)


def test_a_source_that_leads_elsewhere_at_a_later_start_is_refused(place: Path) -> None:
    sources = Sources(mounted(place, "data/models", "agent/code.py"))
    sources.check()
    (place / "agent/code.py").unlink()
    (place / "agent/code.py").write_text("edited")
    sources.check()
    (place / "data/models").rename(place / "data/old")
    with pytest.raises(OSError, match="replaced since the gateway started"):
        sources.check()
    (place / "data/models").symlink_to("old")
    with pytest.raises(OSError, match="replaced since the gateway started"):
        sources.check()


def test_a_file_that_became_a_link_is_refused(place: Path) -> None:
    sources = Sources(mounted(place, "agent/code.py"))
    (place / "agent/code.py").unlink()
    (place / "agent/code.py").symlink_to(place / "key")
    with pytest.raises(OSError, match="replaced"):
        sources.check()


@pytest.fixture
def held(place: Path) -> Sources:
    """Of `data`, which workers may change, and `agent`, which they may not."""
    for name in ("data/.env", "agent/.env"):
        (place / name).write_text("")
    return Sources(
        mounted(place, "data*", "agent"),
        protected=mounted(place, "data/models"),
        masked=mounted(place, "data/.env", "agent/.env"),
    )


def test_what_was_once_away_from_where_workers_write_is_never_mounted_again(
    place: Path, held: Sources, caplog: pytest.LogCaptureFixture
) -> None:
    models = place / "data/models"
    assert held.protected() == tuple(mounted(place, "data/models"))
    models.rename(place / "data/old")
    assert held.protected() == ()
    (place / "data/old").rename(models)  # back in its place, as a worker could do
    assert held.protected() == ()
    (told,) = caplog.records
    assert told.getMessage().startswith(f"'{models}' was removed or replaced: ")


@pytest.mark.parametrize("anew", [True, False])
def test_a_folder_that_looks_like_the_one_before_is_not_taken_for_it(
    place: Path, held: Sources, anew: bool
) -> None:
    (place / "data/models/m").unlink()
    if anew:  # under the same number, where the file system gives that away again
        (place / "data/models").rmdir()
        (place / "data/models").mkdir()
    assert held.protected() == (() if anew else tuple(mounted(place, "data/models")))


@pytest.mark.parametrize("folder", ["data", "agent"])
def test_a_mask_outlives_an_edit_where_workers_cannot_write(
    place: Path, held: Sources, folder: str
) -> None:
    assert held.masked() == tuple(mounted(place, "data/.env", "agent/.env"))
    (place / "edited").write_text("")
    (place / "edited").rename(place / folder / ".env")
    kept = ["agent/.env"] if folder == "data" else ["data/.env", "agent/.env"]
    assert held.masked() == tuple(mounted(place, *kept))


def test_a_secret_that_an_agent_can_move_away_from_under_its_mask_has_none(place: Path) -> None:
    for name in ("data/.env", "data/models/.env", ".env"):
        (place / name).write_text("")
    assert masked(place, ".", "data*", projects=["."], named=[]) == [".env", "data/.env"]
