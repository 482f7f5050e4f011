"""Messages of frameworks: by look-alikes of their shapes, and by the frameworks that are there."""

from __future__ import annotations

import dataclasses
import enum
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydantic
import pytest

from protocol import ErrorCode
from protocol.worker_side import WorkerConnection
from worker.answer import chunk_encoder
from worker.messages import as_message, as_output, as_piece
from worker.turn import Turn

from . import driver
from .conftest import Serve

USER = [{"role": "user", "content": "hi"}]


def hi(content: object = "hi") -> object:
    return {"role": "assistant", "content": content}


class Role(str, enum.Enum):  # noqa: UP042  (as frameworks write it)
    ASSISTANT = "assistant"


@dataclasses.dataclass
class Haystack:
    """Its fields are private, its properties are not."""

    _role: Role
    _content: list[str]

    @property
    def role(self) -> Role:
        return self._role

    @property
    def text(self) -> str:
        return self._content[0]


class LlamaIndex(pydantic.BaseModel):
    role: Role = Role.ASSISTANT
    blocks: list[dict[str, str]] = [{"block_type": "text", "text": "hi"}]

    @property
    def content(self) -> str:
        return "hi"


class LangChain(pydantic.BaseModel):
    type: str = "ai"
    content: Any = "hi"
    tool_calls: list[Any] = []


class OpenAI(pydantic.BaseModel):
    role: str = "assistant"
    content: str = "hi"
    refusal: str | None = None


class Grumpy(SimpleNamespace):
    """Has a property that cannot be read."""

    role, text = "assistant", "hi"

    @property
    def content(self) -> str:
        raise ValueError("more than one block")


def piece_of_openai(*choices: object) -> object:
    return SimpleNamespace(choices=[SimpleNamespace(delta=each) for each in choices])


TOOL = {"type": "tool_use", "id": "1", "name": "n", "input": {}}
TEXT = {"type": "text", "text": "hi"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("hi", hi()),
        (hi(), hi()),
        (Haystack(Role.ASSISTANT, ["hi"]), hi()),
        (LlamaIndex(), hi()),
        (LangChain(), hi()),
        (LangChain(type="human"), {"role": "user", "content": "hi"}),
        (LangChain(content=[TEXT]), hi()),
        (LangChain(content=["h", {"type": "text", "text": "i"}]), hi()),
        (LangChain(content=[TEXT, TOOL]), hi([TEXT, TOOL])),
        (OpenAI(), hi()),
        (SimpleNamespace(output="hi"), hi()),
        (SimpleNamespace(final_output="hi", raw_item=None), hi()),
        (SimpleNamespace(output=1, response=SimpleNamespace(kind="response", text="hi")), hi()),
        (SimpleNamespace(raw_item=OpenAI()), hi()),
        (SimpleNamespace(chat_message=SimpleNamespace(source="bot", content="hi")), hi()),
        (SimpleNamespace(raw="hi", tasks_output=[]), hi()),
        (SimpleNamespace(choices=[SimpleNamespace(message=OpenAI())]), hi()),
        (SimpleNamespace(output=[], output_text="hi", text=object()), hi()),
        (Grumpy(), hi()),
    ],
)  # fmt: skip
def test_a_message_of_a_framework_becomes_a_message_of_the_wire(
    value: object, message: object
) -> None:
    assert as_message(value) == message


@dataclasses.dataclass
class Run:
    """As pydantic-ai's."""

    output: object
    _state: object = None


@dataclasses.dataclass
class Own:
    output: str


@pytest.mark.parametrize(
    ("value", "output"),
    [
        (Run({"a": 1}, object()), {"a": 1}),
        (Run(None), None),
        (Haystack(Role.ASSISTANT, ["hi"]), hi()),
        (Own("x"), Own("x")),
        ("x", "x"),
        ({"output": 1, "_state": 2}, {"output": 1, "_state": 2}),
    ],
)
def test_the_result_of_a_run_is_its_output_without_what_is_private(
    value: object, output: object
) -> None:
    assert as_output(value) == output


class Loop:
    """Its message is itself, without end."""

    @property
    def message(self) -> object:
        return self


@pytest.mark.parametrize(
    "value", [None, 7, [hi()], object(), Loop(), Haystack, LangChain(type="x")]
)
def test_what_is_no_message_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="is no message"):
        as_message(value)


