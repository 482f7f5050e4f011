"""Figures as text for people, and as JSON for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from typing import Any

from tests.benchmarks.figures import Figure, Spread


def machine() -> dict[str, Any]:
    """What a ratio may depend on; nothing that identifies the machine."""
    return {"cores": len(os.sched_getaffinity(0)), "python": platform.python_version()}


def as_text(figure: Figure) -> str:
    """A figure as text, with one line for each server and one for each target."""
    lines = [f"{figure.measure}: {figure.case} ({figure.unit})"]
    for name, samples in figure.series.items():
        spread = Spread.of(samples)
        lines.append(
            f"  {name:<22} {_number(spread.median):>10}"
            f"   [{_number(spread.low)} - {_number(spread.high)}]{_relative(figure, name)}"
        )
    for target in figure.targets:
        verdict = figure.judge(target)
        if verdict is None:
            lines.append(f"  target {target}: not measured in this run")
            continue
        ratio = verdict.ratio
        subject = "" if target.subject == "gateway" else f"{target.subject} "
        beside = f" x {verdict.reference}" if verdict.reference else f" {figure.unit}"
        lines.append(
            f"  target {subject}{target}: {'reached' if verdict.met else 'MISSED'}, "
            f"{ratio.median:.2f}{beside} [{ratio.low:.2f} - {ratio.high:.2f}]"
        )
    if figure.note:
        lines.append(f"  ({figure.note})")
    return "\n".join(lines)


def as_json(
    figures: Sequence[Figure], *, command: str, skipped: dict[str, str], quick: bool
) -> dict[str, Any]:
    """The whole run, as values for JSON."""
    return {
        "machine": machine(),
        "command": command,
        "quick": quick,
        "skipped": skipped,
        "figures": [figure.as_json() for figure in figures],
    }


def as_table(figures: Sequence[Figure]) -> str:
    """A table in Markdown with a row for each target that was measured."""
    rows = ["| measure | it | beside | ratio | target |", "| --- | --- | --- | --- | --- |"]
    for figure in figures:
        for target in figure.targets:
            verdict = figure.judge(target)
            if verdict is None:
                continue
            name, spread = verdict.reference, _spread(verdict.ratio)
            beside = f"{name} {_spread(Spread.of(figure.series[name]))}" if name else ""
            cells = (
                f"`{figure.measure}`, {figure.case} ({figure.unit})",
                _spread(Spread.of(figure.series[target.subject])),
                beside,
                spread if name else "",
                f"{target}: {'reached' if verdict.met else '**missed**'}",
            )
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _spread(spread: Spread) -> str:
    return f"{_number(spread.median)} [{_number(spread.low)} - {_number(spread.high)}]"


def _relative(figure: Figure, name: str) -> str:
    if name == "gateway" or "gateway" not in figure.series:
        return ""
    return f"   gateway = {figure.ratio('gateway', name).median:.2f} x"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
