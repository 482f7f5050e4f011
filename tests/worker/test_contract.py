"""What any agent of the SDK does on the wire, as a real process, on both event loops."""

from __future__ import annotations

import pytest

from protocol import Chunk, ErrorCode, Failure

from . import cancelling
from .conftest import Serve

USER = [{"role": "user", "content": "hi"}]


async def test_ready_declares_what_the_agent_can_do(serve: Serve) -> None:
    source = """
        agent = Agent("a", description="Says hi.", metadata={"version": "1"}, concurrency=3)
        @agent.chat
        def hi(messages): return "hi"
    """
    async with serve(source, handshake=False) as worker:
        ready = await worker.ready()
    assert ready.handlers == ("chat",)
    assert ready.concurrency == 3
    assert ready.description == "Says hi."
    assert ready.metadata == b'{"version":"1"}'


@pytest.mark.parametrize(
    "handler",
    [
        "def handle(input): return {'got': input}",
        "def handle(input, context): return {'got': input}",
        "async def handle(input): return {'got': input}",
        "async def handle(input, context: Context): return {'got': input}",
    ],
)
async def test_invoke_answers_with_what_the_handler_returns(serve: Serve, handler: str) -> None:
    async with serve(f"agent = Agent('a')\n@agent.invoke\n{handler}") as worker:
        assert (await worker.invoke({"n": [1, None, "ü\u2028"]})).value == {
            "got": {"n": [1, None, "ü\u2028"]}
        }
        assert await worker.finish() == 0


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("'hello'", {"role": "assistant", "content": "hello"}),
        ("{'role': 'tool', 'content': None, 'tool_call_id': 'c'}",
         {"role": "tool", "content": None, "tool_call_id": "c"}),
    ],
)  # fmt: skip
async def test_chat_answers_with_a_string_or_a_message(
    serve: Serve, returned: str, expected: object
) -> None:
    source = f"""
        agent = Agent("a")
        @agent.chat
        def answer(messages):
            assert messages == [{{"role": "user", "content": "hi"}}]
            return {returned}
    """
    async with serve(source) as worker:
        assert (await worker.chat(USER)).value == expected


STREAMS = {
    "generator": "def words(input):\n    yield 'one '\n    yield 'two'",
    "async generator": "async def words(input):\n    yield 'one '\n    yield 'two'",
    "function returning an iterator": "def words(input): return iter(['one ', 'two'])",
    "coroutine returning an async generator": (
        "async def stream():\n    yield 'one '\n    yield 'two'\n"
        "async def words(input): return stream()"
    ),
    "function returning an async generator": (
        "async def stream():\n    yield 'one '\n    yield 'two'\nwords = lambda input: stream()"
    ),
}


@pytest.mark.parametrize("kind", STREAMS)
async def test_generators_of_every_kind_answer_with_chunks(serve: Serve, kind: str) -> None:
    source = f"agent = Agent('a')\n{STREAMS[kind]}\nagent.invoke(words)"
    async with serve(source) as worker:
        assert (await worker.invoke("x", stream=True)).chunks == ("one ", "two")
        assert (await worker.invoke("x", stream=False)).text == "one two"
        assert await worker.finish() == 0


