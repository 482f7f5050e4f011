"""AG-UI as it is served here, described: see `gateway.front.described`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from msgspec import Meta

from gateway.front.ag_ui.content import DocumentPart, Part, VideoPart
from gateway.front.ag_ui.messages import Message, ToolMessage, UserMessage
from gateway.front.ag_ui.run_input import Context, ResumeEntry, RunInput, Tool
from gateway.front.described import AgentView, Json, call, described, errors_of, ref
from gateway.front.described import Part as DocumentedPart
from protocol.events import MAX_ASKS
from protocol.tools import MAX_TOOLS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_PREFIX = "AGUIError"
