"""Errors as immutable values, and what the native dialect and HTTP's headers make of them."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable

import pytest

from gateway.errors import (
    CLOCK_MEANINGS,
    MAX_MESSAGE,
    AgentFailed,
    AgentNotFound,
    AgentUnavailable,
    Cancelled,
    ClientTooSlow,
    ClockRanOut,
    Forbidden,
    GatewayError,
    HandlerNotImplemented,
    HTTPVersionNotSupported,
    IdempotencyKeyReused,
    InternalError,
    InvalidAgentResponse,
    InvalidRequest,
    MethodNotAllowed,
    MisdirectedRequest,
    NotFound,
    Overloaded,
    RateLimited,
    RequestHeadTooLarge,
    RequestTimeout,
    RequestTooLarge,
    RunGone,
    ShuttingDown,
    TransferCodingNotImplemented,
    Unauthorized,
    UnsupportedMediaType,
    WorkerCrashed,
    describe_exit,
    exit_sentence,
)
from gateway.fleet.front.errors import HostsClock
from gateway.front.dialect import error_headers
from gateway.front.native.errors import encode_error

NO_STORE = (b"cache-control", b"no-store")

ONE_OF_EACH = [
    *(
        kind("why", retry_after=2.5, exit_status=3)
        for kind in (
            GatewayError, InvalidRequest, AgentNotFound, NotFound, RequestTimeout, RequestTooLarge,
            UnsupportedMediaType, MisdirectedRequest, AgentFailed, InternalError,
            HandlerNotImplemented, WorkerCrashed, InvalidAgentResponse, Overloaded,
            AgentUnavailable, ShuttingDown, RequestHeadTooLarge, TransferCodingNotImplemented,
            HTTPVersionNotSupported, RunGone, IdempotencyKeyReused, Unauthorized, Forbidden,
        )
    ),
    MethodNotAllowed("no", allow="POST"),
    RateLimited("no", retry_after=1.5, setting="a.b", policies='"p";q=1', left='"p";r=0'),
    Cancelled(),
    ClientTooSlow(),
    ClockRanOut("first", 3.21, 3, worker=7),
    HostsClock("no", "idle", retry_after=None, details={"host": "one"}),
]  # fmt: skip


def subclasses(kind: type[GatewayError]) -> set[type[GatewayError]]:
    return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))


def test_no_error_is_missing_below() -> None:
    assert {type(error) for error in ONE_OF_EACH} == subclasses(GatewayError)


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: error.type)
def test_an_error_never_changes_once_it_is_made(error: GatewayError) -> None:
    before = dict(vars(error))
    for name in (*before, "status", "type", "args", "anything"):
        with pytest.raises(AttributeError, match=f"immutable: '{name}' cannot be set"):
            setattr(error, name, "changed")
        with pytest.raises(AttributeError, match=f"immutable: '{name}' cannot be deleted"):
            delattr(error, name)
    with pytest.raises(TypeError):
        error.details["output_begun"] = True  # type: ignore[index]
    assert vars(error) == before


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: error.type)
def test_an_error_can_be_raised_and_chained_as_any_exception(error: GatewayError) -> None:
    again = copy.copy(error)
    cause = ValueError("below")

    def fail() -> None:
        try:
            raise cause
        except ValueError as below:
            raise again from below

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is again
    assert (again.__cause__, again.__context__) == (cause, cause)
    assert again.__traceback__ is not None
    again.__traceback__ = None
    again.add_note("seen")


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda error: error.type)
@pytest.mark.parametrize(
    "make_copy",
    [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copy_of_an_error_is_the_same_value(
    make_copy: Callable[[GatewayError], GatewayError], error: GatewayError
) -> None:
    made = make_copy(error)
    assert type(made) is type(error)
    assert vars(made) == vars(error)
    assert str(made) == str(error) == error.message
    assert made.__traceback__ is None
    with pytest.raises(AttributeError):
        made.message = "changed"
    with pytest.raises(TypeError):
        made.details["more"] = 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest, 400, "invalid_request"),
        (AgentNotFound, 404, "agent_not_found"),
        (NotFound, 404, "not_found"),
        (MethodNotAllowed, 405, "method_not_allowed"),
        (RequestTooLarge, 413, "request_too_large"),
        (UnsupportedMediaType, 415, "unsupported_media_type"),
        (MisdirectedRequest, 421, "misdirected_request"),
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


@pytest.mark.parametrize("output_begun", [None, False, True])
def test_a_native_error_is_the_error_object_with_what_helps(output_begun: bool | None) -> None:
    error = WorkerCrashed('it "died"\n', exit_status=3)
    response = encode_error(error, "r-1", output_begun)
    expected = {
        "type": "worker_crashed",
        "message": 'it "died"\n',
        "request_id": "r-1",
        "exit_status": 3,
    }
    if output_begun is not None:
        expected["output_begun"] = output_begun
    assert list(json.loads(response.body)["error"].items()) == list(expected.items())
    assert b"\n" not in response.body  # so that it is one `data:` line of a stream
    assert response.status == 501
    assert response.headers == [(b"content-type", b"application/json"), NO_STORE]


@pytest.mark.parametrize(
    ("seconds", "header"), [(0.0, b"1"), (0.2, b"1"), (1.0, b"1"), (1.01, b"2")]
)
def test_retry_after_is_whole_seconds_rounded_up_and_never_zero(seconds, header) -> None:
    headers = error_headers(Overloaded("full", retry_after=seconds))
    assert headers == [NO_STORE, (b"retry-after", header)]


def test_only_what_can_be_retried_says_so() -> None:
    assert error_headers(WorkerCrashed("died")) == [NO_STORE]


def test_method_not_allowed_says_what_is_allowed() -> None:
    headers = error_headers(MethodNotAllowed("no", allow="GET, HEAD"))
    assert headers == [NO_STORE, (b"allow", b"GET, HEAD")]


@pytest.mark.parametrize("clock", sorted(CLOCK_MEANINGS))
def test_a_clock_that_ran_out_is_named_with_the_true_time(clock: str) -> None:
    error = ClockRanOut(clock, 1.23456, 1.2)
    assert f"{clock!r} clock of 1.2 s" in error.message
    assert error.clock == clock
    assert error.details == {"clock": clock, "elapsed": 1.235}


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


@pytest.mark.parametrize("kind", [AgentFailed, InvalidRequest, WorkerCrashed])
def test_no_error_is_longer_than_a_screen_whatever_it_quotes(kind: type[GatewayError]) -> None:
    error = kind("begin" + "x" * 7_000_000 + "end", limit="y" * 7_000_000, exit_status=3)
    for text in (error.message, str(error), error.details["limit"]):
        assert len(text) < MAX_MESSAGE + 50
    assert error.message.startswith("begin")
    assert error.message.endswith("end")
    assert "characters cut" in error.message
    assert error.details["exit_status"] == 3
    assert len(encode_error(error, "r").body) < 3 * MAX_MESSAGE
