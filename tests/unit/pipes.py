"""A pipe of which a test holds one end, or both."""

from __future__ import annotations

import os
import re


class Pipe:
    """Both ends, as descriptors; -1 once the test has closed one."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def write(self, data: bytes) -> None:
        assert os.write(self.writer, data) == len(data)

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += os.read(self.reader, count - len(data))
        return data

    def read_until(self, pattern: bytes) -> bytes:
        data = b""
        while not re.search(pattern, data):
            data += os.read(self.reader, 65536)
        return data

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1

    def close_writer(self) -> None:
        os.close(self.writer)
        self.writer = -1

    def close(self) -> None:
        for descriptor in (self.reader, self.writer):
            if descriptor >= 0:
                os.close(descriptor)
