"""Keys are removed from what comes back, wherever it is cut, and nothing tells what a key begins
with."""

from __future__ import annotations

import base64
import itertools
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sandbox.network.mask import Mask

KEY = "sk-proj-4fT9_xYz.ABCDEFGHIJ"
ODD = 'pa"ss/wörd'.replace("ö", "o") + " with spaces"


def masked(mask: Mask, *pieces: bytes) -> list[bytes]:
    """What is passed on after each piece, and at the end."""
    body = mask.body()
    return [*(body.feed(piece) for piece in pieces), body.end()]


def test_a_key_is_overwritten_with_as_many_asterisks() -> None:
    text = f'{{"error":"wrong key {KEY}!"}}'.encode()
    assert Mask([KEY]).hide(text) == text.replace(KEY.encode(), b"*" * len(KEY))


@pytest.mark.parametrize("cut", range(1, len(KEY)))
def test_a_key_across_the_border_of_two_pieces_is_found(cut: int) -> None:
    text = KEY.encode()
    said = masked(Mask([KEY]), b"before " + text[:cut], text[cut:] + b" behind")
    assert b"".join(said) == b"before " + b"*" * len(KEY) + b" behind"


@given(st.lists(st.sampled_from([KEY, KEY[:7], KEY[7:], " ", "\n", "x", "*"])), st.data())
def test_no_cut_changes_what_is_masked(words: list[str], data: st.DataObject) -> None:
    text = "".join(words).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    borders = [0, *cuts, len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(borders)]
    assert b"".join(masked(Mask([KEY]), *pieces)) == text.replace(KEY.encode(), b"*" * len(KEY))


@pytest.mark.parametrize("secret", [KEY, ODD], ids=["token", "text"])
@pytest.mark.parametrize("offset", range(3))
def test_the_usual_encodings_of_a_key_are_masked(secret: str, offset: int) -> None:
    in_json = json.dumps(secret)[1:-1]
    for form in (secret, quote(secret, safe=""), in_json, in_json.replace("/", "\\/")):
        assert form.encode() not in Mask([secret]).hide(f"<{form}>".encode())
    encoded = base64.b64encode(b"user:"[: 3 + offset] + secret.encode() + b"!")
    found = Mask([secret]).hide(encoded)
    # What is left does not have more of the key than one character at each end.
    assert found.count(b"*") >= len(secret) * 4 // 3 - 3
    assert len(found) == len(encoded)


def test_an_event_of_a_stream_passes_at_once() -> None:
    event = b'data: {"delta":"sk-proj-"}\n\n'
    assert masked(Mask([KEY]), event, event) == [event, event, b""]


def test_what_is_held_back_does_not_depend_on_the_key() -> None:
    # A guess of the key's beginning that is echoed must be no later than any other text.
    right, wrong = KEY[:9].encode(), b"sk-proj-Z"
    assert [len(each) for each in masked(Mask([KEY]), b"say " + right)] == [
        len(each) for each in masked(Mask([KEY]), b"say " + wrong)
    ]


def test_no_more_is_held_back_than_a_key_is_long() -> None:
    mask = Mask([KEY])
    said = masked(mask, b"x" * 1000)
    assert len(said[0]) == 1000 - (mask.longest - 1)


def test_of_two_keys_that_begin_alike_the_longer_one_is_masked_wholly() -> None:
    mask = Mask([KEY, KEY + "-and-more"])
    text = KEY.encode() + b"-and-more"
    for cut in range(len(text)):
        assert b"".join(masked(mask, text[:cut], text[cut:])) == b"*" * len(text)


def test_without_a_key_nothing_is_held_back() -> None:
    for mask in (Mask([]), Mask(["short"])):
        assert masked(mask, b"short", b"") == [b"short", b"", b""]


def test_a_mask_does_not_show_the_key() -> None:
    assert KEY not in repr(Mask([KEY]))
