"""The attempts of the escape suite: run as an agent, `python escapes.py NAME...`, one line of JSON
each.

Standard library alone, since this is what runs inside. An attempt returns what it got hold of, or
raises. What it needs to know of the world around it is in the folder's `world.json`. It must do no
harm when it succeeds, because as the control it does succeed, on the machine itself.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ATTEMPTS: dict[str, Callable[[dict[str, Any]], object]] = {}
NEEDS_ROOT: set[str] = set()
"""Attempts that an ordinary user cannot make even without a sandbox: no control, so nothing shown.
"""
MACHINE_MAY_LACK: dict[str, str] = {}
"""Attempts that even root cannot make on every machine, and why."""
ONLY_X86: set[str] = set()

libc = ctypes.CDLL(None, use_errno=True)

_ARM = platform.machine() == "aarch64"
NEWNS, NEWUSER = 0x0002_0000, 0x1000_0000


def attempt(
    *, needs_root: bool = False, may_lack: str = "", only_x86: bool = False
) -> Callable[[Callable[[dict[str, Any]], object]], Callable[[dict[str, Any]], object]]:
    def register(
        function: Callable[[dict[str, Any]], object],
    ) -> Callable[[dict[str, Any]], object]:
        ATTEMPTS[function.__name__] = function
        if needs_root:
            NEEDS_ROOT.add(function.__name__)
        if may_lack:
            MACHINE_MAY_LACK[function.__name__] = may_lack
        if only_x86:
            ONLY_X86.add(function.__name__)
        return function

    return register


def syscall(x86: int, arm: int, *arguments: Any) -> int:
    """The call by number, so that no library stands between; raises OSError."""
    ctypes.set_errno(0)
    # Every argument is a whole register: ctypes would leave the upper half of an int undefined.
    whole = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result: int = libc.syscall(ctypes.c_long(arm if _ARM else x86), *whole)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def in_child(function: Callable[[], object]) -> object:
    """Run it in a child that ends afterwards, because it changes the process it runs in."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = repr(function())
            os.write(writer, b"+" + answer.encode())
        except BaseException as error:
            os.write(writer, b"-" + repr(error).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not said.startswith(b"+"):
        raise OSError(f"{said[1:].decode()} (status {status})")
    return said[1:].decode()


def processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


# -- files ------------------------------------------------------------------------------------


@attempt()
def read_the_key_file(world: dict[str, Any]) -> object:
    return Path(world["key"]).read_text()


@attempt()
def read_the_config(world: dict[str, Any]) -> object:
    return Path(world["config"]).read_text()


@attempt()
def read_the_home_folder(world: dict[str, Any]) -> object:
    return Path(world["letter"]).read_text()


@attempt()
def read_the_kernels_command_line(world: dict[str, Any]) -> object:
    return Path("/proc/cmdline").read_text()


@attempt()
def read_what_identifies_the_machines_boot(world: dict[str, Any]) -> object:
    return Path("/proc/sys/kernel/random/boot_id").read_text()


@attempt()
def read_the_interrupts(world: dict[str, Any]) -> object:
    return Path("/proc/interrupts").read_text()


@attempt(may_lack="a kernel without its configuration")
def read_the_kernels_configuration(world: dict[str, Any]) -> object:
    return len(Path("/proc/config.gz").read_bytes())


@attempt(needs_root=True)
def read_the_password_hashes(world: dict[str, Any]) -> object:
    return len(Path("/etc/shadow").read_text())


@attempt()
def read_the_key_through_a_symbolic_link(world: dict[str, Any]) -> object:
    link = Path(world["common"], f"link-{os.getpid()}")
    link.symlink_to(world["key"])
    try:
        return link.read_text()
    finally:
        link.unlink()


@attempt()
def read_the_key_through_the_root_of_a_process(world: dict[str, Any]) -> object:
    for pid in processes():
        for way in ("root", "cwd"):
            path = Path(f"/proc/{pid}/{way}", *Path(world["key"]).parts[1:])
            try:
                return path.read_text()
            except OSError:
                continue
    raise OSError("no process led there")


@attempt()
def read_the_environment_of_the_gateway(world: dict[str, Any]) -> object:
    for pid in processes():
        try:
            if world["marker"].encode() in Path(f"/proc/{pid}/environ").read_bytes():
                return pid
        except OSError:
            continue
    raise OSError("no environment held it")


@attempt()
def read_the_command_line_of_the_gateway(world: dict[str, Any]) -> object:
    for pid in processes():
        try:
            if world["argument"].encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
        except OSError:
            continue
    raise OSError("no command line held it")


def _create(folder: str) -> str:
    path = Path(folder, f".escape-{os.getpid()}")
    path.touch(exist_ok=False)
    path.unlink()
    return str(path)


@attempt()
def write_its_own_folder(world: dict[str, Any]) -> object:
    return _create(os.path.dirname(os.path.abspath(__file__)))


@attempt()
def write_a_mount_that_is_for_reading(world: dict[str, Any]) -> object:
    return _create(world["shared"])


@attempt(needs_root=True)
def write_the_top_folder(world: dict[str, Any]) -> object:
    return _create("/")


@attempt(needs_root=True)
def write_the_system(world: dict[str, Any]) -> object:
    return _create("/usr")


@attempt(needs_root=True)
def write_the_settings_of_the_system(world: dict[str, Any]) -> object:
    return _create("/etc")


@attempt(needs_root=True)
def write_the_devices(world: dict[str, Any]) -> object:
    return _create("/dev")


@attempt(needs_root=True)
def make_a_device(world: dict[str, Any]) -> object:
    path = f"{world['common']}/device-{os.getpid()}"
    os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))
    os.unlink(path)
    return path


