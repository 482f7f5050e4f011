"""No fault: the neighbour that has to be served whatever the others do."""

import wire

wire.serve(concurrency=8)
