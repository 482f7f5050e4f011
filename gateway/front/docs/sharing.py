"""Paths that several client protocols have in the same place, described as one.

The client's header says which of them it speaks (`front/models.py`). A description cannot say that
one response belongs to one header; it says that either may come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.front.described import Json, Part

_KEPT_ONCE = ("tags", "parameters")
"""Lists of an operation, or of a path, that are joined."""


def paths_of(parts: Sequence[Part]) -> Json:
    """The paths of all parts. Of those that several parts have, each operation is one of all."""
    responses = {name: each for part in parts for name, each in part.responses.items()}
    paths: Json = {}
    for part in parts:
        for path, item in part.paths.items():
            known = paths.get(path)
            paths[path] = item if known is None else _either_item(known, item, responses)
    return paths


def _either_item(one: Json, other: Json, responses: Mapping[str, Json]) -> Json:
    joined = {**other, **one}
    for name in one.keys() & other.keys():
        both = one[name], other[name]
        joined[name] = _joined(*both) if name in _KEPT_ONCE else _either_operation(*both, responses)
    return joined


def _either_operation(one: Json, other: Json, responses: Mapping[str, Json]) -> Json:
    operation = {**other, **one}
    for name in _KEPT_ONCE:
        operation[name] = _joined(one[name], other[name])
    operation["responses"] = {
        **other["responses"],
        **{
            status: _either(response, other["responses"].get(status), responses)
            for status, response in one["responses"].items()
        },
    }
    return operation


def _either(one: Json, other: Json | None, responses: Mapping[str, Json]) -> Json:
    if other is None:
        return one
    both = [_resolved(each, responses) for each in (one, other)]
    schemas = [each["content"]["application/json"]["schema"] for each in both]
    return {**both[0], "content": {"application/json": {"schema": {"anyOf": schemas}}}}


def _resolved(response: Json, responses: Mapping[str, Json]) -> Json:
    reference = response.get("$ref")
    return response if reference is None else responses[reference.rpartition("/")[2]]


def _joined(one: list[Any], other: list[Any]) -> list[Any]:
    return [*one, *(each for each in other if not _is_in(each, one))]


def _is_in(each: Any, others: list[Any]) -> bool:
    """Whether a parameter, or a tag, is among others; a parameter is known by its place and
    name."""
    if isinstance(each, dict) and "name" in each:
        return any((each["name"], each["in"]) == (it.get("name"), it.get("in")) for it in others)
    return each in others
