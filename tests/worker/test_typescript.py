"""What any agent of the SDK for TypeScript does on the wire, as a real process, on each runtime.

The rows of the tables in worker/typescript/README.md are here. Cases that leave the worker as it
was share one process, because starting one takes longest.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from protocol import Chunk, ErrorCode

from . import cancelling, driver, typescript

USER = [{"role": "user", "content": "hi"}]
Serve = Callable[..., AbstractAsyncContextManager[driver.Worker]]


@pytest.fixture(params=["node20", "node24", "bun"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve(tmp_path: Path, runtime: str) -> Serve:
    return partial(typescript.serve, runtime, tmp_path)


async def test_ready_declares_what_the_agent_can_do(serve: Serve) -> None:
    source = """
        export const agent = new Agent("a", {
          description: "Says hi.", metadata: { version: "1" }, concurrency: 3,
        });
        agent.chat(() => "hi");
    """
    async with serve(source, handshake=False) as worker:
        ready = await worker.ready()
        assert ready.handlers == ("chat",)
        assert ready.concurrency == 3
        assert ready.description == "Says hi."
        assert ready.metadata == b'{"version":"1"}'
        assert (await worker.chat(USER)).value == {"role": "assistant", "content": "hi"}
        code, message = (await worker.invoke()).failure
        assert code == ErrorCode.HANDLER_NOT_IMPLEMENTED
        assert message == 'agent "a" has no handler for invoke, only for chat'
        assert await worker.finish() == 0
        assert worker.stderr == ""


VALUES = {
    "value": "input => 1",
    "nothing": "input => {}",
    "promise": "async input => { await sleep(0); return 1 }",
    "array": "input => ['a', 'b']",
    "date": "input => new Date(0)",
}
STREAMS = {
    "generator": "function* () { yield 'one '; yield 'two' }",
    "async generator": "async function* () { yield 'one '; await sleep(0); yield 'two' }",
    "iterator": "() => ['one ', 'two'].values()",
    "promise of a generator": "async () => (function* () { yield 'one '; yield 'two' })()",
    "stream": """() => new ReadableStream({
        start(to) { to.enqueue('one '); to.enqueue('two'); to.close() } })""",
    "stream of bytes": "async () => new Response(new Blob(['one ', 'two'])).body",
    "bytes that cut a character": """async function* () {
        yield Buffer.from('one \\u00fc').subarray(0, 5);
        yield Buffer.from('\\u00fc').subarray(1); yield 'two' }""",
    "text that cuts a character": "async function* () { yield 'one \\ud83d'; yield '\\ude00two' }",
    "nothing": "async function* () {}",
}


async def test_what_a_handler_returns_is_the_answer(serve: Serve) -> None:
    handlers = ", ".join(f"'{kind}': {code}" for kind, code in {**VALUES, **{
        f"stream: {kind}": code for kind, code in STREAMS.items()}}.items())  # fmt: skip
    source = f"""
        const handlers = {{ {handlers} }};
        export const agent = new Agent("a").invoke((kind, ctx) => handlers[kind](kind, ctx));
    """
    expected = {
        "value": 1,
        "nothing": None,
        "promise": 1,
        "array": ["a", "b"],
        "date": "1970-01-01T00:00:00.000Z",
    }
    async with serve(source) as worker:
        for kind, value in expected.items():
            assert (await worker.invoke(kind)).value == value, kind
        for kind in STREAMS:
            text = (await worker.invoke(f"stream: {kind}", stream=True)).text
            between = {
                "bytes that cut a character": "ü",
                "text that cuts a character": "\U0001f600",
            }
            assert text == ("" if kind == "nothing" else f"one {between.get(kind, '')}two"), kind
        assert worker.stderr == ""


async def test_the_context_tells_what_the_caller_sent(serve: Serve) -> None:
    source = """
        export const agent = new Agent("a").invoke((input, ctx) => [
          input, ctx.conversationId, ctx.userId ?? "nobody", ctx.custom, ctx.extras, ctx.requestId,
          ctx.stream, ctx.signal.aborted]);
    """
    async with serve(source) as worker:
        context = {"conversation_id": "c", "custom": {"k": 1}, "other": [2]}
        answer = await worker.invoke("ü\u2028", context=context, stream=True, request_id="name")
        assert answer.value == [
            *("ü\u2028", "c", "nobody", {"k": 1}, {"other": [2]}, "name", True, False)
        ]
        refused = await worker.invoke(None, context={"user_id": 7})
        assert refused.failure == (
            ErrorCode.INVALID_INPUT,
            "context.user_id is a number, expected a string or null",
        )


async def test_no_more_requests_run_than_the_agent_allows_and_others_wait(serve: Serve) -> None:
    source = """
        let running = 0;
        export const agent = new Agent("a", { concurrency: 2 });
        agent.invoke(async () => {
          const seen = ++running;
          await sleep(1);
          running--;
          return seen;
        });
    """
    async with serve(source) as worker:
        worker.ignore_declared_concurrency()
        ids = [await worker.send_invoke(n) for n in range(20)]
        answers = await worker.answers(*ids)
        assert {answer.value for answer in answers.values()} == {1, 2}


async def test_answers_never_overtake_chunks(serve: Serve) -> None:
    source = """
        export const agent = new Agent("a", { concurrency: 20 });
        agent.invoke(async function* (n) {
          for (let i = 0; i < n; i++) { if (i % 7 === 0) await sleep(0); yield `${i} `; }
        });
        agent.chat(function* (messages) {
          for (let i = 0; i < messages[0].content; i++) yield `${i} `;
        });
    """
    async with serve(source) as worker:
        ids = {await worker.send_invoke(n): n for n in range(0, 1000, 100)}
        for n in range(0, 1000, 100):
            ids[await worker.send_chat([{"role": "user", "content": n}])] = n
        answers = await worker.answers(*ids)
        for request_id, n in ids.items():
            assert answers[request_id].text == "".join(f"{i} " for i in range(n))


# Failures

INTERNAL, INVALID = ErrorCode.INTERNAL, ErrorCode.INVALID_INPUT
UNSENDABLE = "TypeError: the invoke handler's answer cannot be sent: "
FAILURES: dict[str, tuple[int, str]] = {
    "throw new TypeError('no such \"thing\"')": (INTERNAL, 'TypeError: no such "thing"'),
    "throw new InvalidInput('too short')": (INVALID, "too short"),
    "throw 'a string'": (INTERNAL, "a string"),
    "throw null": (INTERNAL, "null"),
    "class NoMoney extends Error {}; throw new NoMoney('pay')": (INTERNAL, "NoMoney: pay"),
    "throw new AggregateError([new InvalidInput('inside')])": (INVALID, "inside"),
    "throw new Error('\\ud800')": (INTERNAL, "Error: \\ud800"),
    "await Promise.reject(new RangeError())": (INTERNAL, "RangeError"),
    "process.exit(3)": (INTERNAL, "ProcessExit: process.exit(3) was called"),
    "await sleep(0); process.exit()": (INTERNAL, "ProcessExit: process.exit() was called"),
    "setTimeout(() => { throw new Error('timer') }); await sleep(60000)": (
        INTERNAL,
        "Error: timer",
    ),
    "setTimeout(() => process.exit(1)); await sleep(60000)": (
        INTERNAL,
        "ProcessExit: process.exit(1) was called",
    ),
    "return 1n": (
        INTERNAL,
        UNSENDABLE + "TypeError: ",
    ),
    "return '\\ud83d'": (
        INTERNAL,
        UNSENDABLE
        + "TypeError: a string holds half of a surrogate pair, which UTF-8 cannot express",
    ),
    "return 'x'.repeat(9e6)": (
        INTERNAL,
        UNSENDABLE + "RangeError: a line of ",
    ),
    "let v = []; for (let i = 0; i < 600; i++) v = [v]; return v": (
        INTERNAL,
        UNSENDABLE + "RangeError: it nests more than 512 arrays and objects",
    ),
    "let v = []; for (let i = 0; i < 1e5; i++) v = [v]; return v": (
        INTERNAL,
        UNSENDABLE,
    ),
    "return () => 1": (
        INTERNAL,
        UNSENDABLE + "TypeError: a function has no JSON form",
    ),
}


async def test_whatever_a_handler_throws_is_its_answer_and_the_worker_lives_on(
    serve: Serve,
) -> None:
    cases = "\n".join(f"case {i}: {{ {code} }} break" for i, code in enumerate(FAILURES))
    source = f"""
        export const agent = new Agent("a");
        agent.invoke(async (which) => {{ switch (which) {{ {cases} }} return "fine"; }});
    """
    async with serve(source) as worker:
        for which, (code, message) in enumerate(FAILURES.values()):
            failure = (await worker.invoke(which)).failure
            assert failure[0] == code, failure
            assert failure[1].startswith(message), failure
        assert (await worker.invoke("again")).value == "fine"
        assert await worker.finish() == 0


async def test_a_stray_rejection_costs_its_own_request_where_the_runtime_tells_whose_it_is(
    serve: Serve, runtime: str
) -> None:
    source = """
        export const agent = new Agent("a");
        agent.invoke(async (input, { signal }) => {
          if (input === "stray") Promise.reject(new Error("nobody caught this"));
          await file("go");
          return input;
        });
    """
    async with serve(source) as worker:
        other, stray = await worker.send_invoke("other"), await worker.send_invoke("stray")
        await worker.said_on_stderr("nobody caught this")
        await typescript.let_go(worker)
        answers = await worker.answers(other, stray)
        assert answers[other].value == "other"
        if runtime == "bun":  # it costs nobody
            assert answers[stray].value == "stray"
            await worker.said_on_stderr("an error that nobody caught, of no request")
        else:
            assert answers[stray].failure == (INTERNAL, "Error: nobody caught this")
        assert await worker.finish() == 0


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ("process.abort()", -signal.SIGABRT),
        ("process.kill(process.pid, 'SIGKILL')", -signal.SIGKILL),
        ("process.kill(process.pid)", 128 + signal.SIGTERM),
    ],
)
async def test_what_ends_the_whole_process_ends_its_other_requests_too(
    serve: Serve, ends: str, status: int
) -> None:
    source = f"""
        export const agent = new Agent("a");
        agent.invoke(async (input, {{ signal }}) => {{
          if (input === "end") {{ await file("go"); {ends}; }}
          await sleep(60000, undefined, {{ signal }});
        }});
    """
    async with serve(source) as worker:
        other, ending = await worker.send_invoke("other"), await worker.send_invoke("end")
        await typescript.let_go(worker)
        if ends == "process.kill(process.pid)":  # the signal of the gateway's own stop
            answers = await worker.answers(other, ending)
            assert {each.failure[0] for each in answers.values()} == {ErrorCode.CANCELLED}
        assert worker.process.stdout is not None
        assert await worker.process.stdout.receive_some() == b""
        assert await worker.process.wait() == status


async def test_the_stack_of_a_failure_is_on_stderr_as_its_requests_and_a_refusal_is_not(
    serve: Serve,
) -> None:
    source = """
        export const agent = new Agent("a");
        function inner(input) { throw input ? new InvalidInput("no") : new Error("deep inside"); }
        agent.invoke(inner);
    """
    async with serve(source) as worker:
        await worker.invoke("refuse", request_id="the-refused")
        await worker.invoke(None, request_id="the-name")
        assert await worker.finish() == 0
        assert "request the-name: the invoke handler failed" in worker.stderr
        assert "deep inside" in worker.stderr
        assert "the-refused" not in worker.stderr
        assert all(line.startswith("@2 ") for line in worker.stderr.splitlines()), worker.stderr


async def test_a_failure_in_mid_stream_follows_its_chunks_and_closes_the_generator(
    serve: Serve,
) -> None:
    source = """
        export const agent = new Agent("a");
        agent.invoke(async function* () { yield "begun"; throw new Error("and failed"); });
        agent.chat(function* () { try { yield "1"; yield 2; } finally { console.log("closed"); } });
    """
    async with serve(source) as worker:
        answer = await worker.invoke(None, stream=True)
        assert answer.chunks == ("begun",)
        assert answer.failure == (INTERNAL, "Error: and failed")
        answer = await worker.chat(USER)
        assert answer.failure == (
            INTERNAL,
            "TypeError: the chat handler yielded a number, expected a string",
        )
        await worker.said_on_stderr("closed")


async def test_numbers_that_javascript_cannot_hold_are_refused_and_long_ones_are_rounded(
    serve: Serve,
) -> None:
    source = "export const agent = new Agent('a').invoke((input) => input);"
    async with serve(source) as worker:
        for text in (b"1" * 5000, b"1e999", b"[" * 60 + b"-1e999" + b"]" * 60):
            code, message = (await worker.invoke(text)).failure
            assert code == INVALID
            assert message == "input cannot be decoded: a number is beyond every double"
        assert (await worker.invoke(2**53 + 1)).value == 2**53
        assert len((await worker.invoke(b'"%s"' % (b"x" * 5_000_000))).value) == 5_000_000


# Cancellation


async def test_cancel_aborts_the_signal_and_ends_what_waits_for_it(serve: Serve) -> None:
    source = """
        export const agent = new Agent("a");
        agent.invoke(async (input, { signal }) => {
          try { console.log("waiting"); await sleep(60000, undefined, { signal }); }
          finally { console.log(`tidied up: ${signal.reason.name}`); }
        });
        agent.chat(async function* (messages, ctx) {
          try { yield "begun"; await sleep(60000, undefined, { signal: ctx.signal }); }
          finally { console.log("closed"); }
        });
    """
    async with serve(source) as worker:
        request = await worker.send_invoke()
        await worker.said_on_stderr("waiting")
        await worker.cancel(request)
        assert (await worker.answer(request)).failure == (ErrorCode.CANCELLED, "cancelled")
        await worker.said_on_stderr("tidied up: AbortError")
        request = await worker.send_chat(USER)
        assert isinstance(await worker.next_event(), Chunk)
        await worker.cancel(request)
        assert (await worker.answer(request)).failure[0] == ErrorCode.CANCELLED
        await worker.said_on_stderr("closed")
        assert await worker.finish() == 0
        assert "failed" not in worker.stderr


async def test_cancel_closes_generators_and_streams_that_look_at_no_signal(serve: Serve) -> None:
    source = """
        export const agent = new Agent("a");
        function* endless() { try { for (;;) yield "again "; } finally { console.log("closed"); } }
        async function* endlessAsync() { yield* endless(); }
        agent.invoke((kind) => ({
          generator: endless, async: endlessAsync,
          stream: () => new ReadableStream({
            start(to) { to.enqueue("begun"); }, cancel() { console.log("closed"); } }),
        })[kind]());
    """
    async with serve(source) as worker:
        for count, kind in enumerate(("generator", "async", "stream"), start=1):
            request = await worker.send_invoke(kind)
            assert isinstance(await worker.next_event(), Chunk)
            await worker.cancel(request)
            assert (await worker.answer(request)).failure[0] == ErrorCode.CANCELLED
            while worker.stderr.count("closed") < count:
                await worker.said_on_stderr("closed\n" * count)
        assert await worker.finish() == 0


async def test_cancel_of_a_request_that_waits_for_its_turn_answers_at_once(serve: Serve) -> None:
    source = """
        export const agent = new Agent("a", { concurrency: 1 });
        agent.invoke(async (input, { signal }) => {
          console.log(`running ${input}`);
          await sleep(60000, undefined, { signal });
        });
    """
    async with serve(source) as worker:
        await cancelling.answers_at_once_while_it_waits(worker)


@pytest.mark.parametrize("runtime", ["node20"])
async def test_a_promise_that_does_not_end_is_answered_as_cancelled_and_logged(
    serve: Serve,
) -> None:
    source = """
        export const agent = new Agent("a", { concurrency: 1 });
        agent.invoke(async (input) => {
          if (input === "stubborn") await file("go");
          return input;
        });
    """
    async with serve(source) as worker:
        request = await worker.send_invoke("stubborn", request_id="the-name")
        await worker.cancel(request)
        assert (await worker.answer(request)).failure[0] == ErrorCode.CANCELLED
        await worker.said_on_stderr("request the-name: cancelled 2 s ago, and its invoke handler")
        assert (await worker.invoke("next")).value == "next"
        # There is one place, and it is taken by what cannot be stopped: the gateway has to decide.
        request = await worker.send_invoke("stubborn")
        await worker.cancel(request)
        await typescript.let_go(worker)
        assert (await worker.answer(request)).failure[0] == ErrorCode.CANCELLED
        assert await worker.finish() == 0
        assert worker.stderr.count("still runs") == 1


# Ending


async def test_the_end_of_stdin_lets_what_runs_and_waits_finish_whatever_else_is_open(
    serve: Serve,
) -> None:
    source = """
        setInterval(() => {}, 1000);
        export const agent = new Agent("a", { concurrency: 1 });
        agent.invoke(async (input) => { await file("go"); return input; });
    """
    async with serve(source) as worker:
        worker.ignore_declared_concurrency()
        ids = [await worker.send_invoke(n) for n in range(3)]
        await worker.close_stdin()
        await typescript.let_go(worker)
        answers = await worker.answers(*ids)
        assert [answers[each].value for each in ids] == [0, 1, 2]
        assert await worker.process.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_cancels_what_runs_and_ends_the_worker(serve: Serve, number: int) -> None:
    source = """
        export const agent = new Agent("a");
        agent.invoke(async (input, { signal }) => {
          try { console.log("begun"); await sleep(60000, undefined, { signal }); }
          finally { console.log("tidied up"); }
        });
    """
    async with serve(source) as worker:
        request = await worker.send_invoke()
        await worker.said_on_stderr("begun")
        os.kill(worker.process.pid, number)
        assert (await worker.answer(request)).failure[0] == ErrorCode.CANCELLED
        assert await worker.process.wait() == 128 + number
        await worker.said_on_stderr("tidied up")


async def test_a_second_signal_ends_a_worker_at_once(serve: Serve) -> None:
    source = """
        export const agent = new Agent("a");
        agent.invoke(async (input, { signal }) => {
          signal.addEventListener("abort", () => console.log("told"));
          console.log("begun");
          await sleep(60000);
        });
    """
    async with serve(source) as worker:
        await worker.send_invoke()
        await worker.said_on_stderr("begun")
        os.kill(worker.process.pid, signal.SIGTERM)
        await worker.said_on_stderr("told")
        os.kill(worker.process.pid, signal.SIGTERM)
        assert await worker.process.wait() == 128 + signal.SIGTERM
        assert "still runs" not in worker.stderr


ENDLESS = """
    export const agent = new Agent("a", { concurrency: 4 });
    let yielded = 0;
    function* endless() {
      try { for (;;) { yielded++; yield "x".repeat(100); } } finally { console.log("tidied up"); }
    }
    agent.chat(ASYNC function* () { yield* endless(); });
    agent.invoke((input) => console.log(`count ${input} is ${yielded}.`));
