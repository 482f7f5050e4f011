"""Every measure, in the order in which they run."""

from __future__ import annotations

from tests.benchmarks.bench import Measure
from tests.benchmarks.measures import (
    ceiling,
    dialects,
    fleet,
    growth,
    heads,
    languages,
    many,
    neighbours,
    operating,
    overload,
    processes,
    requests,
    services,
    streams,
    workers,
)

ALL: tuple[Measure, ...] = (
    *ceiling.MEASURES,
    *requests.MEASURES,
    *streams.MEASURES,
    *dialects.MEASURES,
    *many.MEASURES,
    *workers.MEASURES,
    *neighbours.MEASURES,
    *languages.MEASURES,
    *operating.MEASURES,
    *overload.MEASURES,
    *heads.MEASURES,
    *services.MEASURES,
    *fleet.MEASURES,
    *processes.MEASURES,
    *growth.MEASURES,
)
