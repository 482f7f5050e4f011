"""msgspec's English, read into values: the one place that knows its phrases.

msgspec tells what does not fit only in a sentence, such as "Expected `int`, got `str` - at
`$.server.port`". Whoever explains an error in its own words reads it through here. An unknown
phrase is passed on as it is (`Problem.OTHER`): a new version of msgspec can make a message less
clear, and break nothing. tests/protocol/test_wording.py pins the phrases.
"""

from __future__ import annotations

import re
from enum import Enum

from msgspec import DecodeError, Struct

_PLACE = re.compile(r" - at `\$([^`]*)`\Z")
_INDEX = re.compile(r"\[[^]]*\]")
_MALFORMED = "JSON is malformed: "


class Problem(Enum):
    """What does not fit; the value is how msgspec's sentence begins."""

    WRONG_TYPE = "Expected "
    """Or a value that is out of its bounds."""
    UNKNOWN_KEY = "Object contains unknown field "
    MISSING_KEY = "Object missing required field "
    NOT_A_CHOICE = "Invalid enum value "
    OTHER = ""


class Mismatch(Struct, frozen=True):
    """A value that does not fit the type that it was decoded into."""

    problem: Problem
    sentence: str
    """msgspec's own, without the place."""
    subject: str
    """What was expected ("`int` >= 0"), the key in backticks, or the value that is no choice."""
    path: str
    """Where it stands below what was decoded: ".messages[2].role", or nothing for the whole."""

    @property
    def keys(self) -> list[str]:
        """The keys on the path, without indices."""
        return [key for key in _INDEX.sub("", self.path).split(".") if key]


def read_mismatch(error: Exception) -> Mismatch:
    """Read the sentence of a `msgspec.ValidationError`. Never fails, whatever it says."""
    sentence = str(error)
    path = ""
    place = _PLACE.search(sentence)
    if place is not None:
        sentence, path = sentence[: place.start()], place[1]
    # `OTHER` begins every sentence, so there always is one.
    problem = next(each for each in Problem if sentence.startswith(each.value))
    subject = sentence.removeprefix(problem.value)
    if problem is Problem.WRONG_TYPE:
        subject = subject.partition(", got ")[0]
    return Mismatch(problem, sentence, subject, path)


def why_malformed(error: DecodeError) -> str:
    """Why a text is not JSON: "trailing characters (byte 9)"."""
    return str(error).removeprefix(_MALFORMED)
