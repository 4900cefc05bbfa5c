"""Runs for the tests of the page: a small one with hostile ids and labels, and a large one made of tables only."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from planted_runs import noisy

import daskim
from daskim.resolve import to_toml
from daskim.results import open_run
from daskim.settings import Settings
from daskim.store import Run

# Each would run, hide something or break out of its place if it were not escaped there.
EVIL = (
    "<img src=x onerror=window.broken=1>",
    '"><script>window.broken=1</script>',
    "</script><script>window.broken=1</script>",
    "<!--<script>",
    "photo\u202egpj.exe",
    "line\u2028break\u0007",
    "'; window.broken=1; '",
    "{{ 7 * 7 }}{% raw %}",
    "a,b\"c\" =cmd|' /C calc'!A0",
    "\u200bgit\u2066hidden\u2069",
)
FAMILIES = 10


def hostile_run(home: Path) -> daskim.FinishedRun:
    """10 families of an image and its copy, 2 of them with a mirrored one; a group of two labels; 6 single images; a
    broken file. Ids and labels are those of `EVIL`; half of the images are of split train, half of test.
    """
    home.mkdir()
    lines = []

    def add(pixels: np.ndarray, label: str) -> None:
        name = f"{len(lines):03d}.png"
        Image.fromarray(pixels).save(home / name)
        evil = EVIL[len(lines) % len(EVIL)]
        split = ("train", "test")[len(lines) % 2]
        lines.append({"file_name": name, "label": label, "split": split, "daskim_id": f"{len(lines):03d}/{evil}"})

    for family in range(FAMILIES):
        label = EVIL[family % 5]
        add(texture(family), label)
        add(texture(family) if family % 2 else noisy(texture(family)), label)
        if family < 2:
            add(np.ascontiguousarray(texture(family)[:, ::-1]), label)
    add(texture(100), EVIL[0])
    add(noisy(texture(100)), EVIL[1])
    for single in range(200, 206):
        add(texture(single, (40, 72)), EVIL[single % 5])
    (home / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    lines.append({"file_name": "broken.png", "label": EVIL[2], "split": "train", "daskim_id": EVIL[2]})
    manifest = home / "set.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    settings = {"method": "similarity", "candidates.method": "all", "clusters.by": "threshold"}
    return daskim.reduce(manifest, run=home / "run", settings=settings, workers=1)


def texture(seed: int, size: tuple[int, int] = (32, 32)) -> np.ndarray:
    """A picture of blobs, shape (h, w, 3), uint8: unlike every other seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3)).astype(np.uint8))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC))


def large_run(home: Path, n: int, dropped: int = 3000) -> daskim.FinishedRun:
    """A finished run of n images whose source is gone: every second of the first rows is dropped for the one before.

    The first `2 * dropped` images are noise, which no codec makes smaller; the others are black.
    """
    store = Run(str(home))
    rows = np.arange(n)
    ids = [f"shard-{row // 1000:05d}/class {row % 100}/image {row:08d}.jpeg" for row in rows.tolist()]
    label, split = [f"class {row % 100}" for row in rows.tolist()], np.where(rows % 5 == 0, "test", "train")
    follows = (rows % 2 == 1) & (rows < 2 * dropped)
    leads = (rows % 2 == 0) & (rows < 2 * dropped)
    status = ["ok"] * n
    texts = {"id": ids, "uri": ids, "label": label, "split": split}
    size = {"width": np.full(n, 32), "height": np.full(n, 32), "bytes": np.full(n, 900)}
    index = {
        **texts,
        "source": np.zeros(n, np.int32),
        "format": ["folder"] * n,
        "container": [f"/gone/{i}" for i in ids],
    }
    index |= {
        "item": np.zeros(n, np.int64),
        "member": pa.nulls(n, pa.string()),
        "etag": pa.nulls(n, pa.string()),
        "bytes": size["bytes"],
    }
    index |= {"mtime": np.zeros(n), "status": status, "reason": [""] * n}
    store.write_part("index", "000000", pa.table({"row": rows, **index}))
    images = {**texts, **size, "status": status, "reason": [""] * n, "file_digest": [b"?"] * n}
    store.write_part("images", "000000", pa.table({"row": rows, **images}))
    similarity = np.where(follows, 0.6 + 0.4 * ((7 * rows + 500) % 1000) / 1000, np.nan)
    plan = {**texts, "decision": np.where(follows, "drop", "keep"), "status": status, "cluster": rows // 2}
    plan["kept_id"] = pa.array([ids[row - 1] if gone else None for row, gone in enumerate(follows.tolist())])
    plan |= {"similarity": similarity, "rms": np.where(follows, 3.0, np.nan)}
    plan["rule"] = np.where(follows, "redundant", np.where(leads, "kept", "single"))
    store.write_part("plan", "000000", pa.table({"row": rows, **plan}))
    clusters = {"cluster": rows // 2, "size": np.full(n, 2), "distance": np.zeros(n)}
    store.write_part("clusters", "000000", pa.table({"row": rows, **clusters}))
    pairs = {"a": rows[follows] - 1, "b": rows[follows], "similarity": similarity[follows]}
    store.write_part("pairs", "000000", pa.table(pairs))
    array = store.create_array("images", (n, 32, 32, 3), "u1", 1000)
    noise = np.random.default_rng(0).integers(0, 256, (min(n, 2 * dropped), 32, 32, 3)).astype(np.uint8)
    array[: len(noise)] = noise
    store.write(to_toml(Settings.model_validate({"source": {"inputs": ["/gone"]}})).encode(), "settings.toml")
    facts = {"n_images": n, "status": {"ok": n}, "n_keep": n - dropped, "n_drop": dropped, "n_exact": 0, "daskim": "0"}
    more = {
        "n_influential": 0,
        "n_influential_clusters": 0,
        "method": "wavelet",
        "plan_hash": "x",
        "notes": [],
        "seconds": {},
    }
    side = {"height": 32, "width": 32, "channels": 3, "n": n, "rows": 1000}
    store.write_json({**facts, **more, "size": side}, "summary.json")
    return open_run(str(home))
