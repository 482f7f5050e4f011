"""Where two answers differ, for people to read; and what of them is not to be compared.

What an answer says of times and ids is another one each time. `Ignored` has those masked that look
like one, and members left out that a path names.
"""

from __future__ import annotations

import difflib
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SHOWN_LINES = 60
"""Of one difference."""

PIECE = 80
"""Characters of a text on one line of a difference."""

_TIMES = re.compile(
    r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?"
    r"|\b\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?\b"
)
_IDS = re.compile(
    r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"  # a UUID
    r"|\b[a-z]+[_-](?=\w*\d)[A-Za-z0-9]{8,}\b"  # call_9f86d081
    r"|\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{12,}\b"
)
_EPOCH = range(1_000_000_000, 5_000_000_000)
"""Unix times, in seconds, from 2001 on; in milliseconds they are a thousand times as much."""


class Ignored:
    """What is not compared: `times`, `ids`, and paths such as `output.usage` or `events.*.id`."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        wanted = set(names)
        self._times = "times" in wanted
        self._ids = "ids" in wanted
        self._paths = [name.lstrip(".").split(".") for name in wanted - {"times", "ids"}]

    def without(self, value: Any, path: tuple[str, ...] = ()) -> Any:
        """The value as it is compared."""
        if isinstance(value, dict):
            return {
                key: self.without(each, (*path, key))
                for key, each in value.items()
                if not self._names((*path, key))
            }
        if isinstance(value, list):
            places = ((*path, str(number)) for number in range(len(value)))
            return [
                self.without(each, place)
                for each, place in zip(value, places, strict=True)
                if not self._names(place)
            ]
        return self._masked(value)

    def _names(self, path: tuple[str, ...]) -> bool:
        return any(
            len(pattern) == len(path)
            and all(want in {"*", have} for want, have in zip(pattern, path, strict=True))
            for pattern in self._paths
        )

    def _masked(self, value: Any) -> Any:
        if isinstance(value, str):
            # Ids first: one may have a time in it.
            value = _IDS.sub("<id>", value) if self._ids else value
            return _TIMES.sub("<time>", value) if self._times else value
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        if self._times and (int(value) in _EPOCH or int(value) // 1000 in _EPOCH):
            return "<time>"
        # Languages write the same number as 1 and as 1.0.
        return int(value) if isinstance(value, float) and value.is_integer() else value


def beginning(value: dict[str, Any], of: dict[str, Any]) -> dict[str, Any]:
    """As much of an answer as `of` has of another, which was cut."""
    kept = {key: each for key, each in value.items() if key in of}
    for key in {"text", "events"} & kept.keys():
        kept[key] = kept[key][: len(of[key])]
    return kept


def difference(recorded: dict[str, Any], replayed: dict[str, Any]) -> list[str]:
    """The lines that say where the two differ; none if they are the same."""
    then, now = list(_lines(recorded)), list(_lines(replayed))
    if then == now:
        return []
    found = list(difflib.unified_diff(then, now, "recorded", "replayed", lineterm="", n=2))
    left_out = len(found) - SHOWN_LINES
    return found if left_out <= 0 else [*found[:SHOWN_LINES], f"… {left_out} more lines"]


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    for key in sorted(answer):
        value = answer[key]
        if isinstance(value, str):
            for line in value.splitlines(keepends=True) or [""]:
                for piece in _pieces(line):
                    yield f"{key}: {_shown(piece)}"
        else:
            yield from (f"{key}: {line}" for line in _shown(value).split("\n"))


def _pieces(line: str) -> Sequence[str]:
    return [line[at : at + PIECE] for at in range(0, len(line), PIECE)] or [line]


def _shown(value: Any) -> str:
    return harmless(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True))


def harmless(text: str) -> str:
    """The text without what moves a terminal's cursor; lines stay lines."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )
