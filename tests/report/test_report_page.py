"""The page as it is made: what is shown, from where its pictures are, how data are embedded, and its bounds."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_runs import EVIL, FAMILIES, hostile_run, large_run
from PIL import Image
from planted_runs import picture

import daskim
from daskim.files import _typed
from daskim.jobs.reduce import main
from daskim.lake import Failure, Thumbnail, thumbnail
from daskim.report import page, pictures
from daskim.report.embed import json_block, squeezed
from daskim.report.entries import Entry, Gallery, turned
from daskim.report.families import MEMBERS, families, groups, in_turn
from daskim.report.listed import nearest_to_threshold
from daskim.report.page import PAGE_BYTES, galleries_of, render, try_write_page, write_page
from daskim.report.pictures import fill, queue_of
from daskim.store import Run

Runs = dict[str, daskim.FinishedRun]


class Page(HTMLParser):
    """The elements of a page, and the text of each script by its id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.open = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = (dict(attrs).get("id") or f"{tag}{len(self.scripts)}") if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open:
            self.scripts[self.open] = self.scripts.get(self.open, "") + data

    @property
    def data(self) -> dict[str, Any]:
        return json.loads(self.scripts["data"])


def read(found: daskim.FinishedRun) -> Page:
    html, _, _ = render(found)
    assert len(html) <= PAGE_BYTES
    return Page(html.decode("utf-8"))


