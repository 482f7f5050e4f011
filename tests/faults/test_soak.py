"""A short run of the soak; `python -m tests.soak --seconds N` runs it for longer."""

from __future__ import annotations

from pathlib import Path

from tests.soak import soak


async def test_a_short_soak_of_all_faults_together_leaves_every_account_even(
    tmp_path: Path,
) -> None:
    figures = await soak(seconds=8, seed=20, folder=tmp_path)
    assert figures.asked > 50
    assert figures.workers_failed > 10
