"""langchain-openai."""

from __future__ import annotations

import sys

import openai
from langchain_openai import ChatOpenAI

from . import SECONDS, Order, Reply, serve
from .langchain_model import ask


def ask_openai(url: str, order: Order) -> Reply:
    model = ChatOpenAI(
        model=order.model,
        base_url=f"{url}/v1",
        api_key=order.key,  # type: ignore[arg-type]
        use_responses_api=order.api == "responses",
        stream_usage=True,
        timeout=SECONDS,
    )
    # Of an error in a stream of Responses it makes a ValueError.
    errors = (openai.APIError, ValueError)
    return ask(model, order, *errors, finish=("finish_reason", "status"))


def main() -> None:
    serve(("langchain-openai",), lambda order: ask_openai(sys.argv[1], order))


main()
