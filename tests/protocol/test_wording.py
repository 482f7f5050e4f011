"""msgspec's phrases, pinned: a version that words them differently fails here."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest
from msgspec import Meta, Struct

from protocol.wording import Mismatch, Problem, read_mismatch, why_malformed


class Inner(Struct, forbid_unknown_fields=True):
    role: Literal["a", "b"] = "a"
    count: Annotated[int, Meta(ge=0, le=5)] = 1


class Outer(Struct, forbid_unknown_fields=True):
    number: int
    either: int | Literal["off"] = 1
    inner: Inner | None = None
    many: list[Inner] = []
    named: dict[str, Inner] = {}
    refused: bool = False

    def __post_init__(self) -> None:
        if self.refused:
            raise ValueError("this is refused")


@pytest.mark.parametrize(
    ("text", "problem", "sentence", "subject", "path"),
    [
        ("[]", "WRONG_TYPE", "Expected `object`, got `array`", "`object`", ""),
        ('{"number":"x"}', "WRONG_TYPE", "Expected `int`, got `str`", "`int`", ".number"),
        ('{"number":1,"either":[]}', "WRONG_TYPE", "Expected `int | str`, got `array`",
         "`int | str`", ".either"),
        ('{"number":1,"many":[{},{"count":9}]}', "WRONG_TYPE", "Expected `int` <= 5",
         "`int` <= 5", ".many[1].count"),
        ('{"number":1,"inner":{"count":-1}}', "WRONG_TYPE", "Expected `int` >= 0",
         "`int` >= 0", ".inner.count"),
        ('{"number":1,"more":1}', "UNKNOWN_KEY", "Object contains unknown field `more`",
         "`more`", ""),
        ('{"number":1,"named":{"x.y":{"two words":1}}}', "UNKNOWN_KEY",
         "Object contains unknown field `two words`", "`two words`", ".named[...]"),
        ("{}", "MISSING_KEY", "Object missing required field `number`", "`number`", ""),
        ('{"number":1,"inner":{"role":"c"}}', "NOT_A_CHOICE", "Invalid enum value 'c'",
         "'c'", ".inner.role"),
        ('{"number":1,"inner":{"role":"- at `$.x`"}}', "NOT_A_CHOICE",
         "Invalid enum value '- at `$.x`'", "'- at `$.x`'", ".inner.role"),
        ('{"number":1,"refused":true}', "OTHER", "this is refused", "this is refused", ""),
    ],
)  # fmt: skip
def test_each_phrase_is_read_into_a_value(
    text: str, problem: str, sentence: str, subject: str, path: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.json.decode(text, type=Outer)
    assert str(caught.value) == (f"{sentence} - at `${path}`" if path else sentence)
    assert read_mismatch(caught.value) == Mismatch(Problem[problem], sentence, subject, path)


def test_the_keys_on_the_way_are_told_without_indices() -> None:
    mismatch = read_mismatch(ValueError("Expected `int`, got `str` - at `$.a.b[3][...].c`"))
    assert mismatch.keys == ["a", "b", "c"]


@pytest.mark.parametrize(
    "sentence", ["", "Expecting nothing", "Wrong - at `$.a", "so - at `x` in `$`"]
)
def test_a_phrase_that_is_not_known_is_passed_on_as_it_is(sentence: str) -> None:
    assert read_mismatch(ValueError(sentence)) == Mismatch(Problem.OTHER, sentence, sentence, "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x", "invalid character (byte 0)"),
        ("{} x", "trailing characters (byte 4)"),
        ("{", "Input data was truncated"),
        ("", "Input data was truncated"),
    ],
)
def test_why_a_text_is_not_json_is_told_without_a_prefix(text: str, reason: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(text)
    assert why_malformed(caught.value) == reason
