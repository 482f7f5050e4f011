"""What lies in `gateway/deploy/` for service managers and engines, as their own tools read it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from gateway.config import load
from gateway.config.keys import KEY_VARIABLE
from gateway.config.settings import Clocks, ServerSettings
from tests.conftest import need
from tests.deploy.conftest import PROJECT, tool

DEPLOY = PROJECT / "gateway" / "deploy"
UNIT = DEPLOY / "agent-gateway.service"
LONGEST_STOP = 3 * Clocks().stop
"""Seconds that workers may take to end, step by step."""


def unit() -> dict[str, str]:
    """The settings of the unit's service."""
    text = UNIT.read_text(encoding="utf-8").partition("[Service]")[2].partition("\n[")[0]
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def manifests() -> dict[str, Any]:
    """What the Kubernetes manifest holds, by kind."""
    found = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8"))
    return {each["kind"]: each for each in found}


def test_systemd_accepts_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    need(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
    text = UNIT.read_text(encoding="utf-8")
    path = tmp_path / UNIT.name
    # What it starts must exist to be verified.
    path.write_text(text.replace("/opt/agent-gateway/bin/agent-gateway", "/bin/true"))
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
    assert float(exposure) < 4  # of 10; a unit without any hardening has 9.6


def test_the_unit_says_nothing_that_keeps_the_sandbox_from_being_put_in_force() -> None:
    names = unit().keys()
    harmful = {"RestrictNamespaces", "ProtectKernelTunables", "ProtectKernelLogs", "ProcSubset"}
    harmful |= {"ProtectProc", "ProtectControlGroups", "ProtectHostname", "PrivateUsers"}
    harmful |= {"MemoryDenyWriteExecute"}
    assert not names & harmful
    comments = UNIT.read_text(encoding="utf-8").partition("# Not set")[2]
    assert all(f"{name}=" in comments for name in harmful)


def test_the_unit_waits_for_readiness_feeds_a_watchdog_and_gives_time_to_drain() -> None:
    service = unit()
    assert (service["Type"], service["KillMode"]) == ("notify", "mixed")
    assert int(service["WatchdogSec"]) > 0
    server = ServerSettings()
    longest = server.lame_duck_seconds(loopback=False) + server.drain_seconds + LONGEST_STOP
    assert int(service["TimeoutStopSec"]) > longest


def test_kubernetes_schemas_accept_the_manifest() -> None:
    path = str(DEPLOY / "kubernetes.yaml")
    command = [tool("kubernetes-validate"), "--strict", "-k", "1.33", path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "deployment/agent-gateway" in done.stdout + done.stderr


def test_the_manifest_probes_drains_and_gives_up_what_it_does_not_need() -> None:
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/live"
    assert container["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert "lifecycle" not in container  # the lame duck is the gateway's own
    allowed = container["securityContext"]
    assert allowed["allowPrivilegeEscalation"] is False
    assert allowed["capabilities"] == {"drop": ["ALL"]}
    assert pod["securityContext"]["runAsUser"] == 10001
    assert not pod["automountServiceAccountToken"]
    [variable] = container["env"]
    assert variable["name"] == KEY_VARIABLE


def test_the_grace_period_is_longer_than_the_drain_that_the_manifest_configures(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(manifests()["ConfigMap"]["data"]["gateway.toml"])
    server = load(path).server
    longest = server.lame_duck_seconds(loopback=False) + server.drain_seconds + LONGEST_STOP
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > longest
    probe = pod["containers"][0]["readinessProbe"]
    noticed = probe["periodSeconds"] * probe["failureThreshold"]
    assert noticed < server.lame_duck_seconds(loopback=False)


def compose() -> dict[str, Any]:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)["services"]["gateway"]  # type: ignore[no-any-return]


def test_the_compose_file_allows_what_the_manual_names_and_no_more() -> None:
    service = compose()
    assert set(service["security_opt"]) == {
        "seccomp:seccomp.json",
        "apparmor:unconfined",
        "systempaths=unconfined",
        "no-new-privileges:true",
    }
    assert (service["cap_drop"], service["read_only"]) == (["ALL"], True)
    assert "privileged" not in service
    assert "cap_add" not in service
    server = ServerSettings()
    longest = server.lame_duck_seconds(loopback=False) + server.drain_seconds + LONGEST_STOP
    assert int(service["stop_grace_period"].removesuffix("s")) > longest
    assert (DEPLOY / "../../dist" / service["build"]["dockerfile"]).resolve() == (
        DEPLOY / "Containerfile"
    )


def test_the_profile_leaves_what_the_sandbox_is_made_of_and_takes_what_nobody_needs() -> None:
    profile = json.loads((DEPLOY / "seccomp.json").read_text(encoding="utf-8"))
    assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
    denied = {name for group in profile["syscalls"] for name in group["names"]}
    assert all(group["action"] == "SCMP_ACT_ERRNO" for group in profile["syscalls"])
    needed = {
        "clone",
        "clone3",
        "unshare",
        "setns",
        "mount",
        "umount2",
        "pivot_root",
        "sethostname",
    }
    needed |= {"seccomp", "prctl", "open_tree", "move_mount", "mount_setattr", "chroot", "capset"}
    assert not denied & needed
    assert {"bpf", "kexec_load", "init_module", "ptrace", "keyctl", "io_uring_setup"} <= denied
