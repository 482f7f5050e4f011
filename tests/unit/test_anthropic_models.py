"""The list of models, which are agents, in Anthropic's pages."""

from __future__ import annotations

import pytest

from gateway.errors import (
    InvalidRequest,
)
from gateway.front.anthropic.models import MODELS
from gateway.front.chats.models import Model

AGENTS = [Model(name, None, 0, "1970-01-01T00:00:00Z") for name in "abcde"]


@pytest.mark.parametrize(
    ("query", "names", "more"),
    [
        ({}, "abcde", False),
        ({"limit": "2"}, "ab", True),
        ({"limit": "2", "after_id": "b"}, "cd", True),
        ({"limit": "2", "after_id": "c"}, "de", False),
        ({"after_id": "e"}, "", False),
        ({"limit": "2", "before_id": "e"}, "cd", True),
        ({"limit": "2", "before_id": "c"}, "ab", False),
        ({"after_id": "a", "before_id": "d"}, "bc", False),
        ({"after_id": "d", "before_id": "b"}, "", False),
    ],
)
def test_models_come_in_pages(query: dict[str, str], names: str, more: bool) -> None:
    page = MODELS.many(AGENTS, query)
    assert "".join(model["id"] for model in page["data"]) == names
    assert page["has_more"] is more
    assert (page["first_id"] or "", page["last_id"] or "") == (names[:1], names[-1:])


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "x"}, "limit"),
        ({"limit": "²"}, "limit"),
        ({"limit": "9" * 5000}, "limit"),
        ({"limit": "000000001" + "0" * 5000}, "limit"),
        ({"limit": "0000000011001"}, "limit"),
        ({"after_id": "z"}, "after_id"),
        ({"before_id": ""}, "before_id"),
    ],
)
def test_a_wrong_page_is_refused(query: dict[str, str], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        MODELS.many(AGENTS, query)
    assert caught.value.details["param"] == param
