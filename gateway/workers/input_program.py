"""The program that checks inputs: run by its path, as a process of its own, by `input_checker`.

It knows nothing of the gateway, and its standard streams are all it has. It reads frames (four
bytes with the length, big-endian, then as many bytes) and answers each with one: first the schema,
then inputs. An empty answer means that all is well, and `!` with a text that the schema cannot be
used. What does not match is told as a JSON array of at most `MOST_MISMATCHES` pairs: the keys that
lead to the place, and what is expected there. Values of the input are not repeated: they are the
caller's, and would stand in the log.

Neither the schema nor the input is trusted. A frame may take `CPU_SECONDS`; then the kernel ends
the process (setitimer(2): the signal's default action cannot be delayed by native code), as it does
when the stack overflows or the memory is used up. No file and no connection can be opened: a schema
that refers to another document cannot be used.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
from itertools import islice
from typing import Any

import jsonschema_rs
import msgspec

CPU_SECONDS = 1.0
"""For one frame. The largest input takes a tenth of that by a schema of moderate size."""

MEMORY_BYTES = 1024 * 1024 * 1024
"""Of addresses: the largest input may make objects of thirty times its size."""

MOST_MISMATCHES = 3

MOST_TEXT = 300
"""Characters of one mismatch, and of each key."""

MOST_PLACES_BYTES = 32 * 1024
"""Of an answer that says where: keys are the caller's, and may nest hundreds deep."""


def main() -> None:
    """Answer frames until the end of stdin."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # nobody reads what native code says of its end
    os.closerange(3, 16)
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, 3),
    ):
        resource.setrlimit(limit, (most, most))
    validator = None
    while (frame := read_frame()) is not None:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        if validator is None:
            try:
                validator = make_validator(frame.decode())
                answer = b""
            except ValueError as error:
                reason = " ".join(str(getattr(error, "message", error)).split())
                answer = b"!" + reason[:MOST_TEXT].encode("utf-8", "replace")
        else:
            answer = check(validator, frame)
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.buffer.write(struct.pack(">I", len(answer)) + answer)
        sys.stdout.buffer.flush()


def read_frame() -> bytes | None:
    """The next frame; None at the end."""
    head = sys.stdin.buffer.read(4)
    if len(head) < 4:
        return None
    (size,) = struct.unpack(">I", head)
    return sys.stdin.buffer.read(size)


def make_validator(schema: str) -> Any:
    """Raises ValueError for a schema that is none, or that refers to another document."""
    return jsonschema_rs.validator_for(
        schema, offline=True, validate_formats=False, mask="the value"
    )


def check(validator: Any, text: bytes) -> bytes:
    """The answer to an input, which is known to be JSON."""
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:  # 1e400, half of a surrogate pair
        return json.dumps([[[], f"expected what can be read: {error}"[:MOST_TEXT]]]).encode()
    if validator.is_valid(value):
        return b""
    found = [told(error) for error in islice(validator.iter_errors(value), MOST_MISMATCHES)]
    answer = json.dumps(found or [[[], "expected what the schema allows"]]).encode()
    if len(answer) > MOST_PLACES_BYTES:
        answer = json.dumps([[[], text] for _, text in found]).encode()
    return answer


def shown(key: str | int) -> str | int:
    return key[:MOST_TEXT] if isinstance(key, str) else key


def told(error: Any) -> tuple[list[str | int], str]:
    """The place of one mismatch, and what is expected there.

    Of a value that matches none of a schema's alternatives, that is what the one says that the
    value was meant for, or which types they are for, where either can be told.
    """
    place = [shown(key) for key in error.instance_path]
    if error.kind.name not in ("anyOf", "oneOf"):
        return place, expectation(error)
    types: list[str] = []
    others: list[list[Any]] = []
    for alternative in error.kind.context:
        if not alternative:  # of `oneOf`, more than one matches
            return place, expectation(error)
        first = alternative[0]
        if first.kind.name == "type" and first.instance_path == error.instance_path:
            types += first.kind.types
        else:
            others.append(alternative)
    if types and not others:
        names = " or ".join(dict.fromkeys(types))
        return place, f"expected {names}, got {type_of(error.instance)}"
    fitting = [each for each in others if all(is_below(error, within) for within in each)]
    meant = fitting if len(fitting) == 1 else others
    return told(meant[0][0]) if len(meant) == 1 else (place, expectation(error))


def is_below(error: Any, within: Any) -> bool:
    """Whether a mismatch is of a part of the value, which itself is of the right shape."""
    return len(within.instance_path) > len(error.instance_path)


def expectation(error: Any) -> str:
    """What one mismatch says, in the words in which an agent of the SDK would say the same."""
    kind = error.kind
    if kind.name == "type":
        types = " or ".join(kind.types)
        return f"expected {types}, got {type_of(error.instance)}"
    if kind.name == "required":
        return f"{kind.property[:MOST_TEXT]!r} is missing"
    return str(error.message)[:MOST_TEXT]


def type_of(value: object) -> str:
    """The type of a JSON value, as schemas name it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    names = {int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")


if __name__ == "__main__":
    main()
