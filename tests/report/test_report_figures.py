"""Figures of finished runs: safe to stand in a page, the same every time, and right in what they tell."""

from __future__ import annotations

import base64
import io
import re
import threading
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import networkx as nx
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from planted_runs import picture

import daskim
from daskim.report.figures import DRAWN, Figure, figures_of, write_figures
from daskim.report.figures.bands import mosaic
from daskim.report.figures.graph import laid_out
from daskim.report.figures.ink import BLUE, GREY, ORANGE, TEAL, Ink
from daskim.report.figures.matrix import spectral_order
from daskim.report.words import visible

Runs = dict[str, daskim.FinishedRun]
SVG = "{http://www.w3.org/2000/svg}"
FORBIDDEN = ("script", "style", "foreignObject", "animate", "metadata", "a")


@pytest.fixture(scope="module")
def figures(report_runs: Runs) -> dict[str, dict[str, Figure]]:
    return {name: {figure.name: figure for figure in figures_of(run)} for name, run in report_runs.items()}


def test_each_method_has_the_figures_of_its_data(figures: dict[str, dict[str, Figure]]) -> None:
    both = ["classes", "matrix", "graph", "histogram", "sizes"]
    assert list(figures["wavelet"]) == [*both, "condition", "bands"]
    assert list(figures["similarity"]) == [*both, "eigenvalues"]
    assert list(figures["compare"]) == ["cross", "coverage", "graph", "histogram"]
    assert {name for found in figures.values() for name in found} == {
        name for name, _ in DRAWN if not name.startswith("boundary")
    }


def test_figures_may_stand_in_one_page(figures: dict[str, dict[str, Figure]]) -> None:
    for found in figures.values():
        ids: list[str] = []
        for figure in found.values():
            root = ElementTree.fromstring(figure.svg)
            assert root.tag == f"{SVG}svg"
            assert root.get("role") == "img"
            assert root.get("aria-label") == figure.alt
            mine = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
            assert all(name.startswith(f"fig-{figure.name}-") for name in mine)
            ids += mine
            for element in root.iter():
                assert element.tag.removeprefix(SVG) not in FORBIDDEN
                for key, value in element.attrib.items():
                    assert key != "style"
                    assert not key.startswith("on")
                    if "href" in key:
                        assert value.startswith(("data:image/png;base64,", f"#fig-{figure.name}-"))
                    for name in re.findall(r"url\((.*?)\)", value):
                        assert name[1:] in mine
            assert "http" not in figure.svg.replace('xmlns="http://www.w3.org/2000/svg"', "")
            assert len(figure.svg) <= 150_000
        assert len(ids) == len(set(ids))


def test_texts_and_axes_take_the_colour_of_the_page(figures: dict[str, dict[str, Figure]]) -> None:
    palette = {BLUE, ORANGE, GREY, TEAL, "currentColor", "none"}
    for figure in (figure for found in figures.values() for figure in found.values()):
        root = ElementTree.fromstring(figure.svg)
        used = {element.get(key) for element in root.iter() for key in ("fill", "stroke") if element.get(key)}
        assert used <= palette, figure.name
        for text in root.iter(f"{SVG}text"):
            if text.text not in ("●", "■"):
                assert text.get("fill") == "currentColor", text.text


