"""What lies in `gateway/deploy/` for a fleet; `tests/fleet/test_forging.py` runs nats-server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from gateway.config import load
from gateway.config.settings import Clocks
from tests.conftest import need
from tests.deploy.conftest import PROJECT, tool

if TYPE_CHECKING:
    from pathlib import Path

    from gateway.config import Settings

DEPLOY = PROJECT / "gateway" / "deploy"
STOP = 3 * Clocks().stop
"""Seconds that workers may take to end, step by step."""


def text(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def configured(role: str, user: str = "host1") -> Settings:
    """A process of the fleet, as it reads the configuration that is shipped."""
    environ = {"FLEET_USER": user, "FLEET_PASSWORD": "secret"}
    return load(DEPLOY / "fleet.toml", fleet={"role": role}, environ=environ)


def permissions(user: str) -> str:
    """What nats-server.conf allows a user."""
    found = re.search(rf"user: {user},.*?(?=\n    }})", text("nats-server.conf"), re.DOTALL)
    assert found, user
    return found[0]


def longest_end(settings: Settings) -> float:
    server = settings.server
    return server.lame_duck_seconds(loopback=False) + server.drain_seconds + STOP


@pytest.mark.parametrize("user", ["host1", "host2"])
def test_a_host_may_say_what_it_has_to_about_its_agents_and_its_own_name(user: str) -> None:
    settings = configured("host", user)
    assert settings.fleet.process_name == settings.fleet.user == user
    allowed = permissions(user)
    for agent in settings.agents:
        assert settings.fleet.may_serve(user, agent)
        assert allowed.count(f'"gw.c.{agent}.*"') == 2
        assert f'"gw.own.{agent}.{user}.*"' in allowed
    assert f'"gw.up.{user}.>"' in allowed
    others = {"front", "host1", "host2"} - {user}
    assert not any(re.search(rf"\b{other}\b", allowed) for other in others)


def test_a_front_reads_the_same_configuration() -> None:
    settings = configured("front", "front")
    assert settings.fleet.servers == ["tls://nats:4222"]
    assert settings.fleet.hosts
    permissions("front")


def test_systemd_accepts_the_unit_of_a_front_and_finds_it_hardened(tmp_path: Path) -> None:
    need(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    unit = text("agent-gateway-front.service")
    path = tmp_path / "agent-gateway-front.service"
    # What it starts must exist to be verified.
    path.write_text(unit.replace("/opt/agent-gateway/bin/agent-gateway", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    [exposure] = re.findall(r"exposure level for .*: (\d+\.\d)", judged.stdout)
    assert float(exposure) < 2  # of 10; the unit of a host, which makes sandboxes, has more
    [stop] = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert int(stop) > longest_end(configured("front"))
    assert "--role front " in unit


def manifests() -> dict[str, Any]:
    """By kind and name."""
    found = yaml.safe_load_all(text("kubernetes-fleet.yaml"))
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in found}


def test_kubernetes_schemas_accept_the_manifest() -> None:
    path = str(DEPLOY / "kubernetes-fleet.yaml")
    command = [tool("kubernetes-validate"), "--strict", "-k", "1.33", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deployment/agent-gateway-host" in done.stdout + done.stderr


@pytest.mark.parametrize("role", ["front", "host"])
def test_each_deployment_is_of_a_role_and_has_time_to_drain(role: str) -> None:
    deployment = manifests()[f"Deployment/agent-gateway-{role}"]
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["args"] == ["--role", role, "--config", "/etc/agent-gateway/fleet.toml"]
    environment = {each["name"]: each for each in container["env"]}
    user = environment["FLEET_USER"]["value"]
    permissions(user)
    secret = environment["FLEET_PASSWORD"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "agent-gateway-fleet", "key": user}
    assert pod["terminationGracePeriodSeconds"] > longest_end(configured(role, user))
    allowed = container["securityContext"]
    assert allowed["capabilities"] == {"drop": ["ALL"]}
    assert allowed["allowPrivilegeEscalation"] is False
    # Only where workers are, something is taken off what keeps them.
    assert (allowed.get("procMount") == "Unmasked") is (role == "host")
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"


def test_the_hosts_of_kubernetes_need_what_the_gateway_of_its_own_manifest_needs() -> None:
    single = next(
        each for each in yaml.safe_load_all(text("kubernetes.yaml")) if each["kind"] == "Deployment"
    )["spec"]["template"]["spec"]
    host = manifests()["Deployment/agent-gateway-host"]["spec"]["template"]["spec"]
    for name in ("hostUsers", "securityContext", "automountServiceAccountToken"):
        assert host[name] == single[name]
    assert host["containers"][0]["securityContext"] == single["containers"][0]["securityContext"]


def test_the_compose_file_has_a_user_for_each_process_and_allows_hosts_what_a_sandbox_needs() -> (
    None
):
    services = yaml.safe_load(text("compose-fleet.yaml"))["services"]
    single = yaml.safe_load(text("compose.yaml"))["services"]["gateway"]
    assert set(services) == {"nats", "front", "host1", "host2"}
    for name in ("front", "host1", "host2"):
        service = services[name]
        assert service["environment"]["FLEET_USER"] == name
        assert f"{name.upper()}_PASSWORD" in service["environment"]["FLEET_PASSWORD"]
        role = name.rstrip("12")
        assert service["command"] == ["--role", role, "--config", "/etc/agent-gateway/fleet.toml"]
        end = int(service["stop_grace_period"].removesuffix("s"))
        assert end > longest_end(configured(role, name))
        assert (service["cap_drop"], service["read_only"]) == (["ALL"], True)
        expected = single["security_opt"] if role == "host" else ["no-new-privileges:true"]
        assert service["security_opt"] == expected
    assert "ports" not in services["host1"]


@pytest.mark.parametrize(
    ("hosts", "load"),
    [
        ({"one": (8, 4, 0), "two": (8, 8, 4)}, 1.0),
        ({"one": (8, 2, 0), "two": (24, 6, 0)}, 0.25),
        ({"one": (8, 8, 8)}, 2.0),
        ({"one": (8, 4, 0), "two": (8, 8, 8), "two draining": (8, 8, 8)}, 0.5),
    ],
)
def test_hosts_are_scaled_by_what_is_asked_for_of_what_they_can_do(
    tmp_path: Path, hosts: dict[str, tuple[int, int, int]], load: float
) -> None:
    """Capacity, in flight and waiting of each host, as two fronts say it."""
    need(shutil.which("promtool"), "promtool is not installed")
    [trigger] = yaml.safe_load(text("keda.yaml"))["spec"]["triggers"]
    assert (trigger["type"], trigger["metricType"]) == ("prometheus", "Value")
    draining = {name.split()[0] for name in hosts if name.endswith("draining")}
    series = [
        {"series": f'gateway_fleet_host_{what}{{agent="echo",host="{host}",instance="{front}"}}',
         "values": f"{value}x10"}
        for front in ("a", "b")
        for host, numbers in hosts.items()
        if not host.endswith("draining")
        for what, value in zip(
            ("capacity", "in_flight", "waiting", "draining"),
            (*numbers, int(host in draining)),
            strict=True,
        )
    ]  # fmt: skip
    expected = [{"labels": "{}", "value": load}]
    case = {
        "interval": "1m",
        "input_series": series,
        "promql_expr_test": [
            {"expr": trigger["metadata"]["query"], "eval_time": "5m", "exp_samples": expected}
        ],
    }
    path = tmp_path / "tests.yml"
    path.write_text(json.dumps({"tests": [case]}))
    done = subprocess.run(
        ["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    target = yaml.safe_load(text("keda.yaml"))["spec"]["scaleTargetRef"]["name"]
    assert f"Deployment/{target}" in manifests()
