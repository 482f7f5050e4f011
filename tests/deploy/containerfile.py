"""A Containerfile, read, and its steps carried out without an engine.

The steps run in a root folder that lies over another one (overlayfs), all in one mount namespace,
so that nothing is left of them. At the end the process becomes the container's: its root is the
folder, and it has the user, the variables and the capabilities that an engine would give it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ENGINES_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""PATH of a container whose image says nothing."""


def instructions(path: Path) -> Iterator[tuple[str, str]]:
    """Each instruction and its arguments, with lines that are continued as one."""
    whole = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("#") or not line.strip():
            continue
        whole += line.removesuffix("\\") if line.endswith("\\") else line
        if not line.endswith("\\"):
            name, _, rest = whole.strip().partition(" ")
            yield name.upper(), rest.strip()
            whole = ""


def script(
    path: Path,
    *,
    context: Path,
    lower: str,
    work: Path,
    arguments: Sequence[str],
    run_env: Mapping[str, str],
    env: Mapping[str, str],
    files: Mapping[str, str],
) -> str:
    """A shell script for `unshare --mount sh`, by root.

    `context` is the folder of the build, `lower` the root of the base image, `work` an empty
    folder. `arguments` take the place of CMD. `run_env` are variables of the build alone, `env`
    those of the container, and `files` are written into it, as mounts would be.
    """
    root = work / "root"
    steps = [
        "set -e",
        f"mount -t tmpfs none {work}",
        f"mkdir {work}/upper {work}/work {root}",
        f"mount -t overlay none -o {_layers(lower, work)} {root}",
        f"mkdir -p {root}/proc {root}/dev {root}/tmp {root}/mnt",
        f"mount -t tmpfs -o mode=1777 none {root}/tmp",
        f"mount --rbind /dev {root}/dev",
        f"mount -t proc none {root}/proc",
        # The network is the machine's own: also its resolver.
        f"rm -f {root}/etc/resolv.conf; cp -L /etc/resolv.conf {root}/etc/resolv.conf",
    ]
    variables = {"PATH": ENGINES_PATH}
    user, folder, entry = "0:0", "/", list[str]()
    for name, rest in instructions(path):
        if name == "RUN":
            assert user == "0:0", "a step of the build runs as another user"
            words = _assignments({"HOME": "/root", **variables, **run_env})
            steps.append(f"chroot {root} env -i {words} sh -ec {shlex.quote(rest)} >&2")
        elif name == "COPY":
            source, target = rest.split()
            steps.append(f"mkdir -p {root}{target}; cp {context}/{source} {root}{target}")
        elif name == "ENV":
            key, _, value = rest.partition("=")
            variables[key] = value
        elif name == "USER":
            user = rest
        elif name == "WORKDIR":
            folder = rest
        elif name == "ENTRYPOINT":
            entry = json.loads(rest)
        else:
            assert name in {"FROM", "CMD", "EXPOSE", "HEALTHCHECK", "STOPSIGNAL"}, name
    for place, text in files.items():
        steps.append(f"mkdir -p {root}{Path(place).parent}")
        steps.append(f"printf %s {shlex.quote(text)} > {root}{place}")
    # Not by chroot: the kernel allows no user namespaces in one.
    steps += [f"cd {root}", "pivot_root . mnt", "umount -l /mnt", f"cd {folder}"]
    uid, gid = user.split(":")
    become = (
        f"setpriv --reuid {uid} --regid {gid} --clear-groups --inh-caps=-all --bounding-set=-all "
        "--no-new-privs"
    )
    words = _assignments({**variables, **env})
    steps.append(f"exec env -i {words} {become} -- {shlex.join([*entry, *arguments])}")
    return "\n".join(steps)


def _layers(lower: str, work: Path) -> str:
    return f"lowerdir={lower},upperdir={work}/upper,workdir={work}/work"


def _assignments(variables: Mapping[str, str]) -> str:
    return " ".join(shlex.quote(f"{name}={value}") for name, value in variables.items())
