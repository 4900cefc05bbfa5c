"""Real and hostile files (DASKIM_DATA): every file accounted for, nothing leaks, the figures of the set hold."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from daskim.lake import STATUSES, ImageSpec, list_images, standardise_block, unescape

# Files on which we and Pillow's plain open-and-load differ, and why.
BETTER_THAN_PILLOW = {
    "generated/no_eoi.jpg": "lacks nothing but its end marker: all pixels are there",
}


@pytest.fixture(scope="session")
def hostile(data, tmp_path_factory) -> Path:
    """The hostile folder with the generated files unpacked beside the others, and a canary outside."""
    top = tmp_path_factory.mktemp("hostile")
    root = top / "set"
    for folder, _, names in os.walk(data / "hostile"):
        for name in names:
            target = root / Path(folder).relative_to(data / "hostile") / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((Path(folder) / name).read_bytes())
    with tarfile.open(root / "generated.tar.gz") as archive:
        archive.extractall(root, filter="data")
    (top / "canary.png").write_bytes(b"outside")
    (root / "generated" / "out.png").symlink_to(top / "canary.png")
    return root


def verdicts(root: Path) -> dict[str, str]:
    with open(root / "MANIFEST.csv", newline="", encoding="utf-8") as file:
        return {row["path"]: row["pillow13_result"] for row in csv.DictReader(file)}


def every_file(root: Path) -> Counter[str]:
    """Paths below `root`, links and all, without following any."""
    return Counter(
        os.path.relpath(os.path.join(folder, name), root)
        for folder, folders, names in os.walk(root)
        for name in names + [f for f in folders if os.path.islink(os.path.join(folder, f))]
    )


def test_every_hostile_file_is_accounted_for(hostile):
    listing = list_images([str(hostile)])
    _, table = standardise_block(listing.table, ImageSpec())
    rows = {unescape(row["id"]): row for row in table.to_pylist()}
    assert len(rows) + sum(listing.ignored.values()) == len(every_file(hostile))
    assert rows["generated/out.png"]["status"] == "outside-source"
    assert rows["generated/dangling.jpg"]["status"] == "missing"
    assert listing.ignored["directory-link"] == 1
    assert {row["status"] for row in rows.values()} <= set(STATUSES)
    differ = {}
    for path, verdict in verdicts(hostile).items():
        if path not in rows:
            assert "." not in path.rpartition("/")[2], path  # no extension, no signature: ignored
            assert verdict == "UnidentifiedImageError"
        elif (rows[path]["status"] in ("ok", "flat")) != (verdict == "ok"):
            differ[path] = rows[path]["status"]
    assert set(differ) == set(BETTER_THAN_PILLOW), differ


def test_hostile_run_is_silent_bounded_and_repeatable(hostile):
    script = """
import resource, sys
from daskim.lake import ImageSpec, list_images, standardise_block
table = list_images([sys.argv[1]]).table
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pixels, rows = standardise_block(table, ImageSpec())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, hash(pixels.tobytes()), hash(str(rows.to_pylist())))
"""
    answers = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, str(hostile)],
            capture_output=True, text=True, timeout=120, check=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )  # fmt: skip
        assert done.stderr == ""
        kilobytes, *hashes = done.stdout.split()
        # The largest honest file has 1.4 megapixels; any one bomb would take 144 MB or more.
        assert int(kilobytes) < 130_000
        answers.append(hashes)
    assert answers[0] == answers[1]


def test_the_landscapes_are_one_picture_in_eight_orientations(data):
    listing = list_images([str(data / "hostile" / "exif-orientation")])
    pixels, table = standardise_block(listing.table, ImageSpec())
    shown = pixels.astype(int)
    assert table.num_rows == 9
    assert len(set(zip(table["width"].to_pylist(), table["height"].to_pylist()))) == 1
    assert all(np.abs(shown[0] - other).mean() < 6 for other in shown)


def test_cifar10_labels_splits_and_pixels(data):
    listing = list_images([str(data / "cifar10_jpeg")])
    assert listing.table.num_rows == 60_000
    assert Counter(listing.table["split"].to_pylist()) == {"train": 50_000, "test": 10_000}
    part = listing.table.slice(10_990, 20)  # crosses a row group
    pixels, table = standardise_block(part, ImageSpec())
    assert set(table["status"].to_pylist()) == {"ok"}
    assert all(table["full"].to_pylist())
    whole, _ = standardise_block(listing.table.slice(10_000, 2_000), ImageSpec())
    np.testing.assert_array_equal(pixels, whole[990:1010])


def test_mnist(data):
    listing = list_images([str(data / "mnist")])
    assert Counter(listing.table["split"].to_pylist()) == {"train": 60_000, "test": 10_000}
    assert Counter(listing.table["label"].to_pylist())["1"] == 6742 + 1135
    pixels, _ = standardise_block(listing.table.slice(0, 10), ImageSpec(28, 28, mode="L", fit="native"))
    assert pixels.shape == (10, 28, 28, 1)
    assert pixels.max() == 255


@pytest.mark.parametrize(("method", "mean"), [("bilinear", 1.0), ("lanczos", 1.0), ("area", 2.0)])
def test_draft_on_photographs_stays_close(data, method, mean):
    # Pillow's BOX counts each pixel wholly or not at all, so that area depends more on the size it starts from.
    table = list_images([str(data / "photos_bsds60")]).table
    fast, _ = standardise_block(table, ImageSpec(filter=method))
    slow, _ = standardise_block(table, ImageSpec(filter=method, draft=False))
    gap = fast.astype(int) - slow
    assert np.abs(gap).mean() < mean
    assert abs(gap.mean()) < mean / 5
    whole = Image.open(data / "photos_bsds60" / table["id"][0].as_py()).convert("RGB")
    name = {"area": "BOX"}.get(method, method.upper())
    np.testing.assert_array_equal(slow[0], np.asarray(whole.resize((32, 32), Image.Resampling[name])))