"""
LINE = len('{"jsonrpc":"2.0","method":"chunk","params":{"id":1,"chunk":""}}\n') + 100
PIPE = 64 * 1024
HIGH_WATER = 96 * 1024


@pytest.mark.parametrize("prefix", ["", "async"])
async def test_output_that_nobody_reads_suspends_generators_until_it_is_read(
    serve: Serve, prefix: str
) -> None:
    async with serve(ENDLESS.replace("ASYNC", prefix)) as worker:
        worker.ignore_declared_concurrency()  # nothing that it answers can be read here
        request = await worker.send_chat(USER)
        before, now, asked = -1, 0, 0
        # Half of it at least: the answers to these questions wait in the same queue.
        while before != now or now < HIGH_WATER // LINE // 2:
            asked += 1
            await worker.send_invoke(asked)
            await worker.said_on_stderr(f"count {asked} is ")
            await worker.said_on_stderr(".\n")
            before, now = now, int(worker.stderr.rpartition(" is ")[2].partition(".")[0])
        assert now <= (PIPE + HIGH_WATER) // LINE + 2
        await worker.cancel(request)
        await worker.said_on_stderr("tidied up")
        os.kill(worker.process.pid, signal.SIGTERM)
        assert await worker.process.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize("prefix", ["", "async"])
async def test_a_generator_that_computes_gives_others_a_turn_when_it_yields(
    serve: Serve, prefix: str
) -> None:
    source = f"""
        let go = true;
        export const agent = new Agent("a");
        agent.chat({prefix} function* () {{
          while (go) {{
            for (const end = Date.now() + 50; Date.now() < end; );
            yield ".";  // far too little to fill anything
          }}
          yield "stopped";
        }});
        agent.invoke(() => {{ go = false; }});
    """
    async with serve(source) as worker:
        chat = await worker.send_chat(USER)
        assert isinstance(await worker.next_event(), Chunk)
        stop = await worker.send_invoke()
        answers = await worker.answers(chat, stop)
        assert answers[chat].text.strip(".") == "stopped"


async def test_a_gateway_that_closes_stdout_ends_the_worker(serve: Serve) -> None:
    async with serve(ENDLESS.replace("ASYNC", "async")) as worker:
        await worker.send_chat(USER)
        assert isinstance(await worker.next_event(), Chunk)
        assert worker.process.stdout is not None
        await worker.process.stdout.aclose()
        assert await worker.process.wait() == 1


async def test_a_line_that_is_no_message_ends_the_worker_and_is_logged(serve: Serve) -> None:
    source = "export const agent = new Agent('a').invoke((input) => input);"
    async with serve(source) as worker:
        assert worker.process.stdin is not None
        await worker.process.stdin.send_all(b"this is no JSON\n")
        assert await worker.process.wait() == 1
        await worker.said_on_stderr("this is no JSON")


# Stray output

WRITES = {
    "console.log": "console.log('stray console.log')",
    "process.stdout": "process.stdout.write('stray process.stdout\\n')",
    "descriptor 1": "fs.writeSync(1, 'stray descriptor 1\\n')",
    "a child": "spawnSync('echo', ['stray a child'], { stdio: 'inherit' })",
}


async def test_whatever_is_printed_is_log_and_stdin_is_empty(serve: Serve) -> None:
    writes = "; ".join(WRITES.values())
    source = f"""
        {writes};
        export const agent = new Agent("a");
        agent.invoke(() => {{ {writes}; return fs.readFileSync(0, "utf8"); }});
        agent.chat(() => spawnSync("ls", ["/proc/self/fd"]).stdout.toString());
    """
    async with serve(source) as worker:
        for kind in WRITES:
            await worker.said_on_stderr(f"stray {kind}")
        assert (await worker.invoke()).value == ""
        descriptors = (await worker.chat(USER)).value["content"].split()
        assert descriptors == ["0", "1", "2", "3"]  # the last one is the listing's own
        assert await worker.finish() == 0
        for kind in WRITES:
            assert worker.stderr.count(f"stray {kind}") == 2, kind


async def test_the_log_of_a_worker_by_hand_is_whole_in_a_file(runtime: str, tmp_path: Path) -> None:
    (tmp_path / "agent.mjs").write_text(
        "export const invoke = () => { console.log('to 1'); console.error('to 2'); "
        "console.log('to 1 again'); };"
    )
    (tmp_path / "requests").write_bytes(b'{"id":1,"method":"invoke","params":{"input":"x"}}\n')
    (tmp_path / "answers").write_text("of before\n")
    names = (("requests", "rb"), ("answers", "ab"), ("log", "wb"))
    stdin, stdout, stderr = ((tmp_path / name).open(mode) for name, mode in names)
    with stdin, stdout, stderr:
        command = typescript.command(runtime, tmp_path / "agent.mjs")
        await trio.run_process(command, stdin=stdin, stdout=stdout, stderr=stderr)
    before, ready, answer = (tmp_path / "answers").read_text().splitlines()
    assert before == "of before"
    assert '"ready"' in ready
    assert '"result":{"output":null}' in answer
    assert (tmp_path / "log").read_text() == "to 1\nto 2\nto 1 again\n"


async def test_sockets_instead_of_pipes_are_served_too(runtime: str, tmp_path: Path) -> None:
    (tmp_path / "agent.mjs").write_text(
        "export const invoke = (x) => {"
        " console.log('stray'); process.stdout.write('stray'); return x; };"
    )
    (tmp_path / "parent.mjs").write_text(
        # A child process of Node has sockets.
        "import { spawn } from 'node:child_process';"
        f"const child = spawn({typescript.command(runtime, 'agent.mjs')[0]!r}, "
        f"[{typescript.MAIN!r}, 'agent.mjs']);"
        "child.stdout.pipe(process.stdout);"
        'child.stdin.end(\'{"id":1,"method":"invoke","params":{"input":"x"}}\\n\');'
    )
    parent = [typescript.command("node20", "")[0], str(tmp_path / "parent.mjs")]
    done: Any = await trio.run_process(parent, cwd=tmp_path, capture_stdout=True)
    ready, answer = done.stdout.splitlines()
    assert b'"ready"' in ready
    assert b'"output":"x"' in answer
