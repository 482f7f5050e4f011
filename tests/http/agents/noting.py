"""An agent that asks the service `notes`, and says what its sandbox lets it have."""

import json
import os
import resource
import sys
import urllib.request


def answer() -> object:
    with urllib.request.urlopen(os.environ["NOTES_BASE_URL"] + "/today", timeout=60) as response:
        note = response.read().decode()
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {"note": note, "files": files, "environment": sorted(os.environ)}


for line in sys.stdin:
    request = json.loads(line)
    if "id" in request:
        result = {"output": answer()}
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}), flush=True)
