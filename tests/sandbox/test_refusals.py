"""Systems that refuse the sandbox, and what the gateway makes of it: a start, or a line that helps.

The refusals are real: the system is made as a container or a hardened machine would be, which takes
root. The texts alone are judged in test_trial.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gateway.sandbox.limits.seccomp import filter_program
from tests.sandbox.users import PROJECT, TRY, as_user, in_user_namespace, need_sandbox, publicly

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change what is allowed")

TRYING = (sys.executable, "-c", TRY)


@pytest.fixture(autouse=True)
def _sandbox() -> None:
    """What is refused here has to be possible otherwise."""
    need_sandbox("root")
    need_sandbox("user")


def said(*argv: str, fds: tuple[int, ...] = ()) -> str:
    """What the gateway says of the sandbox when it is started by `argv`; empty if it has one."""
    done = subprocess.run(
        argv, cwd=PROJECT, capture_output=True, text=True, timeout=60, pass_fds=fds, check=False
    )
    return (done.stdout + done.stderr).strip()


def test_root_without_the_capability_is_told_which_one() -> None:
    explained = said("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", *TRYING)
    assert "inside a container add CAP_SYS_ADMIN" in explained
    assert "\n" not in explained


def test_a_masked_proc_is_told_how_to_unmask_it() -> None:
    mask = 'mount -t tmpfs none /proc/irq; exec "$@"'
    explained = said("unshare", "--mount", "sh", "-c", mask, "sh", *as_user("user", *TRYING))
    assert "/proc is masked here" in explained
    assert "procMount: Unmasked" in explained


def test_a_filter_that_forbids_namespaces_is_told_how_to_lift_it() -> None:
    """The container's filter is our own, which forbids them as well."""
    descriptor = os.memfd_create("filter")
    os.write(descriptor, filter_program())
    os.lseek(descriptor, 0, os.SEEK_SET)
    container = ["bwrap", "--bind", "/", "/", "--dev-bind", "/dev", "/dev"]
    inner = ["--seccomp", str(descriptor), "--", "setpriv", "--reuid=54321", "--clear-groups"]
    try:
        explained = said(*publicly(*container, *inner, *TRYING), fds=(descriptor,))
    finally:
        os.close(descriptor)
    assert "this system forbids user namespaces" in explained
    assert "kernel.unprivileged_userns_clone=1" in explained


def test_a_machine_without_user_namespaces_is_told_the_setting() -> None:
    limit = "echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --reuid=54321 "
    limit += '--clear-groups --inh-caps=-all -- "$@"'
    with in_user_namespace("0 0 100000", "sh", "-c", limit, "sh", *TRYING) as gateway:
        explained = gateway.communicate(timeout=60)[0]
    assert "user.max_user_namespaces" in explained


def test_root_of_a_rootless_container_has_a_sandbox_with_ids_of_the_container() -> None:
    with in_user_namespace("0 100000 65536", *TRYING) as gateway:
        assert gateway.communicate(timeout=60)[0] == ""
    assert gateway.returncode == 0


def test_root_of_a_namespace_with_nobody_else_has_a_sandbox_as_an_ordinary_user() -> None:
    with in_user_namespace("0 100000 1", *TRYING) as gateway:
        assert gateway.communicate(timeout=60)[0] == ""
    assert gateway.returncode == 0
