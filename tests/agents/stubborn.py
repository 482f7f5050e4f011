"""Ignores SIGTERM and the end of stdin: only SIGKILL ends it."""

import signal

import wire

signal.signal(signal.SIGTERM, signal.SIG_IGN)
try:
    wire.serve()
except SystemExit:
    wire.log("stdin has ended, and I live on")
while True:
    signal.pause()
