"""What a finished run found, as counts and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

from daskim.report.next import next_commands
from daskim.report.words import counted, listed, share, shortened, visible
from daskim.results import FinishedRun
from daskim.settings import Settings
from daskim.statuses import READABLE

__all__ = ["NO_LABEL", "Facts", "classes_of", "facts_of"]

NO_LABEL = "(no label)"
# Names of splits on which models are judged: their images are not there to be dropped.
JUDGED = ("test", "val", "valid", "validation", "dev", "eval")
# Classes that a sentence names.
NAMED = 3


@dataclass(frozen=True)
class Facts:
    """What a report opens with. All texts are plain (no markup); labels are as the source has them: escape them.

    Attributes
    ----------
    title : str
        What was looked at.
    method : str
        wavelet, similarity or compare.
    images, kept, redundant, exact, influential, influential_groups, broken, flat : int
        Numbers of images; influential_groups are clusters. `exact` are copies of an earlier image.
    anomalous : int or None
        Images that are like no other; None where the run did not look. It did not see all pairs unless
        candidates.method = all: then the highest similarity is below 0.2, else no other image was near
        enough to be a candidate.
    leaked : int or None
        Evaluated images with a twin in another split; None where the run did not look.
    by_class : list of (label, images, redundant)
        The largest share of redundant images first. Empty where no image has a label.
    loses : str
        What a training set would lose.
    verdict : str
        The answer in one or two sentences.
    next : list of (purpose, command)
    recall : dict or None
        images, pairs, found, recall, low, high: the estimate on images drawn at random.
    seconds : dict
        Of each stage.
    settings : list of (key, value)
        Those that differ from the defaults.
    notes : list of str
    cross : list of dict or None
        The cross table of `compare`: split, other_split, kind, agreement, pairs, images.
    """

    title: str
    method: str
    images: int
    kept: int
    redundant: int
    exact: int
    influential: int
    influential_groups: int
    broken: int
    flat: int
    anomalous: int | None
    leaked: int | None
    by_class: list[tuple[str, int, int]]
    loses: str
    verdict: str
    next: list[tuple[str, str]] = field(default_factory=list)
    recall: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    settings: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cross: list[dict[str, Any]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain Python values."""
        return asdict(self)


def facts_of(run: FinishedRun) -> Facts:
    """Facts of a run of method wavelet, similarity or compare."""
    summary = run.summary
    status = summary.get("status") or run.images["status"].value_counts().to_dict()
    images = int(summary.get("n_images", sum(status.values())))
    leakage = summary.get("leakage")
    redundant = int(summary.get("n_drop", 0))
    broken = int(sum(count for name, count in status.items() if name not in READABLE))
    by_class = classes_of(run)
    method = str(summary.get("method", "compare" if leakage else "wavelet"))
    counts: dict[str, Any] = {
        "images": images,
        "kept": int(summary.get("n_keep", images - broken)),
        "redundant": redundant,
        "exact": int(summary.get("n_exact", 0)),
        "influential": int(summary.get("n_influential", 0)),
        "influential_groups": int(summary.get("n_influential_clusters", 0)),
        "broken": broken,
        "flat": int(status.get("flat", 0)),
        "anomalous": (summary.get("anomalies") or {}).get("alone"),
        "leaked": None if leakage is None else int(leakage["images"]),
    }
    judged = _judged(run) if redundant else []
    verdict = _leak_verdict(leakage, counts) if leakage is not None else _verdict(counts, labelled=bool(by_class))
    return Facts(
        title=_title(run),
        method=method,
        by_class=by_class,
        loses=_loses(counts, by_class, judged, planned=run.has("plan")),
        verdict=_known(run) + verdict,
        next=next_commands(run, counts, leakage, judged),
        recall=(summary.get("similarities") or {}).get("recall"),
        seconds={str(name): float(value) for name, value in (summary.get("seconds") or {}).items()},
        settings=_settings(run),
        notes=[str(note) for note in summary.get("notes", [])],
        cross=None if leakage is None else list(leakage.get("cross", [])),
        **counts,
    )


def _known(run: FinishedRun) -> str:
    """What the run tells of another one that it is against."""
    told = run.summary.get("against")
    if told is None:
        return ""
    conflicts = f", {told['conflicts']:,} of them under another label" if told["conflicts"] else ""
    return f"{told['known']:,} of {told['images']:,} images are known in the run compared with{conflicts}. "


def _title(run: FinishedRun) -> str:
    """The last name of each input, with its folder; the folder alone where many inputs are in one."""
    paths = [item.rstrip("/") for item in run.settings.source.inputs]
    folders = {path.rpartition("/")[0] for path in paths}
    if len(paths) > NAMED and len(folders) == 1:
        folder = folders.pop().rpartition("/")[2]
        return f"{shortened(visible(folder), 60)} ({len(paths):,} inputs)"
    names = ["/".join(path.split("/")[-2:]).strip("/") or path for path in paths[:NAMED]]
    more = [f"{len(paths) - NAMED:,} more"] if len(paths) > NAMED else []
    return listed([shortened(visible(name), 60) for name in names] + more) or "images"


