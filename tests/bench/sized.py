"""Manifests of the sizes that the comments in jobs/*.toml speak of: `python -m tests.bench.sized NAME FOLDER`.

Every entry of the manifest has an id and a label of its own and leads to the same file, which has the mean size of an
image, and holds nothing. `--plan` then counts and sizes what it would with the images; it opens none of them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SETS", "Sized", "write"]


@dataclass(frozen=True)
class Sized:
    """A set: its number of images and classes, the mean size of a file in bytes, and how its figures were made."""

    n: int
    classes: int
    bytes: int
    place: str


SETS = {
    "imagenet": Sized(1_281_167, 1_000, 110_000, "--cluster local --workers 16 --memory 64GB"),
    "landmarks": Sized(4_132_914, 203_094, 130_000, "--cluster local --workers 32 --memory 256GB"),
    "nightly-dedup": Sized(1_000_000, 1_000, 200_000, "--cluster local --workers 8 --memory 24GB"),
}


def write(about: Sized, folder: Path) -> Path:
    """The manifest, in a folder that is made."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "one.jpg").open("wb") as file:
        file.truncate(about.bytes)
    manifest = folder / "manifest.csv"
    with manifest.open("w", encoding="utf-8") as text:
        text.write("daskim_id,file_name,label\n")
        for row in range(about.n):
            text.write(f"{row % about.classes:06d}/{row:08d}.jpg,one.jpg,{row % about.classes}\n")
    return manifest


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sized", description=__doc__)
    parser.add_argument("name", choices=list(SETS))
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    about = SETS[asked.name]
    manifest = write(about, asked.folder)
    run = asked.folder / "run"
    print(f"python -m daskim.jobs.reduce {manifest} --job {asked.name} --plan {about.place} --run {run}")


if __name__ == "__main__":
    main()
