"""Whoever reads the stream of an answer learns what is told of it whole, as each dialect's own
client puts a stream together; and whatever dialect a client speaks, it learns the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from openai import omit
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response as OpenAIResponse

from gateway.front.openai.dialect import ResponseCodec
from gateway.front.openai.memory import Memory
from tests.unit import openai_answers
from tests.unit.answers import ANSWERS, Said
from tests.unit.conftest import unhurried
from tests.unit.told import (
    FILE_AND_MESSAGE,
    WITHOUT_FILES,
    Told,
    alike,
    completion_of,
    decoded,
    stream_of_completion,
    stream_of_response,
    told_by_completion,
    told_by_message,
    told_by_page,
    told_by_response,
    told_by_run,
    told_by_task,
    whole,
    with_examples,
)

few = settings(unhurried, max_examples=40)

REACHED: Counter[str] = Counter()


def note(said: Said, told: Told | None, ending: str) -> None:
    """Count the states of answers that a property must have met."""
    if told is None:
        REACHED["error"] += 1
        return
    REACHED[ending] += 1
    REACHED["text"] += bool(told.text)
    REACHED["no text"] += not told.text
    REACHED["calls of a message"] += bool(told.calls) and said.result is not None
    REACHED["calls of events"] += bool(told.calls) and said.result is None
    REACHED["own calls"] += not told.calls and any(b'"weather"' in word for word in said.words)
    REACHED["thoughts of a message after others"] += (
        said.result is not None
        and b'"reasoning_content"' in said.result
        and any(b'"reasoning"' in word for word in said.words)
    )
    REACHED["question"] += "\n\nWhich day?" in told.text
    REACHED["file"] += "(data:" in told.text


MUST_REACH = {
    *("error", "text", "no text", "calls of a message", "calls of events", "own calls"),
    *("thoughts of a message after others", "question", "file"),
    *("stop", "length", "content_filter", "tool_calls"),
}


# Chat completions


def without_names(completion: Any) -> dict[str, Any]:
    """All that is told but what differs between any two completions."""
    found = completion.model_dump(exclude={"id", "created", "object"}, exclude_none=True)
    for choice in found["choices"]:
        for index, call in enumerate(choice["message"].get("tool_calls", ())):
            assert call.pop("index", index) == index
    return found  # type: ignore[no-any-return]


@few
@given(ANSWERS)
@with_examples(*WITHOUT_FILES, FILE_AND_MESSAGE)
def any_completion(said: Said) -> None:
    usage = {"stream_options": {"include_usage": True}}
    completion = completion_of(said, **usage)
    stream = stream_of_completion(said, **usage)
    assert (completion is None) == stream.failed
    if completion is not None:
        state: ChatCompletionStreamState[Any] = ChatCompletionStreamState()
        for chunk in openai_answers.chunks_of(stream.data):
            state.handle_chunk(chunk)
        assert without_names(state.current_completion_snapshot) == without_names(completion)
    ending = "" if completion is None else completion.choices[0].finish_reason
    note(said, told_by_completion(said), ending)


def test_the_chunks_of_a_completion_add_up_to_the_whole_one() -> None:
    REACHED.clear()
    any_completion()
    assert set(+REACHED) >= MUST_REACH


# Responses


def output_of(response: Any) -> list[dict[str, Any]]:
    found = response.model_dump(exclude_none=True)["output"]
    return [{name: value for name, value in item.items() if name != "id"} for item in found]


@few
@given(ANSWERS)
@with_examples(*WITHOUT_FILES, FILE_AND_MESSAGE)
def any_response(said: Said) -> None:
    codec = ResponseCodec(Memory())
    body = whole(codec, openai_answers.begin(codec, stream=False, tools=True), said)
    stream = stream_of_response(said)
    assert (body is None) == stream.failed
    if body is None:
        return
    response = OpenAIResponse.model_validate(body)
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    shown = {}
    for event in openai_answers.events_of(stream.data):
        for told in state.handle_event(event):
            if (snapshot := getattr(told, "snapshot", None)) is not None:
                shown[told.output_index] = snapshot
    last = event.response
    assert output_of(last) == output_of(response)
    for name in ("status", "usage", "incomplete_details"):
        assert getattr(last, name) == getattr(response, name)
    for index, item in enumerate(response.output):
        if item.type == "function_call":
            assert shown[index] == item.arguments
        elif item.type == "message":
            assert shown.get(index, "") == item.content[0].text


def test_the_last_event_of_a_response_has_the_whole_one() -> None:
    any_response()


# All dialects


@few
@given(ANSWERS.filter(alike))
@with_examples(*WITHOUT_FILES)
def any_answer(said: Said) -> None:
    told = decoded(told_by_completion(said))
    for tell in (told_by_response, told_by_message, told_by_run, told_by_page, told_by_task):
        assert decoded(tell(said)) == told, tell.__name__
    note(said, told, "")


def test_an_answer_is_the_same_in_every_dialect() -> None:
    REACHED.clear()
    any_answer()
    assert set(+REACHED) >= MUST_REACH - {"file", "stop", "length", "content_filter", "tool_calls"}
