"""Figures: samples by server, their spread, and how they compare with a target. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Target:
    """A bound on the ratio of `subject` to `reference`: `at_least` or `at_most`."""

    reference: str | tuple[str, ...] | None = None
    """One series; several, of which the best counts; or None for a bound on the figure itself."""
    at_least: float | None = None
    at_most: float | None = None
    subject: str = "gateway"

    def __str__(self) -> str:
        sign, bound = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        if self.reference is None:
            return f"{sign} {bound:g}"
        one = isinstance(self.reference, str)
        name = self.reference if one else f"the best of {', '.join(self.reference)}"
        return f"{sign} {bound:g} x {name}"

    def met(self, value: float) -> bool:
        if self.at_least is not None:
            return value >= self.at_least
        assert self.at_most is not None
        return value <= self.at_most


@dataclass(frozen=True)
class Figure:
    """One row of the results: a quantity, with one sample per round for each server."""

    measure: str
    case: str
    unit: str
    series: Mapping[str, Sequence[float]]
    targets: Sequence[Target] = ()
    higher_is_better: bool = True
    note: str = ""

    def ratio(self, subject: str, reference: str) -> Spread:
        """The spread of the rounds' ratios: both samples of a round were taken close together."""
        pairs = zip(self.series[subject], self.series[reference], strict=True)
        return Spread.of([a / b if b else float("nan") for a, b in pairs])

    def judge(self, target: Target) -> Verdict | None:
        """Whether the target was met; None when its reference was not measured in this run."""
        if target.reference is None:
            own = Spread.of(self.series[target.subject])
            return Verdict(target, "", own, target.met(own.median))
        names = (target.reference,) if isinstance(target.reference, str) else target.reference
        measured = [name for name in names if name in self.series]
        if not measured or target.subject not in self.series:
            return None
        best = max if self.higher_is_better else min
        reference = best(measured, key=lambda name: median(self.series[name]))
        ratio = self.ratio(target.subject, reference)
        return Verdict(target, reference, ratio, target.met(ratio.median))

    def as_json(self) -> dict[str, Any]:
        verdicts = [verdict for target in self.targets if (verdict := self.judge(target))]
        return {
            "measure": self.measure,
            "case": self.case,
            "unit": self.unit,
            "series": {
                name: {"samples": list(samples), **Spread.of(samples).as_json()}
                for name, samples in self.series.items()
            },
            "targets": [verdict.as_json() for verdict in verdicts],
            "note": self.note,
        }


@dataclass(frozen=True)
class Spread:
    """The median of some samples, with their minimum and maximum."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        return cls(median(samples), min(samples), max(samples))

    def as_json(self) -> dict[str, float]:
        return {"median": self.median, "min": self.low, "max": self.high}


@dataclass(frozen=True)
class Verdict:
    """A target, and the ratio (or, without a reference, the value) that was measured."""

    target: Target
    reference: str
    """The reference that was used."""
    ratio: Spread
    met: bool

    def as_json(self) -> dict[str, Any]:
        return {
            "target": str(self.target),
            "subject": self.target.subject,
            "reference": self.reference,
            "ratio": self.ratio.as_json(),
            "met": self.met,
        }


def percentile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that `percent` of them do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, -(-int(len(ordered) * percent) // 100) - 1)]
