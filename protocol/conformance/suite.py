"""The run of the suite: which cases apply to a worker, and what became of each."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from protocol.conformance.cases import Case, Header, Step, load_cases
from protocol.conformance.conversation import Clocks, Conversation, Finding, NotApplicable
from protocol.conformance.process import Process
from protocol.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from protocol.messages import Ready

_SKIPPED = {
    "ready": "the worker sends no ready",
    "concurrency": "the worker takes one request at a time",
    "invoke": "the worker has no handler for invoke",
    "chat": "the worker has no handler for chat",
    "no chat": "the worker has a handler for chat",
    "script": "the worker does not follow the script (--script)",
}
_SECTION_OF_VIOLATIONS = "Violations"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a case: `failure` or `skipped` says why, if either is set."""

    case: Case
    failure: str = ""
    skipped: str = ""


class Suite:
    """All cases against one command."""

    def __init__(
        self, command: Sequence[str], *, script: bool, agent_input: str, clocks: Clocks
    ) -> None:
        """`script`: whether the agent follows the script of protocol/README.md. `agent_input` is
        JSON text that the agent takes as input."""
        self._command = command
        self._script = script
        self._input = agent_input
        self._clocks = clocks
        self._ready: Ready | None = None
        self._file = ""
        self._running: Conversation | None = None
        self._stack = ExitStack()

    def run(self, *, only: str = "") -> Iterator[Outcome]:
        """Run the cases with `only` in their names. Without an answer to the first request of all,
        none is run. Raises OSError when the command cannot be started."""
        with self._stack:
            first = self._run_case(_FIRST)
            if first.failure or not only:
                yield first
            if first.failure:
                return
            for case in load_cases():
                if only in case.header.case:
                    yield self._run_case(case)

    def _run_case(self, case: Case) -> Outcome:
        if missing := [need for need in case.header.needs if not self._has(need)]:
            return Outcome(case, skipped=_SKIPPED[missing[0]])
        step = None
        conversation = self._conversation(case.file)
        try:
            if self._ready is not None:
                conversation.wait_for_ready()
            for step in case.steps:
                conversation.carry_out(step)
            conversation.catch_up()
        except NotApplicable as why:
            return Outcome(case, skipped=str(why))
        except Finding as finding:
            outcome = Outcome(case, failure=_report(case, step, conversation, finding))
            self._stop()
            return outcome
        if case is _FIRST:
            self._ready = conversation.ready
        if conversation.stdin_closed:
            self._stop()
        return Outcome(case)

    def _has(self, need: str) -> bool:
        ready = self._ready
        handlers = ("invoke", "chat") if ready is None else ready.handlers
        match need:
            case "ready":
                return ready is not None
            case "concurrency":
                return ready is not None and ready.concurrency > 1
            case "no chat":
                return "chat" not in handlers
            case "script":
                return self._script
        return need in handlers

    def _conversation(self, file: str) -> Conversation:
        """The conversation with the worker of this file's cases, started if none is running."""
        if file != self._file or self._running is None:
            self._stop()
            process = self._stack.enter_context(Process(self._command))
            self._running = Conversation(process, clocks=self._clocks, agent_input=self._input)
            self._file = file
        return self._running

    def _stop(self) -> None:
        """End the running process. What it wrote to stderr is gone with it."""
        self._running = None
        self._stack.close()


_FIRST = Case(
    "first request",
    0,
    Header("a worker answers its first request", "A request's life"),
    [
        Step(
            send=msgspec.Raw(
                b'{"jsonrpc":"2.0","id":1,"method":"invoke","params":{"input":"{{input}}",'
                b'"stream":false,"context":{},"request_id":"first"}}'
            )
        ),
        Step(expect=msgspec.Raw(b'{"id":1}')),
    ],
)
"""Whether the worker speaks at all, and whether it sends `ready`."""


def _report(case: Case, step: Step | None, conversation: Conversation, finding: Finding) -> str:
    """What is wrong, in lines for a reader who writes this worker."""
    lines = [f"wrong:    {finding.wrong}"]
    if finding.expected:
        lines.append(f"expected: {finding.expected}")
    if finding.came:
        lines.append(f"came:     {finding.came}")
    if step is not None and step.line:
        lines.append(f"at:       line {step.line} of {case.file}")
    see = [case.header.see]
    if finding.wrong.partition(":")[0] in tuple(Violation):
        see.append(_SECTION_OF_VIOLATIONS)
    lines.append(f"see:      protocol/README.md, {' and '.join(map(repr, see))}")
    lines += ["said:", *(f"  {line}" for line in conversation.shown_lines())]
    if stderr := conversation.last_of_stderr().rstrip("\n"):
        lines += ["stderr:", *(f"  {line}" for line in stderr.split("\n"))]
    return "\n".join(lines)
