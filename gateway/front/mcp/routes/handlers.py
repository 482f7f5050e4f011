"""What is done for each request of the protocol, by the SDK's server. Each handler raises MCPError
for what the protocol wants as an error of its own; what an agent fails at is a tool's result."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import mcp_types as types
import msgspec
from mcp.server.lowlevel import Server
from mcp.server.lowlevel.server import NotificationOptions
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from gateway import clock
from gateway.errors import GatewayError, InvalidRequest
from gateway.front.chats.endings import questions_of
from gateway.front.mcp.answer import error_content
from gateway.front.mcp.arguments import read_call
from gateway.front.mcp.asks import States, digest_of, forms_of, resume_of
from gateway.front.mcp.codec import CallCodec
from gateway.front.mcp.errors import INVALID_PARAMS
from gateway.front.mcp.routes.transport import VISIT
from gateway.front.mcp.tools import page_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.server.context import ServerRequestContext
    from mcp.server.subscriptions import ListenHandler

    from gateway.front.mcp.answer import Progress
    from gateway.front.mcp.asks import Form
    from gateway.front.mcp.envelope import ToolCall
    from gateway.front.mcp.routes.calls import Calls, Finished, Target, Visit

    Context = ServerRequestContext[Any, Any]

MOST_ROUNDS = 16
"""Of questions within one call of the older versions."""

ASK_SECONDS = 600.0
"""For an answer to questions while a call of the older versions goes on; then it is cancelled."""

REQUEST_CANCELLED = -32800

INSTRUCTIONS = (
    "Each tool calls an agent behind this gateway: NAME_invoke gives it one input, NAME_chat talks "
    "to it."
)


class GatewayServer(Server[Any]):
    """The SDK's server, which says that the list of tools may change."""

    def create_initialization_options(self, *args: Any, **kwargs: Any) -> Any:
        """See the SDK."""
        del args, kwargs
        return super().create_initialization_options(NotificationOptions(tools_changed=True))


