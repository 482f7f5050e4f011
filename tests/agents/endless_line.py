"""Writes a line that does not end."""

import wire


def write_on(request: wire.Request) -> None:
    while True:
        wire.write(b"x" * 65536)


wire.serve(write_on)
