"""What is known of services that people use, as data: their addresses, keys, variables and errors.

The variables are those that the makers' own clients read, looked up in their sources; where such a
client reads none for the address, those of the libraries that do. In a value, `{url}` is what the
worker reaches in the place of the service's `url`. Clients insist on a key, which is a placeholder.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

ErrorForm = Literal["openai", "anthropic", "google", "mistral", "github", "plain"]
"""How a service writes its errors, so that its clients find the message
(`sandbox.network.error_forms`)."""

PLACEHOLDER = "placeholder"

_NOTHING: Mapping[str, str] = MappingProxyType({})


class Preset(NamedTuple):
    """One service."""

    url: str
    """Empty where only the operator knows it."""
    headers: Mapping[str, str]
    """What the service is sent beside the agent's own; `${NAME}` is the gateway's variable."""
    env: Mapping[str, str]
    """What the worker sees."""
    errors: ErrorForm
    drop_query: tuple[str, ...] = ()
    """Parameters that are not passed on: in which clients put their key, as the placeholder would
    be taken for one, and by which an answer would leave out its tokens."""
    why_url: str = ""
    """What to write where `url` is empty."""


GENERIC = Preset("", _NOTHING, _NOTHING, "openai")
"""A service without a preset. Most that have none speak OpenAI's interface."""

_COMPATIBLE = Preset(
    # vLLM, LM Studio, llama.cpp, LiteLLM and so on; a key is rare and has no usual name.
    "",
    _NOTHING,
    {
        "OPENAI_BASE_URL": "{url}",
        "OPENAI_API_KEY": PLACEHOLDER,
        "HOSTED_VLLM_API_BASE": "{url}",  # litellm
        "VLLM_BASE_URL": "{url}",  # pydantic-ai
    },
    "openai",
    why_url='url = "http://HOST:PORT/v1"',
)

_GOOGLE = Preset(
    "https://generativelanguage.googleapis.com",
    {"x-goog-api-key": "${GEMINI_API_KEY}"},
    {
        "GOOGLE_GEMINI_BASE_URL": "{url}",
        "GEMINI_API_KEY": PLACEHOLDER,
        # @ai-sdk/google, which reads no variable for the address: it is {url}/v1beta.
        "GOOGLE_GENERATIVE_AI_API_KEY": PLACEHOLDER,
    },
    "google",
    drop_query=("key", "fields", "$fields"),  # the latter two would take away what is counted
)

_AZURE = Preset(
    "",
    {"api-key": "${AZURE_OPENAI_API_KEY}"},
    {
        "AZURE_OPENAI_ENDPOINT": "{url}",
        "AZURE_OPENAI_API_KEY": PLACEHOLDER,
        "AZURE_API_BASE": "{url}",  # litellm
        "AZURE_API_KEY": PLACEHOLDER,  # litellm, @ai-sdk/azure
    },
    "openai",
    why_url='url = "https://RESOURCE.openai.azure.com"',
)

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "openai": Preset(
            "https://api.openai.com/v1",
            {"Authorization": "Bearer ${OPENAI_API_KEY}"},
            {"OPENAI_BASE_URL": "{url}", "OPENAI_API_KEY": PLACEHOLDER},
            "openai",
        ),
        "anthropic": Preset(
            # The client adds /v1; @ai-sdk/anthropic does not, and needs {url}/v1.
            "https://api.anthropic.com",
            {"x-api-key": "${ANTHROPIC_API_KEY}"},
            {"ANTHROPIC_BASE_URL": "{url}", "ANTHROPIC_API_KEY": PLACEHOLDER},
            "anthropic",
        ),
        "google": _GOOGLE,
        "gemini": _GOOGLE,
        "mistral": Preset(
            # The client adds /v1, and reads no variable for the address (`server_url`).
            "https://api.mistral.ai",
            {"Authorization": "Bearer ${MISTRAL_API_KEY}"},
            {
                "MISTRAL_API_KEY": PLACEHOLDER,
                "MISTRAL_BASE_URL": "{url}/v1",  # langchain-mistralai
                "MISTRAL_API_BASE": "{url}/v1",  # litellm
            },
            "mistral",
        ),
        "openrouter": Preset(
            "https://openrouter.ai/api/v1",
            {"Authorization": "Bearer ${OPENROUTER_API_KEY}"},
            {
                "OPENROUTER_API_KEY": PLACEHOLDER,
                "OPENROUTER_API_BASE": "{url}",  # langchain-openrouter, litellm
            },
            "openai",
        ),
        "groq": Preset(
            # The client adds /openai/v1.
            "https://api.groq.com",
            {"Authorization": "Bearer ${GROQ_API_KEY}"},
            {"GROQ_BASE_URL": "{url}", "GROQ_API_KEY": PLACEHOLDER},
            "openai",
        ),
        "azure": _AZURE,
        "azure-openai": _AZURE,
        "ollama": Preset(
            # Its own interface is at /api, OpenAI's at /v1.
            "http://127.0.0.1:11434",
            _NOTHING,
            {
                "OLLAMA_HOST": "{url}",
                "OLLAMA_API_BASE": "{url}",  # litellm
                "OLLAMA_BASE_URL": "{url}/v1",  # pydantic-ai
            },
            "plain",
        ),
        "vllm": _COMPATIBLE,
        "openai-compatible": _COMPATIBLE,
        "github": Preset(
            "https://api.github.com",
            {"Authorization": "Bearer ${GITHUB_TOKEN}"},
            {"GITHUB_API_URL": "{url}", "GITHUB_TOKEN": PLACEHOLDER},
            "github",
        ),
    }
)
