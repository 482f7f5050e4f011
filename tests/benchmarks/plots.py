"""The plots of a run: each target, and the figures behind some of them.

They need matplotlib, from the extra `bench`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.figures import Figure, Spread, Target, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REACHED, MISSED, OTHER = "#2a7f62", "#c0392b", "#9aa5b1"
PLOTTED = ("invoke", "stream10", "stream1000", "burst", "silent", "steady", "large", "chat")


class NoMatplotlibError(Exception):
    """matplotlib is not installed."""


def draw(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Write `targets.svg` and one plot for each measure of rates; returns the files."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise NoMatplotlibError("--plots needs matplotlib: pip install '.[bench]'") from None
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "agent-gateway"  # the same run gives the same file
    folder.mkdir(parents=True, exist_ok=True)
    written = [_draw_targets(figures, folder / "targets.svg")]
    for measure in PLOTTED:
        shown = [figure for figure in figures if figure.measure == measure and figure.targets]
        if shown:
            written.append(_draw_series(shown, folder / f"{measure}.svg"))
    return written


def _draw_targets(figures: Sequence[Figure], path: Path) -> Path:
    """Every target as one bar: 1 is the target, and more is better."""
    rows = [
        (f"{figure.measure}: {figure.case}\n{target}", margin(verdict), verdict.met)
        for figure in figures
        for target in figure.targets
        if (verdict := figure.judge(target)) is not None
    ]
    fig, axes = _canvas(height=0.5 * len(rows) + 1.2, columns=1)
    places = range(len(rows))
    axes[0].barh(places, [row[1] for row in rows], color=[_color(row[2]) for row in rows])
    axes[0].axvline(1, color="black", linewidth=1)
    axes[0].set_xscale("log")
    axes[0].set_yticks(places, [row[0] for row in rows], fontsize=7)
    axes[0].invert_yaxis()
    axes[0].set_title("Measured, as a multiple of the target (right of 1: reached)", fontsize=9)
    return _save(fig, path)


def margin(verdict: Verdict) -> float:
    """How far the target was exceeded, as a factor: 1 or more means reached."""
    target: Target = verdict.target
    if target.at_least is not None:
        return verdict.ratio.median / target.at_least
    assert target.at_most is not None
    return target.at_most / max(verdict.ratio.median, 1e-9)


def _draw_series(figures: Sequence[Figure], path: Path) -> Path:
    """A panel for each figure, a bar for each server, with the spread of its rounds."""
    most = max(len(figure.series) for figure in figures)
    fig, axes = _canvas(height=0.3 * most + 1.2, columns=len(figures))
    for panel, figure in zip(axes, figures, strict=True):
        names = list(figure.series)
        spreads = [Spread.of(figure.series[name]) for name in names]
        medians = [spread.median for spread in spreads]
        ends = [
            [spread.median - spread.low for spread in spreads],
            [spread.high - spread.median for spread in spreads],
        ]
        colors = [REACHED if name == "gateway" else OTHER for name in names]
        panel.barh(range(len(names)), medians, xerr=ends, color=colors, ecolor="#444444")
        panel.set_yticks(range(len(names)), names, fontsize=7)
        panel.tick_params(axis="x", labelsize=7)
        panel.invert_yaxis()
        panel.set_title(f"{figure.case} ({figure.unit})", fontsize=8)
    return _save(fig, path)


def _canvas(*, height: float, columns: int) -> tuple[Any, list[Axes]]:
    from matplotlib import pyplot

    fig, axes = pyplot.subplots(
        1, columns, figsize=(8.0 if columns == 1 else 4.5 * columns, height), squeeze=False
    )
    return fig, list(axes[0])


def _save(fig: Any, path: Path) -> Path:
    from matplotlib import pyplot

    fig.tight_layout()
    fig.savefig(path, metadata={"Date": None})
    pyplot.close(fig)
    return path


def _color(met: bool) -> str:
    return REACHED if met else MISSED
