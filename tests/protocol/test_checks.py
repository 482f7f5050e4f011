from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import is_utf8, nests_deeper
from protocol.checks import _PIECE_BYTES

from .helpers import unhurried

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"plain",
        "€ and 😀".encode(),
        b"x" * (_PIECE_BYTES - 1) + "€".encode(),
        ("😀" * _PIECE_BYTES).encode(),
    ],
    ids=["empty", "ascii", "short", "across two pieces", "several pieces"],
)
def test_utf8_is_told_from_what_is_not(text: bytes) -> None:
    assert is_utf8(text)
    assert not is_utf8(text + b"\xff")
    assert not is_utf8(text + b"\xe2\x82")
    assert not is_utf8(b"\x80" + text)


@pytest.mark.parametrize(
    "text",
    [b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80"],
    ids=["an encoded surrogate", "an overlong form", "past the last code point"],
)
def test_what_looks_like_utf8_but_is_not_is_refused(text: bytes) -> None:
    assert not is_utf8(text)


@given(st.binary())
def test_utf8_is_what_python_decodes(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError:
        assert not is_utf8(data)
    else:
        assert is_utf8(data)


def arrays(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def objects(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


def with_siblings(depth: int) -> bytes:
    return b'[[],{"]":"["},' * depth + b"0" + b"]" * depth


@pytest.mark.parametrize("nest", [arrays, objects])
@pytest.mark.parametrize("depth", [1, 99, 100, 101, 127, 128, 129, 257, 5000])
def test_depth_is_measured_exactly(nest: Callable[[int], bytes], depth: int) -> None:
    assert nests_deeper(nest(depth), depth - 1)
    assert not nests_deeper(nest(depth), depth)


def test_siblings_do_not_add_up() -> None:
    assert not nests_deeper(b"[" + b",".join([arrays(9)] * 1000) + b"]", 10)
    assert nests_deeper(b"[" + b",".join([arrays(9)] * 1000 + [arrays(10)]) + b"]", 10)
    for between in (b",", b", ", b",\n"):
        messages = [b'{"content":"},{[ }, {"}'] * 1000
        assert not nests_deeper(b"[" + between.join([*messages, arrays(9)]) + b"]", 10)
        assert nests_deeper(b"[" + between.join([*messages, arrays(10)]) + b"]", 10)
        assert nests_deeper(b"[" + between.join([arrays(10), *messages]) + b"]", 10)
    assert not nests_deeper(with_siblings(99), 100)
    assert nests_deeper(with_siblings(100), 100)


@pytest.mark.parametrize("string", ["[" * 50, '"[', '\\"[', "\\\\[", '["', "]" * 50, "{}[]", "\\"])
def test_brackets_in_strings_do_not_count(string: str) -> None:
    text = json.dumps([string] * 40 + [[string]] * 40).encode()
    assert not nests_deeper(text, 2)
    assert nests_deeper(text, 1)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


texts = st.text(st.sampled_from('[]{}"\\a€'), max_size=6)
values = st.recursive(
    texts | st.none(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=60,
)


@unhurried
@given(values, st.sampled_from([None, 1]))
def test_depth_is_that_of_the_decoded_value(value: Any, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=indent).encode()
    depth = depth_of(value)
    assert not nests_deeper(text, depth)
    assert depth == 0 or nests_deeper(text, depth - 1)


@given(st.binary() | st.text(st.sampled_from('[]{}"\\'), min_size=2).map(str.encode))
def test_what_is_not_json_gets_some_answer(data: bytes) -> None:
    assert nests_deeper(data, 1) in {True, False}
