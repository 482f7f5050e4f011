"""langchain-anthropic."""

from __future__ import annotations

import sys

import anthropic
from langchain_anthropic import ChatAnthropic

from . import SECONDS, Order, Reply, serve
from .langchain_model import ask


def ask_anthropic(url: str, order: Order) -> Reply:
    model = ChatAnthropic(
        model_name=order.model,
        base_url=url,
        api_key=order.key,  # type: ignore[arg-type]
        max_tokens_to_sample=1000,
        timeout=SECONDS,
        stop=None,
    )
    return ask(model, order, anthropic.AnthropicError, finish=("stop_reason",))


def main() -> None:
    serve(("langchain-anthropic",), lambda order: ask_anthropic(sys.argv[1], order))


main()
