"""What handlers in TypeScript say beside text, as real processes on each runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.javascript import MODULES, need_package

from . import typescript

USER = [{"role": "user", "content": "hi"}]
TOOLS = [{"name": "weather", "parameters": {"type": "object"}}]
SOURCE = """
    export const agent = new Agent("a", {
      tools: true, asks: true, modes: ["text", "image"], input: { type: "string" },
    });
    agent.chat(async function* (messages, ctx) {
      const what = messages.at(-1)?.content;
      if (what === "ask") return yield { type: "ask", id: "a1", message: "Really?" };
      if (what === "wrong") yield { type: "status", text: 7 };
      yield "It ";
      yield { type: "reasoning", text: "Hm." };
      yield { type: "tool_call", call: "c1", name: "weather", arguments: { at: what } };
      yield "is.";
      yield { type: "usage", input_tokens: 1, output_tokens: 2 };
    });
    agent.invoke((input, ctx) => {
      const { events, tools, resume, traceparent, tracestate } = ctx;
      const trace = { traceparent, tracestate };
      if (input === "event") return { type: "reasoning" };
      return input === "words" ? words() : { events, tools, resume, ...trace };
    });
    function* words() { yield { type: "x-plan" }; yield "one"; }
"""


@pytest.mark.parametrize("runtime", ["node20", "node24", "bun"])
async def test_events_tools_and_answers_to_questions(runtime: str, tmp_path: Path) -> None:
    async with typescript.serve(runtime, tmp_path, SOURCE, handshake=False) as worker:
        ready = await worker.ready()
        assert (ready.modes, ready.tools, ready.asks) == (("text", "image"), True, True)
        assert (ready.input, ready.output) == (b'{"type":"string"}', None)
        answer = await worker.chat(USER, events=True, tools=TOOLS)
        call = {"type": "tool_call", "call": "c1", "name": "weather", "arguments": {"at": "hi"}}
        assert answer.words == ("It ", {"type": "reasoning", "text": "Hm."}, call, "is.")
        usage = {"input_tokens": 1, "output_tokens": 2}
        assert answer.outcome == {"finish": "tool_calls", "usage": usage}
        assert (await worker.chat(USER, events=True)).outcome == {"usage": usage}
        answer = await worker.chat(USER)
        assert (answer.words, answer.outcome) == (("It ", "is."), {})
        # Questions, which are text for whoever wants no events, and their answers.
        answer = await worker.chat([{"role": "user", "content": "ask"}], events=True)
        ask = {"id": "a1", "message": "Really?", "reason": "question"}
        assert (answer.words, answer.outcome) == ((), {"finish": "input_required", "asks": [ask]})
        assert (await worker.chat([{"role": "user", "content": "ask"}])).text == "Really?"
        resume = [{"id": "a1", "payload": {"n": 1}}]
        trace = {"traceparent": "00-1", "tracestate": "a=1"}
        brought = {"tools": TOOLS, "resume": resume, **trace}
        assert (await worker.invoke("context", events=True, **brought)).value == {
            **brought,
            "events": True,
            "tools": [{**TOOLS[0], "description": ""}],
            "resume": [{"id": "a1", "status": "resolved", "payload": {"n": 1}}],
        }
        assert (await worker.invoke("context")).value == {
            "events": False,
            "tools": [],
            "resume": [],
        }
        # What an invoke returns is its output, whatever it looks like; what it yields is not.
        assert (await worker.invoke("event", events=True)).value == {"type": "reasoning"}
        assert (await worker.invoke("words", events=True)).words == ({"type": "x-plan"}, "one")
        _, why = (await worker.chat([{"role": "user", "content": "wrong"}])).failure
        text = "an event of the chat handler cannot be sent: status.text is 7, expected a string"
        assert why == f"TypeError: {text}"
        assert await worker.finish() == 0


async def test_the_manual_s_events_work_as_they_stand(tmp_path: Path) -> None:
    manual = (typescript.FOLDER / "README.md").read_text()
    block = manual.split("### Events\n", 1)[1].split("```ts\n", 1)[1].split("```", 1)[0]
    source = f"export const agent = new Agent('a');\n{block}"
    async with typescript.serve("node24", tmp_path, source) as worker:
        answer = await worker.chat(USER, events=True)
        types = [each["type"] for each in answer.events]
        assert types == ["status", "reasoning", "tool_call", "tool_result"]
        assert answer.chunks == ("It is 12 °C.",)
        assert answer.outcome == {"usage": {"input_tokens": 7, "output_tokens": 3}}


LIBRARIES = """
    import { z } from "zod";
    import { type } from "arktype";
    import * as v from "valibot";
    const made = {
      zod: z.object({ age: z.number().int() }), arktype: type({ age: "number.integer" }),
      method: {
        toJSONSchema: ({ io }) => ({ title: io }),
        "~standard": { version: 1, validate: (value) => ({ value }) },
      },
      date: z.object({ at: z.date() }), valibot: v.object({ age: v.number() }),
    };
    const told = Object.fromEntries(Object.entries(made).map(([name, schema]) =>
      [name, new Agent("b").invoke((input) => input, { schema }).input ?? null]));
    const given = new Agent("c", { input: { title: "mine" } });
    told.given = given.invoke((input) => input, { schema: made.zod }).input;
    export const agent = new Agent("a").invoke(() => told);
"""


async def test_the_schema_of_a_handler_is_declared_where_it_has_a_json_schema(
    tmp_path: Path,
) -> None:
    for library in ("zod", "arktype", "valibot"):
        need_package(library)
    (tmp_path / "node_modules").symlink_to(MODULES)
    async with typescript.serve("node24", tmp_path, LIBRARIES, handshake=False) as worker:
        await worker.ready()
        told = (await worker.invoke(None)).value
        for library in ("zod", "arktype"):
            assert told[library]["properties"]["age"]["type"] == "integer"
            assert told[library]["required"] == ["age"]
        assert told["method"] == {"title": "input"}
        assert told["given"] == {"title": "mine"}
        assert told["date"] is None  # which has none
        assert told["valibot"] is None  # which needs another package for it
