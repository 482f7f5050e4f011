"""Errors that a host tells of are made anew by a front, out of its own table and within bounds."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.errors import (
    AgentFailed,
    Cancelled,
    ClientTooSlow,
    ClockRanOut,
    GatewayError,
    HandlerNotImplemented,
    InvalidAgentResponse,
    Overloaded,
    WorkerCrashed,
)
from gateway.fleet.front import errors as module
from gateway.fleet.front.errors import broke_the_protocol, made_anew
from gateway.fleet.messages import Error
from gateway.fleet.subjects import Peer
from gateway.front.native.errors import error_body

HOST = Peer("h1", "abc")


def said(error: GatewayError) -> Error:
    """As a host says it."""
    return Error(error.type, error.message, error.retry_after, dict(error.details))


@pytest.mark.parametrize(
    "error",
    [
        AgentFailed("it failed", code=-32000, limit="memory", setting="sandbox.memory"),
        WorkerCrashed("it died", signal="SIGKILL"),
        Overloaded("too many", retry_after=3.5),
        HandlerNotImplemented("no such handler"),
        ClockRanOut("first", 300.25, 300, unheard=True),
        ClockRanOut("total", 3.0, 3),
        Cancelled(),
        ClientTooSlow(),
    ],
)
def test_an_error_is_the_same_for_the_client_as_where_it_happened(error: GatewayError) -> None:
    again = made_anew(said(error), HOST)
    assert isinstance(again, type(error))
    assert again.status == error.status
    assert again.retry_after == error.retry_after
    assert error_body(again, "r", None) == error_body(error, "r", None)
    assert getattr(again, "clock", None) == getattr(error, "clock", None)


@pytest.mark.parametrize(
    "type_", ["unauthorized", "forbidden", "rate_limited", "not_found", "", "nonsense"]
)
def test_what_a_host_cannot_know_is_a_breach_of_the_protocol(type_: str) -> None:
    again = made_anew(Error(type_, "trust me"), HOST)
    assert again.message == broke_the_protocol(HOST).message
    assert again.details["host"] == "h1"


def test_a_clock_that_is_no_hosts_is_a_breach_of_the_protocol() -> None:
    again = made_anew(Error("timeout", "late", None, {"clock": "write"}), HOST)
    assert isinstance(again, InvalidAgentResponse)


def test_every_error_is_either_a_hosts_or_not() -> None:
    """A new one has to be looked at here."""
    every = {
        kind.type
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, GatewayError)
    }
    hosts = {*module._PLAIN, Cancelled.type, ClientTooSlow.type, ClockRanOut.type}
    assert every - hosts == {
        "forbidden",
        "http_version_not_supported",
        "idempotency_key_reused",
        "method_not_allowed",
        "misdirected_request",
        "not_found",
        "not_implemented",
        "rate_limited",
        "request_header_fields_too_large",
        "request_timeout",
        "request_too_large",
        "run_gone",
        "unauthorized",
        "unsupported_media_type",
    }


details = st.dictionaries(
    st.one_of(
        st.text(max_size=60),
        st.sampled_from(["type", "status", "message", "self", "retry_after", "clock", "host"]),
    ),
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(),
        st.text(max_size=6000),
        st.sampled_from(["first", "total", "write"]),
    ),
    max_size=40,
)


@given(
    st.builds(
        Error,
        st.one_of(
            st.sampled_from(
                [*module._PLAIN, "timeout", "cancelled", "client_too_slow", "forbidden"]
            ),
            st.text(max_size=50),
        ),
        st.text(max_size=6000),
        st.one_of(st.none(), st.floats()),
        details,
    )
)
def test_whatever_a_host_says_the_client_gets_one_bounded_error_of_its_kind(error: Error) -> None:
    again = made_anew(error, HOST)
    assert len(again.message) <= errors.MAX_MESSAGE + 100
    assert len(again.details) <= module.MOST_DETAILS
    if again.retry_after is not None:
        assert math.isfinite(again.retry_after)
        assert again.retry_after >= 0
    body = msgspec.json.decode(error_body(again, "r"))["error"]
    assert (body["type"], body["request_id"]) == (again.type, "r")
    assert again.status >= 400
