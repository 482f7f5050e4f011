"""`python filtered.py [--clone] NUMBER[,NUMBER…] COMMAND…`: a command under a filter like those of
container engines and service managers, which answers EPERM to these system calls.

`--clone` also refuses to `clone` with a new user namespace, as Docker's default profile does to a
container without CAP_SYS_ADMIN, and says that there is no `clone3`, so that `clone` is used.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

CLONE, CLONE3 = {"x86_64": (56, 435), "aarch64": (220, 435)}[platform.machine()]
UNSHARE, MOUNT = {"x86_64": (272, 165), "aarch64": (97, 40)}[platform.machine()]
SETHOSTNAME, REBOOT = {"x86_64": (170, 169), "aarch64": (161, 142)}[platform.machine()]
CLONE_NEWUSER = 0x1000_0000

_LOAD, _EQUALS, _HAS, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000
_NUMBER, _FIRST_ARGUMENT = 0, 16
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


def program(denied: list[int], *, clone: bool) -> bytes:
    """Classic BPF, eight bytes an instruction."""
    found = [_instruction(_LOAD, _NUMBER)]
    for number in denied:
        found.append(_instruction(_EQUALS, number, 0, 1))
        found.append(_instruction(_RETURN, _ERRNO | errno.EPERM))
    if clone:
        found.append(_instruction(_EQUALS, CLONE3, 0, 1))
        found.append(_instruction(_RETURN, _ERRNO | errno.ENOSYS))
        found.append(_instruction(_EQUALS, CLONE, 0, 3))
        found.append(_instruction(_LOAD, _FIRST_ARGUMENT))
        found.append(_instruction(_HAS, CLONE_NEWUSER, 0, 1))
        found.append(_instruction(_RETURN, _ERRNO | errno.EPERM))
    found.append(_instruction(_RETURN, _ALLOW))
    return b"".join(found)


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def install(filters: bytes) -> None:
    """For this process and what it starts. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(filters, len(filters))
    header = struct.pack("HxxxxxxP", len(filters) // 8, ctypes.addressof(buffer))
    for arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.c_char_p(header), 0, 0),
    ):
        if libc.prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    words = sys.argv[1:]
    refuses_clone = words[0] == "--clone"
    numbers, *command = words[1:] if refuses_clone else words
    denied_numbers = [int(number) for number in numbers.split(",") if number]
    install(program(denied_numbers, clone=refuses_clone))
    os.execvp(command[0], command)
