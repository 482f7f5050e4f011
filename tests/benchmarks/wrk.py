"""The load generator for whole answers: wrk, with one thread and keep-alive connections."""

from __future__ import annotations

import json
import math
import resource
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.wire import NUMBER, Request
from tests.fleet.namespaces import Machine

SCRIPT = """\
local body = io.open("{body}", "rb")
wrk.method = "POST"
wrk.body = body:read("*a")
{headers}
if wrk.body:find("{number}", 1, true) then
  local count = 0
  function request()
    count = count + 1
    return wrk.format(nil, nil, nil, (wrk.body:gsub("{number}", tostring(count))))
  end
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{{"requests":%d,"microseconds":%d,"bad":%d,"p50":%f,"p99":%f}}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""

TIMEOUT = 20
"""Seconds that wrk waits for one answer: longer than any answer that is measured takes."""


@dataclass(frozen=True)
class Load:
    """The result of a load."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    generator_cpu: float
    """Share of one core that wrk used: near 1, wrk itself was the bottleneck."""


class WrkError(Exception):
    """wrk failed, or not every request got a 2xx."""


def available() -> bool:
    return shutil.which("wrk") is not None


def load(
    port: int,
    request: Request,
    *,
    connections: int,
    seconds: float,
    folder: Path,
    machine: Machine | None = None,
) -> Load:
    """Send `request` on `connections` for `seconds`; from a machine of its own, to this one's
    address on their network, if one is given. Raises WrkError if an answer is no 2xx."""
    address = "127.0.0.1" if machine is None else machine.switch
    body, script = folder / "body", folder / "script.lua"
    body.write_bytes(request.body)
    headers = (f"wrk.headers[{json.dumps(k)}] = {json.dumps(v)}" for k, v in request.headers)
    script.write_text(SCRIPT.format(body=body, headers="\n".join(headers), number=NUMBER.decode()))
    before = _children_cpu()
    prefix = () if machine is None else machine.prefix
    with subprocess.Popen(
        [*prefix, "wrk", "-t1", f"-c{connections}", f"-d{math.ceil(seconds) + 1}s",
         f"--timeout={TIMEOUT}s", "--latency", f"--script={script}",
         f"http://{address}:{port}{request.path}"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(
                signal.SIGINT
            )  # wrk then reports, for a duration of any fraction of a second
            out, err = process.communicate()
    cpu = _children_cpu() - before
    too_soon = process.returncode == -signal.SIGINT  # before wrk listened to it
    if process.returncode != 0 and not too_soon:
        raise WrkError(f"wrk failed: {err.strip() or out.strip()}")
    told = {"bad": 0, "requests": 0} if too_soon else json.loads(out.strip().splitlines()[-1])
    if not told["bad"] and not told["requests"] and seconds < TIMEOUT:
        # On a busy machine, the time was too short for even one answer.
        return load(
            port, request,
            connections=connections, seconds=4 * seconds, folder=folder, machine=machine,
        )  # fmt: skip
    if told["bad"] or not told["requests"]:
        raise WrkError(f"{told['bad']} of {told['requests']} requests failed:\n{out}")
    duration = told["microseconds"] / 1e6
    return Load(
        requests=told["requests"],
        per_second=told["requests"] / duration,
        p50_ms=told["p50"] / 1e3,
        p99_ms=told["p99"] / 1e3,
        generator_cpu=cpu / duration,
    )


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
