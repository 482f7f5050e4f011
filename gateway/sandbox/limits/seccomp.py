"""The system calls that a worker may not make, as a program for the kernel's seccomp filter.

This module owns the policy and its translation into classic BPF. It knows nothing of bubblewrap,
which loads the program, or of workers.

The policy is a deny list: a worker may be the runtime of any language, so its legitimate calls
cannot be listed, but the calls that break out of a namespace, or did so in past kernels, can.
Capabilities already forbid many of them; the filter also keeps the code behind these calls out of
reach, because that is where kernels had their holes. What Docker's default profile, which is an
allow list, keeps from a container without capabilities is denied here too. Beyond that, calls are
denied that no agent needs: those that tell of the machine's mounts and security modules, file
handles, and memory that is secret even from the kernel.

What only takes from others is denied as well: calls that draw on a limit which the kernel keeps for
all processes of a user, or of the machine, and which nothing else bounds (`shared`), or take memory
where the gateway's watch, in place of a control group, does not see it.

A file that a worker leaves in a writable mount lies on the host, where a set-user-id bit would lend
out the rights of its owner. So no call may set these bits. (`mkdir` cannot; `openat2` takes its
mode in memory, where a filter cannot look, and is therefore absent.)

Why not libseccomp: the one binding on PyPI for every Python (pyseccomp) was last released in 2021
and loads a C library that a machine may not have. The translation that this policy needs is a chain
of comparisons, which a reader can check here, and which the escape suite tries against the kernel.
"""

from __future__ import annotations

import errno
import platform
import struct
from typing import TYPE_CHECKING

from gateway.sandbox.refusals import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterator

# name: (x86_64, arm64) as in the kernel's unistd headers; None where the architecture has no such
# call.
_Numbers = tuple[int | None, int | None]

_FORBIDDEN: dict[str, _Numbers] = {
    # Another process's memory and descriptors.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "mbind": (237, 235),
    "set_mempolicy": (238, 237),
    "get_mempolicy": (239, 236),
    "set_mempolicy_home_node": (450, 450),
    # Keys are not namespaced by user.
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    # Large kernel interfaces with a history of holes.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "memfd_secret": (447, 447),
    "uretprobe": (335, None),
    "lsm_get_self_attr": (459, 459),
    "lsm_set_self_attr": (460, 460),
    "lsm_list_modules": (461, 461),
    # Namespaces and mounts.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "statmount": (457, 457),
    "listmount": (458, 458),
    "listns": (470, 470),
    # The machine.
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    # Old, unused or specific to one architecture.
    "personality": (135, 92),
    "lookup_dcookie": (212, 18),
    "nfsservctl": (180, 42),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
    "create_module": (174, None),
    "query_module": (178, None),
    "get_kernel_syms": (177, None),
}

# "No such call" instead of "not permitted": libraries fall back to the older call, which can be
# judged. clone3 and openat2 take their flags in memory, where a filter cannot look.
_ABSENT: dict[str, _Numbers] = {
    "clone3": (435, 435),
    "openat2": (437, 437),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
}

# What draws on a limit of the whole machine that has no other bound (fs.aio-max-nr).
_ABSENT["io_setup"] = (206, 0)

_ABSENT_WHERE_SHARED: dict[str, _Numbers] = {
    # What the kernel counts for the user who made a user namespace, too: the user's other programs
    # would have none left (fs.inotify, RLIMIT_MSGQUEUE).
    "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "mq_open": (240, 180),
}

_ABSENT_WHERE_WATCHED: dict[str, _Numbers] = {
    # Memory that no process need have mapped, and that no file system's size bounds: only a control
    # group counts it. Shared memory of POSIX (shm_open) is a file in /dev/shm, and stays.
    "memfd_create": (319, 279),
    "shmget": (29, 194),
}

_CLONE: _Numbers = (56, 220)
_SOCKET: _Numbers = (41, 198)
_SOCKETPAIR: _Numbers = (53, 199)
_IOCTL: _Numbers = (16, 29)
_SHMCTL: _Numbers = (31, 195)

_SET_MODE: dict[str, tuple[_Numbers, int]] = {
    # name: numbers, and which argument is the mode
    "chmod": ((90, None), 1),
    "fchmod": ((91, 52), 1),
    "fchmodat": ((268, 53), 2),
    "fchmodat2": ((452, 452), 2),
    "creat": ((85, None), 1),
    "mknod": ((133, None), 1),
    "mknodat": ((259, 33), 2),
}
_MAY_SET_MODE: dict[str, tuple[_Numbers, int]] = {
    # The same, if the argument before it holds one of _CREATING; otherwise the mode is undefined.
    "open": ((2, None), 2),
    "openat": ((257, 56), 3),
}
_SET_ID_BITS = 0o6000  # S_ISUID, S_ISGID
_CREATING = 0x40_0040  # O_CREAT, __O_TMPFILE

# NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_CLONE_NEW = 0x7E02_0000
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_STREAM, _SOCK_TYPE_MASK = 1, 0xF
_SHM_LOCK = 11
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # type into, and reach past, the terminal

_ARCHITECTURES = {
    # machine: (column of the tables, AUDIT_ARCH_*)
    "x86_64": (0, 0xC000_003E),
    "aarch64": (1, 0xC000_00B7),
}
_X32_BIT = 0x4000_0000  # x86_64 only: the same numbers again under another calling convention

# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6] (little-endian: low
# half first)
_NR, _ARCH, _ARGS = 0, 4, 16

