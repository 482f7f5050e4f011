"""Clients of models as their manuals have them, and an agent that runs each in its sandbox.

`NAME` alone is one client: it writes each text of a stream on a line, as soon as it has it, then
begins another stream and leaves it after its first text. Without arguments this is the agent.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MESSAGES: Any = [{"role": "user", "content": "hello"}]


@contextmanager
def openai() -> Iterator[Iterator[str]]:
    from openai import OpenAI

    with OpenAI().chat.completions.create(model="m", messages=MESSAGES, stream=True) as stream:
        yield (chunk.choices[0].delta.content or "" for chunk in stream)


@contextmanager
def anthropic() -> Iterator[Iterator[str]]:
    from anthropic import Anthropic

    with Anthropic().messages.stream(model="m", max_tokens=9, messages=MESSAGES) as stream:
        yield iter(stream.text_stream)


@contextmanager
def langchain() -> Iterator[Iterator[str]]:
    from langchain_openai import ChatOpenAI

    stream = ChatOpenAI(model="m").stream("hello")
    yield (str(each.content) for each in stream)
    stream.close()  # type: ignore[attr-defined]


@contextmanager
def litellm() -> Iterator[Iterator[str]]:
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the internet for it
    from litellm import completion

    stream: Any = completion(model="openai/m", messages=MESSAGES, stream=True)
    yield (chunk.choices[0].delta.content or "" for chunk in stream)
    if stream.completion_stream is not None:  # it is None at the stream's end
        stream.completion_stream.close()


@contextmanager
def google() -> Iterator[Iterator[str]]:
    from google import genai

    client = genai.Client()  # which closes its connections when nobody holds it
    stream: Any = client.models.generate_content_stream(model="m", contents="hello")
    yield (chunk.text or "" for chunk in stream)
    stream.close()


def run_client(name: str) -> None:
    clients: dict[str, Callable[[], Any]] = {
        each.__name__: each for each in (openai, anthropic, langchain, litellm, google)
    }
    with clients[name]() as texts:
        for text in filter(None, texts):
            print(text, flush=True)
    with clients[name]() as texts:
        print("begun:", next(filter(None, texts)), flush=True)
    print("left", flush=True)


CURL = ["-sSN", "-H", "Authorization: Bearer placeholder", "-H", "Content-Type: application/json"]


@contextmanager
def running(client: list[str]) -> Iterator[Iterator[str]]:
    if client == ["curl"]:
        body = json.dumps({"model": "m", "messages": MESSAGES, "stream": True})
        url = f"{os.environ['OPENAI_BASE_URL']}/chat/completions"
        command = [shutil.which("curl") or "", *CURL, "-d", body, url]
    else:
        command = client
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    yield (line.strip() for line in process.stdout)
    if process.wait() != 0:
        raise RuntimeError(process.stderr.read()[-2000:])


def scan(backwards: str, skipped: str) -> str:
    from services_agent import places

    key = backwards[::-1].encode()
    seen = [(name, key in content) for name, content in places(skipped)]
    found = [name for name, is_in in seen if is_in]
    return json.dumps({"found": found, "looked_at": len(seen)})


def say(**message: Any) -> None:
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def serve(request: dict[str, Any]) -> None:
    asked = request["params"]["input"]
    with running(asked["client"]) as lines:
        for number, line in enumerate(filter(None, lines)):
            say(method="chunk", params={"id": request["id"], "chunk": line})
            if number == 0:  # while the client runs
                said = scan(asked["scan"], asked["skipped"])
                say(method="chunk", params={"id": request["id"], "chunk": said})
    say(id=request["id"], result={})


def main() -> None:
    if sys.argv[1:]:
        run_client(sys.argv[1])
        return
    for line in sys.stdin:
        request = json.loads(line)
        if "id" in request:
            try:
                serve(request)
            except Exception as error:
                say(id=request["id"], error={"code": -32000, "message": repr(error)})


if __name__ == "__main__":
    main()