@attempt(needs_root=True, may_lack="a container has no kernel log")
def open_the_kernel_log(world: dict[str, Any]) -> object:
    os.close(os.open("/dev/kmsg", os.O_WRONLY))
    return True


@attempt(needs_root=True, may_lack="a container's /proc/sys is read-only")
def set_the_core_pattern(world: dict[str, Any]) -> object:
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
    return True


@attempt()
def find_a_descriptor_that_was_left_open(world: dict[str, Any]) -> object:
    folder = os.open("/proc/self/fd", os.O_RDONLY)
    found = [each for each in os.listdir("/proc/self/fd") if int(each) > 2 and int(each) != folder]
    left = [each for each in found if os.path.exists(f"/proc/self/fd/{each}")]
    if not left:
        raise OSError("none")
    return [os.readlink(f"/proc/self/fd/{each}") for each in left]


@attempt()
def see_what_another_left_in_tmp(world: dict[str, Any]) -> object:
    return Path(world["tmp_file"]).read_text()


@attempt()
def see_what_another_left_in_shared_memory(world: dict[str, Any]) -> object:
    return Path(world["shm_file"]).read_text()


@attempt(may_lack="a kernel without System V shared memory")
def attach_the_shared_memory_of_another(world: dict[str, Any]) -> object:
    libc.shmget.argtypes = [ctypes.c_int, ctypes.c_size_t, ctypes.c_int]
    identifier = libc.shmget(world["shm_key"], 0, 0)
    if identifier < 0:
        raise OSError(ctypes.get_errno(), "shmget")
    return identifier


# -- processes --------------------------------------------------------------------------------


@attempt()
def signal_another_process(world: dict[str, Any]) -> object:
    os.kill(world["victim"], 0)
    if world["victim_marker"].encode() not in Path(f"/proc/{world['victim']}/cmdline").read_bytes():
        raise OSError("that is somebody else")
    return True


@attempt()
def signal_everybody(world: dict[str, Any]) -> object:
    os.kill(-1, 0)
    return True


@attempt()
def trace_another_process(world: dict[str, Any]) -> object:
    return in_child(lambda: syscall(101, 117, 0x4206, world["victim"], 0, 0))  # PTRACE_SEIZE


def _with_child(function: Callable[[int], object]) -> object:
    child = subprocess.Popen(["sleep", "60"])
    try:
        return function(child.pid)
    finally:
        child.kill()
        child.wait()


