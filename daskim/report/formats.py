"""A run as JSON for programs, and as Markdown for the comment of a pull request."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from daskim import __version__
from daskim.report.facts import Facts, facts_of
from daskim.report.words import share, shortened, visible
from daskim.report.worst import worst_of
from daskim.results import FinishedRun

__all__ = ["SCHEMA", "as_json", "as_markdown", "schema"]

# Of the JSON report; raised when a program that reads it would have to change.
SCHEMA = 1
# Rows of a table of the comment, and characters of an id in it.
ROWS, ID = 10, 60
# Left as they are in Markdown; all other ASCII becomes an entity, which no Markdown reads as its own.
HARMLESS = re.compile(r"[A-Za-z0-9 .,/%()-]")


def as_json(run: FinishedRun) -> dict[str, Any]:
    """The facts and the worst findings; see the schema that `schema()` gives. Only plain values, no NaN."""
    facts = facts_of(run).as_dict()
    facts["by_class"] = [
        {"label": label, "images": images, "redundant": gone} for label, images, gone in facts["by_class"]
    ]
    facts["next"] = [{"purpose": purpose, "command": command} for purpose, command in facts["next"]]
    facts["settings"] = dict(facts["settings"])
    report = {"schema": SCHEMA, "daskim": __version__, "run": run.run, **facts, "worst": worst_of(run)}
    return json.loads(json.dumps(report, allow_nan=False))


def schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `as_json`."""
    return json.loads(files("daskim.report").joinpath("report.schema.json").read_text(encoding="utf-8"))


def as_markdown(run: FinishedRun) -> str:
    """A short comment in GitHub's Markdown: verdict, counts, the worst findings, what to type next.

    Ids and labels of the data set can neither mark up nor mention: they are written as entities inside `<code>`.
    """
    facts = facts_of(run)
    lines = [f"### daskim: {_text(facts.title)}", "", _text(facts.verdict), "", _text(facts.loses), ""]
    lines += _table(["", "images"], _counts(facts), "l r")
    lines += _worst(run)
    lines += ["", "Next:", "", "```sh", *(visible(command) for _, command in facts.next), "```"]
    return "\n".join(lines) + "\n"


def _counts(facts: Facts) -> list[list[str]]:
    planned = facts.method != "compare" or facts.redundant
    rows: list[tuple[str, int | None, str]] = [
        ("images", facts.images, ""),
        ("leaked", facts.leaked, ""),
        ("redundant", facts.redundant, f" ({share(facts.redundant, facts.images)})" if facts.redundant else ""),
        ("exact copies", facts.exact, ""),
        ("alike, but labelled differently", facts.influential, ""),
        ("like no other", facts.anomalous, ""),
        ("flat", facts.flat, ""),
        ("broken", facts.broken, ""),
        ("kept", facts.kept if planned else 0, ""),
    ]
    always = ("images", "redundant", "kept", "leaked") if planned else ("images", "leaked")
    return [[name, f"{count:,}{more}"] for name, count, more in rows if count is not None and (count or name in always)]


def _worst(run: FinishedRun) -> list[str]:
    """Folded tables of the findings that there are."""
    worst = worst_of(run, ROWS)
    lines: list[str] = []
    if worst["leaks"]:
        rows = [
            [_code(e["id"]), _label(e["label"]), _code(e["other_id"]), _label(e["other_label"]), _number(e)]
            for e in worst["leaks"]
        ]
        header = ["image", "label", "its twin", "label there", "similarity"]
        lines += _folded("Images with a twin in another split", header, rows, "l l l l r")
    if worst["families"]:
        rows = [
            [_code(e["kept_id"]), _label(e["label"]), f"{e['images']:,}", _ids(e["ids"], e["images"] - 1)]
            for e in worst["families"]
        ]
        lines += _folded("Largest families", ["kept", "label", "images", "may go"], rows, "l l r l")
    if worst["influential"]:
        rows = [
            [" ".join(_code(label, 24) for label in e["labels"]), f"{e['images']:,}", _ids(e["ids"], e["images"])]
            for e in worst["influential"]
        ]
        lines += _folded("Alike, but labelled differently", ["labels", "images", "such as"], rows, "l r l")
    if worst["broken"]:
        rows = [[_code(e["id"]), _text(e["status"]), _text(shortened(str(e["reason"]), 80))] for e in worst["broken"]]
        lines += _folded("Broken files", ["image", "status", "reason"], rows, "l l l")
    return lines


def _folded(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> list[str]:
    more = f", the first {ROWS}" if len(rows) == ROWS else ""
    return ["", f"<details><summary>{title}{more}</summary>", "", *_table(header, rows, align), "", "</details>"]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], align: str) -> list[str]:
    rule = ["---:" if side == "r" else "---" for side in align.split()]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def _text(text: object) -> str:
    """Text that Markdown shows as it is. A word joiner after @ and # keeps them from mentioning people and issues."""
    out = "".join(c if not c.isascii() or HARMLESS.match(c) else f"&#{ord(c)};" for c in visible(text))
    out = out.replace("&#58; ", ": ")  # a colon before a space begins no link and no emoji
    out = re.sub(r"(?i)www\.", lambda match: match[0][:-1] + "&#46;", out)
    return out.replace("&#64;", "&#64;&#8288;").replace("&#35;", "&#35;&#8288;")


def _code(text: object, most: int = ID) -> str:
    """An id or a label; inside <code> nobody is mentioned, so that it can be copied as it is."""
    shown = _text(shortened(visible(text), most)).replace("&#8288;", "")
    return f"<code>{shown}</code>"


def _label(text: object) -> str:
    return "" if text is None else _code(text, 24)


def _ids(ids: Sequence[str], total: int) -> str:
    more = f" and {total - len(ids):,} more" if total > len(ids) else ""
    return ", ".join(_code(name, 40) for name in ids) + more


def _number(entry: dict[str, Any]) -> str:
    value = entry["similarity"]
    return f"{entry['kind']} {'' if value is None else f'{value:.3f}'}".strip()
