"""Tracebacks that hold what was to be sent, for as long as somebody holds the error.

A traceback holds the frames that an error went through, and these hold their variables: payloads of
megabytes. Once one of these frames holds the error in turn, all of it is a cycle, and stays until
the garbage collector comes by, which it seldom does in a process that has little to do. An error of
ours that is kept, or raised though it is kept, is therefore a copy (`errors`: copies have no
traceback). This module is for errors that are made elsewhere.
"""

from __future__ import annotations


def cut_causes(error: BaseException) -> None:
    """Drop the tracebacks of what an error was raised from.

    trio makes an error of a stream from that of the socket within a context manager: a frame of
    contextlib's holds the socket's error, in whose traceback it is.
    """
    cause = error.__cause__
    while cause is not None:
        cause.__traceback__ = None
        cause = cause.__cause__
