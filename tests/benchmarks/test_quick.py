"""The benchmarks work. What they measure in these tests means nothing and is not checked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.benchmarks import proc, wrk
from tests.benchmarks.bench import Measure
from tests.benchmarks.figures import Figure, Spread, Target, percentile
from tests.benchmarks.measures import ALL
from tests.benchmarks.measures.growth import fit
from tests.benchmarks.plots import draw, margin
from tests.benchmarks.report import as_table
from tests.benchmarks.servers import ROOT
from tests.conftest import need
from tests.javascript import need_runtime
from tests.programs import find_program

SECONDS = 400
"""For one benchmark, on a loaded machine: some start seven gateways, one after the other."""


@pytest.mark.timeout(SECONDS)
@pytest.mark.parametrize("measure", ALL, ids=lambda measure: measure.name)
def test_each_benchmark_works(measure: Measure, tmp_path: Path) -> None:
    if measure.needs_wrk:
        need(wrk.available(), "wrk is the load generator of this benchmark")
    if measure.name == "typescript":
        need_runtime("node24")
    if measure.name in {"failures", "fleet", "processes"}:
        need(find_program("nats-server") is not None, "nats-server is between front and host")
    result = tmp_path / "result.json"
    command = [sys.executable, "-m", "tests.benchmarks", "--quick", "--only", measure.name]
    with subprocess.Popen(
        [*command, "--json", result],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as run:
        try:
            output, problem = run.communicate()
        except BaseException:  # it ran out of time: it ends the servers that it has started
            run.send_signal(signal.SIGINT)
            raise
    assert run.returncode == 0, problem
    told = json.loads(result.read_text())
    assert told["figures"], output
    for figure in told["figures"]:
        assert figure["measure"] == measure.name
        for series in figure["series"].values():
            assert len(series["samples"]) == 1


def test_a_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    figure = Figure("m", "c", "u", {"gateway": [1, 20, 300], "bare": [1, 10, 100]})
    assert figure.ratio("gateway", "bare") == Spread(2, 1, 3)


def test_a_target_is_judged_by_the_best_of_its_references_that_was_measured() -> None:
    target = Target(("one", "other", "absent"), at_least=1.0)
    figure = Figure("m", "c", "u", {"gateway": [10], "one": [5], "other": [20]}, (target,))
    verdict = figure.judge(target)
    assert verdict is not None
    assert (verdict.reference, verdict.ratio.median, verdict.met) == ("other", 0.5, False)
    assert margin(verdict) == 0.5
    fewer = Figure("m", "c", "u", {"gateway": [10]}, (target,))
    assert fewer.judge(target) is None


def test_where_less_is_better_the_best_reference_is_the_lowest() -> None:
    target = Target(("one", "other"), at_most=1.5)
    series = {"gateway": [10.0], "one": [5.0], "other": [20.0]}
    verdict = Figure("m", "c", "ms", series, (target,), higher_is_better=False).judge(target)
    assert verdict is not None
    assert (verdict.reference, verdict.met) == ("one", False)


def test_a_target_without_a_reference_is_judged_by_the_figure_itself() -> None:
    target = Target(at_most=15.0)
    verdict = Figure("m", "c", "ms", {"gateway": [10.0, 20.0, 12.0]}, (target,)).judge(target)
    assert verdict is not None
    assert (verdict.ratio, verdict.met) == (Spread(12, 10, 20), True)


def test_a_table_has_a_row_for_each_target_that_was_measured() -> None:
    targets = (Target("bare", at_least=1.0), Target("absent", at_least=1.0), Target(at_most=15.0))
    figure = Figure("m", "c", "ms", {"gateway": [1.0, 2.0], "bare": [2.0, 2.0]}, targets)
    assert as_table([figure]).splitlines()[2:] == [
        "| `m`, c (ms) | 1.5 [1 - 2] | bare 2 [2 - 2] | 0.75 [0.5 - 1] | ≥ 1 x bare: **missed** |",
        "| `m`, c (ms) | 1.5 [1 - 2] |  |  | ≤ 15: reached |",
    ]


def test_a_percentile_is_a_sample_that_so_many_do_not_exceed() -> None:
    samples = list(range(1, 201))
    assert [percentile(samples, p) for p in (0, 50, 99, 100)] == [1, 100, 198, 200]
    assert percentile([7.0], 99) == 7.0


def test_the_processor_time_of_a_process_is_what_it_knows_itself() -> None:
    before = time.process_time()
    found = proc.cpu_seconds(os.getpid())
    assert before <= found <= time.process_time()


def test_growth_is_told_by_the_largest_sizes() -> None:
    sizes = [1, 10, 100]
    assert fit(sizes, [7.0, 8.0, 9.0]) == "constant"
    assert fit(sizes, [7.0, 8.0, 40.0]) == "linear"
    assert fit(sizes, [7.0, 8.0, 85.0]) == "linear"
    assert fit(sizes, [7.0, 8.0, 200.0]) == "worse"


def test_plots_are_drawn_for_what_was_measured(tmp_path: Path) -> None:
    need(find_spec("matplotlib") is not None, "matplotlib draws the plots")
    target = Target("bare", at_least=1.0)
    figure = Figure(
        "invoke", "1 connection", "requests/s", {"gateway": [2.0], "bare": [1.0]}, (target,)
    )
    names = [path.name for path in draw([figure], tmp_path / "plots")]
    assert names == ["targets.svg", "invoke.svg"]
