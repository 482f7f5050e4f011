"""Answers every request with something that is no answer."""

import os
import sys

for _ in sys.stdin:
    os.write(1, b"\xff\x00 this is no JSON\n")
