"""The filter's verdicts, by running the program as the kernel does, for every architecture.

That this machine's kernel agrees is shown by the escape suite.
"""

from __future__ import annotations

import errno
import re
import struct
from pathlib import Path

import pytest

from gateway.sandbox import SandboxError
from gateway.sandbox.limits.seccomp import filter_program

X86_64, AARCH64, I386, ARM = 0xC000_003E, 0xC000_00B7, 0x4000_0003, 0x4000_0028
MAX = 2**64 - 1
ALLOW, KILL = "allow", "kill"
MACHINES = {"x86_64": X86_64, "aarch64": AARCH64}
HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}


def verdict(
    machine: str,
    number: int,
    *arguments: int,
    arch: int | None = None,
    shares_limits: bool = False,
    watches_memory: bool = False,
) -> str:
    """What the filter for `machine` says of a call: a simulator of the BPF that it uses."""
    arch = MACHINES[machine] if arch is None else arch
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    data = struct.pack("<iIQ6Q", number, arch, 0, *padded)
    rules = filter_program(machine, shares_limits=shares_limits, watches_memory=watches_memory)
    program = list(struct.iter_unpack("<HBBI", rules))
    accumulator, position = 0, 0
    while True:
        code, if_true, if_false, operand = program[position]
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, operand)
        elif code == 0x54:
            accumulator &= operand
        elif code == 0x06:
            return {0x7FFF_0000: ALLOW, 0x8000_0000: KILL}.get(operand) or errno.errorcode[
                operand & 0xFFFF
            ]
        else:
            holds = {
                0x15: accumulator == operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }[code]
            position += if_true if holds else if_false


def numbers(machine: str) -> dict[str, int]:
    """System call names and numbers from the machine's own headers."""
    path = Path(HEADERS[machine])
    if not path.exists():
        pytest.skip(f"{path} is not installed (linux-libc-dev)")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())
    return {name: int(number) for name, number in found}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ptrace", "EPERM"),
        ("mount", "EPERM"),
        ("unshare", "EPERM"),
        ("setns", "EPERM"),
        ("bpf", "EPERM"),
        ("keyctl", "EPERM"),
        ("io_uring_setup", "EPERM"),
        ("userfaultfd", "EPERM"),
        ("open_by_handle_at", "EPERM"),
        ("process_vm_writev", "EPERM"),
        ("kexec_load", "EPERM"),
        ("clock_settime", "EPERM"),
        ("personality", "EPERM"),
        ("sethostname", "EPERM"),
        ("setdomainname", "EPERM"),
        ("clone3", "ENOSYS"),
        ("fsopen", "ENOSYS"),
        ("open_tree", "ENOSYS"),
        ("mount_setattr", "ENOSYS"),
        ("read", ALLOW),
        ("execve", ALLOW),
        ("futex", ALLOW),
        ("clock_gettime", ALLOW),
        ("memfd_create", ALLOW),
        ("name_to_handle_at", "EPERM"),
        ("memfd_secret", "EPERM"),
        ("mbind", "EPERM"),
        ("openat2", "ENOSYS"),
        ("prctl", ALLOW),
    ],
)
def test_calls_are_judged_by_the_numbers_of_the_architecture(
    machine: str, name: str, expected: str
) -> None:
    assert verdict(machine, numbers(machine)[name]) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_every_number_of_the_tables_is_the_headers(machine: str) -> None:
    from gateway.sandbox.limits import seccomp

    column = list(MACHINES).index(machine)
    known = numbers(machine)
    tables = (
        seccomp._FORBIDDEN
        | seccomp._ABSENT
        | seccomp._ABSENT_WHERE_SHARED
        | seccomp._ABSENT_WHERE_WATCHED
    )
    for name, pair in tables.items():
        # What the header does not know is newer than it.
        if pair[column] is not None and name in known:
            assert pair[column] == known[name], name


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["inotify_init", "inotify_init1", "mq_open"])
def test_what_counts_for_the_gateways_user_is_absent_where_it_is_shared(
    machine: str, name: str
) -> None:
    number = numbers(machine).get(name)
    if number is not None:
        assert verdict(machine, number) == ALLOW
        assert verdict(machine, number, shares_limits=True) == "ENOSYS"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["memfd_create", "shmget"])
def test_memory_that_is_not_mapped_cannot_be_had_where_the_gateway_watches_what_is(
    machine: str, name: str
) -> None:
    number = numbers(machine)[name]
    assert verdict(machine, number) == ALLOW
    assert verdict(machine, number, watches_memory=True) == "ENOSYS"


