"""Judgement of places in the file system: whose they are, and what may be shown without being
named.

Owns three questions about a path: does the system show it anyway, is it a place where unrelated
things are kept, and does a symbolic link on the way to it lead out of the project that it lies in.
Reads the file system, changes nothing.

An agent's author writes the project, an operator the command and the configuration. So what a
command names may be shown, and what a file of the project says (a link, a script's first line, a
virtual environment's configuration) may never show more.
"""

from __future__ import annotations

import os

SYSTEM_FOLDERS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""The distribution's own programs, which every sandbox shows."""
ALTERNATIVES = "/etc/alternatives"
"""What many of the distribution's programs are links through."""
CERTIFICATES = ("/etc/ssl", "/etc/pki", "/etc/ca-certificates")
"""Whom programs trust, shown where there is a network."""

_SYMLINK_HOPS = 40
"""The number of symbolic links that the kernel follows for one path."""

# Of the file system hierarchy; /app and the like are an agent's own.
_DISKS = ("/media", "/mnt", "/srv")
_WIDE: tuple[str, ...] = ("/", "/boot", "/dev", "/etc", "/home", "/opt", "/proc", "/root", "/run")
_WIDE += ("/sys", "/tmp", "/var", "/var/lib", "/var/tmp", "/dev/shm", *_DISKS)  # noqa: S108
_WIDE_IN_HOME: tuple[str, ...] = (".local", ".config", ".cache", ".docker", ".mozilla", "bin")
_WIDE_IN_HOME += ("Desktop", "Documents", "Downloads")

_KEY_STORES = frozenset((".ssh", ".gnupg", ".aws", ".azure", ".kube", ".password-store"))
"""Folders in which programs keep keys. Whatever holds one is somebody's home in all but name."""


def contains(folder: str, path: str) -> bool:
    """Whether `path` is `folder` or lies in it, by name."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def overlap(one: str, other: str) -> bool:
    """Whether one of two paths is the other or lies in it, by name."""
    return contains(one, other) or contains(other, one)


def is_system(path: str) -> bool:
    """Whether the path lies in what every sandbox shows."""
    return any(contains(folder, path) for folder in SYSTEM_FOLDERS)


def is_wide(path: str) -> bool:
    """Whether a folder is a place where unrelated things are kept, or where keys are."""
    parent, name = os.path.split(path)
    for home in _own_homes():
        if contains(path, home) or (parent == home and name in _WIDE_IN_HOME):
            return True
    return parent == "/home" or path in _WIDE or _keeps_keys(path)


def _own_homes() -> set[str]:
    home = os.path.expanduser("~")
    return {home, os.path.realpath(home)}


def is_wide_to_write(path: str) -> bool:
    """Whether a folder is too wide to be changed by an agent even when it is named.

    The mount points of disks may be one agent's.
    """
    return is_wide(path) and path not in _DISKS


def _keeps_keys(path: str) -> bool:
    """Whether the folder is one where keys are kept, or holds or lies in such a one."""
    if not _KEY_STORES.isdisjoint(path.split(os.sep)):
        return True
    return any(os.path.isdir(os.path.join(path, name)) for name in _KEY_STORES)


def follow(path: str, *, project: str) -> str | None:
    """Where an absolute path leads to, or None if a link on the way may not be followed.

    A link in a project leads to something in its own folder or in `project`, or to the system's.
    A link in a wide folder (such as /home/somebody/current) is the operator's, and leads anywhere.
    """
    root = os.path.realpath(project)
    place, left = os.sep, path.split(os.sep)[::-1]
    hops = 0
    while left:
        part = left.pop()
        if part in {"", os.curdir}:
            continue
        if part == os.pardir:
            place = os.path.dirname(place)
            continue
        step = os.path.join(place, part)
        try:
            target = os.readlink(step)
        except OSError:  # not a link, or nothing at all
            place = step
            continue
        hops += 1
        if hops > _SYMLINK_HOPS or not _may_lead(place, os.path.realpath(step), root=root):
            return None
        left += target.split(os.sep)[::-1]
        if os.path.isabs(target):
            place = os.sep
    return place


def _may_lead(place: str, target: str, *, root: str) -> bool:
    if contains(place, target) or is_system(target) or is_system(place) or is_shared(place):
        return True
    return not is_wide(root) and contains(root, place) and contains(root, target)


def is_shared(folder: str) -> bool:
    """Whether links in this folder are the operator's: it is wide, or the programs' of a wide
    one."""
    return is_wide(folder) or (
        os.path.basename(folder) == "bin" and is_wide(os.path.dirname(folder))
    )
