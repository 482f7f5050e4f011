"""Has no fault: the neighbour that must be served whatever the others do."""

import wire

wire.serve(concurrency=8)
