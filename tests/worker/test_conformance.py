"""The conformance suite: every worker of this project passes it, and every bad one is found out."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from protocol.conformance.conversation import Clocks
from protocol.conformance.suite import Outcome, Suite
from tests.conftest import need
from tests.javascript import need_runtime

ROOT = Path(__file__).parents[2]
README = (ROOT / "protocol" / "README.md").read_text(encoding="utf-8")
AGENTS = Path(__file__).with_name("agents")
FAULTY = ROOT / "tests" / "agents"
EXAMPLES = ROOT / "worker" / "examples"
SCRIPTED_JS = str(AGENTS / "scripted.mjs")
PATIENT = Clocks(step=60.0, start=60.0)
"""For what comes, on a machine that is busy."""
IMPATIENT = Clocks(step=0.5, start=60.0)
"""For what never comes."""
JQ = re.findall(r"^jq .*$", README, re.MULTILINE)[0]

RUNTIMES = {"node20": [], "node22": [], "node24": [], "bun": ["run"], "deno": ["run", "-A"]}
"""What runs JavaScript, and the words before a file."""


def run(
    command: list[str], *, script: bool = False, agent_input: str = '"hello"', only: str = ""
) -> list[Outcome]:
    suite = Suite(command, script=script, agent_input=agent_input, clocks=PATIENT)
    return list(suite.run(only=only))


def check(outcomes: list[Outcome], *, skipped: set[str]) -> None:
    """Every case was passed but those that do not apply, for these reasons."""
    for outcome in outcomes:
        assert not outcome.failure, f"{outcome.case.header.case}\n{outcome.failure}"
    assert {outcome.skipped for outcome in outcomes} - {""} == skipped


HAS_CHAT = "the worker has a handler for chat"
NO_CHAT = "the worker has no handler for chat"
NO_SCRIPT = "the worker does not follow the script (--script)"
ONE_AT_A_TIME = "the worker takes one request at a time"
NO_READY = "the worker sends no ready"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_agent_of_the_sdk_for_python_conforms(backend: str) -> None:
    agent = f"{AGENTS / 'scripted.py'}:agent"
    command = [sys.executable, "-m", "worker", "--backend", backend, agent]
    check(run(command, script=True), skipped={HAS_CHAT})


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_agent_of_the_sdk_for_typescript_conforms(runtime: str) -> None:
    program = need_runtime(runtime)
    agent = str(AGENTS / "scripted_sdk.mjs")
    if runtime in {"node22", "deno"}:  # Deno runs under agent-worker alone
        command = [sys.executable, "-m", "worker", "--runtime", program, agent]
    else:
        command = [program, str(ROOT / "worker" / "typescript" / "main.js"), agent]
    check(run(command, script=True), skipped={HAS_CHAT})


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_worker_without_an_sdk_conforms_in_each_javascript_runtime(runtime: str) -> None:
    command = [need_runtime(runtime), *RUNTIMES[runtime], SCRIPTED_JS]
    check(run(command, script=True), skipped={HAS_CHAT})


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_example_in_node_conforms_in_each_javascript_runtime(runtime: str) -> None:
    command = [need_runtime(runtime), *RUNTIMES[runtime], str(EXAMPLES / "echo.mjs")]
    check(run(command), skipped={HAS_CHAT, NO_SCRIPT, ONE_AT_A_TIME})


def test_the_example_in_plain_python_conforms() -> None:
    command = [sys.executable, str(EXAMPLES / "plain.py")]
    check(run(command), skipped={HAS_CHAT, NO_SCRIPT, ONE_AT_A_TIME})


@pytest.mark.parametrize("command", [f"sh {EXAMPLES / 'echo.sh'}", JQ], ids=["shell", "jq"])
def test_agents_of_one_line_conform(command: str) -> None:
    need(shutil.which("jq"), "the program jq")
    check(run(shlex.split(command)), skipped={NO_READY, NO_SCRIPT})


def test_an_agent_with_one_handler_is_asked_for_that_one_alone(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "from worker import Agent\nagent = Agent('a')\nagent.invoke(lambda input: input)\n"
    )
    command = [sys.executable, "-m", "worker", f"{tmp_path / 'a.py'}:agent"]
    check(run(command), skipped={NO_CHAT, NO_SCRIPT})


BAD = {
    "two_results": "second_result: an answer for request 1, which has ended",
    "chunk_after_end": "chunk_after_end: a chunk for request 1, which has ended",
    "wrong_shape": "wrong_shape: Object contains unknown field `ouput`",
    "garbage text": "not_json: ",
    "garbage binary": "not_utf8: ",
    "garbage array": "not_a_message: ",
    "garbage null": "not_a_message: ",
    "half_character": "not_utf8: ",
    "unknown_id": "unknown_id: an answer for request 1001, which was never sent",
    "ready_twice": "ready_twice: a second ready",
    "endless_line": "line_too_long: ",
    "exit_before_ready": "it ended with status 3, though its stdin is open",
    "exit_mid_frame": "it ended with status 3, though its stdin is open",
    "exit_after_result": "it ended with status 3",
    "segfault": "it ended with signal 11, though its stdin is open",
    "close_stdout": "it closed its stdout",
    "stop_itself": "nothing more came within 0.5 s",
    "never_read": "nothing more came within 0.5 s",
    "never_ready": "nothing came within 0.5 s",
    "stubborn": "nothing more came within 0.5 s",
}
"""By the fault, how a report begins."""


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_worker_is_found_out_in_words(fault: str) -> None:
    name, *arguments = fault.split()
    command = [sys.executable, str(FAULTY / f"{name}.py"), *arguments]
    clocks = IMPATIENT if "within 0.5 s" in BAD[fault] else PATIENT
    if name == "never_ready":
        clocks = replace(clocks, start=0.0)
    suite = Suite(command, script=False, agent_input='"fault"', clocks=clocks)
    failure = next(outcome.failure for outcome in suite.run() if outcome.failure)
    assert f"wrong:    {BAD[fault]}" in failure
    assert "see:      protocol/README.md, " in failure


MISTAKES = {
    # The mistake, what replaces what in the scripted agent, and what a report says of it.
    "chunks kept back until the end": (
        "for (const chunk of script.chunks ?? [script.halves]) {",
        "for (const chunk of script.wait ? [] : script.chunks ?? [script.halves]) {",
        "a chunk leaves before the next one is there",
        "expected: the chunks 'first'",
    ),
    "a result after chunks": (
        "send({ id, result: {} })",
        "send({ id, result: { output: 1 } })",
        "chunks are sent under the request's id, and then an end",
        "result_after_chunks: a result with 'output' after chunks",
    ),
    "the failure's message lost": (
        'script.fail);\n  if ("refuse"',
        '"failed");\n  if ("refuse"',
        "a failure is an error with its message",
        "the error's message does not say why",
    ),
    "a refusal with a code of its own": (
        "Failure(-32602, script.refuse)",
        "Failure(-32000, script.refuse)",
        "a refused input is error -32602 with its message",
        "the error has another code",
    ),
    "cancels ignored": (
        "cancelled.get(message.params.id)?.()",
        "0",
        "a request that waits is answered soon after its cancel",
        "nothing more came within 0.5 s",
    ),
    "one request after the other": (
        "serve(message);",
        "await serve(message);",
        "two requests run at a time",
        "nothing more came within 0.5 s",
    ),
    "lines cut at U+2028, which stood for a newline": (
        '"echo" in script) return script.echo',
        '"echo" in script) return String(script.echo).replace("\\u2028", "\\n")',
        "escaped line ends in a string come back as they were",
        "the result is another",
    ),
    "characters decoded piece by piece": (
        "for await (const data of process.stdin) {",
        "for await (const each of process.stdin) { const data = Buffer.from(each.toString());",
        "characters of several bytes that come in pieces stay whole",
        "the result is another",
    ),
    "prints on the wire": (
        'console.error("%s", script.print)',
        'console.log("%s", script.print)',
        "what its code prints does not reach the wire",
        "not_json: ",
    ),
    "children on the wire": (
        'stdio: ["ignore", 2, 2]',
        'stdio: "inherit"',
        "what a child process prints does not reach the wire",
        "not_json: ",
    ),
    "lines that are too long": (
        "if (Buffer.byteLength(line) > MOST)",
        "if (false)",
        "an answer that makes a line of more than 8 MiB is that request's error",
        "line_too_long: ",
    ),
    "events for those who did not ask": (
        "else if (events) await",
        "else await",
        "a caller that does not ask for events gets the chunks alone",
        "wrong:    an event, for request 903, which does not say 'events'",
    ),
    "an outcome for those who did not ask": (
        "result: events ? outcome : {}",
        "result: outcome",
        "a caller that does not ask for events gets the chunks alone",
        "wrong:    a result with more than a value, for request 903, which does not say 'events'",
    ),
    "the last event first": (
        "for (const word of say) {",
        "for (const word of say.reverse()) {",
        "the pieces of a tool call come in their order",
        "the events are others",
    ),
    "events that are lost": (
        'else if (events) await send({ method: "event", params: { id, event: word } });',
        "",
        "events and chunks come in their order, and the outcome with the end",
        "the events are others",
    ),
    "ids as floats": (
        "result: { output: value }",
        "result: { output: value }, id: id + 0.5",
        "null: comes back as it was",
        "wrong_shape: ",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_worker_is_found_out_where_it_was_made(mistake: str, tmp_path: Path) -> None:
    right, wrong, case, words = MISTAKES[mistake]
    source = Path(SCRIPTED_JS).read_text()
    assert right in source
    (tmp_path / "wrong.mjs").write_text(source.replace(right, wrong))
    suite = Suite(
        [need_runtime("node24"), str(tmp_path / "wrong.mjs")],
        script=True,
        agent_input='"hello"',
        clocks=IMPATIENT if "within 0.5 s" in words or "kept back" in mistake else PATIENT,
    )
    (outcome,) = (each for each in suite.run(only=case) if each.case.header.case == case)
    assert words in outcome.failure


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "protocol.conformance", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_says_what_is_wrong_and_where_to_read(tmp_path: Path) -> None:
    agent = tmp_path / "deaf.py"
    agent.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    request = json.loads(line)\n"
        "    print('about to fail', file=sys.stderr, flush=True)\n"
        "    id = str(request['id']) if request['params']['input'] is None else request['id']\n"
        "    print(json.dumps({'id': id, 'result': {'output': 1}}), flush=True)\n"
    )
    done = command("--only", "the input is null", "--", sys.executable, str(agent))
    assert done.returncode == 1
    said = done.stdout
    assert (
        "FAILED   the input is null: it is answered, be it with an error (requests.jsonl)" in said
    )
    assert "wrong:    wrong_shape: Expected `int | null`, got `str` - at `$.id`" in said
    assert re.search(r"at: +line \d+ of requests.jsonl", said)
    assert "see:      protocol/README.md, 'invoke and chat: requests' and 'Violations'" in said
    assert '→ {"jsonrpc":"2.0","id":' in said
    assert '← {"id": "' in said
    assert "stderr:" in said
    assert "about to fail" in said
    assert said.endswith("0 passed, 1 failed, 0 skipped\n")


def test_the_command_s_exit_status_tells_what_became_of_it() -> None:
    plain = str(EXAMPLES / "plain.py")
    done = command("--only", "its stdin is closed", "--", sys.executable, plain)
    assert (done.returncode, done.stderr) == (0, "")
    assert command("--", "/there/is/no/such/worker").returncode == 2
    assert command("--input", "{", "--", "true").returncode == 2
    assert command().returncode == 2
