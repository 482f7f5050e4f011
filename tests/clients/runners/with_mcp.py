"""The mcp package: its client in the newest version of the protocol, and in the older ones."""

from __future__ import annotations

import sys
from base64 import b64encode
from typing import Any

import httpx2
import mcp_types as types
import trio
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from . import SECONDS, Order, Reply, serve

LEAVE_SECONDS = 1
"""After which a call is left: nothing of its result is there before its end."""


def carry_out(order: Order) -> Reply:
    reply = Reply()
    try:
        trio.run(ask, order, reply)
    except* (MCPError, httpx2.HTTPError) as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        reply.fail(type(error).__name__, str(error))
    return reply


async def ask(order: Order, reply: Reply) -> None:
    async def elicit(_: Any, params: types.ElicitRequestFormParams) -> types.ElicitResult:
        reply.asks.append(params.message)
        return types.ElicitResult(action="accept", content=order.answer)

    async def progress(done: float, total: float | None, message: str | None) -> None:
        del done, total
        reply.statuses.append(message or "")

    headers = {"authorization": f"Bearer {order.key}"}
    url = f"{sys.argv[1]}/mcp"
    async with httpx2.AsyncClient(headers=headers, timeout=SECONDS, trust_env=False) as http:
        transport = streamable_http_client(url, http_client=http)
        callback = None if order.answer is None else elicit
        async with Client(transport, mode=order.api, elicitation_callback=callback) as client:
            seconds = LEAVE_SECONDS if order.do == "leave" else SECONDS
            with trio.move_on_after(seconds):
                name = f"{order.model}_chat"
                arguments = {"message": order.text}
                take(await client.call_tool(name, arguments, progress_callback=progress), reply)


def take(result: types.CallToolResult, reply: Reply) -> None:
    *blocks, last = result.content
    if not result.is_error:
        blocks.append(last)
    elif isinstance(last, types.TextContent):
        reply.fail("is_error", last.text)
    for block in blocks:
        if isinstance(block, types.TextContent):
            reply.say(block.text)
        elif isinstance(block, types.EmbeddedResource):
            resource = block.resource
            assert isinstance(resource, types.TextResourceContents)
            data = b64encode(resource.text.encode()).decode()
            name = resource.uri.rpartition("/")[2]
            reply.files.append((name, resource.mime_type or "", data))
    meta = result.meta or {}
    reply.spent(meta.get("agent-gateway/usage"), "input_tokens", "output_tokens")
    if not result.is_error:
        reply.finish = meta.get("agent-gateway/finish", "stop")


serve(("mcp",), carry_out)
