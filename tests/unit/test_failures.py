"""What a worker's error is to the client, and what of it is looked at."""

from __future__ import annotations

from gateway.errors import MAX_MESSAGE
from gateway.sandbox.symptoms import NOFILE
from gateway.workers.failures import agents_error
from protocol import Failure


def test_of_a_long_message_no_more_is_looked_through_than_the_client_is_told() -> None:
    looked_at = []

    def diagnose(text: str) -> None:
        looked_at.append(text)

    error = agents_error(Failure(1, -32000, "x" * 8_000_000), diagnose)
    assert looked_at == [error.message]
    assert len(error.message) < MAX_MESSAGE + 100


def test_what_a_message_ends_with_is_looked_at() -> None:
    error = agents_error(
        Failure(1, -32000, "Traceback\n" * 10_000 + "Too many open files"),
        lambda text: NOFILE if text.endswith("Too many open files") else None,
    )
    assert error.details["setting"] == NOFILE.setting
    assert NOFILE.sentence in error.message
