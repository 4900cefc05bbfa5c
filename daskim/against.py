"""A delivery looked up in an existing run, without becoming part of it: `reduce NEW --run RUN --against OLD`.

RUN begins as a copy of OLD's tables, with arrays that hold nothing: rows below OLD's number are read from OLD. Then the
images of NEW are taken in as a delivery. OLD is only read. Leaves, besides what a run leaves, the table `twins`: row,
id, label (an image of NEW), other_row, other_id, other_label (of OLD, most similar first), rank (from 1), similarity,
kind (exact or near), agreement of the labels (same, conflict, unknown).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from daskim.errors import SettingsError, SourceError
from daskim.kept import exact_groups
from daskim.plugins import find
from daskim.resolve import PLUGINS, from_toml, refuse_code
from daskim.settings import Settings
from daskim.store import Run

__all__ = ["begin_against", "own_counts", "settings_of", "twins"]

# Arrays that a delivery reads old rows of.
ARRAYS = ("images", "coarse", "signatures")
# Twins that are listed of an image.
PER_IMAGE = 5


def settings_of(url: str, options: dict[str, Any], trusted: Collection[str] = ()) -> Settings:
    """What a run was made with: how another set is compared with it.

    Parameters
    ----------
    trusted : collection of str
        Plug-ins from outside that they may name (`daskim.resolve.refuse_code`).

    Raises
    ------
    SourceError
        There is no finished run.
    SettingsError
        It cannot be compared with: it has no index to look images up in, or names code that is not trusted.
    """
    run = Run(url, options)
    if run.read_json("summary.json") is None:
        raise SourceError(f"--against {url}: no finished run", "Give the directory or URL that --run named.")
    if run.exists("state", "delivery", "open.json"):
        raise SourceError(f"--against {url}: a delivery is under way there", "Finish it first, with --update.")
    origin = f"settings.toml of run {url}"
    settings = from_toml(run.read("settings.toml").decode(), origin)
    refuse_code({key: settings.get(key) for key in PLUGINS}, origin, trusted)
    of = find("similarities", settings.similarities.name).of
    if (
        settings.method != "similarity"
        or settings.candidates.method == "all"
        or of != "pixels"
        or not settings.sees_standard
    ):
        raise SettingsError(
            f"--against {url}: it has no index that other images could be looked up in",
            "Make it with --method similarity, --candidates union and a similarity of pixels at the standard size.",
        )
    return settings


def begin_against(run: Run, url: str) -> int:
    """Let a run begin on top of another one, unless it has; how many rows the other has.

    Raises
    ------
    SettingsError
        The run holds something else.
    """
    record = run.read_json("below.json")
    if record is not None and record["url"] == url:
        return int(record["n"])
    if record is not None or run.exists("state"):
        what = "is compared with another run" if record is not None else "is a run already"
        raise SettingsError(f"--run {run.url} {what}", "Choose another --run for what is compared --against it.")
    old = Run(url, run.options)
    n = int(old.facts("index")["n"])
    for table in old.names("tables"):
        if table not in ("boundaries", "boundary_lines", "twins"):
            for key in old.parts(table):
                run.write(old.read("tables", table, f"{key}.parquet"), "tables", table, f"{key}.parquet")
    for folder in old.names("frozen"):
        for name in old.names("frozen", folder):
            run.write(old.read("frozen", folder, name), "frozen", folder, name)
    for name in ARRAYS:
        if name in old.names("arrays"):
            like = old.array(name)
            attributes = {key: value for key, value in like.attrs.items() if key != "made"}
            run.create_array(name, like.shape, like.dtype, old.block_rows(name), attributes)
    run.write_json({"url": url, "n": n}, "below.json")
    run.forget_below()
    for stage in old.names("state"):
        for name in ("stage.json", "sealed.json"):
            if old.exists("state", stage, name):
                run.write(old.read("state", stage, name), "state", stage, name)
    return n


def own_counts(run: Run, theirs: int) -> dict[str, Any]:
    """What a summary counts over all images, counted over those that are no part of the other run."""
    images = run.read_table("images", ["row", "status"]).to_pandas()
    group = exact_groups(run, len(images))
    own = images["row"].to_numpy() >= theirs
    status = images.loc[own, "status"].value_counts().sort_index()
    row = images["row"].to_numpy()[own]
    return {
        "n_images": int(own.sum()),
        "status": {str(name): int(count) for name, count in status.items()},
        "n_exact": int(((group[row] >= 0) & (group[row] != row)).sum()),
    }


def twins(run: Run, theirs: int, least: float) -> dict[str, Any]:
    """Leave the table `twins`; how many images of the delivery have one, by its kind, and with another label."""
    images = (
        run.read_table("images", ["row", "id", "label", "status"]).to_pandas().sort_values("row", ignore_index=True)
    )
    group = exact_groups(run, len(images))
    found = [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))]
    for key in run.parts("pairs"):
        a, b, value = (np.asarray(c) for c in run.read_part("pairs", key, ["a", "b", "similarity"]).columns)
        mine = (a < theirs) & (b >= theirs) & (value >= least)
        found.append((b[mine], a[mine], value[mine]))
    row, other, value = (np.concatenate(column) for column in zip(*found))
    exact = (group[row] >= 0) & (group[row] == group[other])
    order = np.lexsort((other, -value, ~exact, row))
    row, other, value, exact = row[order], other[order], value[order], exact[order]
    rank = np.arange(len(row)) - np.searchsorted(row, row) + 1
    label, theirs_label = images["label"].to_numpy(dtype=object)[row], images["label"].to_numpy(dtype=object)[other]
    known = ~(pd.isna(label) | pd.isna(theirs_label))
    table = pd.DataFrame(
        {
            "row": row,
            "id": images["id"].to_numpy(dtype=object)[row],
            "label": pd.array(label, dtype="string"),
            "other_row": other,
            "other_id": images["id"].to_numpy(dtype=object)[other],
            "other_label": pd.array(theirs_label, dtype="string"),
            "rank": rank,
            "similarity": value,
            "kind": np.where(exact, "exact", "near"),
            "agreement": np.where(known, np.where(label == theirs_label, "same", "conflict"), "unknown"),
        }
    )
    table["id"], table["other_id"] = table["id"].astype("string"), table["other_id"].astype("string")
    run.write_part("twins", "000000", pa.Table.from_pandas(table[rank <= PER_IMAGE], preserve_index=False))
    return {
        "images": int((images["row"] >= theirs).sum()),
        "known": int(table["row"].nunique()),
        "exact": int(table.loc[table["kind"] == "exact", "row"].nunique()),
        "conflicts": int(table.loc[table["agreement"] == "conflict", "row"].nunique()),
        "pairs": len(table),
        "run_images": theirs,
    }
