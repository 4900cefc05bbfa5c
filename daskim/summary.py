"""What a run tells at its end: `summary.json`."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from daskim import __version__
from daskim.stages import Context, Stage

__all__ = ["summary_of"]

# Facts of the plan that the summary tells besides its counts.
PLAN_FACTS = ("max_rms", "max_rms_why", "verify", "min_similarity", "n_refuted", "reviewed")
PLAN_COUNTS = (
    "n_keep",
    "n_drop",
    "n_review",
    "n_influential",
    "n_influential_clusters",
    "rules",
    "plan_hash",
)
# Stages whose facts the summary repeats.
TOLD = ("candidates", "similarities", "spectrum", "anomalies", "leakage")
LIBRARIES = (
    "dask",
    "dask-ml",
    "datasketch",
    "distributed",
    "numpy",
    "pandas",
    "pillow",
    "pyarrow",
    "PyWavelets",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "simplejpeg",
    "zarr",
)


def _notes(seals: dict[str, dict[str, Any]]) -> Iterator[str]:
    for seal in seals.values():
        yield from seal["notes"]


def _planned(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The counts of the plan, and what it is from; a comparison has a plan only where one side yields."""
    if "leakage" in facts:
        made = facts.get("plan", {})
        return {name: made[name] for name in PLAN_COUNTS if name in made}
    made = facts["plan"]
    grouped = facts["clusters"] if "clusters" in facts else facts["spectral"]
    return {
        "n_clusters": grouped["n_clusters"],
        **{name: made[name] for name in PLAN_COUNTS},
        "clusters": {**grouped, "regime": grouped.get("regime", "none")},
        "plan": {name: made[name] for name in PLAN_FACTS if name in made},
    }


def summary_of(
    context: Context, stages: tuple[Stage, ...], seals: dict[str, dict[str, Any]], peak: int, seconds: float
) -> dict[str, Any]:
    """Everything that the sealed stages found, with times, memory and versions.

    Parameters
    ----------
    seals : dict
        The seal of each stage, by its name.
    peak : int
        Bytes of memory at most.
    """
    facts = {name: seal["facts"] for name, seal in seals.items()}
    engine = context.engine
    return {
        "daskim": __version__,
        "method": context.settings.method,
        "n_images": facts["index"]["n_images"],
        "status": facts["images"]["status"],
        "ignored_files": facts["index"]["ignored"],
        "n_exact": facts["exact"]["n_exact"],
        **_planned(facts),
        "columns": facts.get("columns"),
        **{name: facts[name] for name in TOLD if name in facts},
        "notes": list(_notes(seals)),
        "seconds": {name: round(seal["seconds"], 3) for name, seal in seals.items()},
        "seconds_total": round(seconds, 3),
        "peak_rss_bytes_by_stage": {name: seal["peak_rss_bytes"] for name, seal in seals.items()},
        "blocks": {
            stage.name: {"computed": engine.computed.get(stage.name, 0), "resumed": engine.resumed.get(stage.name, 0)}
            for stage in stages
        },
        "peak_rss_bytes": peak,
        "cluster": {
            "name": engine.place.name,
            "workers": engine.place.workers,
            "processes": engine.place.processes,
            "memory_per_process": engine.place.memory,
        },
        "size": asdict(context.known),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
    }