@attempt()
def trace_its_own_child(world: dict[str, Any]) -> object:
    return _with_child(lambda pid: syscall(101, 117, 0x4206, pid, 0, 0))


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@attempt()
def read_the_memory_of_a_process(world: dict[str, Any]) -> object:
    source, target = ctypes.create_string_buffer(b"memory"), ctypes.create_string_buffer(7)
    here = _Vector(ctypes.addressof(target), 7)
    there = _Vector(ctypes.addressof(source), 7)
    call = (310, 270, os.getpid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    syscall(*call)
    return target.value.decode()


@attempt()
def take_a_descriptor_of_a_process(world: dict[str, Any]) -> object:
    return _with_child(lambda pid: syscall(438, 438, os.pidfd_open(pid), 0, 0))


@attempt(may_lack="only root can make such a program, and only where /tmp heeds it")
def gain_rights_from_a_setuid_program(world: dict[str, Any]) -> object:
    if "setuid" not in world:
        raise OSError("only root can make one")
    said = subprocess.run(
        [world["setuid"], "-u"], capture_output=True, text=True, check=True
    ).stdout
    if said.strip() != "0":
        raise OSError(f"it ran as {said.strip()}")
    return said


def _set_id(change: Callable[[str], object]) -> object:
    """Whether a file in the worker's own /tmp has the bit after `change`."""
    path = f"/tmp/set-id-{os.getpid()}"
    try:
        change(path)
        mode = os.stat(path).st_mode
    finally:
        if os.path.isdir(path):
            os.rmdir(path)
        elif os.path.exists(path):
            os.unlink(path)
    if not mode & 0o6000:
        raise OSError(f"the mode is {mode:o}")
    return oct(mode)


def _made_before(change: Callable[[str], object]) -> Callable[[str], object]:
    def both(path: str) -> object:
        Path(path).touch()
        return change(path)

    return both


@attempt()
def set_the_user_id_bit_by_name(world: dict[str, Any]) -> object:
    return _set_id(_made_before(lambda path: os.chmod(path, 0o4755)))


@attempt()
def set_the_group_id_bit_by_name(world: dict[str, Any]) -> object:
    return _set_id(_made_before(lambda path: os.chmod(path, 0o2755)))


@attempt()
def set_the_user_id_bit_by_descriptor(world: dict[str, Any]) -> object:
    def change(path: str) -> None:
        with open(path, "rb") as file:
            os.fchmod(file.fileno(), 0o4755)

    return _set_id(_made_before(change))


@attempt(may_lack="a kernel without fchmodat2")
def set_the_user_id_bit_by_the_newest_call(world: dict[str, Any]) -> object:
    return _set_id(
        _made_before(lambda path: syscall(452, 452, -100, path.encode() + b"\0", 0o4755, 0))
    )


@attempt()
def make_a_file_with_the_user_id_bit(world: dict[str, Any]) -> object:
    return _set_id(lambda path: os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o4755)))


@attempt()
def make_a_node_with_the_user_id_bit(world: dict[str, Any]) -> object:
    return _set_id(lambda path: os.mknod(path, 0o100000 | 0o4755))


@attempt(may_lack="a kernel without openat2")
def make_a_file_with_the_user_id_bit_by_the_newest_call(world: dict[str, Any]) -> object:
    how = struct.pack("3Q", os.O_CREAT | os.O_WRONLY, 0o4755, 0)
    return _set_id(lambda path: syscall(437, 437, -100, path.encode() + b"\0", how, len(how)))


@attempt(may_lack="the kernel takes no such bits from this call")
def make_a_folder_with_the_user_id_bit(world: dict[str, Any]) -> object:
    return _set_id(lambda path: os.mkdir(path, 0o6755))


@attempt()
def raise_a_limit(world: dict[str, Any]) -> object:
    beyond = world["nofile"] + 1
    return in_child(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (beyond, beyond)))


@attempt()
def change_its_place_with_the_memory_killer(world: dict[str, Any]) -> object:
    def there_and_back() -> None:
        for value in ("500", "0"):
            Path("/proc/self/oom_score_adj").write_text(value)

    return in_child(there_and_back)


@attempt(needs_root=True, may_lack="root without CAP_SYS_RESOURCE")
def hide_from_the_memory_killer(world: dict[str, Any]) -> object:
    return in_child(lambda: Path("/proc/self/oom_score_adj").write_text("-1000"))


@attempt(needs_root=True, may_lack="dev.tty.legacy_tiocsti")
def type_into_a_terminal(world: dict[str, Any]) -> object:
    import fcntl
    import termios

    def type_a_letter() -> object:
        os.setsid()
        _, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        return fcntl.ioctl(terminal, termios.TIOCSTI, b"x")

    return in_child(type_a_letter)


# -- network ----------------------------------------------------------------------------------


def _tcp(host: str, port: int) -> object:
    with socket.create_connection((host, port), timeout=3) as connection:
        return connection.recv(5).decode()


@attempt()
def connect_to_the_port_of_the_gateway(world: dict[str, Any]) -> object:
    return _tcp("127.0.0.1", world["port"])


@attempt(may_lack="only root can give the machine such an address for the test")
def connect_to_the_metadata_service(world: dict[str, Any]) -> object:
    return _tcp("169.254.169.254", world["port"])


@attempt(may_lack="only root can give the machine such an address for the test")
def connect_to_another_machine(world: dict[str, Any]) -> object:
    return _tcp("192.0.2.1", world["port"])


