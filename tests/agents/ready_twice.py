"""Sends `ready` a second time."""

import wire


def say_it_again(request: wire.Request) -> None:
    wire.write(wire.ready())


wire.serve(say_it_again)
