"""The sandbox around an agent's proxy: the command line of bubblewrap for it.

The proxy parses what agents send and talks to hosts on the internet, so that it is the process most
likely to be taken over after the workers themselves. It needs the machine's network, and nothing
else of the machine: none of its variables, no other processes, no file that can be written, and to
read only the interpreter, the packages that it imports, and what the C library reads to resolve a
name.

This module owns what the proxy is shown. It does not know what the proxy does (`egress`), nor who
starts it (`proxy`).

# Theory of operation

As for workers (`bwrap` explains the two forms), an ordinary user's proxy is in a user namespace,
and root's is not: there, the mounts are made as root, and the proxy takes on a user id of its own
as its first act. So it needs no shell and no `setpriv`, and there is no program to execute but the
interpreter. It has neither /proc nor /dev: Python and trio need neither. Where the interpreter
names its libraries by its own folder ($ORIGIN, as relocatable builds do), the dynamic loader looks
that up in /proc, and without it takes the folder from LD_ORIGIN_PATH.

Two things differ from a worker. The network is the machine's. And nothing binds the proxy to the
thread that started it (`--die-with-parent` would: trials run on threads that end): it ends when its
control socket does.
"""

from __future__ import annotations

import os
import ssl
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING

from gateway.sandbox.bwrap import HOSTNAME, WORKER_UID
from gateway.sandbox.files.places import ALTERNATIVES, SYSTEM_FOLDERS, contains, is_wide

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_LIBRARIES = ("/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/local/lib")
"""Those of the distribution, without the folders of its programs."""
_PACKAGES = frozenset(("site-packages", "dist-packages"))
"""Folders of the import path that hold installed packages and nothing else."""
_RESOLVER = ("/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf")
"""What the C library reads to resolve a name, besides `RESOLV_CONF`."""
_LOADER = ("/etc/ld.so.cache", ALTERNATIVES)
_CERTIFICATES = (
    *("/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted"),
    *("/usr/share/ca-certificates", "/usr/local/share/ca-certificates"),
)
RESOLV_CONF = "/etc/resolv.conf"
"""Where the name servers are (resolv.conf(5))."""


def interpreter() -> str:
    """The Python program itself: not a virtual environment's link to it or copy of it."""
    base: str = getattr(sys, "_base_executable", "") or sys.executable
    return os.path.realpath(base)


def bwrap_options(*, import_path: Sequence[str], as_root: bool, trust: bool = False) -> list[str]:
    """bubblewrap's options for the proxy of this gateway, without the filter's.

    `import_path` are the folders of Python's import path; `trust`: show whom this machine trusts as
    well, for TLS. Reads the file system.
    """
    options = [f"--unshare-{each}" for each in ("pid", "ipc", "uts", "cgroup")]
    options += ["--cap-drop", "ALL"]
    if as_root:
        options += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
    else:
        options += ["--unshare-user", "--disable-userns"]
        options += ["--uid", str(WORKER_UID), "--gid", str(WORKER_UID)]
    options += ["--hostname", HOSTNAME, "--clearenv"]
    options += ["--setenv", "LD_ORIGIN_PATH", os.path.dirname(interpreter())]
    links = [each for each in SYSTEM_FOLDERS if each.startswith("/lib") and os.path.islink(each)]
    found = [*_code(import_path), *_name_resolution(), *(_authorities() if trust else ())]
    shown = [
        mount
        for mount in _without_inner(found)
        if not any(contains(link, mount[0]) for link in links)
    ]
    for folder in _parents(path for path, _ in shown):
        options += ["--perms", "0755", "--dir", folder]
    for path in links:
        options += ["--symlink", os.readlink(path), path]
    for path, source in shown:
        options += ["--ro-bind", source, path]
    real = os.path.realpath(RESOLV_CONF)
    if any(path != RESOLV_CONF and contains(path, real) for path, _ in shown):
        options += ["--symlink", real, RESOLV_CONF]
    return [*options, "--remount-ro", "/", "--chdir", "/"]


def _code(import_path: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The interpreter, its libraries, and the packages that this process has imported: by the path
    that each is asked for under, and the resolved one."""
    lib = [each for each in SYSTEM_FOLDERS if each.startswith("/lib")]
    base = [os.path.join(os.path.realpath(sys.base_prefix), name) for name in ("lib", "lib64")]
    packages = [each for each in import_path if os.path.basename(each) in _PACKAGES]
    shown = [
        (path, os.path.realpath(path))
        for path in (*_LIBRARIES, *lib, *_LOADER, *base, interpreter(), *packages)
        if os.path.exists(path)
    ]
    yield from shown
    # Packages that lie elsewhere: this project in a checkout, or what somebody's path names.
    for path in (*packages, *_imported(import_path)):
        real = os.path.realpath(path)
        for name in (path, real):
            if not any(contains(folder, name) for folder, _ in shown):
                yield name, real


def _imported(import_path: Sequence[str]) -> Iterator[str]:
    """The files and folders of the top-level modules of this process: the proxy imports some."""
    roots = {os.path.abspath(each) for each in import_path}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." in name or not file or not os.path.isabs(file):
            continue
        path = os.path.dirname(file) if hasattr(module, "__path__") else file
        if os.path.dirname(path) in roots and os.path.exists(path):
            yield path


def _name_resolution() -> Iterator[tuple[str, str]]:
    for path in _RESOLVER:
        if os.path.exists(path):
            yield path, os.path.realpath(path)
    real = os.path.realpath(RESOLV_CONF)
    if os.path.exists(real):
        # A service that keeps it in a folder of its own puts a new one in its place at a change,
        # which a mount of the file alone would not show.
        folder = os.path.dirname(real)
        own = not is_wide(folder) and not contains("/etc", folder)
        yield (folder, folder) if own else (RESOLV_CONF, real)


def _authorities() -> Iterator[tuple[str, str]]:
    """Where OpenSSL looks for certificates, and what is linked from there; no private keys."""
    paths = ssl.get_default_verify_paths()
    for path in (*_CERTIFICATES, paths.openssl_cafile, paths.openssl_capath):
        if path and os.path.exists(path):
            yield path, os.path.realpath(path)


def _without_inner(mounts: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The mounts, those that contain others first, without what these show already."""
    kept: list[str] = []
    for path, source in sorted(set(mounts)):
        if not any(contains(folder, path) for folder in kept):
            kept.append(path)
            yield path, source


def _parents(paths: Iterable[str]) -> list[str]:
    """What has to be made before anything is mounted there, parents first."""
    above = {str(parent) for path in (*paths, RESOLV_CONF) for parent in PurePath(path).parents}
    return sorted(above - {"/"})