@pytest.mark.parametrize("machine", MACHINES)
def test_what_draws_on_the_machine_alone_is_absent(machine: str) -> None:
    assert verdict(machine, numbers(machine)["io_setup"]) == "ENOSYS"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("command", "expected"), [(11, "EPERM"), (12, ALLOW), (2, ALLOW)])
def test_shared_memory_cannot_be_locked(machine: str, command: int, expected: str) -> None:
    assert verdict(machine, numbers(machine)["shmctl"], 1, command) == expected


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (0x11, ALLOW),  # fork
        (0x3D0F00, ALLOW),  # a thread, as glibc makes one
        (0x1000_0011, "EPERM"),  # a user namespace
        (0x2000_0011, "EPERM"),
        (0x0002_0011, "EPERM"),
        (0xFFFF_FFFF_1000_0011, "EPERM"),  # the kernel looks at the lower half
    ],
)
def test_clone_may_not_make_namespaces(machine: str, flags: int, expected: str) -> None:
    assert verdict(machine, numbers(machine)["clone"], flags) == expected


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("family", "expected"),
    [
        (2, ALLOW),
        (10, ALLOW),
        (1, "EAFNOSUPPORT"),
        (16, "EAFNOSUPPORT"),
        (17, "EAFNOSUPPORT"),
        (40, "EAFNOSUPPORT"),
        (0xFFFF_FFFF_0000_0001, "EAFNOSUPPORT"),
        (0x1_0000_0002, ALLOW),  # is family 2 for the kernel
    ],
)
def test_only_internet_sockets_can_be_made(machine: str, family: int, expected: str) -> None:
    assert verdict(machine, numbers(machine)["socket"], family) == expected


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("family", "kind", "expected"),
    [
        (1, 1, ALLOW),
        (1, 1 | 0o2004000, ALLOW),  # with SOCK_CLOEXEC and SOCK_NONBLOCK
        (1, 2, "EPROTONOSUPPORT"),
        (1, 2 | 0o2004000, "EPROTONOSUPPORT"),
        (1, 3, "EPROTONOSUPPORT"),
        (1, 5, "EPROTONOSUPPORT"),
        (1, 0x1_0000_0002, "EPROTONOSUPPORT"),
        (2, 1, "EAFNOSUPPORT"),
        (16, 3, "EAFNOSUPPORT"),
        (40, 1, "EAFNOSUPPORT"),
    ],
)
def test_only_unix_streams_can_be_paired(
    machine: str, family: int, kind: int, expected: str
) -> None:
    assert verdict(machine, numbers(machine)["socketpair"], family, kind) == expected


MODES = [(0o755, ALLOW), (0o1777, ALLOW), (0o4755, "EPERM"), (0o2755, "EPERM"), (0o6000, "EPERM")]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(("mode", "expected"), MODES)
def test_no_call_sets_the_bits_that_lend_out_an_owners_rights(
    machine: str, mode: int, expected: str
) -> None:
    known = {"fchmodat2": 452} | numbers(machine)
    for name, before in {
        "chmod": (0,),
        "fchmod": (3,),
        "fchmodat": (-100, 0),
        "fchmodat2": (-100, 0),
        "creat": (0,),
        "open": (0, 0o100),
        "openat": (-100, 0, 0o20200000),
        "mknod": (0,),
        "mknodat": (-100, 0),
    }.items():
        if name in known:
            assert verdict(machine, known[name], *(each & MAX for each in before), mode) == expected


@pytest.mark.parametrize("machine", MACHINES)
def test_a_mode_that_is_not_used_is_not_judged(machine: str) -> None:
    """It is whatever lay in the register."""
    assert verdict(machine, numbers(machine)["openat"], 0, 0, 0, 0o6777) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("request_number", "expected"),
    [(0x5401, ALLOW), (0x5412, "EPERM"), (0x541C, "EPERM"), (0x7_0000_5412, "EPERM")],
)
def test_nothing_can_be_typed_into_a_terminal(
    machine: str, request_number: int, expected: str
) -> None:
    assert verdict(machine, numbers(machine)["ioctl"], 0, request_number) == expected


@pytest.mark.parametrize(
    ("machine", "arch"), [("x86_64", I386), ("x86_64", AARCH64), ("aarch64", ARM)]
)
def test_calls_of_another_architecture_kill(machine: str, arch: int) -> None:
    assert verdict(machine, 20, arch=arch) == KILL


def test_x32_calls_kill() -> None:
    assert verdict("x86_64", 0x4000_0000 | 39) == KILL
    assert verdict("x86_64", -1) == KILL


def test_an_unknown_architecture_is_refused_by_name() -> None:
    with pytest.raises(SandboxError, match="'riscv64': x86_64 and aarch64 are supported"):
        filter_program("riscv64")
