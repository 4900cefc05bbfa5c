"""python -m daskim.jobs.diff: what a run says otherwise than an earlier one."""

from __future__ import annotations

import csv
import io
import sys
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from daskim.errors import SettingsError, SourceError
from daskim.jobs.options import Json, storage_options
from daskim.jobs.terminal import command_app, plain, print_table, run_app

if TYPE_CHECKING:
    from daskim.difference import Difference

__all__ = ["app", "main"]

EPILOGUE = """\
A family is a kept image with those that were dropped for it. Images are told by their ids, so the runs must be of one
source, or of two versions of it.
Exit codes: 0 finished, whether or not something differs, 1 bug, 2 usage, 4 a run cannot be reached, 130 interrupted.
"""

app = command_app(
    "diff",
    """Tell what differs between two finished runs: images, decisions, families, influential groups, settings.

    RUN1 is the earlier one. The runs may be of different sizes and methods.""",
    EPILOGUE,
)

TITLES = {
    "settings": "Settings",
    "images_added": "Images added",
    "images_removed": "Images removed",
    "newly_broken": "Newly broken images",
    "newly_readable": "Newly readable images",
    "decisions": "Decisions",
    "families": "Families",
    "influential": "Influential groups",
}
# Ids of a group that are printed.
IDS = 6
SUFFIXES = (".json", ".csv")


@app.default
def diff(
    run1: Annotated[str, Parameter(name="RUN1", help="Directory or URL of a finished run.")],
    run2: Annotated[str, Parameter(name="RUN2", help="Another one, which is told against the first.")],
    /,
    *,
    show: Annotated[int, Parameter(help="Entries of each list that are printed.")] = 10,
    output: Annotated[str | None, Parameter(help="File for all of it: FILE.json or FILE.csv.")] = None,
    storage_option: Annotated[
        list[str] | None, Parameter(help="key=value for fsspec, for runs that are URLs; repeat.", negative="")
    ] = None,
    json: Json = False,
) -> int:
    """Tell what differs between two finished runs."""
    if show < 0:
        raise SettingsError(f"--show {show}: fewer than none", "Give the number of entries of each list.")
    if output is not None and not output.lower().endswith(SUFFIXES):
        raise SettingsError(f"--output {output}: neither JSON nor CSV", "Give FILE.json or FILE.csv.")
    options = storage_options(storage_option or [])
    from daskim.difference import difference
    from daskim.results import open_run

    one, two = (open_run(run, run_options=options if "://" in run else {}) for run in (run1, run2))
    found = difference(one, two)
    if output is not None:
        _write(found, output)
    if json:
        _print_json(found, show, output)
    else:
        _show(found, run1, run2, show, output)
    return 0


def _write(found: Difference, output: str) -> None:
    text = io.StringIO(newline="")
    if output.lower().endswith(".csv"):
        writer = csv.DictWriter(text, ["kind", "change", "name", "before", "after"])
        writer.writeheader()
        writer.writerows(found.rows())
    else:
        from dataclasses import asdict

        text.write(dumps({"counts": found.counts(), **asdict(found)}, indent=1, ensure_ascii=False) + "\n")
    target = Path(output)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        temporary.write_text(text.getvalue(), encoding="utf-8", newline="")
        temporary.replace(target)
    except OSError as error:
        raise SourceError(f"--output {output}: cannot be written ({error.strerror})", "Choose another file.") from None


def _print_json(found: Difference, show: int, output: str | None) -> None:
    from dataclasses import asdict

    whole = asdict(found)
    for kind in TITLES:
        for entry in whole[kind][:show]:
            print(dumps({"event": kind, **(entry if isinstance(entry, dict) else {"id": entry})}))
    print(dumps({"event": "summary", **found.counts(), "notes": found.notes, "shown": show, "output": output}))


def _show(found: Difference, run1: str, run2: str, show: int, output: str | None) -> None:
    counts = found.counts()
    images = counts["images"]
    rows = [
        ("images", f"{images['after']:,}", f"{images['before']:,} before, {images['common']:,} in both"),
        ("images added", f"{counts['images_added']:,}", ""),
        ("images removed", f"{counts['images_removed']:,}", ""),
        ("newly broken", f"{counts['newly_broken']:,}", f"{counts['newly_readable']:,} newly readable"),
        ("decisions changed", f"{counts['decisions']:,}", _dropped(counts)),
        ("families changed", f"{sum(counts['families'].values()):,}", _changes(counts["families"])),
        ("influential groups changed", f"{sum(counts['influential'].values()):,}", _changes(counts["influential"])),
        ("settings that differ", f"{counts['settings']:,}", ""),
    ]
    print_table(f"{run2} against {run1}", ["", "number", ""], rows)
    for note in found.notes:
        print(plain(f"note: {note}"))
    if found.empty:
        print("The runs agree on every image." if not found.notes else "Nothing else differs.")
    left = 0
    for kind, title in TITLES.items():
        listed = getattr(found, kind)
        if not listed:
            continue
        print(f"\n{title}")
        for entry in listed[:show]:
            print(plain("  " + _line(kind, entry).replace("\n", "\\n")))
        if len(listed) > show:
            left += len(listed) - show
            print(f"  and {len(listed) - show:,} more")
    if output is not None:
        print(plain(f"\nAll of it is in {output}"))
    elif left:
        print("\n--output FILE.json or FILE.csv holds the rest; --show N prints more.")


def _dropped(counts: dict[str, Any]) -> str:
    return f"{counts['dropped']:,} dropped now, {counts['no_longer_dropped']:,} no longer"


def _changes(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {change}" for change, count in counts.items() if count)


def _line(kind: str, entry: Any) -> str:
    if kind == "settings":
        return f"{entry['key']}: {dumps(entry['before'])} -> {dumps(entry['after'])}"
    if kind in ("images_added", "images_removed"):
        return str(entry)
    if kind in ("newly_broken", "newly_readable"):
        reason = f" ({entry['reason']})" if entry["reason"] else ""
        return f"{entry['id']}: {entry['before']} -> {entry['after']}{reason}"
    if kind == "decisions":
        was, now = (
            f"{entry[when]} for {entry['kept_' + when]}" if entry["kept_" + when] else entry[when]
            for when in ("before", "after")
        )
        return f"{entry['id']}: {was} -> {now}"
    if entry.change == "changed":
        return f"changed: {_groups(entry.before)} -> {_groups(entry.after)}"
    return f"{entry.change}: {_groups(entry.before or entry.after)}"


def _groups(groups: list[dict[str, Any]]) -> str:
    told = []
    for group in groups[:IDS]:
        others = [name for name in group["ids"] if name != group["kept"]]
        more = f" and {len(others) - IDS:,} more" if len(others) > IDS else ""
        kept = f"{group['kept']} kept for " if group["kept"] else ""
        told.append(f"{kept}{', '.join(others[:IDS])}{more}")
    more = f" | and {len(groups) - IDS:,} groups more" if len(groups) > IDS else ""
    return " | ".join(told) + more


def main(arguments: list[str] | None = None) -> int:
    """Entry of the command; returns the exit code."""
    return run_app(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
