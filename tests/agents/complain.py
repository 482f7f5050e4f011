"""Fails with a message of 7 MB; with the argument of a number, declares that much metadata."""

import sys

import wire

if sys.argv[1:]:
    params = {"protocol": 1, "handlers": [], "metadata": {"a": "x" * int(sys.argv[1])}}
    wire.write(wire.line(method="ready", params=params))


def complain(request: wire.Request) -> None:
    error = {"code": -32603, "message": f"it is the {'x' * 7_000_000} end"}
    wire.write(wire.line(id=request["id"], error=error))


wire.serve(complain)
