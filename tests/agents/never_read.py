"""Sends `ready` and never reads its stdin."""

import signal

import wire

wire.write(wire.ready(concurrency=4))
signal.pause()