async def test_a_function_that_returns_a_coroutine_is_awaited(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        async def slow(input):
            await anyio.sleep(0)
            return input
        agent.invoke(lambda input: slow(input))
    """
    async with serve(source) as worker:
        assert (await worker.invoke("x")).value == "x"


async def test_the_context_tells_what_the_caller_sent(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        def tell(input, context):
            return [context.conversation_id, context.user_id, context.custom, context.extras,
                    context.request_id, context.stream, context.cancelled]
    """
    async with serve(source) as worker:
        context = {"conversation_id": "c", "custom": {"k": 1}, "other": [2]}
        answer = await worker.invoke(None, context=context, stream=True, request_id="the-name")
        assert answer.value == ["c", None, {"k": 1}, {"other": [2]}, "the-name", True, False]
        answer = await worker.invoke(None)
        assert answer.value == [None, None, {}, {}, "r1", False, False]


async def test_a_context_of_wrong_types_is_refused_by_name(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        def tell(input, context): return None
    """
    async with serve(source) as worker:
        answer = await worker.invoke(None, context={"user_id": 7})
        assert answer.failure == (
            ErrorCode.INVALID_INPUT,
            "context.user_id is int, expected a string or null",
        )


async def test_plain_functions_do_not_block_each_other(serve: Serve) -> None:
    source = """
        agent = Agent("a", concurrency=2)
        both = threading.Barrier(2)
        @agent.invoke
        def meet(input):
            both.wait()
            return input
    """
    async with serve(source) as worker:
        first, second = await worker.send_invoke(1), await worker.send_invoke(2)
        answers = await worker.answers(first, second)
        assert [answers[first].value, answers[second].value] == [1, 2]


async def test_a_blocking_function_does_not_block_coroutines(serve: Serve) -> None:
    source = """
        agent = Agent("a", concurrency=2)
        go = threading.Event()
        @agent.invoke
        def wait(input):
            go.wait()
        @agent.chat
        async def release(messages):
            go.set()
            return "released"
    """
    async with serve(source) as worker:
        waiting, releasing = await worker.send_invoke(None), await worker.send_chat(USER)
        answers = await worker.answers(waiting, releasing)
        assert answers[releasing].value["content"] == "released"


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_no_more_requests_run_than_the_agent_allows(serve: Serve, prefix: str) -> None:
    wait = "await anyio.sleep(0.001)" if prefix else "time.sleep(0.001)"
    source = f"""
        agent = Agent("a", concurrency=2)
        running = [0]
        @agent.invoke
        {prefix}def count(input):
            running[0] += 1
            seen = running[0]
            {wait}
            running[0] -= 1
            return seen
    """
    async with serve(source) as worker:
        worker.ignore_declared_concurrency()
        ids = [await worker.send_invoke(n) for n in range(20)]
        answers = await worker.answers(*ids)
        assert max(answer.value for answer in answers.values()) <= 2


async def test_context_variables_do_not_leak_from_one_request_to_the_next(serve: Serve) -> None:
    source = """
        from contextvars import ContextVar
        agent = Agent("a", concurrency=1)
        seen = ContextVar("seen")
        seen.set("by the module")
        @agent.invoke
        def plain(input):
            before = seen.get()
            seen.set("by a request")
            return before
        @agent.chat
        async def async_(messages):
            before = seen.get()
            seen.set("by a request")
            return before
    """
    async with serve(source) as worker:
        worker.ignore_declared_concurrency()
        ids = [await worker.send_invoke(None) for _ in range(3)]
        ids += [await worker.send_chat(USER) for _ in range(3)]
        answers = await worker.answers(*ids)
        for answer in answers.values():
            assert "by the module" in str(answer.value)


async def test_answers_never_overtake_chunks(serve: Serve) -> None:
    source = """
        agent = Agent("a", concurrency=20)
        @agent.invoke
        async def count(n):
            for i in range(n):
                if i % 7 == 0:
                    await anyio.sleep(0)
                yield f"{i} "
        @agent.chat
        def count_in_thread(messages):
            for i in range(messages[0]["content"]):
                yield f"{i} "
    """
    async with serve(source) as worker:
        ids = {await worker.send_invoke(n): n for n in range(0, 1000, 100)}
        for n in range(0, 1000, 100):
            ids[await worker.send_chat([{"role": "user", "content": n}])] = n
        answers = await worker.answers(*ids)
        for request_id, n in ids.items():
            assert answers[request_id].text == "".join(f"{i} " for i in range(n))


# Failures


@pytest.mark.parametrize("prefix", ["", "async "])
@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        ("ValueError('no such \"thing\"')", ErrorCode.INTERNAL, 'ValueError: no such "thing"'),
        ("KeyError()", ErrorCode.INTERNAL, "KeyError"),
        ("InvalidInput('too short')", ErrorCode.INVALID_INPUT, "too short"),
        ("NotImplementedError('later')", ErrorCode.INTERNAL, "NotImplementedError: later"),
        ("SystemExit(3)", ErrorCode.INTERNAL, "SystemExit: 3"),
        ("KeyboardInterrupt()", ErrorCode.INTERNAL, "KeyboardInterrupt"),
        ("GeneratorExit()", ErrorCode.INTERNAL, "GeneratorExit"),
        (
            "ExceptionGroup('tasks', [InvalidInput('inside')])",
            ErrorCode.INVALID_INPUT,
            "inside",
        ),
        ("ValueError('\\ud800')", ErrorCode.INTERNAL, "ValueError: \\ud800"),
    ],
)
async def test_whatever_a_handler_raises_is_its_answer_and_the_worker_lives_on(
    serve: Serve, prefix: str, raised: str, code: int, message: str
) -> None:
    source = f"""
        agent = Agent("a")
        @agent.invoke
        {prefix}def fail(input):
            if input == "fail":
                raise {raised}
            return input
    """
    async with serve(source) as worker:
        assert (await worker.invoke("fail")).failure == (code, message)
        assert (await worker.invoke("again")).value == "again"
        assert await worker.finish() == 0


async def test_the_traceback_of_a_failure_is_on_stderr_with_the_request(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        def inner(): raise ValueError("deep inside")
        @agent.invoke
        def fail(input): inner()
    """
    async with serve(source) as worker:
        await worker.invoke(None, request_id="the-name")
        await worker.said_on_stderr("request the-name: the invoke handler failed")
        await worker.said_on_stderr("in inner")
        await worker.said_on_stderr("ValueError: deep inside")


async def test_a_refused_input_leaves_no_traceback(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        def fail(input): raise InvalidInput("no")
    """
    async with serve(source) as worker:
        await worker.invoke(None)
        assert await worker.finish() == 0
        assert worker.stderr == ""


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_a_failure_in_mid_stream_follows_its_chunks(serve: Serve, prefix: str) -> None:
    source = f"""
        agent = Agent("a")
        @agent.invoke
        {prefix}def fail(input):
            yield "begun"
            raise ValueError("and failed")
    """
    async with serve(source) as worker:
        answer = await worker.invoke(None, stream=True)
        assert answer.chunks == ("begun",)
        assert answer.failure == (ErrorCode.INTERNAL, "ValueError: and failed")


async def test_a_method_without_a_handler_is_not_implemented(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        def handle(input): return input
    """
    async with serve(source) as worker:
        code, message = (await worker.chat(USER)).failure
        assert code == ErrorCode.HANDLER_NOT_IMPLEMENTED
        assert message == "agent 'a' has no handler for chat, only for invoke"


@pytest.mark.parametrize("text", [b"1" * 5000, b"1e999", b"[" * 60 + b"1e999" + b"]" * 60])
async def test_json_that_python_cannot_hold_is_refused(serve: Serve, text: bytes) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        async def handle(input): return input
    """
    async with serve(source) as worker:
        code, message = (await worker.invoke(text)).failure
        assert code == ErrorCode.INVALID_INPUT
        assert message.startswith("input cannot be decoded: ")
        assert (await worker.invoke(1)).value == 1


@pytest.mark.parametrize("prefix", ["", "async "])
async def test_a_generator_that_yields_no_string_fails_by_type_and_is_closed(
    serve: Serve, prefix: str
) -> None:
    source = f"""
        agent = Agent("a")
        @agent.chat
        {prefix}def count(messages):
            try:
                yield "1"
                yield 2
            finally:
                print("closed")
    """
    async with serve(source) as worker:
        answer = await worker.chat(USER)
        assert answer.failure == (
            ErrorCode.INTERNAL,
            "TypeError: the chat handler yielded int, expected str",
        )
        await worker.said_on_stderr("closed")


async def test_an_output_longer_than_a_line_may_be_is_an_error(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        def handle(input): return "x" * input
    """
    async with serve(source) as worker:
        code, message = (await worker.invoke(9_000_000)).failure
        assert code == ErrorCode.INTERNAL
        assert "bytes" in message
        assert len((await worker.invoke(5_000_000)).value) == 5_000_000


# Cancellation


async def test_cancel_ends_a_coroutine_where_it_awaits(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        async def wait(input):
            try:
                print("waiting")
                await anyio.sleep_forever()
            finally:
                print("tidied up")
    """
    async with serve(source) as worker:
        request = await worker.send_invoke(None)
        await worker.said_on_stderr("waiting")
        await worker.cancel(request)
        assert (await worker.answer(request)).failure == (ErrorCode.CANCELLED, "cancelled")
        await worker.said_on_stderr("tidied up")
        assert await worker.finish() == 0
        assert "Traceback" not in worker.stderr


async def test_cancel_ends_an_async_generator(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        async def wait(input):
            try:
                yield "begun"
                await anyio.sleep_forever()
            finally:
                print("tidied up")
    """
    async with serve(source) as worker:
        request = await worker.send_invoke(None)
        assert isinstance(await worker.next_event(), Chunk)
        await worker.cancel(request)
        assert isinstance(await worker.next_event(), Failure)
        await worker.said_on_stderr("tidied up")


async def test_cancel_is_seen_by_a_plain_function(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        def work(input, context):
            print("working")
            while not context.cancelled:
                time.sleep(0.001)
            return "never sent"
    """
    async with serve(source) as worker:
        request = await worker.send_invoke(None)
        await worker.said_on_stderr("working")
        await worker.cancel(request)
        assert (await worker.answer(request)).failure[0] == ErrorCode.CANCELLED


async def test_cancel_closes_a_generator_at_its_next_chunk(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.invoke
        def work(input):
            try:
                while True:
                    yield "again "
            finally:
                print("tidied up")
    """
    async with serve(source) as worker:
        request = await worker.send_invoke(None)
        assert isinstance(await worker.next_event(), Chunk)
        await worker.cancel(request)
        assert (await worker.answer(request)).failure[0] == ErrorCode.CANCELLED
        await worker.said_on_stderr("tidied up")


async def test_cancel_of_a_request_that_waits_for_its_turn_answers_at_once(serve: Serve) -> None:
    source = """
        agent = Agent("a", concurrency=1)
        @agent.invoke
        async def wait(input):
            print(f"running {input}")
            await anyio.sleep_forever()
    """
    async with serve(source) as worker:
        await cancelling.answers_at_once_while_it_waits(worker)


# A trio task cannot be cancelled from inside but by a scope of its own.
@pytest.mark.parametrize("backend", ["asyncio"])
async def test_a_handler_that_cancels_itself_has_failed_and_was_not_cancelled(
    serve: Serve,
) -> None:
    source = """
        import asyncio
        agent = Agent("a")
        @agent.invoke
        async def fail(input):
            task = asyncio.create_task(asyncio.sleep(3600))
            task.cancel()
            await task
    """
    async with serve(source) as worker:
        assert (await worker.invoke(None)).failure == (ErrorCode.INTERNAL, "CancelledError")