@pytest.mark.parametrize(
    ("value", "piece"),
    [
        (LangChain(), "hi"),
        (LangChain(content=""), ""),
        (LangChain(content=[TEXT]), "hi"),
        (SimpleNamespace(content="hi"), "hi"),
        (SimpleNamespace(delta="i", message=LlamaIndex()), "i"),
        (hi(), "hi"),
        ({**hi(), "tool_calls": [1]},  # type: ignore[dict-item]
         '{"role":"assistant","content":"hi","tool_calls":[1]}'),
        (hi([TEXT]), '{"role":"assistant","content":[{"type":"text","text":"hi"}]}'),
        ({"messages": []}, None),
        ((LangChain(), {}), None),
        (7, None),
        (piece_of_openai(SimpleNamespace(content="hi")), "hi"),
        (piece_of_openai(SimpleNamespace(content=None, tool_calls=[1])), ""),
        (piece_of_openai(), ""),
    ],
)  # fmt: skip
def test_a_message_that_is_yielded_is_one_chunk(value: object, piece: str | None) -> None:
    assert as_piece(value) == piece


def test_a_piece_without_text_is_no_chunk() -> None:
    worker = WorkerConnection()
    worker.receive_data(b'{"id":1,"method":"chat","params":{"messages":[]}}\n')
    encode = chunk_encoder(Turn(worker, 1, "chat"))
    assert encode(LangChain(content="")) == b""
    assert b'"chunk":""' in encode("")


async def test_an_answer_that_is_no_message_is_an_error_that_names_its_type(serve: Serve) -> None:
    source = """
        agent = Agent("a")
        @agent.chat
        def answer(messages):
            match messages[0]["content"]:
                case "state": return {"messages": [], "next": 1}
                case "role": return {"role": "bot", "content": "x"}
                case "object": return agent
                case "yield": return iter([{"messages": []}])
    """
    wanted = "a string, or a message with `role` and `content`"
    start = "TypeError: the chat handler's answer cannot be sent: it returned"
    async with serve(source) as worker:
        for asked, said in {
            "state": f"{start} dict (messages, next), expected {wanted}: "
            "Object missing required field `role`",
            "role": f"{start} dict (role, content), expected {wanted}: "
            "the role is 'bot', expected one of system, user, assistant, tool",
            "object": f"{start} Agent, expected {wanted}",
            "nothing": f"{start} None, expected {wanted}",
            "yield": "TypeError: the chat handler yielded dict (messages), expected str",
        }.items():
            answer = await worker.chat([{"role": "user", "content": asked}])
            assert answer.failure == (ErrorCode.INTERNAL, said)


FRAMEWORKS = """
    from agents import Agent as OpenAIAgent, MessageOutputItem
    from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
    from openai.types.responses import ResponseOutputMessage, ResponseOutputText
    from pydantic_ai import Agent as PydanticAgent
    from pydantic_ai.models.test import TestModel

    from worker import Agent

    agent = Agent("a")
    text = ResponseOutputText(text="hi", type="output_text", annotations=[])
    item = ResponseOutputMessage(
        id="1", content=[text], role="assistant", status="completed", type="message"
    )
    tool = {"name": "search", "args": "{", "id": "1", "index": 0}

    @agent.chat
    async def answer(messages: list[BaseMessage]):
        assert type(messages[0]) is HumanMessage
        said = messages[0].content
        if said == "langchain":
            return AIMessage("hi")
        if said == "blocks":
            return AIMessage([{"type": "text", "text": "hi"}])
        if said == "agents":
            return MessageOutputItem(agent=OpenAIAgent("x"), raw_item=item)
        if said == "chunks":
            return pieces()
        result = await PydanticAgent(TestModel(custom_output_text="hi")).run("?")
        return result if said == "run" else result.all_messages()[-1]

    async def pieces():
        yield AIMessageChunk("h")
        yield AIMessageChunk(content="", tool_call_chunks=[tool])
        yield AIMessageChunk([{"type": "text", "text": "i"}])
"""


async def test_the_frameworks_own_messages_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "the_agent.py"
    path.write_text(textwrap.dedent(FRAMEWORKS))
    async with driver.start(driver.sdk(f"{path}:agent"), cwd=tmp_path) as worker:
        for kind in ("langchain", "blocks", "agents", "run", "response"):
            answer = await worker.chat([{"role": "user", "content": kind}])
            assert answer.value == hi(), kind
        answer = await worker.chat([{"role": "user", "content": "chunks"}], stream=True)
        assert answer.chunks == ("h", "i")
        code, message = (await worker.chat([{"role": "robot", "content": "x"}])).failure
        assert code == ErrorCode.INVALID_INPUT
        assert message.startswith("messages: ")
        assert "robot" in message
