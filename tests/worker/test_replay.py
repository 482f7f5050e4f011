"""`agent-worker replay`: a worker is asked again, and what it answers differently is shown."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need
from worker.replay.difference import Ignored, beginning, difference
from worker.replay.recording import NotARecording, Recording

ECHO = [sys.executable, "-m", "worker", "worker.examples.echo:agent"]
SECONDS = 60

READY = {"jsonrpc": "2.0", "method": "ready", "params": {"protocol": 1, "handlers": ["invoke"]}}


def request(**params: Any) -> dict[str, Any]:
    base = {"stream": False, "context": {}, "request_id": "r"}
    method = "chat" if "messages" in params else "invoke"
    return {"jsonrpc": "2.0", "id": 77, "method": method, "params": {**params, **base, **params}}


def chunk(text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "chunk", "params": {"id": 77, "chunk": text}}


def result(**members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 77, "result": members}


def recording(
    path: Path, asked: dict[str, Any], *said: Any, end: str | None = "answered", **header: Any
) -> Path:
    """Write one as the gateway does. A message with the method `cancel` goes to the worker."""
    head = {"recording": 1, "agent": "a", "request_id": "r", "started": "2026-01-31T12:00:00Z"}
    lines: list[Any] = [{**head, "ready": READY, **header}, {"at": 0, "to": asked}]
    for number, each in enumerate(said, 1):
        cancels = isinstance(each, dict) and each.get("method") == "cancel"
        kind = "to" if cancels else "text" if isinstance(each, str) else "from"
        lines.append({"at": number / 10, kind: each})
    if end is not None:
        lines.append({"at": 9, "end": end})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def replay(
    *files: Path, command: list[str], options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-c", "from worker.command import script; script()", "replay"),
            *(*options, *map(str, files), "--", *command),
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def worker(folder: Path, body: str) -> list[str]:
    """A worker without an SDK, which carries out `body` for each `request` it reads."""
    path = folder / "bare.py"
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    path.write_text(
        "import json, os, sys\n"
        "def say(**message):\n"
        "    print(json.dumps(message), flush=True)\n"
        "for line in sys.stdin:\n"
        f"    request = json.loads(line)\n{lines}\n"
    )
    return [sys.executable, str(path)]


def test_the_same_worker_answers_the_same(tmp_path: Path) -> None:
    invoked = recording(
        tmp_path / "1.jsonl", request(input={"a": [1, 2.5]}), result(output={"a": [1, 2.5]})
    )
    said = {"role": "user", "content": "hello"}
    chatted = recording(
        tmp_path / "2.jsonl",
        request(messages=[said]),
        result(message={"role": "assistant", "content": "hello"}),
    )
    done = replay(invoked, chatted, command=ECHO)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second, sums = done.stdout.splitlines()
    assert first.startswith("same     1.jsonl  invoke, first word ")
    assert first.endswith("s, recorded first word 0.100 s, end 0.100 s")
    assert second.startswith("same     2.jsonl  chat, ")
    assert sums == "2 same, 0 differ"


def test_what_differs_is_shown_and_what_is_alike_is_counted(tmp_path: Path) -> None:
    one = recording(tmp_path / "1.jsonl", request(input="x"), result(output="x"))
    two = recording(tmp_path / "2.jsonl", request(input="y"), result(output="other"))
    done = replay(one, two, command=ECHO)
    assert done.returncode == 1
    assert '    -output: "other"\n    +output: "y"\n' in done.stdout
    assert done.stdout.endswith("1 same, 1 differ\n")


def test_any_program_is_a_worker(tmp_path: Path) -> None:
    need(shutil.which("jq"), "jq is not installed")
    path = recording(tmp_path / "1.jsonl", request(input="x"), result(output="X"))
    upper = "{id, result: {output: (.params.input | ascii_upcase)}}"
    assert replay(path, command=["jq", "-c", "--unbuffered", upper]).returncode == 0


def test_streams_are_compared_by_their_text_and_not_by_their_chunks(tmp_path: Path) -> None:
    path = recording(
        tmp_path / "1.jsonl", request(input=1, stream=True), chunk("a"), chunk("bc"), result()
    )
    body = (
        "params = {'id': request['id']}\n"
        "for text in ('ab', '{last}'): say(method='chunk', params={**params, 'chunk': text})\n"
        "say(id=request['id'], result={})"
    )
    same = worker(tmp_path, body.replace("{last}", "c"))
    assert replay(path, command=same).returncode == 0
    other = worker(tmp_path, body.replace("{last}", "d"))
    done = replay(path, command=other)
    assert done.returncode == 1
    assert '-text: "abc"' in done.stdout
    assert '+text: "abd"' in done.stdout


def test_events_and_the_outcome_are_compared_where_they_were_asked_for(tmp_path: Path) -> None:
    event = {"type": "reasoning", "text": "hm"}
    told = {"jsonrpc": "2.0", "method": "event", "params": {"id": 77, "event": event}}
    asked = request(input=1, events=True)
    path = recording(tmp_path / "1.jsonl", asked, told, result(output=1, finish="length"))
    body = (
        "params = {'id': request['id'], 'event': {'type': 'reasoning', 'text': 'hm'}}\n"
        "say(method='event', params=params)\n"
        "say(id=request['id'], result={'output': 1, 'finish': '{finish}'})"
    )
    assert (
        replay(path, command=worker(tmp_path, body.replace("{finish}", "length"))).returncode == 0
    )
    done = replay(path, command=worker(tmp_path, body.replace("{finish}", "stop")))
    assert done.returncode == 1
    assert '-finish: "length"' in done.stdout


def test_a_crash_is_the_same_as_a_crash_and_the_next_request_has_a_new_worker(
    tmp_path: Path,
) -> None:
    crashed = recording(tmp_path / "1.jsonl", request(input="die"), end="worker ended")
    answered = recording(tmp_path / "2.jsonl", request(input="x"), result(output="x"))
    body = (
        "if request['params']['input'] == 'die': os._exit(1)\n"
        "say(id=request['id'], result={'output': 'x'})"
    )
    done = replay(crashed, answered, command=worker(tmp_path, body))
    assert done.returncode == 0, done.stdout
    done = replay(crashed, command=ECHO)
    assert done.returncode == 1
    assert '-ended: "the worker ended before it had answered"' in done.stdout


def test_a_recorded_breach_of_the_protocol_is_one_again(tmp_path: Path) -> None:
    path = recording(tmp_path / "1.jsonl", request(input=1), "Traceback", end="worker ended")
    body = "print('Traceback', flush=True)"
    done = replay(path, command=worker(tmp_path, body))
    assert done.returncode == 0, done.stdout
    assert "-violation: " in replay(path, command=ECHO).stdout


def test_a_cancelled_request_is_cancelled_again_at_the_same_word(tmp_path: Path) -> None:
    cancel = {"jsonrpc": "2.0", "method": "cancel", "params": {"id": 77}}
    path = recording(
        tmp_path / "1.jsonl",
        request(input=1, stream=True),
        chunk("ab"),
        cancel,
        {"jsonrpc": "2.0", "id": 77, "error": {"code": -32800, "message": "cancelled"}},
    )
    body = (
        "if request['method'] == 'cancel':\n"
        "    say(id=request['params']['id'], error={'code': -32800, 'message': 'cancelled'})\n"
        "else:\n"
        "    say(method='chunk', params={'id': request['id'], 'chunk': 'abc'})"
    )
    done = replay(path, command=worker(tmp_path, body))
    assert done.returncode == 0, done.stdout


def test_silence_is_an_answer_that_differs(tmp_path: Path) -> None:
    path = recording(tmp_path / "1.jsonl", request(input=1), result(output=1))
    done = replay(path, command=worker(tmp_path, "pass"), options=("--patience", "0.5"))
    assert done.returncode == 1
    assert '+ended: "nothing came within 0.5 s"' in done.stdout


def test_a_large_request_and_answer_do_not_block_each_other(tmp_path: Path) -> None:
    text = "x" * 3_000_000
    path = recording(tmp_path / "1.jsonl", request(input=text), result(output=text))
    assert replay(path, command=ECHO).returncode == 0


def test_what_is_named_is_ignored(tmp_path: Path) -> None:
    output = {"at": "2026-01-31T12:00:00.123Z", "id": "call_9f86d081884c", "took": 3, "word": "x"}
    path = recording(tmp_path / "1.jsonl", request(input="x"), result(output=output))
    now = "{'at': '2026-11-26T05:00:00Z', 'id': 'call_4c7d659a2fea', 'took': 5, 'word': 'x'}"
    command = worker(tmp_path, f"say(id=request['id'], result={{'output': {now}}})")
    options = ("--ignore", "times", "--ignore", "ids", "--ignore", "output.took")
    done = replay(path, command=command, options=options)
    assert done.returncode == 0, done.stdout
    done = replay(path, command=command, options=options[:4])
    assert done.returncode == 1
    assert '-output:   "took": 3' in done.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a recording"),
        ("not JSON\n", "is not a recording"),
        ('{"recording":1,"agent":"a","request_id":"r","started":""}\n', "holds no request"),
    ],
)
def test_a_file_that_is_no_recording_is_one_clear_line(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "1.jsonl"
    path.write_text(text)
    done = replay(path, command=ECHO)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("agent-worker replay: ")
    assert words in line


def test_a_file_that_somebody_else_has_written_moves_no_cursor(tmp_path: Path) -> None:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "\x1b[2J", "params": {}}
    named = recording(tmp_path / "\x1b[2Jfine.jsonl", request(input=1), result(output=1))
    for path in (recording(tmp_path / "1.jsonl", asked), named):
        done = replay(path, command=ECHO)
        said = done.stdout + done.stderr
        assert "\\x1b[2J" in said
        assert all(line.isprintable() for line in said.splitlines())


@pytest.mark.parametrize(
    "line",
    [
        b'{"at":1,"from":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"at":1,"end":"\xff"}',
        b'{"at":1,"to":{"jsonrpc":"\xff","method":"cancel","params":{}}}',
    ],
)
def test_a_file_that_nobody_can_read_is_no_recording(tmp_path: Path, line: bytes) -> None:
    path = recording(tmp_path / "1.jsonl", request(input=1))
    with path.open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(NotARecording, match="is not a recording: "):
        Recording(str(path))


@pytest.mark.parametrize(
    "output",
    ["[" * 500 + "]" * 500, "1e400", "9" * 400, "9" * 5000, '{"a":\r1}', '{\r\t "a": 1\r}'],
)
def test_any_answer_that_the_protocol_allows_can_be_compared(tmp_path: Path, output: str) -> None:
    path = recording(tmp_path / "1.jsonl", request(input=1), result(output="OUTPUT"))
    path.write_bytes(path.read_bytes().replace(b'"OUTPUT"', output.encode()))
    answer = f'{{"jsonrpc":"2.0","id":ID,"result":{{"output":{output}}}}}\n'
    command = worker(
        tmp_path,
        f"sys.stdout.write({answer!r}.replace('ID', str(request['id'])))\nsys.stdout.flush()",
    )
    done = replay(path, command=command)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_recording_of_another_format_is_refused(tmp_path: Path) -> None:
    path = recording(tmp_path / "1.jsonl", request(input=1), recording=2)
    with pytest.raises(NotARecording, match="has format 2, and this reads 1"):
        Recording(str(path))


def test_what_cannot_be_done_is_status_2(tmp_path: Path) -> None:
    path = recording(tmp_path / "1.jsonl", request(input=1), result(output=1))
    done = replay(path, command=["/no/such/program"])
    assert (done.returncode, "cannot be started" in done.stderr) == (2, True)
    assert replay(tmp_path / "none.jsonl", command=ECHO).returncode == 2
    assert replay(path, command=[]).returncode == 2


def test_a_recording_that_was_cut_is_compared_as_far_as_it_goes() -> None:
    then = {"text": "ab", "events": [1]}
    assert beginning({"text": "abcd", "events": [1, 2], "finish": "stop"}, then) == then
    assert beginning({"text": "a"}, then) == {"text": "a"}


def test_the_same_number_is_written_in_two_ways_and_true_is_no_number() -> None:
    compared = Ignored()
    assert difference(compared.without({"output": 1.0}), compared.without({"output": 1})) == []
    assert difference(compared.without({"output": True}), compared.without({"output": 1})) != []


def test_a_path_with_a_star_names_every_member() -> None:
    value = {"events": [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]}
    assert Ignored(["events.*.id"]).without(value) == {"events": [{"text": "a"}, {"text": "b"}]}
    assert Ignored([".events.1"]).without(value) == {"events": [value["events"][0]]}


def test_a_difference_is_bounded_and_moves_no_cursor() -> None:
    lines = difference({"text": "a\n" * 500}, {"text": "\x1b[2J\x9b" + "b\n" * 500})
    assert len(lines) < 100
    assert lines[-1].endswith("more lines")
    assert all(line.isprintable() for line in lines)
