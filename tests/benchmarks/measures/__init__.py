"""Every measure, by name, in the order in which they are run."""

from __future__ import annotations

from tests.benchmarks.bench import Measure
from tests.benchmarks.measures import many, overload, requests, streams, workers

ALL: tuple[Measure, ...] = (
    *requests.MEASURES,
    *streams.MEASURES,
    *many.MEASURES,
    *workers.MEASURES,
    *overload.MEASURES,
)
