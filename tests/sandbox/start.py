"""A gateway reduced to one worker: `python -m tests.sandbox.start SPEC`, as the user it is run as.

SPEC is JSON: `argv`, `level`, and `settings` as in the TOML table. The first line on stdout is JSON
with what the launcher says of itself and the process id; all that follows is the worker's. Ends as
the worker did.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import msgspec

from gateway.sandbox import SandboxSettings, make_launcher


def main(spec: dict[str, object]) -> int:
    launcher = make_launcher(
        "worker",
        msgspec.convert(spec["argv"], list[str]),
        msgspec.convert(spec["settings"], SandboxSettings),
        level=msgspec.convert(spec["level"], str),  # type: ignore[arg-type]
        environ=os.environ,
        cwd=os.getcwd(),
    )
    with launcher.launch() as launch:
        process = subprocess.Popen(
            launch.argv,
            env=dict(launch.env),
            cwd=launch.cwd,
            pass_fds=launch.pass_fds,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        # The worker's first word waits for this line, so that the two do not come mixed.
        print(json.dumps({"pid": process.pid, **launcher.describe()}), flush=True)
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
