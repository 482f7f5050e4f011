"""The reference API's own examples, once each, through a real gateway and a real worker."""

from __future__ import annotations

from tests.harness import running_gateway

ECHO = {"echo": "python -m worker.examples.echo"}


async def test_invoke_and_chat_answer_in_json_and_as_a_stream() -> None:
    async with running_gateway(ECHO) as gateway:
        answer = await gateway.post("/agent/echo/invoke", input={"key": "value"})
        assert answer.status_code == 200
        assert answer.json() == {"output": {"key": "value"}}
        answer = await gateway.post(
            "/agents/echo/chat", messages=[{"role": "user", "content": "Hello!"}]
        )
        assert answer.json() == {"message": {"role": "assistant", "content": "Hello!"}}
        status, events = await gateway.stream("/agent/echo/invoke", input="Hi")
        assert (status, events[-1]) == (200, "[DONE]")
        assert events[0] == '{"chunk":"Hi"}'