def _verdict(counts: Mapping[str, Any], *, labelled: bool) -> str:
    images, redundant, influential = (counts[name] for name in ("images", "redundant", "influential"))
    if not redundant and not influential:
        first = f"None of {counted(images, 'image')} is redundant: nothing needs to go before training."
    elif not redundant:
        first = f"None of {counted(images, 'image')} can be spared: no close one of the same label would stay."
    else:
        first = (
            f"{redundant:,} of {counted(images, 'image')} ({share(redundant, images)}) "
            f"{'is' if redundant == 1 else 'are'} redundant: a close image {'of the same label ' if labelled else ''}"
            f"stays for {'it' if redundant == 1 else 'each'}."
        )
    if influential:
        groups = counted(counts["influential_groups"], "group")
        return (
            f"{first} {counted(influential, 'image')} in {groups} look alike but carry different labels: check those."
        )
    return first


def _leak_verdict(leakage: Mapping[str, Any], counts: Mapping[str, Any]) -> str:
    found, evaluated, conflicts = int(leakage["images"]), int(leakage["evaluated"]), int(leakage["conflicts"])
    sides = _sides(leakage)
    if not found:
        return (
            f"None of {counted(evaluated, sides[0] + ' image')} has a twin in {sides[1]} at or above "
            f"{leakage['min_similarity']:g} ({leakage['similarity']})."
        )
    first = (
        f"{found:,} of {counted(evaluated, sides[0] + ' image')} ({share(found, evaluated)}) "
        f"{'has' if found == 1 else 'have'} a twin in {sides[1]}: {leakage['exact']:,} exact, {leakage['near']:,} near."
    )
    memory = "A model can answer these from memory, so that its score is too good"
    if conflicts:
        return f"{first} {memory}; {counted(conflicts, 'of them carries', 'of them carry')} another label there."
    return f"{first} {memory}."


def _sides(leakage: Mapping[str, Any]) -> tuple[str, str]:
    """Names of what was evaluated and of what it was compared with."""
    cross = leakage.get("cross") or []
    ours = sorted({visible(entry["split"]) for entry in cross})
    theirs = sorted({visible(entry["other_split"]) for entry in cross})
    return (ours[0] if len(ours) == 1 else "evaluated"), (theirs[0] if len(theirs) == 1 else "another split")


def _loses(
    counts: Mapping[str, Any], by_class: list[tuple[str, int, int]], judged: list[tuple[str, int]], *, planned: bool
) -> str:
    if not planned:
        return "Nothing is dropped: this run only compares."
    redundant, images = counts["redundant"], counts["images"]
    if not redundant:
        return "Nothing: no image would go."
    told = f"A training set would lose {counted(redundant, 'image')} of {images:,} ({share(redundant, images)})"
    worst = [entry for entry in by_class if entry[2]][:NAMED]
    if len(by_class) > 1 and worst:
        names = [f"{_class_name(label)} ({gone:,} of {of:,}, {share(gone, of)})" for label, of, gone in worst]
        told += f", most in {listed(names)}"
    if judged:
        names = [f"{gone:,} of split {shortened(visible(split), 40)}" for split, gone in judged]
        told += f"; among them {listed(names)}, which --protect keeps"
    return told + "."


def _class_name(label: str) -> str:
    """A class within a sentence; a number alone would read as one of the counts."""
    shown = shortened(visible(label), 40)
    return f"class {shown}" if shown.isdecimal() else shown


def classes_of(run: FinishedRun) -> list[tuple[str, int, int]]:
    """(label, images, redundant), the largest share of redundant images first."""
    planned = run.has("plan")
    table = run.table("plan", ["label", "decision"]) if planned else run.present(["label"])
    if table["label"].isna().all():
        return []
    gone = table["decision"] == "drop" if planned else pd.Series(False, index=table.index)
    label = table["label"].astype(object).where(table["label"].notna(), NO_LABEL)
    found = pd.DataFrame({"label": label.astype(str), "gone": gone}).groupby("label")["gone"].agg(["size", "sum"])
    rows = [(str(name), int(of), int(lost)) for name, of, lost in found.itertuples()]
    return sorted(rows, key=lambda row: (-row[2] / row[1], -row[2], row[0]))


def _judged(run: FinishedRun) -> list[tuple[str, int]]:
    """Splits on which models are judged, and how many of their images the plan drops."""
    plan = run.table("plan", ["split", "decision"])
    gone = plan.loc[plan["decision"] == "drop", "split"].dropna().value_counts()
    return sorted((str(name), int(count)) for name, count in gone.items() if str(name).lower() in JUDGED)


def _settings(run: FinishedRun) -> list[tuple[str, str]]:
    """Settings that differ from the defaults, as `stage.key` and text."""
    asked, default = run.settings.model_dump(mode="json"), Settings().model_dump(mode="json")
    found = []
    for stage, value in asked.items():
        if not isinstance(value, dict):
            found += [(stage, value)] if value != default[stage] else []
            continue
        found += [(f"{stage}.{key}", inner) for key, inner in value.items() if inner != default[stage].get(key)]
    return [(key, _text(value)) for key, value in found]


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)
