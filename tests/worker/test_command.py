"""`python -m worker`: every mistake is one clear line and a status that is not zero."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

AGENT = "from worker import Agent\nagent = Agent('a')\nagent.invoke(lambda input: input)\n"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker", *arguments],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "expected one agent to serve, got 0; usage: python -m worker"),
        (["a:b", "c:d"], 2, "expected one agent to serve, got 2; usage: "),
        (["good"], 2, "'good' does not name an agent; usage: "),
        (["--loop", "trio", "good:agent"], 2, "no option --loop; usage: "),
        (["--backend", "curio", "good:agent"], 2, "--backend is 'curio', expected one of"),
        (["good:agent", "--backend"], 2, "--backend is '', expected one of asyncio, trio"),
        (["missing.py:agent"], 1, "no file 'missing.py' in "),
        (["missing:agent"], 1, "no module 'missing' in "),
        (["missing.inner:agent"], 1, "no module 'missing' in "),
        (["good:other"], 1, "good has no 'other'; it has agent"),
        (["good.py:Agent"], 1, "good.py:Agent is of type type, expected a worker.Agent"),
        (["empty.py:agent"], 1, "empty.py has no 'agent'; it has no agents at all"),
        (["bare:agent"], 1, "agent 'bare' has no handlers; decorate a function with @agent.invoke"),
        (["broken.py:agent"], 1, "importing broken.py failed: ValueError: at import"),
        (["broken:agent"], 1, "importing broken failed: ValueError: at import"),
        (["needy:agent"], 1, "importing needy failed: ModuleNotFoundError: "),
        (["leaver.py:agent"], 1, "importing leaver.py failed: SystemExit: 0"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_line(
    tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    (tmp_path / "good.py").write_text(AGENT)
    (tmp_path / "empty.py").write_text("")
    (tmp_path / "bare.py").write_text("from worker import Agent\nagent = Agent('bare')")
    (tmp_path / "broken.py").write_text("raise ValueError('at import')")
    (tmp_path / "needy.py").write_text("import nowhere")
    (tmp_path / "leaver.py").write_text("import sys\nsys.exit(0)")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == status
    assert done.stdout == ""
    *traceback, last = done.stderr.splitlines()
    assert last.startswith(f"worker: {message}")
    assert bool(traceback) == ("importing" in message)


def test_a_file_s_neighbours_can_be_imported(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "neighbour.py").write_text("answer = 42")
    (folder / "the_agent.py").write_text(f"import neighbour\n{AGENT}")
    done = run("agents/the_agent.py:agent", cwd=tmp_path)
    assert done.stderr == ""
    assert done.returncode == 0
    assert '"method":"ready"' in done.stdout


def test_an_attribute_of_a_module_in_the_folder_is_served(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(AGENT)
    done = run("--backend=trio", "good:agent", cwd=tmp_path)
    assert done.returncode == 0
    assert '"method":"ready"' in done.stdout


def test_a_closed_stdin_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(AGENT)
    command = f"{sys.executable} -m worker good:agent <&-"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("worker: stdin or stdout is closed: ")


def test_help_explains_itself(tmp_path: Path) -> None:
    done = run("--help", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m worker")


def test_the_console_script_is_the_same_command_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text(AGENT)
    script = Path(sys.executable).with_name("agent-worker")
    for arguments, said in ((["--help"], "usage: agent-worker ["), (["good:agent"], '{"jsonrpc"')):
        done = subprocess.run(
            [script, *arguments],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stdout.startswith(said)


def test_a_file_of_another_language_is_handed_on_with_all_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from worker import command

    handed: list[list[str]] = []

    def serve(arguments: list[str]) -> NoReturn:
        handed.append(arguments)
        raise SystemExit(0)

    monkeypatch.setitem(command.OTHER_LANGUAGES, ".other", serve)
    for arguments in (["a.other"], ["--option", "b/a.other:name"]):
        with pytest.raises(SystemExit):
            command.main(arguments)
        assert handed.pop() == arguments


def _last_words(stdout: str) -> list[str]:
    answer = json.loads(stdout.splitlines()[-1])
    words: str = answer["result"]["message"]["content"]
    return words.split()


def test_the_event_loop_is_imported_after_ready_and_what_is_the_gateways_never(
    tmp_path: Path,
) -> None:
    (tmp_path / "the_agent.py").write_text(
        f"import sys\n{AGENT}\n"
        "@agent.chat\n"
        "def modules(messages): return ' '.join(sys.modules)\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-m", "worker", "the_agent.py:agent"],
        cwd=tmp_path,
        input='{"id":1,"method":"chat","params":{"messages":[]}}\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    before, serving = set(done.stderr.split()), set(_last_words(done.stdout))
    assert "worker.agent" in before
    assert before.isdisjoint({"anyio", "asyncio", "trio", "argparse"})
    assert {"asyncio", "anyio"} <= serving
    assert serving.isdisjoint({"trio", "gateway", "quart", "hypercorn", "h11", "httpx"})
    assert "protocol.worker_side" in serving
    assert serving.isdisjoint({"protocol.gateway_side", "protocol.decoding"})
