"""Exits with status 3 before it says anything; with an argument, only while that file exists."""

import sys
from pathlib import Path

import wire

if len(sys.argv) == 1 or Path(sys.argv[1]).exists():
    wire.log("about to exit before ready")
    sys.exit(3)
wire.serve()
