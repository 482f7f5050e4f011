"""The benchmark agents for reminix-runtime, run in its own environment; argv[1] is the port.

The access log is off: the runtime is compared, not its console.
"""

# Its imports exist in another environment only.
# mypy: ignore-errors

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import reminix_runtime
import uvicorn

WORD = "twenty bytes of text"
CHUNK = json.dumps({"chunk": WORD})


def agents() -> list[Any]:
    if callable(reminix_runtime.agent):  # 0.0.22; in 0.0.7 it is a module
        return [reminix_runtime.agent(echo, name="echo"), reminix_runtime.agent(words)]
    first, second = (reminix_runtime.Agent(name) for name in ("echo", "words"))

    @first.on_invoke
    async def invoke(request: Any) -> Any:
        return reminix_runtime.InvokeResponse(output=request.input)

    @second.on_invoke_stream
    async def stream(request: Any) -> AsyncIterator[str]:
        for _ in range(request.input["chunks"]):
            yield CHUNK

    return [first, second]


async def echo(question: str, limit: int) -> dict[str, Any]:
    return {"question": question, "limit": limit}


async def words(chunks: int) -> AsyncIterator[str]:
    for _ in range(chunks):
        yield WORD


if __name__ == "__main__":
    app = reminix_runtime.create_app(agents=agents())
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
