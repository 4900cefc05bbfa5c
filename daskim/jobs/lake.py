"""python -m daskim.jobs.lake: a synthetic lake of any number of images with known redundancy."""

from __future__ import annotations

import sys
import time
from json import dumps
from typing import Annotated, Literal

from cyclopts import Parameter

from daskim.errors import SourceError
from daskim.jobs.options import Json, Quiet
from daskim.jobs.terminal import Display, command_app, plain, print_table, run_app

__all__ = ["app", "main"]

EPILOGUE = """\
Image i is a function of --seed, --redundancy, --size and i alone: a smaller lake is the beginning of a larger one, and
no byte depends on --workers. The planted kinds: copy (the same file), recoded, brightness, contrast, shift, mirror,
crop, noise, relabelled (the same file under another label). A call that ended early goes on when it is given again.
Exit codes: 0 finished, 1 bug, 2 usage or a folder of something else, 4 it cannot be written, 130 interrupted.
"""

app = command_app(
    "lake",
    """Write a synthetic lake: JPEG images with the statistics of small photographs, some of them edits of others.

    For trials and benchmarks at sizes for which nobody has images at hand. FOLDER is then the INPUT of a job.""",
    EPILOGUE,
)


@app.default
def lake(
    folder: Annotated[str, Parameter(name="FOLDER", help="New or empty, or one that holds this lake already.")],
    /,
    *,
    n: Annotated[int, Parameter(help="Images.")],
    seed: Annotated[int, Parameter(help="Another seed, another lake.")] = 0,
    format: Annotated[
        Literal["parquet", "tar"], Parameter(help="Parquet with image {bytes, path} and label, or WebDataset.")
    ] = "parquet",
    size: Annotated[int, Parameter(help="Height and width in pixels.")] = 32,
    quality: Annotated[int, Parameter(help="Of the JPEG files.")] = 75,
    redundancy: Annotated[float, Parameter(help="Share of images that are edits of others.")] = 0.045,
    shard: Annotated[int, Parameter(help="Images in one file.")] = 10_000,
    workers: Annotated[int | None, Parameter(help="Threads [the cores].")] = None,
    truth: Annotated[str | None, Parameter(help="CSV file for what is planted, outside of FOLDER.")] = None,
    quiet: Quiet = False,
    json: Json = False,
) -> int:
    """Write a synthetic lake."""
    from daskim.synthetic import write_lake

    start = time.monotonic()
    with Display(quiet=quiet, as_json=json) as display:
        display.begin("lake", "shards", -(-n // max(1, shard)), 0)
        try:
            made = write_lake(
                folder,
                n,
                seed=seed,
                format=format,
                size=size,
                quality=quality,
                redundancy=redundancy,
                shard=shard,
                workers=workers,
                progress=lambda _: display.advance("lake"),
            )
            planted = made.truth()
            if truth is not None:
                planted.to_csv(truth, index=False)
        except OSError as error:
            raise SourceError(f"{folder}: cannot be written ({error})", "Choose another folder.") from None
    kinds = {str(kind): int(count) for kind, count in planted["kind"].value_counts().sort_index().items()}
    seconds = time.monotonic() - start
    if json:
        told = {"files": len(made.files), "seconds": round(seconds, 3), **made.facts, "planted": kinds}
        print(dumps({"event": "lake", **told}))
    elif not quiet:
        print_table("Planted", ["kind", "images"], [(kind, f"{count:,}") for kind, count in kinds.items()], numbers=1)
        print(plain(f"{n:,} images in {len(made.files):,} files in {folder}, {seconds:.1f} s"))
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Entry of the command; returns the exit code."""
    return run_app(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