# embedding --------------------------------------------------------------------------------------------------------


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_embedded_json_is_what_it_was_and_cannot_break_out(value: object) -> None:
    text = json_block(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert not set("<>&") & set(text)


def test_numbers_that_are_none_become_null() -> None:
    assert json.loads(json_block({"a": [float("nan"), float("inf"), 1.5]})) == {"a": [None, None, 1.5]}
    packed = squeezed({"ids": ["</script>", "\u2028"]})
    assert json.loads(zlib.decompress(base64.b64decode(packed))) == {"ids": ["</script>", "\u2028"]}


def test_the_policy_names_the_scripts_and_the_style(hostile: daskim.FinishedRun) -> None:
    made = read(hostile)
    policy = next(a["content"] for tag, a in made.tags if a.get("http-equiv") == "Content-Security-Policy") or ""
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "unsafe" not in policy
    run = [made.scripts[name] for name in made.scripts if name.startswith(("script", "style"))]
    assert len(run) == 3
    for text in run:
        assert "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'" in policy


def test_nothing_in_the_page_leads_out_or_runs(hostile: daskim.FinishedRun) -> None:
    made = read(hostile)
    for tag, attributes in made.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form") or attributes.get("href") == "data:,"
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    scripts = [attributes for tag, attributes in made.tags if tag == "script"]
    assert [a.get("type") for a in scripts] == [None, "application/json", "text/plain", None]


def test_ids_and_labels_come_through_unchanged(hostile: daskim.FinishedRun) -> None:
    made = read(hostile)
    data = made.data
    known = set(hostile.images["id"])
    shown = data["images"]["id"]
    assert set(shown) <= known
    assert {name.partition("/")[2] for name in shown} >= {name for name in EVIL if "\u0007" not in name}
    assert set(data["labels"]) == set(EVIL[:5])
    listed = json.loads(zlib.decompress(base64.b64decode(made.scripts["listed"])))
    assert listed["ids"][: listed["count"]] == hostile.plan["id"].tolist()
    assert "\u202e" not in render(hostile)[0].decode()


# what is shown ----------------------------------------------------------------------------------------------------


def test_galleries_hold_what_was_planted(hostile: daskim.FinishedRun) -> None:
    found = {gallery.name: gallery for gallery in galleries_of(hostile, len(hostile.images))}
    name = hostile.images.set_index("row")["id"]
    plan = hostile.plan
    assert found["families"].total == len(found["families"].entries) == FAMILIES
    for entry in found["families"].entries:
        lead = name[entry.rows[0]]
        members = plan.loc[plan["kept_id"] == lead].set_index("row")
        assert set(entry.rows[1:]) == set(members.index)
        assert entry.rules == ["kept", *members.loc[list(entry.rows[1:]), "rule"]]
        assert list(entry.similarity[1:]) == sorted(entry.similarity[1:])
    mirrored = [m for entry in found["families"].entries for m in entry.motion if m is not None and m[0] == 1]
    assert len(mirrored) >= 2
    [group] = found["influential"].entries
    assert len(group.rows) == 2
    assert list(group.partner) == [1, 0]
    assert group.note == "2 labels"
    assert not found["leaks"].entries
    nothing = read(hostile).data["nothing"]
    assert any("only compare looks" in line for line in nothing)


def test_what_a_comparison_shows(report_runs: Runs) -> None:
    found = {gallery.name: gallery for gallery in galleries_of(report_runs["compare"], 54)}
    table = report_runs["compare"].table("leakage")
    assert found["leaks"].total == len(table[table["rank"] == 1])
    first = found["leaks"].entries[0]
    assert first.note == "different labels"  # a conflict comes first
    assert found["uncovered"].total == len(report_runs["compare"].table("coverage"))
    assert not found["families"].entries
    made = read(report_runs["compare"])
    assert {gallery["name"] for gallery in made.data["galleries"]} >= {"leaks", "uncovered"}


def test_large_groups_show_their_most_contested_images(tmp_path: Path) -> None:
    """Of a group of more images than are shown: those of its most similar pairs of different labels, side by side."""
    run = large_run(tmp_path / "run", 200, dropped=10)
    rows = np.arange(40)
    label = np.where(rows < 20, "one", "two")
    table = {"row": rows, "id": rows.astype(str), "cluster": np.zeros(40), "label": label, "labels": ["one | two"] * 40}
    run.store.write_part("influential", "000000", pa.table(table))
    pairs = {"a": [0, 1, 2, 3], "b": [39, 38, 3, 37], "similarity": [0.7, 0.9, 0.99, 0.8]}
    run.store.write_part("pairs", "000000", pa.table(pairs))
    [entry] = groups(run, 200).entries
    assert list(entry.rows) == [1, 38, 3, 37, 0, 39]  # 2 and 3 have one label
    assert entry.total == 40
    assert list(entry.partner) == [1, 0, 3, 2, 5, 4]
    assert entry.similarity[0] == 0.9


def test_the_choice_takes_each_order_in_turn_and_is_the_same_again(large: daskim.FinishedRun) -> None:
    orders = [np.array([4, 3, 2, 1, 0]), np.array([0, 4, 1, 2, 3]), np.array([2, 0, 1, 3, 4])]
    assert in_turn(orders, 5).tolist() == [4, 0, 2, 3, 1]
    assert in_turn(orders, 2).tolist() == [4, 0]
    once, again = families(large, 30_000), families(large, 30_000)
    assert once == again
    assert once.total == 3000
    least = min(float(entry.similarity[1]) for entry in once.entries)
    assert float(once.entries[1].similarity[1]) == least  # the least certain family comes second, after the largest


def test_pairs_next_to_the_threshold(large: daskim.FinishedRun) -> None:
    above, below, total = nearest_to_threshold(large, 0.8, 5)
    table = large.pairs
    assert total == len(table)
    want = table[(table["similarity"] >= 0.8) & (table["similarity"] < 1)].nsmallest(5, "similarity")["similarity"]
    assert [pair.similarity for pair in above] == want.tolist()
    want = table[table["similarity"] < 0.8].nlargest(5, "similarity")["similarity"]
    assert [pair.similarity for pair in below] == want.tolist()


@given(
    st.booleans(),
    st.floats(0.5, 2.0),
    st.floats(0.5, 2.0),
    st.floats(-0.4, 0.4),
    st.floats(-0.4, 0.4),
    st.floats(-0.5, 0.5),
)
def test_a_motion_turned_round_leads_back(
    mirrored: bool, scale_y: float, scale_x: float, shift_y: float, shift_x: float, at: float
) -> None:
    motion = (float(mirrored), scale_y, scale_x, shift_y, shift_x, 0.9)
    _, back_y, back_x, y, x, _ = turned(motion)
    sign = -1.0 if mirrored else 1.0
    there = sign * (scale_x * at + shift_x)  # position in the right image as it is stored
    assert sign * (back_x * there + x) == pytest.approx(at, abs=1e-9)
    assert back_y * (scale_y * at + shift_y) + y == pytest.approx(at, abs=1e-9)
    assert turned(turned(motion)) == pytest.approx(motion)


def test_galleries_get_room_by_their_shares() -> None:
    def gallery(share: int, count: int) -> Gallery:
        return Gallery("", "", "pair", "", "", count, ("", ""), share, [Entry([0], [-1], [0.0])] * count)

    order = list(queue_of([gallery(2, 3), gallery(1, 5)]))
    assert order == [(0, 0), (0, 1), (1, 0), (0, 2), (1, 1), (1, 2), (1, 3), (1, 4)]


# pictures ---------------------------------------------------------------------------------------------------------


def test_small_pictures_are_lossless_and_keep_their_shape() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 25, 3)).astype(np.uint8)
    made = thumbnail(pixels, 25, 40, side=128)
    assert isinstance(made, Thumbnail)
    assert (np.asarray(Image.open(io.BytesIO(made.webp))) == pixels).all()
    large = thumbnail(np.repeat(np.repeat(pixels, 10, 0), 20, 1), 500, 400, side=128)
    assert isinstance(large, Thumbnail)
    assert (large.width, large.height) == Image.open(io.BytesIO(large.webp)).size == (128, 102)
    assert isinstance(thumbnail(Failure("missing", "gone"), 4, 4, side=128), Failure)
    assert isinstance(thumbnail(b"no image", 4, 4, side=128), Failure)
    sliver = thumbnail(np.zeros((1, 4000, 3), np.uint8), 4000, 1, side=128)
    assert isinstance(sliver, Thumbnail)
    assert (sliver.width, sliver.height) == (128, 1)


