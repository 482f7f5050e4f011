"""`python -m tests.benchmarks`; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from pathlib import Path

from tests.benchmarks import measures, peers, plots, report, wrk
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Figure


def main() -> int:
    """Run the chosen measures. 1 if one of them failed, else 0; a missed target is no failure."""
    options = _options()
    figures: list[Figure] = []
    skipped: dict[str, str] = {}
    failed = False
    print("cores: {cores}, Python {python}".format(**report.machine()), flush=True)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        bench = Bench(
            folder=Path(folder),
            rounds=options.rounds,
            seconds=options.seconds,
            baseline=options.baseline,
        )
        if options.quick:
            bench = Bench(folder=Path(folder), rounds=1, seconds=0.2, quick=True)
        if options.peers:
            bench.peers, missing = peers.starters()
            skipped.update(missing)
        for measure in measures.ALL:
            if options.only and measure.name not in options.only:
                continue
            if measure.needs_wrk and not wrk.available():
                skipped[measure.name] = "wrk is not installed (Debian: apt install wrk)"
                print(f"\n{measure.name}: skipped: {skipped[measure.name]}", flush=True)
                continue
            try:
                for figure in measure.run(bench):
                    figures.append(figure)
                    print(f"\n{report.as_text(figure)}", flush=True)
            except (
                Exception
            ):  # a boundary: one failing measure must not cost the figures of the others
                failed = True
                skipped[measure.name] = "failed"
                print(f"\n{measure.name}: failed\n{traceback.format_exc()}", file=sys.stderr)
    if options.table:
        print(f"\n{report.as_table(figures)}")
    if options.json:
        command = " ".join(["python -m tests.benchmarks", *sys.argv[1:]])
        told = report.as_json(figures, command=command, skipped=skipped, quick=options.quick)
        options.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    if options.plots:
        for path in plots.draw(figures, options.plots):
            print(f"drawn: {path}")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description="What the gateway costs, beside references measured in the same run.",
        epilog="; ".join(f"{measure.name}: {measure.about}" for measure in measures.ALL),
    )
    parser.add_argument("--quick", action="store_true", help="only whether each one works")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=[m.name for m in measures.ALL],
        help="these measures, and no others",
    )  # fmt: skip
    parser.add_argument(
        "--peers", action="store_true", help="beside other systems, which are installed for it"
    )
    parser.add_argument(
        "--baseline",
        metavar="COMMAND",
        help="another gateway's command, to measure beside this one",
    )
    parser.add_argument("--rounds", type=int, default=5, help="[default: 5]")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="of load per server and round [default: 2]"
    )
    parser.add_argument("--table", action="store_true", help="end with a table of all targets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to it")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw plots in it, as SVG")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
