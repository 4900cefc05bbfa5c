"""RUN/report.html: one file that shows what a run found. It asks for nothing, and works from a disk or a bucket."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from daskim import __version__
from daskim.errors import DaskimError
from daskim.report.decisions import BROKEN, LISTED, broken_files, decisions
from daskim.report.embed import base64_text, json_block, policy, squeezed
from daskim.report.entries import Gallery
from daskim.report.facts import Facts, facts_of
from daskim.report.families import families, groups
from daskim.report.figures import Figure, figures_of
from daskim.report.pairs import anomalies, extremes, leaks, near_threshold, uncovered
from daskim.report.payload import payload_of
from daskim.report.pictures import Pictures, fill
from daskim.report.words import counted, shortened, visible
from daskim.results import FinishedRun

__all__ = ["NAME", "PAGE_BYTES", "PageInfo", "try_write_page", "write_page"]

NAME = "report.html"
# The page is never larger, however large the set.
PAGE_BYTES = 5_000_000
# Of these, at most for figures, and for the list of decisions.
FIGURE_BYTES, DECISION_BYTES, BROKEN_BYTES = 1_300_000, 1_100_000, 150_000
# Room for the markup that is not reckoned piece by piece.
MARGIN = 60_000
# Elements of figures inside the page, at most.
FIGURE_ELEMENTS = 300
ELEMENT = re.compile(r"<[a-zA-Z]")
FIGURE_STYLE = "<style>:root{color:#1c2127}@media (prefers-color-scheme:dark){:root{color:#e6e9ec}}</style>"
# Longest text of one setting or note, and how many of them.
TEXT, TEXTS = 600, 40
# The latest deliveries, of a run that takes in a lake.
DELIVERIES = 14
SCRIPTS = ("text", "state", "filters", "cards", "galleries", "decisions", "pair", "verdicts", "start")


@dataclass(frozen=True)
class PageInfo:
    """What was written.

    Attributes
    ----------
    path : str
        Of the page.
    bytes : int
    seconds : float
        That it took.
    thumbnails : int
        Small pictures in it.
    left_out : tuple of str
        What the page does not show, in words; it says so itself.
    """

    path: str
    bytes: int
    seconds: float
    thumbnails: int
    left_out: tuple[str, ...]


def write_page(run: FinishedRun, *, storage_options: Mapping[str, Any] | None = None) -> PageInfo:
    """Write RUN/report.html.

    Parameters
    ----------
    run : FinishedRun
    storage_options : mapping, optional
        For fsspec, of the source: small pictures are made of the images as they are there.

    Raises
    ------
    DaskimError
        The run's tables cannot be read, or the page cannot be written.
    """
    started = time.monotonic()
    page, count, left_out = render(run, storage_options)
    run.store.write(page, NAME, content_type="text/html; charset=utf-8")
    path = run.run.rstrip("/") + "/" + NAME
    return PageInfo(path, len(page), time.monotonic() - started, count, tuple(left_out))


def try_write_page(run: FinishedRun, *, storage_options: Mapping[str, Any] | None = None) -> PageInfo | str:
    """`write_page`, or why it could not be: a finished run does not fail for its report."""
    try:
        return write_page(run, storage_options=storage_options)
    except DaskimError as error:
        return error.what
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def render(run: FinishedRun, storage_options: Mapping[str, Any] | None = None) -> tuple[bytes, int, list[str]]:
    """The page, the number of pictures in it, and what it leaves out."""
    facts = facts_of(run)
    figures, left_out = _figures(figures_of(run))
    for name, texts in (("settings", facts.settings), ("notes", facts.notes)):
        if len(texts) > TEXTS:
            left_out.append(f"{TEXTS} of {len(texts):,} {name}")
    listed, listed_count, total = _decisions(run)
    if listed_count < total and run.has("plan"):
        left_out.append(f"the list of decisions holds {listed_count:,} of {total:,} images")
    broken, broken_total = _broken(run)
    if len(broken) < broken_total:
        left_out.append(f"{len(broken):,} of {broken_total:,} broken files")
    galleries = galleries_of(run, int(run.summary["n_images"]))
    static = {
        "facts": facts,
        "bar": _bar(facts),
        "figures": figures,
        "listed": listed,
        "versions": {"daskim": run.summary.get("daskim", ""), **run.summary.get("versions", {})},
        "settings": [(key, shortened(visible(value), TEXT)) for key, value in facts.settings[:TEXTS]],
        "cross_rows": TEXTS,
        "notes": [shortened(visible(note), TEXT) for note in facts.notes[:TEXTS]],
        "deliveries": ((run.store.read_json("deliveries.json") or {}).get("deliveries") or [])[-DELIVERIES:],
        "version": __version__,
    }
    spent = len(_html(static, "", []))
    room = PAGE_BYTES - MARGIN - spent - len(json_block(broken))
    shown, images, pictures = fill(run, galleries, max(0, room), storage_options)
    for gallery, entries in zip(galleries, shown):
        if len(entries) < gallery.total:
            how = f": {gallery.chosen}" if gallery.chosen else ""
            left_out.append(f"{len(entries):,} of {gallery.total:,} {gallery.unit[1]}{how}")
    data = payload_of(run, facts, galleries, shown, images, pictures)
    data["broken"] = {"rows": broken, "total": broken_total}
    data["listed"] = {"count": listed_count, "total": total}
    page = _html({**static, "pictures_note": _pictures_note(pictures)}, json_block(data), left_out)
    return page, len(pictures.found), left_out


def galleries_of(run: FinishedRun, n: int) -> list[Gallery]:
    """All galleries, the empty ones too."""
    return [
        leaks(run, n),
        families(run, n),
        groups(run, n),
        near_threshold(run),
        anomalies(run),
        uncovered(run),
        extremes(run, n),
    ]


def _figures(found: Sequence[Figure]) -> tuple[list[dict[str, Any]], list[str]]:
    """Figures inside the page, and those of many elements as pictures, which are one element each."""
    out: list[dict[str, Any]] = []
    large: list[str] = []
    spent = elements = 0
    for figure in found:
        parts = len(ELEMENT.findall(figure.svg))
        inline = elements + parts <= FIGURE_ELEMENTS
        svg = Markup(figure.svg) if inline else Markup("data:image/svg+xml;base64," + base64_text(_alone(figure.svg)))
        if spent + len(svg) > FIGURE_BYTES:
            large.append(figure.title)
            continue
        spent += len(svg)
        elements += parts if inline else 1
        told = {"name": figure.name, "title": figure.title, "caption": figure.caption, "alt": figure.alt}
        out.append({**told, "inline": inline, "svg": svg})
    said = (
        [f"{counted(len(large), 'figure')} too large for one page ({', '.join(large)}): see --figures"] if large else []
    )
    return out, said


def _alone(svg: str) -> bytes:
    """An SVG that is no part of the page: it must know the colours of light and dark itself."""
    start = svg.index(">") + 1
    return (svg[:start] + FIGURE_STYLE + svg[start:]).encode()


def _decisions(run: FinishedRun) -> tuple[str, int, int]:
    """The list of decisions within its bytes, how many it holds, and of how many."""
    most = LISTED
    while True:
        found, total = decisions(run, most)
        text = squeezed(found)
        if len(text) <= DECISION_BYTES or most < 2:
            return text, int(found.get("count", 0)), total
        most = min(most // 2, int(0.95 * most * DECISION_BYTES / len(text)))


def _broken(run: FinishedRun) -> tuple[list[dict[str, Any]], int]:
    rows, total = broken_files(run)
    kept: list[dict[str, Any]] = []
    spent = 0
    for row in rows[:BROKEN]:
        spent += len(json_block(row))
        if spent > BROKEN_BYTES:
            break
        kept.append(row)
    return kept, total


def _bar(facts: Facts) -> list[dict[str, Any]]:
    """Parts of the bar that shows what becomes of the images; x and width in thousandths."""
    parts = [
        ("stays", "kept", facts.kept),
        ("goes", "redundant", facts.redundant),
        ("broken", "broken", facts.images - facts.kept - facts.redundant),
    ]
    out, at = [], 0.0
    for name, word, count in parts:
        if count > 0:
            width = 1000 * count / max(1, facts.images)
            out.append({"name": name, "word": word, "count": count, "x": round(at, 2), "width": round(width, 2)})
            at += width
    return out


def _pictures_note(pictures: Pictures) -> str:
    """Why some pictures are the run's own pixels."""
    if not pictures.fallback:
        return ""
    told = {"changed": "changed since the scan", "missing": "missing now"}
    reasons = ", ".join(f"{count:,} {told.get(why, why)}" for why, count in sorted(pictures.fallback.items()))
    count = pictures.fallback.total()
    return (
        f"{counted(count, 'picture')} could not be made from the source ({reasons}) and "
        f"{'is' if count == 1 else 'are'} drawn from the run's standard pixels, small and perhaps stretched."
    )


@lru_cache(maxsize=1)
def _sources() -> tuple[str, str, str, str]:
    """The template, the style, the script of the head and that of the page."""
    folder = files("daskim.report") / "templates"

    def text(name: str) -> str:
        return folder.joinpath(name).read_text(encoding="utf-8")

    body = "\n".join(text(f"{name}.js") for name in SCRIPTS)
    return text("page.html.j2"), text("page.css"), text("theme.js"), f'"use strict";\n(() => {{\n{body}\n}})();\n'


def _html(values: Mapping[str, Any], data: str, left_out: Sequence[str]) -> bytes:
    """The page as it is written. Jinja escapes whatever is not marked as safe here."""
    template, style, theme, script = _sources()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["visible"] = visible
    environment.filters["count"] = lambda value: f"{value:,}"
    text = environment.from_string(template).render(
        {
            "pictures_note": "",
            **values,
            "policy": Markup(policy([theme, script], [style])),
            "style": Markup(style),
            "theme": Markup(theme),
            "script": Markup(script),
            "data": Markup(data),
            "left_out": list(left_out),
        }
    )
    return text.encode("utf-8")