def test_pictures_are_those_that_were_scanned(hostile: daskim.FinishedRun, tmp_path: Path) -> None:
    """A file that is gone or has changed since is drawn from the run's own pixels, and the page says so."""
    home = tmp_path / "set"
    found = hostile_run(home)
    (home / "000.png").unlink()
    Image.fromarray(picture(77)).save(home / "001.png")
    html, count, _ = render(found)
    text = html.decode()
    assert "2 pictures could not be made from the source (1 changed since the scan, 1 missing now)" in text
    data = Page(text).data["images"]
    standard = found.standard([0, 1])
    for row, pixels in enumerate(standard):
        at = data["id"].index(found.images["id"][row])
        seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["picture"][at]))))
        assert (seen == pixels).all()
    assert count == len(data["id"])
    whole = render(hostile)[0].decode()
    assert "could not be made from the source" not in whole


def test_a_source_that_is_gone_altogether(report_runs: Runs, tmp_path: Path) -> None:
    shutil.copytree(report_runs["wavelet"].run, tmp_path / "run")
    for part in (tmp_path / "run" / "tables" / "index").glob("*.parquet"):
        table = pq.read_table(part)
        at = table.schema.get_field_index("container")
        pq.write_table(table.set_column(at, "container", [["/gone/" + str(tmp_path)] * table.num_rows]), part)
    info = write_page(daskim.open_run(tmp_path / "run"))
    assert info.thumbnails > 10
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert re.search(r"\d+ pictures could not be made from the source \(\d+ missing now\)", html)


# bounds -----------------------------------------------------------------------------------------------------------


def test_a_large_set_stays_within_the_bytes_and_says_what_is_left_out(large: daskim.FinishedRun) -> None:
    info = write_page(large)
    html = (Path(large.run) / "report.html").read_text(encoding="utf-8")
    assert 0.8 * PAGE_BYTES < info.bytes == len(html.encode()) <= PAGE_BYTES
    [line] = [line for line in info.left_out if "families" in line]
    shown = len(Page(html).data["galleries"][0]["entries"])
    assert line.startswith(f"{shown} of 3,000 families: in turn the largest")
    assert line in html
    assert 200 < shown < 3000


