"""The demo: images with planted edits, made where the work can read them, and what was found of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daskim.errors import SourceError
from daskim.jobs.terminal import print_table

__all__ = ["Demo", "make_demo", "show_demo"]


@dataclass(frozen=True)
class Demo:
    """Where the demo is.

    Attributes
    ----------
    images : str
        Path or URL of the folder of images.
    truth : str
        The truth about them, as the text of a CSV file; "" where the demo was not made now.
    """

    images: str
    truth: str = ""


def make_demo(run: str, scratch: Path, options: Mapping[str, Any], *, plan: bool) -> Demo:
    """Make the demo below the run, where workers on other machines read it too.

    Parameters
    ----------
    run : str
        Directory or fsspec URL.
    scratch : Path
        A folder for the time of the command.
    options : mapping
        For fsspec, of the run.
    plan : bool
        Leave nothing behind: made in `scratch` only, unless the run has it already.

    Raises
    ------
    SourceError
        It cannot be written.
    """
    from daskim.synthetic import write_demo

    remote = "://" in run
    folder = Path(run) / "demo"
    if plan and not remote and folder.is_dir():
        return Demo(str(folder))
    if plan or remote:
        folder = scratch / "demo"
    file = folder.parent / "demo-truth.csv"
    try:
        write_demo(folder, truth=file)
        truth = file.read_text(encoding="utf-8")
    except OSError as error:
        raise SourceError(f"run {run}: cannot write the demo ({error})", "Choose another --run.") from None
    if not remote:
        return Demo(str(folder), truth)
    from daskim.lake import locate, upload

    place = locate(run, options).join("demo")
    if plan and not place.exists():
        return Demo(str(folder), truth)
    if not plan:
        upload(folder, place)
    return Demo(run.rstrip("/") + "/demo", truth)


def show_demo(found: Any, demo: Demo) -> None:
    """The table of what was planted and what was found."""
    from io import StringIO

    import pandas as pd

    from daskim.synthetic import score_demo

    truth = pd.read_csv(StringIO(demo.truth), keep_default_na=False)
    score = score_demo(truth, found.plan, found.influential, found.images)
    rows = [
        (kind, planted if planted else "-", count, f"{100 * recall:.0f} %" if recall == recall else "-")
        for kind, planted, count, recall in score.itertuples(index=False)
    ]
    print_table("Planted in the demo, and found", ["kind", "planted", "found", "recall"], rows, numbers=3)
    print()