class Handlers:
    """The handlers of all requests; `listen` gives the one of subscriptions for a caller, and
    `opened` is told of each session that is ready."""

    def __init__(
        self,
        calls: Calls,
        listen: Callable[[Visit], ListenHandler],
        opened: Callable[[Context], None],
    ) -> None:
        self._calls = calls
        self._listen = listen
        self._opened = opened
        self._states = States()

    def make_server(self, version: str) -> GatewayServer:
        """A server with these handlers."""
        server = GatewayServer(
            "agent-gateway",
            version=version,
            instructions=INSTRUCTIONS,
            # Nothing in the schemas that are listed asks for arguments in header fields.
            get_tool_input_schema=lambda _: None,
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_subscriptions_listen=self.listen,
        )
        server.middleware.clear()  # the gateway makes its own spans
        server.add_notification_handler(
            "notifications/initialized", types.NotificationParams, self.initialized
        )
        return server

    async def initialized(self, ctx: Context, params: types.NotificationParams) -> None:
        """A session is ready."""
        del params
        self._opened(ctx)

    async def listen(
        self, ctx: Context, params: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """Tell of changes for as long as the client wants it."""
        return await self._listen(visit_of(ctx))(ctx, params)

    async def list_tools(
        self, ctx: Context, params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        """A page of the tools that the caller may see."""
        visit = visit_of(ctx)
        await self._calls.prepare()
        after = (params and params.cursor) or ""
        tools, more = page_of(self._calls.tools(visit.request.caller), after)
        placeholder = []
        if tools:
            token = visit.splices.add(b",".join(tools))
            placeholder.append(types.Tool(name=token, input_schema={"type": "object"}))
        return types.ListToolsResult(
            tools=placeholder, next_cursor=more, ttl_ms=0, cache_scope="private"
        )

    async def call_tool(
        self, ctx: Context, params: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        """Call an agent, for as long as the client is there."""
        visit, call = visit_of(ctx), visit_of(ctx).envelope.call
        target = self._calls.find(visit.request.caller, params.name)
        if call is None or call.name != params.name or target is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {params.name[:200]}")
        if (seen := visit.request.observation) is not None:
            seen.dialect, seen.handler, seen.agent = "mcp", target.method, target.agent
        with visit.work:
            return await _ToolRun(self._calls, self._states, ctx, visit, target).run(call)
        raise MCPError(REQUEST_CANCELLED, "the client has left")


class _ToolRun:
    """One tool call."""

    def __init__(
        self, calls: Calls, states: States, ctx: Context, visit: Visit, target: Target
    ) -> None:
        self._calls = calls
        self._states = states
        self._ctx = ctx
        self._visit = visit
        self._target = target
        self._owner = visit.request.caller.name
        self._modern = ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
        self._codec = CallCodec(target.agent, target.method, ctx.protocol_version)

    async def run(self, call: ToolCall) -> types.CallToolResult | types.InputRequiredResult:
        digest = digest_of(call.name.encode(), call.arguments)
        resume = self._read_answers(call, digest)
        for _ in range(MOST_ROUNDS):
            try:
                finished = await self._call(call.arguments, resume)
                forms = forms_of(finished.outcome) if self._can_ask else {}
                if not forms:
                    return await self._result(finished)
            except GatewayError as error:
                return self._failed(error)
            if self._modern:
                return self._input_required(forms, digest)
            answered = await self._elicit(forms)
            if answered is None:
                return await self._result(finished)
            resume = answered
        return self._failed(InvalidRequest(f"the agent has asked {MOST_ROUNDS} times"))

    def _read_answers(self, call: ToolCall, digest: str) -> bytes | None:
        if call.state is None:
            return None
        now = clock.now()
        try:
            kinds = self._states.read(call.state, self._owner, digest, now)
            return resume_of(kinds, call.responses or b"{}")
        except InvalidRequest as error:
            self._visit.request.log_error(error)
            raise MCPError(INVALID_PARAMS, error.message) from None

    async def _call(self, arguments: bytes, resume: bytes | None) -> Finished:
        call = read_call(
            self._visit.request.head,
            self._target.agent,
            self._target.method,
            arguments,
            wraps_input=self._target.tools.shapes.wraps_input,
            resume=resume,
        )
        return await self._calls.run(self._visit, call, self._codec, self._tell)

    async def _tell(self, news: list[Progress]) -> None:
        for each in news:
            await self._ctx.session.report_progress(each.progress, each.total, each.message)

    # Questions

    @property
    def _can_ask(self) -> bool:
        """Whether the client shows forms to its user."""
        session = self._ctx.session
        capabilities = session.client_capabilities
        elicitation = None if capabilities is None else capabilities.elicitation
        if elicitation is None or (elicitation.form is None and elicitation.url is not None):
            return False
        return self._modern or session.can_send_request

    def _input_required(self, forms: dict[str, Form], digest: str) -> types.InputRequiredResult:
        return types.InputRequiredResult(
            input_requests={ask: _request(form) for ask, form in forms.items()},
            request_state=self._states.make(self._owner, digest, forms, clock.now()),
        )

    async def _elicit(self, forms: dict[str, Form]) -> bytes | None:
        """Ask while the call goes on; None: the client does not."""
        replies = {ask: {"action": "cancel"} for ask in forms}
        with self._calls.asking(ASK_SECONDS):
            for ask, form in forms.items():
                try:
                    reply = await self._ctx.session.elicit_form(
                        form.message, form.schema, related_request_id=self._ctx.request_id
                    )
                except MCPError as error:
                    self._visit.request.log(logging.INFO, f"the client does not ask: {error}")
                    return None
                replies[ask] = reply.model_dump(include={"action", "content"}, mode="json")
        kinds: dict[str, str] = {ask: form.kind for ask, form in forms.items()}
        try:
            return resume_of(kinds, msgspec.json.encode(replies))
        except InvalidRequest as error:
            raise MCPError(INVALID_PARAMS, error.message) from None

    # Results

    async def _result(self, finished: Finished) -> types.CallToolResult:
        answer, splices = finished.answer, self._visit.splices
        content = answer.content
        asks = questions_of(finished.outcome)
        structured = None
        if asks:
            block = msgspec.json.encode({"type": "text", "text": asks})
            content = b"%b,%b" % (content, block) if content else block
        else:
            structured = await self._calls.structured(self._target, answer)
        return types.CallToolResult(
            content=_placeholders(splices.add(content)) if content else [],
            structured_content=None if structured is None else {splices.add(structured): 0},
            _meta=msgspec.json.decode(answer.meta) or None,
        )

    def _failed(self, error: GatewayError) -> types.CallToolResult:
        self._visit.request.log_error(error)
        content, meta = error_content(error.type, error.message, error.details)
        if begun := self._codec.last.cut():
            content = b"%b,%b" % (begun, content)
        return types.CallToolResult(
            content=_placeholders(self._visit.splices.add(content)),
            is_error=True,
            _meta=msgspec.json.decode(meta),
        )


def visit_of(ctx: Context) -> Visit:
    """The HTTP request that a message came with."""
    assert ctx.request is not None
    visit: Visit = ctx.request.scope["state"][VISIT]
    return visit


def _placeholders(token: str) -> list[Any]:
    return [types.TextContent(type="text", text=token)]


def _request(form: Form) -> types.ElicitRequest:
    params = types.ElicitRequestFormParams(message=form.message, requested_schema=form.schema)
    return types.ElicitRequest(params=params)
