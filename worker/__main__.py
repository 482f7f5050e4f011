"""`python -m worker` is the command `agent-worker`, for as long as no file of the user's is in its
way: Python looks for `worker` in the current folder first."""

import sys

from .command import main

if __name__ == "__main__":
    main(sys.argv[1:], program="python -m worker")
