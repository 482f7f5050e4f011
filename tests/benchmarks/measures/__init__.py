"""Every measure, in the order in which they run."""

from __future__ import annotations

from tests.benchmarks.bench import Measure
from tests.benchmarks.measures import (
    ceiling,
    console,
    dialects,
    failures,
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
    *console.MEASURES,
    *overload.MEASURES,
    *heads.MEASURES,
    *services.MEASURES,
    *fleet.MEASURES,
    *failures.MEASURES,
    *processes.MEASURES,
    *growth.MEASURES,
)