@pytest.mark.parametrize("colour", [BLUE, ORANGE, GREY, TEAL])
@pytest.mark.parametrize("ground", ["#ffffff", "#111418"])
def test_marks_stand_out_in_light_and_dark(colour: str, ground: str) -> None:
    def luminance(value: str) -> float:
        parts = np.array(to_rgb(value))
        return float(
            np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    low, high = sorted((luminance(colour), luminance(ground)))
    assert (high + 0.05) / (low + 0.05) >= 3


def test_the_same_run_gives_the_same_bytes(report_runs: Runs, figures: dict[str, dict[str, Figure]]) -> None:
    for name, run in report_runs.items():
        again = figures_of(daskim.open_run(run.run))
        assert {figure.name: figure for figure in again} == figures[name]


def test_settings_of_matplotlib_neither_come_in_nor_go_out(
    report_runs: Runs, figures: dict[str, dict[str, Figure]]
) -> None:
    with matplotlib.rc_context({"font.size": 33, "axes.facecolor": "red", "svg.fonttype": "path"}):
        before = dict(matplotlib.rcParams)
        threads = [threading.Thread(target=lambda: found.append(figures_of(report_runs["compare"]))) for _ in range(3)]
        found: list[list[Figure]] = []
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert dict(matplotlib.rcParams) == before
    assert found == [list(figures["compare"].values())] * 3


def test_hostile_labels_are_shown_as_they_are(figures: dict[str, dict[str, Figure]]) -> None:
    texts = [
        text.text or "" for text in ElementTree.fromstring(figures["similarity"]["classes"].svg).iter(f"{SVG}text")
    ]
    assert "$x^2$|`b`" in texts
    assert "a\\u202egpj.exe" in texts
    assert any(text.startswith("<script>") for text in texts)
    for figure in (figure for found in figures.values() for figure in found.values()):
        for text in (figure.title, figure.caption, figure.alt, figure.svg):
            assert visible(text) == text


def test_alt_texts_tell_the_findings(report_runs: Runs, figures: dict[str, dict[str, Figure]]) -> None:
    wavelet, similarity = report_runs["wavelet"].summary, report_runs["similarity"].summary
    columns, spectrum = wavelet["columns"], similarity["spectrum"]
    condition = figures["wavelet"]["condition"].alt
    assert condition.startswith(f"m = {columns['m']} of 768 columns are kept")
    assert "tau = 100,000" in condition
    kept = int(report_runs["wavelet"].table("columns", ["kept"])["kept"].sum())
    assert figures["wavelet"]["bands"].alt.startswith(f"{kept} of 768 coefficients are kept: approximation")
    assert figures["similarity"]["eigenvalues"].alt.startswith(
        f"nc = {spectrum['n_clusters']} clusters of 48 images: {spectrum['gaps']['count']} of 47 gaps"
    )
    pairs = report_runs["similarity"].pairs
    near = int((pairs["similarity"] >= 0.85).sum())
    assert figures["similarity"]["histogram"].alt.startswith(f"{near} of {len(pairs):,} listed pairs")
    assert f"{near} of {len(pairs):,} pairs at or above 0.85" in figures["similarity"]["matrix"].alt
    assert figures["similarity"]["graph"].alt.startswith(f"{near} pairs link ")
    assert figures["similarity"]["classes"].alt.startswith("7 redundant images in 6 classes")
    sizes = report_runs["similarity"].clusters["size"]
    assert figures["similarity"]["sizes"].alt.endswith(f"{int((sizes == 1).sum())} images are alone in theirs.")
    assert "2 of 3 evaluated images (67 %)" in figures["compare"]["coverage"].alt
    assert "1 image of test exact in train, same label" in figures["compare"]["cross"].alt


def test_figures_of_the_paper(fish_run: daskim.FinishedRun) -> None:
    found = {figure.name: figure for figure in figures_of(fish_run)}
    assert found["eigenvalues"].alt == (
        "nc = 454 clusters of 500 images: 46 of 499 gaps between eigenvalues exceed gamma = 0.4; the largest "
        "eigenvalue is 107.5."
    )
    assert found["histogram"].alt == (
        "24 of 124,750 listed pairs have a similarity (ssim_volume) of at least 0.85; the lowest is -0.542."
    )
    assert "24 of 124,750 pairs at or above 0.85" in found["matrix"].alt
    assert found["graph"].alt == "24 pairs link 42 images into 20 groups, the largest of 4."
    assert all(len(figure.svg) <= 150_000 for figure in found.values())


def test_files_of_figures(report_runs: Runs, figures: dict[str, dict[str, Figure]], tmp_path: Path) -> None:
    paths = [Path(path) for path in write_figures(report_runs["similarity"], str(tmp_path / "a b"))]
    assert {path.name for path in paths} == {
        *(f"{name}.{kind}" for name in figures["similarity"] for kind in ("svg", "png")), "graph.graphml",
    }  # fmt: skip
    for path in paths:
        if path.suffix == ".png":
            picture = Image.open(io.BytesIO(path.read_bytes()))
            assert picture.size[0] == 1160
            assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
            assert "Software" not in picture.info
        elif path.suffix == ".svg":
            ElementTree.fromstring(path.read_bytes())


def test_graphml_reads_back(report_runs: Runs, tmp_path: Path) -> None:
    run = report_runs["similarity"]
    write_figures(run, str(tmp_path))
    graph = nx.read_graphml(tmp_path / "graph.graphml", node_type=int)
    near = run.pairs[run.pairs["similarity"] >= 0.85]
    assert {(min(e), max(e)) for e in graph.edges} == set(zip(near["a"].tolist(), near["b"].tolist()))
    assert graph.graph["edges"] == len(near)
    ids = run.images.set_index("row")["id"]
    plan = run.plan.set_index("row")
    for row, facts in graph.nodes(data=True):
        assert facts["id"] == visible(ids[row])
        assert facts["decision"] == plan.loc[row, "decision"]
        assert facts["cluster"] == plan.loc[row, "cluster"]
    for a, b, facts in graph.edges(data=True):
        assert facts["similarity"] == near.set_index(["a", "b"]).loc[(min(a, b), max(a, b)), "similarity"]


def test_pictures_in_svg_are_png(figures: dict[str, dict[str, Figure]]) -> None:
    found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", figures["similarity"]["matrix"].svg)
    assert len(found) == 2
    for text in found:
        assert Image.open(io.BytesIO(base64.b64decode(text))).size == (48, 48)


def test_matrix_is_bounded(report_runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daskim.report.figures.matrix.MOST", 20)
    monkeypatch.setattr("daskim.report.figures.matrix.SIDE", 8)
    found = {figure.name: figure for figure in figures_of(report_runs["similarity"])}["matrix"]
    assert "images of the largest clusters" in found.alt
    picture = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", found.svg)[0]
    assert max(Image.open(io.BytesIO(base64.b64decode(picture))).size) <= 8


def test_spectral_order_puts_blocks_back_together() -> None:
    rng = np.random.default_rng(3)
    block = np.repeat(np.arange(6), 5)
    shuffled = rng.permutation(30)
    block = block[shuffled]
    matrix = np.where(block[:, None] == block[None, :], 0.9, 0.05)
    order = spectral_order(matrix, block)
    assert sorted(order.tolist()) == list(range(30))
    assert (np.diff(block[order]) != 0).sum() == 5
    assert (order == spectral_order(matrix, block)).all()


def test_mosaic_places_every_kept_column() -> None:
    from daskim.transforms.wavelet import Wavelet

    for level, bands in ((1, "all"), (2, "all"), (2, "coarse")):
        transform = Wavelet((16, 12, 1), "db1", level, bands)
        kept = np.random.default_rng(level).random(transform.columns) < 0.5
        found = mosaic(pd.DataFrame({"kept": kept, **transform.table()}), 16, 12)
        assert found is not None
        assert np.nansum(found) == kept.sum()
        assert np.isfinite(found).sum() == transform.columns
    # the column of the first coefficient of the approximation stands at the top left
    assert found[0, 0] == kept[0]
    assert mosaic(pd.DataFrame({"kept": kept, **transform.table()}), 32, 32) is None


def test_layout_is_bounded_and_keeps_groups_apart() -> None:
    graph = nx.disjoint_union_all([nx.complete_graph(size) for size in (30, 5, 2, 2, 3)])
    groups = sorted((sorted(group) for group in nx.connected_components(graph)), key=len, reverse=True)
    place, height = laid_out(graph, groups)
    assert set(place) == set(graph)
    boxes = []
    for group in groups:
        x, y = np.array([place[node] for node in group]).T
        assert 0 <= x.min() <= x.max() <= 1
        assert 0 <= y.min() <= y.max() <= height
        boxes.append((x.min(), x.max(), y.min(), y.max()))
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[0] >= b[1] or b[0] >= a[1] or a[2] >= b[3] or b[2] >= a[3]


def test_labels_for_png_have_glyphs() -> None:
    assert Ink("png").label("猫 $x$") == "\\u732b $x$"
    ink = Ink("svg")
    assert ink.texts[ink.label("猫 $x$")] == "猫 $x$"


@pytest.mark.parametrize(
    ("count", "values", "names"),
    [
        (1, {}, ["bands"]),
        (2, {"method": "similarity", "candidates.method": "all"}, ["graph", "histogram", "sizes", "eigenvalues"]),
        (
            40,
            {"method": "similarity", "candidates.method": "all", "spectrum.method": "lanczos"},
            ["matrix", "graph", "histogram", "eigenvalues"],
        ),
    ],
)
def test_odd_runs_have_their_figures(tmp_path: Path, count: int, values: dict[str, str], names: list[str]) -> None:
    pictures = np.stack([picture(index // 2) for index in range(count)])
    np.savez(tmp_path / "set.npz", images=pictures)
    run = daskim.reduce(tmp_path / "set.npz", run=tmp_path / "run", settings={"images.size": "native", **values})
    found = {figure.name: figure for figure in figures_of(run)}
    assert list(found) == names
    if "spectrum.method" in values:
        assert "estimated by Lanczos for 40 images" in found["eigenvalues"].caption
        assert "(between " in found["eigenvalues"].alt
