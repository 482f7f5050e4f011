"""What a caller puts between the tokens of a body is no line, and so no request of another's.

The agent reads lines as Python's `open(0)` does, which ends one at a carriage return, and passes
over what it does not understand.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.faults.scene import ask, open_request, read_until, scene

AGENT = """
import json, sys
def say(**message):
    print(json.dumps(message), flush=True)
say(method="ready", params={"protocol": 1, "handlers": ["invoke"], "concurrency": 8})
held = []
for line in open(0):
    try:
        request = json.loads(line)
        wish = request["params"]["input"]
    except (ValueError, KeyError):
        continue
    if wish == "hold":
        held.append(request["id"])
        print("holds", request["id"], file=sys.stderr, flush=True)
        continue
    if wish == "let go":
        say(id=held[0], result={"output": "its own"})
    say(id=request["id"], result={"output": wish})
"""


def attack(victim: int) -> str:
    """A text of JSON that the agent takes for three lines, of which the second is a request."""
    forged = {"id": victim, "method": "invoke", "params": {"input": "forged"}}
    return f"[\r{json.dumps(forged)}\r]"


async def test_no_body_answers_another_clients_request(tmp_path: Path) -> None:
    """Not even if its sender knows the id by which the worker knows that request."""
    lines = {"command": [sys.executable, "-c", AGENT], "workers": {"max": 1}}
    async with scene(tmp_path, lines=lines) as gateway:
        async with open_request(gateway, "lines", "hold") as victim:
            wire_id = int((await gateway.logged(r"holds \d+")).partition("holds ")[2].split()[0])
            answer = await gateway.client.post(
                "/agent/lines/invoke",
                content=f'{{"input":{attack(wire_id)}}}',
                headers={"content-type": "application/json"},
            )
            assert answer.json()["output"] == json.loads(attack(wire_id))
            assert (await ask(gateway, "lines", "let go")).json() == {"output": "let go"}
            said = await read_until(victim, b"}")
        assert said.endswith(b'{"output":"its own"}')


def test_the_control_is_answered_with_the_callers_words_where_the_line_is_left_as_it_came() -> None:
    requests = ['"hold"', attack(1), '"let go"']
    lines = [
        f'{{"id":{number},"method":"invoke","params":{{"input":{text}}}}}\n'
        for number, text in enumerate(requests, 1)
    ]
    done = subprocess.run(
        [sys.executable, "-c", AGENT],
        input="".join(lines).encode(),
        capture_output=True,
        check=True,
    )
    first = json.loads(done.stdout.splitlines()[1])
    assert first == {"id": 1, "result": {"output": "forged"}}
