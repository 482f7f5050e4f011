"""Paths that several client protocols have in the same place, described as one.

The client's header says which of them it speaks (`front/models.py`). A description cannot say that
one response belongs to one header; it says that either may come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.front.described import Json, Part


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
    """Both have the same operations, and the same names in the path."""
    joined = {**other, **one}
    for method in joined.keys() - {"parameters"}:
        joined[method] = _either_operation(one[method], other[method], responses)
    return joined


def _either_operation(one: Json, other: Json, responses: Mapping[str, Json]) -> Json:
    either = {
        status: _either(response, other["responses"].get(status), responses)
        for status, response in one["responses"].items()
    }
    return {
        **other,
        **one,
        "tags": [*one["tags"], *other["tags"]],
        "parameters": _parameters(one["parameters"], other["parameters"]),
        "responses": {**other["responses"], **either},
    }


def _parameters(one: Sequence[Json], other: Sequence[Json]) -> list[Json]:
    """Those of both, and those that only one protocol knows: the other ignores these, whatever
    they say."""
    both = [each for each in one if each in other]
    apart = [each for each in (*one, *other) if each not in both]
    return [*both, *({**each, "required": False, "schema": {}} for each in apart)]


def _either(one: Json, other: Json | None, responses: Mapping[str, Json]) -> Json:
    if other is None:
        return one
    both = [_resolved(each, responses) for each in (one, other)]
    schemas = [each["content"]["application/json"]["schema"] for each in both]
    return {**both[0], "content": {"application/json": {"schema": {"anyOf": schemas}}}}


def _resolved(response: Json, responses: Mapping[str, Json]) -> Json:
    reference = response.get("$ref")
    return response if reference is None else responses[reference.rpartition("/")[2]]