@attempt()
def ask_a_name_server(world: dict[str, Any]) -> object:
    """A datagram there and back: what a DNS query is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        query.settimeout(3)
        query.sendto(b"query", ("127.0.0.1", world["udp_port"]))
        return query.recv(16).decode()


def _unix(address: str) -> object:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(3)
        connection.connect(address)
        return connection.recv(5).decode()


@attempt()
def connect_to_an_abstract_socket(world: dict[str, Any]) -> object:
    return _unix("\0" + world["abstract"])


@attempt()
def take_a_name_by_which_gateways_share_out_user_ids(world: dict[str, Any]) -> object:
    with socket.socket(socket.AF_UNIX) as claim:
        claim.bind(f"\0agent-gateway-uids-{os.getpid() << 40}")  # nobody's
    return "taken"


@attempt()
def connect_to_a_socket_in_a_mounted_folder(world: dict[str, Any]) -> object:
    return _unix(world["path_socket"])


@attempt()
def send_a_descriptor_to_a_socket_in_a_mounted_folder(world: dict[str, Any]) -> object:
    """By one of a pair of datagram sockets: no socket is made, and none connected."""
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with pair[0] as ours, pair[1], open(__file__, "rb") as file:
        descriptor = struct.pack("i", file.fileno())
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor)]
        return ours.sendmsg([b"x"], rights, 0, world["datagram_socket"])


@attempt()
def pair_packets(world: dict[str, Any]) -> object:
    first, second = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    first.close()
    second.close()
    return "made"


@attempt(may_lack="a kernel without vsock")
def open_a_vsock(world: dict[str, Any]) -> object:
    return in_child(lambda: socket.socket(40, socket.SOCK_STREAM).close())


@attempt()
def open_a_netlink_socket(world: dict[str, Any]) -> object:
    return in_child(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close())


@attempt(needs_root=True)
def open_a_raw_socket(world: dict[str, Any]) -> object:
    return in_child(
        lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    )


@attempt(needs_root=True, may_lack="a kernel without packet sockets")
def open_a_packet_socket(world: dict[str, Any]) -> object:
    return in_child(lambda: socket.socket(17, socket.SOCK_RAW, 0).close())


# -- the kernel's other doors -----------------------------------------------------------------


@attempt(may_lack="a file system without file handles")
def name_a_file_by_handle(world: dict[str, Any]) -> object:
    handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128))
    mount = ctypes.c_int()
    return syscall(303, 264, -100, b"/\0", handle, ctypes.byref(mount), 0)


@attempt(may_lack="a kernel without statmount")
def ask_for_the_list_of_mounts(world: dict[str, Any]) -> object:
    ask = struct.pack("IIQQ", 24, 0, 0xFFFF_FFFF_FFFF_FFFF, 0)  # LSMT_ROOT
    return syscall(458, 458, ask, ctypes.create_string_buffer(800), 100, 0)


@attempt(may_lack="a kernel without secret memory")
def hide_memory_from_the_kernel(world: dict[str, Any]) -> object:
    return os.close(syscall(447, 447, 0))


@attempt(may_lack="unprivileged user namespaces are off")
def unshare_a_user_namespace(world: dict[str, Any]) -> object:
    return in_child(lambda: syscall(272, 97, NEWUSER))


@attempt(may_lack="unprivileged user namespaces are off")
def clone_into_a_user_namespace(world: dict[str, Any]) -> object:
    def clone() -> object:
        pid = syscall(56, 220, NEWUSER | signal.SIGCHLD, 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        return os.waitpid(pid, 0)

    return in_child(clone)


@attempt(may_lack="unprivileged user namespaces are off")
def clone3_into_a_user_namespace(world: dict[str, Any]) -> object:
    def clone3() -> object:
        arguments = struct.pack("<8Q", NEWUSER, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
        pid = syscall(435, 435, arguments, len(arguments))
        if pid == 0:
            os._exit(0)
        return os.waitpid(pid, 0)

    return in_child(clone3)


@attempt(needs_root=True)
def mount_something(world: dict[str, Any]) -> object:
    def mount() -> object:
        syscall(272, 97, NEWNS)
        syscall(165, 40, b"none", b"/", None, 1 << 18 | 1 << 14, None)  # MS_PRIVATE | MS_REC
        return syscall(165, 40, b"none", b"/tmp", b"tmpfs", 0, None)

    return in_child(mount)


@attempt(needs_root=True)
def mount_something_with_the_new_calls(world: dict[str, Any]) -> object:
    return in_child(lambda: syscall(430, 430, b"tmpfs", 0))  # fsopen


@attempt(needs_root=True)
def make_a_mount_writable_again(world: dict[str, Any]) -> object:
    def remount() -> object:
        syscall(165, 40, None, b"/", None, 1 << 5 | 1 << 12, None)  # MS_REMOUNT | MS_BIND
        return _create("/")

    return in_child(remount)


@attempt(needs_root=True)
def change_the_root(world: dict[str, Any]) -> object:
    return in_child(lambda: os.chroot("/tmp"))


@attempt(needs_root=True)
def enter_a_namespace(world: dict[str, Any]) -> object:
    def enter() -> object:
        return syscall(308, 268, os.open("/proc/self/ns/uts", os.O_RDONLY), 0)

    return in_child(enter)


@attempt(needs_root=True)
def open_a_file_by_its_handle(world: dict[str, Any]) -> object:
    """Handles name files of the whole file system, wherever they are mounted."""
    handle = ctypes.create_string_buffer(struct.pack("<Ii", 128, 0) + bytes(128))
    mount_id = ctypes.c_int()
    name = os.path.abspath(__file__).encode()
    syscall(303, 264, -100, name, ctypes.byref(handle), ctypes.byref(mount_id), 0)
    folder = os.open(os.path.dirname(os.path.abspath(__file__)), os.O_RDONLY)
    os.close(syscall(304, 265, folder, ctypes.byref(handle), os.O_RDONLY))
    return True


@attempt(may_lack="kernel.io_uring_disabled")
def set_up_io_uring(world: dict[str, Any]) -> object:
    os.close(syscall(425, 425, 4, ctypes.create_string_buffer(120)))
    return True


@attempt(may_lack="a kernel without keys")
def use_the_kernels_keys(world: dict[str, Any]) -> object:
    return syscall(250, 219, 0, -3, 1)  # the id of the session keyring


@attempt(needs_root=True, may_lack="a kernel without bpf")
def make_a_bpf_map(world: dict[str, Any]) -> object:
    attributes = struct.pack("<IIII", 2, 4, 4, 1) + bytes(112)
    os.close(syscall(321, 280, 0, attributes, len(attributes)))
    return True


@attempt(may_lack="kernel.perf_event_paranoid")
def count_perf_events(world: dict[str, Any]) -> object:
    # PERF_TYPE_SOFTWARE, PERF_COUNT_SW_TASK_CLOCK, exclude_kernel | exclude_hv
    attributes = struct.pack("<IIQQQQQ", 1, 112, 1, 0, 0, 0, 1 << 5 | 1 << 6) + bytes(64)
    os.close(syscall(298, 241, attributes, 0, -1, -1, 0))
    return True


@attempt(may_lack="a kernel without userfaultfd")
def handle_page_faults(world: dict[str, Any]) -> object:
    os.close(syscall(323, 282, 1))  # UFFD_USER_MODE_ONLY
    return True


@attempt()
def change_its_personality(world: dict[str, Any]) -> object:
    return in_child(lambda: syscall(135, 92, 0x0040000))  # ADDR_NO_RANDOMIZE


def _run(code: bytes) -> object:
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    answer = ctypes.CFUNCTYPE(ctypes.c_long)(address)()
    if answer <= 0:
        raise OSError(-answer, "the kernel has no such calls")
    return answer


@attempt(only_x86=True, may_lack="a kernel without 32-bit calls")
def make_a_32_bit_call(world: dict[str, Any]) -> object:
    # mov eax, 20 (getpid); int 0x80; ret
    return in_child(lambda: _run(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"))


@attempt(only_x86=True, may_lack="a kernel without x32 calls")
def make_an_x32_call(world: dict[str, Any]) -> object:
    # mov eax, 0x40000000 + 39 (getpid); syscall; ret
    return in_child(lambda: _run(b"\xb8\x27\x00\x00\x40\x0f\x05\xc3"))


def main() -> None:
    world = json.loads(Path(__file__).with_name("world.json").read_text())
    for name in sys.argv[1:]:
        try:
            got: dict[str, Any] = {"escaped": True, "detail": repr(ATTEMPTS[name](world))}
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, "")
            got = {"escaped": False, "detail": f"{code} {error!r}"}
        except Exception as error:
            got = {"escaped": False, "detail": f"defect: {error!r}"}
        print(json.dumps({"attempt": name, **got}), flush=True)


if __name__ == "__main__":
    main()
