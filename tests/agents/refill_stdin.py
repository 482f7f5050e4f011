"""Begins a large answer, writes into its own stdin and exits, as if it had not read the request."""

import os

import wire


def refill(request: wire.Request) -> None:
    wire.write(b'{"jsonrpc":"2.0","id":%d,"result":{"output":"' % request["id"] + b"x" * 1_000_000)
    with open("/proc/self/fd/0", "wb") as stdin:
        stdin.write(b"z" * 1000)
        stdin.flush()
        os._exit(3)


wire.serve(refill)
