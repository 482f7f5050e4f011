"""Exits with status 3 in the middle of a line."""

import os

import wire


def exit_mid_frame(request: wire.Request) -> None:
    wire.write(wire.answer(request)[:-10])
    os._exit(3)


wire.serve(exit_mid_frame)
