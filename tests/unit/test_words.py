"""Chunks and events in one list: dividing it, and joining what can be joined."""

from __future__ import annotations

import itertools
import json

from hypothesis import given
from hypothesis import strategies as st

from gateway.words import join_chunks, text_runs
from tests.unit.conftest import unhurried

WORDS = st.lists(st.sampled_from([b'"a"', b'""', b'"\\""', b"{}", b'{"a":"b"}']))


def test_words_are_divided_into_runs_of_chunks_and_single_events() -> None:
    words = [b'"a"', b'"b"', b"{}", b'{"a":1}', b'"c"']
    assert list(text_runs(words)) == [
        ([b'"a"', b'"b"'], None),
        ((), b"{}"),
        ((), b'{"a":1}'),
        ([b'"c"'], None),
    ]
    assert list(text_runs([])) == []


@unhurried
@given(WORDS)
def test_no_word_is_lost_and_no_run_is_empty(words: list[bytes]) -> None:
    runs = list(text_runs(words))
    assert [w for texts, event in runs for w in (texts if event is None else [event])] == words
    assert all((len(texts) > 0) == (event is None) for texts, event in runs)
    for one, other in itertools.pairwise(runs):
        assert one[1] is not None or other[1] is not None, "two runs of text side by side"


@unhurried
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_joined_chunks_mean_what_the_chunks_mean(texts: list[str]) -> None:
    assert json.loads(join_chunks([json.dumps(text).encode() for text in texts])) == "".join(texts)
