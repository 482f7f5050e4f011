"""Answers with half of a UTF-8 character in a string."""

import wire


def write_half(request: wire.Request) -> None:
    wire.write(wire.answer(request).replace(b"fault", "€".encode()[:2]))


wire.serve(write_half)
