"""The Compose files: what Compose itself says of them, and the rules that it does not know."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.keys import KEY_VARIABLE
from tests.conftest import need
from tests.deploy.conftest import PROJECT

DEPLOY = PROJECT / "gateway" / "deploy"
VARIABLES = {
    "compose.yaml": {KEY_VARIABLE},
    "compose-fleet.yaml": {KEY_VARIABLE, "FRONT_PASSWORD", "HOST1_PASSWORD", "HOST2_PASSWORD"},
}
"""The files, and the variables that each needs."""
OPERATORS = {"./agents", "./gateway.toml"} | {
    f"./nats/{name}" for name in ("ca.pem", "server.pem", "server.key", "passwords.conf")
}
"""What an operator lays beside them: agents, a configuration, and what `fleet-secrets.sh` makes."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of what is shipped, in the place that the files expect."""
    (tmp_path / "dist").mkdir()
    copy = tmp_path / "gateway" / "deploy"
    shutil.copytree(DEPLOY, copy)
    return copy


def config(folder: Path, name: str, *without: str) -> subprocess.CompletedProcess[str]:
    """How Compose reads a file; `without` are variables that are not set."""
    need(shutil.which("docker-compose"), "docker-compose is not installed")
    env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return subprocess.run(
        ["docker-compose", "-f", name, "config"],
        cwd=folder,
        env={**env, **dict.fromkeys(VARIABLES[name] - {*without}, "s3cret")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", VARIABLES)
def test_compose_accepts_the_file_and_reads_it_as_it_was_meant(folder: Path, name: str) -> None:
    done = config(folder, name)
    assert done.returncode == 0, done.stderr
    read, written = yaml.safe_load(done.stdout), file(name)
    assert read["services"].keys() == written["services"].keys()
    assert read["volumes"].keys() == written["volumes"].keys()
    for service, settings in read["services"].items():
        assert settings["security_opt"] == written["services"][service]["security_opt"]


@pytest.mark.parametrize("name", VARIABLES)
def test_compose_refuses_the_file_without_a_secret_that_it_needs(folder: Path, name: str) -> None:
    for variable in sorted(VARIABLES[name]):
        done = config(folder, name, variable)
        assert done.returncode != 0
        assert re.search(r"the key that callers need|as in nats/passwords\.conf", done.stderr)


def test_what_compose_accepts_is_not_anything(folder: Path) -> None:
    path = folder / "compose.yaml"
    path.write_text(path.read_text().replace("read_only:", "readonly:"))
    done = config(folder, "compose.yaml")
    assert done.returncode != 0
    assert "readonly" in done.stderr


def file(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


SERVICES = [(name, service) for name in VARIABLES for service in file(name)["services"]]


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_a_service_has_an_image_starts_again_and_gains_no_privileges(
    name: str, service: str
) -> None:
    settings = file(name)["services"][service]
    assert settings["restart"] == "unless-stopped"
    assert "no-new-privileges:true" in settings["security_opt"]
    assert not settings.keys() & {"privileged", "cap_add", "network_mode", "pid", "devices"}
    if settings["image"] == "agent-gateway":  # what the Containerfile makes, health check included
        build = settings["build"]
        context = DEPLOY / build["context"]
        assert context.resolve() == PROJECT / "dist"
        assert (context / build["dockerfile"]).resolve() == DEPLOY / "Containerfile"
        assert settings["cap_drop"] == ["ALL"]
    else:  # a version, so that it is the same one tomorrow
        assert re.fullmatch(r"[a-z]+:[0-9.]+", settings["image"])
    assert all(port.startswith("127.0.0.1:") for port in settings.get("ports", ()))


@pytest.mark.parametrize(("name", "service"), SERVICES)
def test_what_a_service_mounts_is_shipped_or_the_operators_and_cannot_be_changed_by_it(
    name: str, service: str
) -> None:
    written = file(name)
    settings = written["services"][service]
    for volume in settings["volumes"]:
        source, _, target = volume.partition(":")
        if source.startswith("./"):
            assert source in OPERATORS or (DEPLOY / source).is_file(), source
            assert target.endswith(":ro")
        else:
            assert source in written["volumes"]
    for option in settings["security_opt"]:
        kind, _, profile = option.partition(":")
        if kind == "seccomp":
            assert (DEPLOY / profile).is_file()


def test_the_image_says_whether_its_gateway_is_alive() -> None:
    """Compose files need no health check of their own."""
    assert "\nHEALTHCHECK " in (DEPLOY / "Containerfile").read_text(encoding="utf-8")
