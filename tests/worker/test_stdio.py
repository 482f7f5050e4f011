"""Nothing that an agent, its C code or its children do with stdin and stdout touches the wire."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
import trio

from . import driver
from .conftest import PRELUDE, Serve

WRITES = {
    "print": "print('stray')",
    "print without a newline": "print('stray', end='')\nsys.stdout.flush()",
    "write to descriptor 1": "os.write(1, b'stray')",
    "C code": ("import ctypes\nlibc = ctypes.CDLL(None)\nlibc.puts(b'stray')\nlibc.fflush(None)"),
    "a child": "import subprocess\nsubprocess.run(['echo', 'stray'])",
    "a shell": "os.system('echo stray')",
}


@pytest.mark.parametrize("write", WRITES)
async def test_writes_to_stdout_are_log_in_a_handler(serve: Serve, write: str) -> None:
    source = f"agent = Agent('a')\n@agent.invoke\ndef handle(input):\n{_indent(WRITES[write])}"
    async with serve(source) as worker:
        assert (await worker.invoke("x")).value is None
        await worker.said_on_stderr("stray")
        assert await worker.finish() == 0


@pytest.mark.parametrize("write", WRITES)
async def test_writes_to_stdout_are_log_while_the_module_is_imported(
    serve: Serve, write: str
) -> None:
    source = f"{WRITES[write]}\nagent = Agent('a')\nagent.invoke(lambda input: input)"
    async with serve(source) as worker:
        await worker.said_on_stderr("stray")
        assert (await worker.invoke("x")).value == "x"


READS = {
    "input": "try:\n    input()\nexcept EOFError:\n    got = 'nothing'",
    "sys.stdin": "got = sys.stdin.read() or 'nothing'",
    "descriptor 0": "got = os.read(0, 100).decode() or 'nothing'",
    "a child": (
        "import subprocess\n"
        "got = subprocess.run(['cat'], capture_output=True, text=True).stdout or 'nothing'"
    ),
}


@pytest.mark.parametrize("read", READS)
async def test_reads_of_stdin_find_nothing(serve: Serve, read: str) -> None:
    source = (
        "agent = Agent('a')\n@agent.chat\n"
        f"def handle(messages):\n{_indent(READS[read])}\n    return got"
    )
    async with serve(source) as worker:
        assert (await worker.chat([{"role": "user", "content": "x"}])).value["content"] == "nothing"


async def test_programs_that_the_agent_starts_inherit_nothing_but_the_standard_three(
    serve: Serve,
) -> None:
    source = """
        import subprocess
        agent = Agent("a")
        @agent.invoke
        def handle(input):
            command = [sys.executable, "-c", "import os; print(os.listdir('/proc/self/fd'))"]
            out = subprocess.run(command, capture_output=True, text=True, close_fds=False).stdout
            return sorted(eval(out))
    """
    async with serve(source) as worker:
        # The fourth is the listing's own.
        assert (await worker.invoke()).value == ["0", "1", "2", "3"]


async def test_a_forked_child_does_not_hold_the_wire(serve: Serve) -> None:
    source = """
        import signal, warnings
        warnings.simplefilter("ignore")  # a fork beside threads, which is what is tried here
        agent = Agent("a")
        @agent.invoke
        def handle(input):
            pid = os.fork()
            if pid == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                signal.pause()
                os._exit(0)
            return pid
    """
    async with serve(source) as worker:
        child = (await worker.invoke()).value
        os.kill(worker.process.pid, signal.SIGKILL)
        assert worker.process.stdout is not None
        assert await worker.process.stdout.receive_some() == b""
        os.kill(child, signal.SIGKILL)  # it lived on, or this would raise


async def test_run_in_a_script_takes_what_was_printed_before_off_the_wire(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"{PRELUDE}\nprint('stray')\nagent = Agent('a')\nagent.invoke(lambda input: input)\n"
        "agent.run(backend='trio')\nprint('afterwards')"
    )
    # -E: PYTHONUNBUFFERED, where it is set, would let the line out at once.
    async with driver.start([sys.executable, "-E", str(script)]) as worker:
        await worker.said_on_stderr("stray")
        assert (await worker.invoke("x")).value == "x"
        assert await worker.finish() == 0
        await worker.said_on_stderr("afterwards")


async def test_an_unguarded_run_in_a_served_module_is_explained(serve: Serve) -> None:
    source = "agent = Agent('a')\nagent.invoke(lambda input: input)\nagent.run()"
    async with serve(source, handshake=False) as worker:
        assert await worker.process.wait() == 1
        await worker.said_on_stderr('put agent.run() under `if __name__ == "__main__":`')


async def test_a_worker_reads_its_requests_from_a_file_too(tmp_path: Path, backend: str) -> None:
    agent = tmp_path / "agent.py"
    agent.write_text(f"{PRELUDE}\nagent = Agent('a')\nagent.invoke(lambda input: input)")
    requests = tmp_path / "requests"
    requests.write_bytes(b'{"id":1,"method":"invoke","params":{"input":"x"}}\n')
    answers = tmp_path / "answers"
    with requests.open("rb") as stdin, answers.open("wb") as stdout:
        command = driver.sdk(f"{agent}:agent", backend=backend)
        await trio.run_process(command, stdin=stdin, stdout=stdout)
    assert b'"result":{"output":"x"}' in answers.read_bytes()


def _indent(source: str) -> str:
    return "\n".join(f"    {line}" for line in source.splitlines())
