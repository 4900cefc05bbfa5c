"""The tables `leakage` and `coverage`."""

from __future__ import annotations

import numpy as np
import pandas as pd

from daskim.stages.leakage.twins import Best, Images, told
from daskim.store import Run

__all__ = ["coverage_table", "leakage_table"]


def leakage_table(images: Images, twins: pd.DataFrame, per_image: int) -> pd.DataFrame:
    """The table `leakage` from all twins: `per_image` of each evaluated image and other split at most."""
    found = twins.copy()
    found["rank"] = found.groupby(["row", "pair"], sort=False).cumcount() + 1
    found = found[found["rank"] <= per_image]
    out = pd.DataFrame({"row": found["row"], **told(images, found["row"].to_numpy())})
    out["other_row"] = found["other_row"]
    for name, values in told(images, found["other_row"].to_numpy(), "other_").items():
        out[name] = values
    for name in ("rank", "similarity", "kind", "agreement"):
        out[name] = found[name]
    for name in found.columns.difference([*out.columns, "pair"], sort=False):
        out[name] = found[name]
    return out.reset_index(drop=True)


def coverage_table(run: Run, images: Images, wanted: list[tuple[str, str]], best: Best) -> pd.DataFrame:
    """The table `coverage`: each evaluated image that is neither broken nor flat, and each other split."""
    good = (images.table["status"] == "ok").to_numpy()
    parts = []
    for one, other in wanted:
        rows = np.flatnonzero(good & images.of(one))
        twin, value = best[one, other][0][rows], best[one, other][1][rows]
        near, correlation = _nearest(run, images, other)
        near, correlation = near[rows], correlation[rows]
        compared, looked_up = twin >= 0, near >= 0
        row = np.where(compared, twin, near)
        parts.append(
            pd.DataFrame(
                {
                    "row": rows,
                    **told(images, rows),
                    "other_split": other,
                    "other_row": row,
                    "other_id": told(images, row)["id"],
                    "similarity": np.where(compared, value, np.nan),
                    "correlation": correlation,
                    "by": np.where(compared, "similarity", np.where(looked_up, "correlation", "none")),
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    table["other_id"] = table["other_id"].astype("string")
    kind = table["by"].map({"none": 0, "correlation": 1, "similarity": 2}).to_numpy()
    alike = np.where(kind == 2, table["similarity"], table["correlation"])
    order = np.lexsort((table["other_split"], table["row"], np.nan_to_num(alike, nan=-2.0), kind))
    return table.iloc[order].reset_index(drop=True)


def _nearest(run: Run, images: Images, split: str) -> tuple[np.ndarray, np.ndarray]:
    """For every image the most alike of a split in coarse coefficients, -1 where unknown, and their correlation."""
    n = len(images.table)
    row, correlation = np.full(n, -1, dtype=np.int64), np.full(n, np.nan)
    if run.parts("nearest_by_split"):
        known = run.read_table("nearest_by_split").to_pandas()
        known = known[known["split"] == split]
    else:  # looked up among all images, whatever their split
        known = run.read_table("nearest").to_pandas()
        there = known["nearest_row"].to_numpy()
        known = known[(there >= 0) & images.of(split)[np.maximum(there, 0)]]
    row[known["row"]], correlation[known["row"]] = known["nearest_row"], known["correlation"]
    first = np.asarray(run.read_table("representatives", ["first"])["first"])
    found = first >= 0
    row[found], correlation[found] = row[first[found]], correlation[first[found]]
    return row, correlation
