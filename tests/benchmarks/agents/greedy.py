"""An agent that keeps as many processes busy as it was asked for, until it ends."""

from __future__ import annotations

import json
import os
import sys


def spin() -> None:
    while True:
        pass


for line in sys.stdin:
    request = json.loads(line)
    for _ in range(request["params"]["input"]):
        if os.fork() == 0:
            spin()
    print(json.dumps({"id": request["id"], "result": {"output": "busy"}}), flush=True)