def test_the_list_of_decisions_is_bounded(large: daskim.FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "DECISION_BYTES", 40_000)
    text, count, total = page._decisions(large)
    assert len(text) <= 40_000
    assert 100 < count < total == 30_000
    listed = json.loads(zlib.decompress(base64.b64decode(text)))
    assert listed["count"] == count
    kept = pd.Series(listed["columns"]["kept"])
    told = large.plan.set_index("id").loc[listed["ids"][:count], "kept_id"]
    assert [listed["ids"][at] if at >= 0 else None for at in kept] == [v if isinstance(v, str) else None for v in told]


def test_no_room_shows_no_picture(hostile: daskim.FinishedRun) -> None:
    galleries = galleries_of(hostile, len(hostile.images))
    shown, images, found = fill(hostile, galleries, 0)
    assert not any(shown)
    assert not len(images)
    assert not found.found
    shown, _, found = fill(hostile, galleries, 20_000)
    assert 0 < found.bytes <= 20_000


def test_pictures_of_one_page_are_bounded_in_number(
    hostile: daskim.FinishedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MOST", 9)
    _, images, found = fill(hostile, galleries_of(hostile, len(hostile.images)), 4_000_000)
    assert 0 < len(found.found) <= 9
    assert len(images) == len(found.found)


# where it goes ----------------------------------------------------------------------------------------------------


def test_an_object_store_is_told_the_type(memory: fsspec.AbstractFileSystem) -> None:
    assert _typed(("s3", "s3a"), "text/html") == {"ContentType": "text/html"}
    assert _typed("gs", "text/html") == {"content_type": "text/html"}
    assert _typed("memory", "text/html") == _typed("s3", None) == {}
    Run("memory://run").write(b"x", "report.html", content_type="text/html")
    assert memory.cat_file("/run/report.html") == b"x"


def test_a_finished_run_does_not_fail_for_its_report(
    hostile: daskim.FinishedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(run: daskim.FinishedRun, *_: object) -> object:
        raise ValueError("a planted bug")

    monkeypatch.setattr(page, "render", fail)
    assert try_write_page(hostile) == "ValueError: a planted bug"
    source = tmp_path / "source"
    source.mkdir()
    for seed in range(4):
        Image.fromarray(picture(seed)).save(source / f"{seed}.png")
    words = [str(source), "--run", str(tmp_path / "run"), "--size", "16x16", "--n-clusters", "4"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "The report was not made: ValueError: a planted bug"
    assert not (tmp_path / "run" / "report.html").exists()
    monkeypatch.undo()
    assert main(words) == 0
    assert "run/report.html" in capsys.readouterr().out.splitlines()[-1]
    assert (tmp_path / "run" / "report.html").stat().st_size > 20_000
    assert main([*words, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines][-2:] == ["report", "summary"]
    assert lines[-2]["path"].endswith("/report.html")
    (tmp_path / "run" / "report.html").unlink()
    assert main([*words, "--no-report", "--quiet"]) == 0
    assert main([*words, "--plan"]) == 0
    assert not (tmp_path / "run" / "report.html").exists()


def test_the_library_makes_a_report_when_asked(tmp_path: Path) -> None:
    for seed in range(4):
        Image.fromarray(picture(seed)).save(tmp_path / f"{seed}.png")
    settings = {"images.size": "16x16", "clusters.n_clusters": 4}
    daskim.reduce(tmp_path, run=tmp_path / "run", settings=settings)
    assert not (tmp_path / "run" / "report.html").exists()
    daskim.reduce(tmp_path, run=tmp_path / "run", settings=settings, report=True)
    assert (tmp_path / "run" / "report.html").exists()


def test_members_of_a_family_are_bounded(report_runs: Runs) -> None:
    for found in report_runs.values():
        for gallery in galleries_of(found, len(found.images)):
            assert all(len(entry.rows) <= MEMBERS for entry in gallery.entries)
