"""What --plan promises about memory holds, and a run that cannot fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import daskim
from daskim.api import open_place, preview_run, run_settings
from daskim.pipeline import memory_of


def promised(source: Path, run: Path, values: dict[str, Any], workers: int) -> dict[str, int]:
    """Bytes of memory by stage, as --plan tells them."""
    place = open_place("threads", workers=workers)
    try:
        states, _, context = preview_run(run_settings(source, values), str(run), place)
    finally:
        place.close()
    return {state.stage.name: memory_of(context, state.need)[0] for state in states}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "side", "values"),
    [
        (6_000, 32, {"clusters.n_clusters": 0.9, "clusters.lloyd_limit": 0}),
        (2_500, 32, {"clusters.n_clusters": 0.9}),
        (3_000, 32, {"columns.method": "tsqr", "clusters.n_clusters": 60}),
        (4_000, 16, {"clusters.n_clusters": 0.3, "clusters.regime": "cells"}),
        (1_500, 96, {"images.size": "96x96", "clusters.n_clusters": 0.9}),
    ],
)
def test_no_stage_takes_more_than_promised(
    n: int, side: int, values: dict[str, Any], planted: Any, tmp_path: Path, command: Any
) -> None:
    source, _ = planted(n, side, redundancy=0.15, seed=3)
    promise = promised(source, tmp_path / "run", values, workers=2)
    assert not (tmp_path / "run").exists(), "looking at the plan wrote something"
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    done = command(source, "--run", tmp_path / "run", "--workers", 2, *words)
    assert done.returncode == 0, done.stderr
    peaks = daskim.open_run(tmp_path / "run").summary["peak_rss_bytes_by_stage"]
    over = {stage: (peak, promise[stage]) for stage, peak in peaks.items() if peak > promise[stage]}
    assert not over, f"bytes taken and promised: {over}"


def test_what_cannot_fit_is_refused_before_any_work(planted: Any, tmp_path: Path, command: Any) -> None:
    source, _ = planted(2_500, 32, redundancy=0.15, seed=3)
    done = command(source, "--run", tmp_path / "run", "--memory", "600MB")
    assert done.returncode == 2
    assert "GB" in done.stderr
    assert "--memory" in done.stderr
    assert not (tmp_path / "run" / "arrays").exists()
    look = command(source, "--run", tmp_path / "other", "--memory", "600MB", "--plan")
    assert look.returncode == 2
    assert not (tmp_path / "other").exists()
