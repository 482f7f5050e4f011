"""Errors as data: what a client is told, and in which headers."""

from __future__ import annotations

import json

import pytest

from gateway.errors import (
    CLOCK_MEANINGS,
    AgentFailed,
    AgentNotFound,
    AgentUnavailable,
    ClockRanOut,
    GatewayError,
    HandlerNotImplemented,
    InternalError,
    InvalidAgentResponse,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    RequestTooLarge,
    ShuttingDown,
    UnsupportedMediaType,
    WorkerCrashed,
    describe_exit,
    exit_sentence,
)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest, 400, "invalid_request"),
        (AgentNotFound, 404, "agent_not_found"),
        (NotFound, 404, "not_found"),
        (MethodNotAllowed, 405, "method_not_allowed"),
        (RequestTooLarge, 413, "request_too_large"),
        (UnsupportedMediaType, 415, "unsupported_media_type"),
        (AgentFailed, 500, "agent_error"),
        (InternalError, 500, "internal_error"),
        (HandlerNotImplemented, 501, "handler_not_implemented"),
        (WorkerCrashed, 501, "worker_crashed"),
        (InvalidAgentResponse, 502, "invalid_agent_response"),
        (Overloaded, 503, "overloaded"),
        (AgentUnavailable, 503, "agent_unavailable"),
        (ShuttingDown, 503, "shutting_down"),
        (ClockRanOut, 504, "timeout"),
    ],
)
def test_each_error_has_the_status_and_type_of_the_design(
    error: type[GatewayError], status: int, kind: str
) -> None:
    assert (error.status, error.type) == (status, kind)


def test_a_body_is_the_error_object_with_what_helps() -> None:
    error = WorkerCrashed('it "died"\n', exit_status=3, output_begun=False)
    assert json.loads(error.body("r-1")) == {
        "error": {
            "type": "worker_crashed",
            "message": 'it "died"\n',
            "request_id": "r-1",
            "exit_status": 3,
            "output_begun": False,
        }
    }
    assert b"\n" not in error.body("r-1")  # so that it is one `data:` line of a stream


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, b"1"), (0.2, b"1"), (1.0, b"1"), (1.01, b"2")]
)
def test_retry_after_is_whole_seconds_rounded_up_and_never_zero(seconds, header) -> None:
    assert Overloaded("full", retry_after=seconds).headers() == [(b"retry-after", header)]


def test_only_what_can_be_retried_says_so() -> None:
    assert WorkerCrashed("died").headers() == []


def test_method_not_allowed_says_what_is_allowed() -> None:
    assert MethodNotAllowed("no", allow="GET, HEAD").headers() == [(b"allow", b"GET, HEAD")]


@pytest.mark.parametrize("clock", sorted(CLOCK_MEANINGS))
def test_a_clock_that_ran_out_is_named_with_the_true_time(clock: str) -> None:
    error = ClockRanOut(clock, 1.23456, 1.2)
    assert f"{clock!r} clock of 1.2 s" in error.message
    body = json.loads(error.body("r"))["error"]
    assert (body["clock"], body["elapsed"]) == (clock, 1.235)


@pytest.mark.parametrize(
    ("returncode", "details", "sentence"),
    [
        (0, {"exit_status": 0}, "exited with status 0"),
        (3, {"exit_status": 3}, "exited with status 3"),
        (-9, {"signal": "SIGKILL"}, "was ended by SIGKILL"),
        (-11, {"signal": "SIGSEGV"}, "was ended by SIGSEGV"),
        (-63, {"signal": "signal 63"}, "was ended by signal 63"),
    ],
)
def test_the_end_of_a_process_is_told_in_words(returncode, details, sentence) -> None:
    assert describe_exit(returncode) == details
    assert exit_sentence(returncode) == sentence
