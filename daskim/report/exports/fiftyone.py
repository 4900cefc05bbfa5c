"""Samples for FiftyOne, as one JSON document.

It is what `fo.Dataset.from_json(path)` and `fo.Dataset.from_dict(document)` read (the form that `to_dict()` writes:
name, media_type, info, sample_fields, samples). A file named samples.json is read, too, by
`fo.Dataset.from_dir(folder, dataset_type=fo.types.FiftyOneDataset)`, which takes a folder without metadata.json for its
older form and infers the fields. See https://docs.voxel51.com/user_guide/import_datasets.html (FiftyOneDataset).

FiftyOne shows files. Images inside Parquet, tar, array or IDX files have no file of their own: `filepath` is then the
container with the place in it, and `python -m daskim.jobs.apply --to` can write them out as files first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from daskim import __version__
from daskim.report.facts import facts_of
from daskim.report.files import put
from daskim.results import FinishedRun

__all__ = ["FIELDS", "samples_of", "write"]

STRING, FLOAT, INT = (f"fiftyone.core.fields.{kind}Field" for kind in ("String", "Float", "Int"))
FIELDS = {
    "ground_truth": "fiftyone.core.fields.EmbeddedDocumentField(fiftyone.core.labels.Classification)",
    "daskim_id": STRING,
    "daskim_status": STRING,
    "daskim_decision": STRING,
    "daskim_rule": STRING,
    "daskim_kept_id": STRING,
    "daskim_similarity": FLOAT,
    "daskim_cluster": INT,
}
NAMES = {"daskim_id": "id", "daskim_status": "status", "daskim_decision": "decision", "daskim_rule": "rule"}
NAMES |= {"daskim_kept_id": "kept_id", "daskim_similarity": "similarity", "daskim_cluster": "cluster"}


def write(run: FinishedRun, path: str, storage_options: Mapping[str, Any] | None = None) -> list[str]:
    """Write the document."""
    facts = facts_of(run)
    samples = samples_of(run)
    document = {
        "name": f"daskim {facts.title}",
        "media_type": "image",
        "num_samples": len(samples),
        "info": {"daskim": __version__, "run": run.run, "verdict": facts.verdict},
        "sample_fields": FIELDS,
        "samples": samples,
    }
    return [put(json.dumps(document, allow_nan=False).encode(), path, "--export fiftyone", storage_options)]


def samples_of(run: FinishedRun) -> list[dict[str, Any]]:
    """One sample an image, in the order of the rows. Tags: its split, drop or review, influential, leaked."""
    table = run.present(["row", "id", "uri", "label", "split", "status"]).set_index("row")
    if run.has("plan"):
        plan = run.table("plan", ["row", "decision", "rule", "kept_id", "similarity", "cluster"]).set_index("row")
        table = table.join(plan)
    leaked = set(run.table("leakage", ["row"])["row"].tolist()) if run.has("leakage") else set()
    return [_sample(int(row), entry, leaked) for row, entry in zip(table.index, table.to_dict("records"))]


def _sample(row: int, entry: Mapping[str, Any], leaked: set[int]) -> dict[str, Any]:
    value = {key: None if pd.isna(found) else found for key, found in entry.items()}
    tags = [value["split"], value.get("decision") if value.get("decision") != "keep" else None]
    tags += ["influential" if value.get("rule") == "influential" else None, "leaked" if row in leaked else None]
    label = value["label"]
    return {
        "filepath": value["uri"],
        "tags": [tag for tag in tags if tag],
        "metadata": None,
        "_media_type": "image",
        "ground_truth": None if label is None else {"_cls": "Classification", "tags": [], "label": label},
        **{field: value.get(name) for field, name in NAMES.items()},
    }
