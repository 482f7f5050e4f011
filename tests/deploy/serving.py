"""A gateway that was started by whatever command an operator would use, and a request to it."""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

SECONDS = 100
"""For a start that may install something first."""


class Served:
    """Where it listens."""

    def __init__(self, url: str, key: str, log: list[str]) -> None:
        self.url, self.key, self.log = url, key, log

    def post(self, path: str, **body: Any) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), headers, method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(self.url + path, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@contextmanager
def served(
    command: Sequence[str], *, env: Mapping[str, str], key: str = "none", seconds: float = SECONDS
) -> Iterator[Served]:
    """Start it, and end it with SIGTERM; it must exit with 0. It is killed after `seconds`."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(env)
    )
    assert process.stdout is not None
    assert process.stderr is not None
    log: list[str] = []
    reader = threading.Thread(target=lambda: log.extend(process.stderr or ()))
    reader.start()
    give_up = threading.Timer(seconds, process.kill)
    give_up.start()
    try:
        words = process.stdout.readline().split()
        assert words[:2] == ["listening", "on"], "".join(log)
        url = words[-1].replace("0.0.0.0", "127.0.0.1")
        yield Served(url, key, log)
        process.terminate()
        assert process.wait(60) == 0, "".join(log)
    finally:
        give_up.cancel()
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        process.stderr.close()
