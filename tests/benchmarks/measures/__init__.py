"""Every measure, by name, in the order in which they are run."""

from __future__ import annotations

from tests.benchmarks.bench import Measure
from tests.benchmarks.measures import requests, streams

ALL: tuple[Measure, ...] = (*requests.MEASURES, *streams.MEASURES)