_LD_ABS, _AND, _JEQ, _JGE, _JSET, _RET = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF_0000, 0x8000_0000, 0x0005_0000


def filter_program(
    machine: str | None = None, *, shares_limits: bool = False, watches_memory: bool = False
) -> bytes:
    """The filter as an array of `struct sock_filter`, as `bwrap --seccomp` reads it.

    `machine` is as in `os.uname().machine`, by default this one's. `shares_limits`: what the worker
    takes of limits on users counts for the gateway's user. `watches_memory`: its memory is limited
    by the gateway's watch, which sees what is mapped. Raises SandboxError for an architecture whose
    system call numbers are not known here.
    """
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        known = " and ".join(_ARCHITECTURES)
        raise SandboxError(
            f"no system call filter for the architecture {machine!r}: {known} are supported"
        )
    column, audit_arch = _ARCHITECTURES[machine]

    program = _Program()
    program.load(_ARCH)
    program.unless(_JEQ, audit_arch, _KILL_PROCESS)
    program.load(_NR)
    if machine == "x86_64":
        program.when(_JGE, _X32_BIT, _KILL_PROCESS)
    absent = (
        _ABSENT
        | (_ABSENT_WHERE_SHARED if shares_limits else {})
        | (_ABSENT_WHERE_WATCHED if watches_memory else {})
    )
    for table, number in ((_FORBIDDEN, errno.EPERM), (absent, errno.ENOSYS)):
        for numbers in table.values():
            if (call := numbers[column]) is not None:
                program.when(_JEQ, call, _ERRNO | number)

    for numbers, branch in _judged():
        if (call := numbers[column]) is not None:
            program.branch(call, branch)
    program.always(_ALLOW)
    return program.assemble()


def _judged() -> Iterator[tuple[_Numbers, _Program]]:
    """The calls that are judged by their arguments, and the judgement of each.

    All of these arguments are 32 bits wide: the kernel ignores the upper half of the register, and
    so must the filter.
    """
    clone = _Program()
    clone.load(_argument(0))
    clone.when(_JSET, _CLONE_NEW, _ERRNO | errno.EPERM)
    clone.always(_ALLOW)
    yield _CLONE, clone

    # Only the internet families: path and abstract unix sockets, netlink, packet and vsock reach
    # past a network namespace or a read-only mount.
    socket = _Program()
    socket.load(_argument(0))
    socket.when(_JEQ, _AF_INET, _ALLOW)
    socket.when(_JEQ, _AF_INET6, _ALLOW)
    socket.always(_ERRNO | errno.EAFNOSUPPORT)
    yield _SOCKET, socket

    # A pair of streams stays a pair. One of datagrams can send to any address, descriptors too.
    pair = _Program()
    pair.load(_argument(0))
    pair.unless(_JEQ, _AF_UNIX, _ERRNO | errno.EAFNOSUPPORT)
    pair.load(_argument(1))
    pair.mask(_SOCK_TYPE_MASK)
    pair.unless(_JEQ, _SOCK_STREAM, _ERRNO | errno.EPROTONOSUPPORT)
    pair.always(_ALLOW)
    yield _SOCKETPAIR, pair

    ioctl = _Program()
    ioctl.load(_argument(1))
    ioctl.when(_JEQ, _TIOCSTI, _ERRNO | errno.EPERM)
    ioctl.when(_JEQ, _TIOCLINUX, _ERRNO | errno.EPERM)
    ioctl.always(_ALLOW)
    yield _IOCTL, ioctl

    shm = _Program()
    shm.load(_argument(1))
    shm.when(_JEQ, _SHM_LOCK, _ERRNO | errno.EPERM)
    shm.always(_ALLOW)
    yield _SHMCTL, shm

    for calls, only_if_creating in ((_SET_MODE, False), (_MAY_SET_MODE, True)):
        for numbers, position in calls.values():
            mode = _Program()
            if only_if_creating:
                mode.load(_argument(position - 1))
                mode.unless(_JSET, _CREATING, _ALLOW)
            mode.load(_argument(position))
            mode.when(_JSET, _SET_ID_BITS, _ERRNO | errno.EPERM)
            mode.always(_ALLOW)
            yield numbers, mode


def _argument(position: int) -> int:
    """Where the lower half of an argument lies in struct seccomp_data."""
    return _ARGS + 8 * position


class _Program:
    """A straight run of instructions: jumps only ever skip the instructions right after them."""

    def __init__(self) -> None:
        self._instructions: list[tuple[int, int, int, int]] = []

    def load(self, offset: int) -> None:
        self._instructions.append((_LD_ABS, 0, 0, offset))

    def mask(self, bits: int) -> None:
        self._instructions.append((_AND, 0, 0, bits))

    def always(self, action: int) -> None:
        self._instructions.append((_RET, 0, 0, action))

    def when(self, test: int, operand: int, action: int) -> None:
        self._instructions.append((test, 0, 1, operand))
        self.always(action)

    def unless(self, test: int, operand: int, action: int) -> None:
        self._instructions.append((test, 1, 0, operand))
        self.always(action)

    def branch(self, number: int, body: _Program) -> None:
        """Run `body`, which ends in a verdict, for the system call `number`."""
        self._instructions.append((_JEQ, 0, len(body._instructions), number))
        self._instructions += body._instructions

    def assemble(self) -> bytes:
        return b"".join(struct.pack("<HBBI", *each) for each in self._instructions)
