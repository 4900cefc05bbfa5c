"""An SVG that can stand inside an HTML page: no style sheet, no script, nothing from outside, its own ids.

matplotlib writes a document type, metadata, a style sheet that would touch the whole page, and ids that repeat from
figure to figure. Styles become presentation attributes, which a content security policy allows.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from xml.etree import ElementTree

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from daskim.report.figures.ink import FONT, TEXT

__all__ = ["svg_of"]

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"
# Attributes of matplotlib's text that the root carries for all.
INHERITED = ("font-family",)
# What `Ink.label` gives.
STAND_IN = re.compile(r"q\d+jx*")
NUMBER = re.compile(r"-?\d+\.\d+")


def svg_of(canvas: Canvas, name: str, alt: str, texts: Mapping[str, str]) -> str:
    """The figure as SVG text that starts with `<svg`.

    Parameters
    ----------
    name : str
        Begins every id.
    texts : mapping
        What the stand-ins of `Ink.label` stand for.
    """
    written = io.BytesIO()
    canvas.patch.set_visible(False)
    FigureCanvasSVG(canvas).print_svg(written, metadata={"Date": None})
    root = ElementTree.fromstring(written.getvalue())
    _strip(root)
    used = {match for element in root.iter() for value in element.attrib.values() for match in _references(value)}
    ids = {old: f"fig-{name}-{index}" for index, old in enumerate(_kept_ids(root, used))}
    for element in root.iter():
        _mend(element, ids, texts)
    _unwrap(root)
    root.attrib.pop("version", None)
    root.set("role", "img")
    root.set("aria-label", alt)
    root.set("font-family", FONT)
    root.set("stroke-linejoin", "round")
    return _text(root)


def _strip(root: ElementTree.Element) -> None:
    """Metadata, style sheets and comments go."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{SVG}metadata", f"{SVG}style") or not isinstance(child.tag, str):
                parent.remove(child)


def _references(value: str) -> list[str]:
    return re.findall(r"url\(#([^)]+)\)", value) + ([value[1:]] if value.startswith("#") else [])


def _kept_ids(root: ElementTree.Element, used: set[str]) -> list[str]:
    return [element.attrib["id"] for element in root.iter() if element.get("id") in used]


def _mend(element: ElementTree.Element, ids: Mapping[str, str], texts: Mapping[str, str]) -> None:
    """Styles to attributes, ids renamed or dropped, colours of the page, texts of the data set, short numbers."""
    for part in element.attrib.pop("style", "").split(";"):
        key, _, value = (word.strip() for word in part.partition(":"))
        if key and key not in INHERITED:
            element.set(key, value)
    old = element.attrib.pop("id", "")
    if old in ids:
        element.set("id", ids[old])
    if HREF in element.attrib:
        element.set("href", "".join(element.attrib.pop(HREF).split()))
    for key, value in element.attrib.items():
        if value == TEXT:
            value = "currentColor"
        elif value.startswith("#") and value[1:] in ids:
            value = "#" + ids[value[1:]]
        elif value.startswith("url(#"):
            value = f"url(#{ids[value[5:-1]]})"
        elif key in ("d", "x", "y", "width", "height", "transform"):
            value = " ".join(NUMBER.sub(_short, value).split())
        element.set(key, value)
    if element.get("transform", "").startswith("rotate(-0 "):
        del element.attrib["transform"]
    if element.tag == f"{SVG}text":
        element.text = STAND_IN.sub(lambda match: texts.get(match[0], match[0]), element.text or "")
    else:
        element.text = None
    element.tail = None


def _short(match: re.Match[str]) -> str:
    """A number to hundredths of a point."""
    text = f"{float(match[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _unwrap(root: ElementTree.Element) -> None:
    """Groups without attributes give way to what they hold; empty ones go."""
    for child in list(root):
        _unwrap(child)
    held: list[ElementTree.Element] = []
    for child in root:
        held += list(child) if child.tag in (f"{SVG}g", f"{SVG}defs") and _idle(child) else [child]
    root[:] = held


def _idle(element: ElementTree.Element) -> bool:
    return not element.attrib and (element.tag == f"{SVG}g" or not len(element))


def _text(root: ElementTree.Element) -> str:
    for element in root.iter():
        element.tag = element.tag.removeprefix(SVG)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    return ElementTree.tostring(root, encoding="unicode")
