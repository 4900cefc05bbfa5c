"""Paths for ids of any kind: inside the folder, all different, and true where they can be."""

from __future__ import annotations

import contextlib
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from daskim.apply.names import KEPT, paths_for
from daskim.lake import Place, escape, label_of, open_folder

HOSTILE = ["..", "../../etc/passwd", "/etc/passwd", "a/../../b.png", "", ".", "a//b.png", "CON", "con.png"]
HOSTILE += [
    "x" * 300 + ".png",
    "é" * 200,
    "a\0b.png",
    ".hidden/a.png",
    "a/.b.png",
    "a.zarr/b.png",
    "a. ",
    KEPT,
    "a/" * 500,
]
HOSTILE += ["http://x/y.png", "C:\\x.png", "\u202egnp.exe", "\x1b[31m.png", "a/b.png", "a/b.png/c.png", "A/B.png"]
name = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=20), st.binary(max_size=12).map(os.fsdecode))
label = st.one_of(
    st.none(), st.sampled_from(["cat", "Cat", "..", "a/b", "train", "/", "x" * 300, ""]), st.text(max_size=8)
)
split = st.one_of(st.none(), st.sampled_from(["train", "test", "Train", "..", "hold out"]))


def check_path(path: str) -> None:
    parts = path.split("/")
    assert all(part not in ("", ".", "..") and not part.startswith(".") and "\0" not in part for part in parts)
    assert all(len(part.encode("utf-8", "surrogateescape")) <= 255 for part in parts)
    assert not os.path.isabs(path)
    assert os.path.normpath(path) == path


@given(
    st.lists(st.tuples(name, label, split), max_size=12, unique_by=lambda t: escape(t[0])), st.booleans(), st.booleans()
)
@example([(name, None, None) for name in HOSTILE], True, True)
@example([(name, "cat", "train") for name in HOSTILE], False, False)
def test_paths_are_safe_and_different(
    rows: list[tuple[str, str | None, str | None]], portable: bool, fold: bool
) -> None:
    ids = [escape(row[0]) for row in rows]
    labels, splits = [row[1] or None for row in rows], [row[2] for row in rows]
    found = paths_for(ids, labels, splits, [""] * len(ids), portable=portable, fold=fold)
    keys = [path.path if not fold else unicodedata.normalize("NFC", path.path).casefold() for path in found]
    assert len(set(keys)) == len(keys)
    folders = {"/".join(key.split("/")[:k]) for key in keys for k in range(1, key.count("/") + 1)}
    assert not folders & set(keys), "no file is another one's folder"
    for path, own_label, own_split in zip(found, labels, splits):
        check_path(path.path)
        if path.told:
            assert label_of(escape(path.path)) == (own_split, own_label)
        if portable:
            assert escape(path.path) == path.path
    assert found == paths_for(ids, labels, splits, [""] * len(ids), portable=portable, fold=fold)


def test_an_id_that_is_a_good_path_stays(tmp_path: Path) -> None:
    ids = ["train/cat/a b.png", "loose.png", "train/cat/not \\xff.png", "dog/deep/er/x.jpg"]
    found = paths_for(ids, ["cat", None, "cat", "dog"], ["train", None, "train", None], [""] * 4)
    assert [path.path for path in found] == ["train/cat/a b.png", "loose.png", "train/cat/not \udcff.png", ids[3]]
    assert all(path.told for path in found)


def test_names_that_differ_by_case_only() -> None:
    ids, labels = ["cat/A.png", "cat/a.png", "Cat/b.png"], ["cat", "cat", "Cat"]
    apart = paths_for(ids, labels, [None] * 3, [""] * 3)
    assert [path.path for path in apart] == ids
    folded = paths_for(ids, labels, [None] * 3, [""] * 3, fold=True)
    assert folded[0].path == ids[0]
    assert folded[1].path.casefold() != ids[0].casefold()
    assert not folded[2].told, "one folder cannot tell two labels"


@given(rel=name)
@example("../out")
def test_nothing_is_written_outside_of_a_folder(tmp_path_factory: pytest.TempPathFactory, rel: str) -> None:
    base = tmp_path_factory.mktemp("base")
    (base / "outside").mkdir()
    folder = open_folder(Place(str(base / "in")))
    with contextlib.suppress(OSError, ValueError):
        folder.write(rel, b"data")
    assert list((base / "outside").iterdir()) == []
    assert {entry.name for entry in base.iterdir()} <= {"outside", "in"}


def test_a_link_inside_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "train").symlink_to(tmp_path / "outside")
    folder = open_folder(Place(str(tmp_path / "in")))
    with pytest.raises(OSError):
        folder.write("train/a.png", b"data")
    with pytest.raises(OSError):
        folder.symlink("train/a.png", "x")
    (tmp_path / "in" / "b.png").symlink_to(tmp_path / "outside" / "b.png")
    with pytest.raises(FileExistsError):
        folder.write("b.png", b"data")
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize("links", [True, False])
def test_files_come_whole_and_never_over_another(tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not links:

        def refuse(*args: object, **rest: object) -> None:
            raise PermissionError(1, "no hard links here")

        monkeypatch.setattr(os, "link", refuse)
    folder = open_folder(Place(str(tmp_path / "new" / "deep")))
    folder.write("a/b.bin", b"first")
    with pytest.raises(FileExistsError):
        folder.write("a/b.bin", b"second")

    def half() -> None:
        with folder.create("c.bin") as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    assert list(folder.files()) == ["a/b.bin"]
    assert (tmp_path / "new" / "deep" / "a" / "b.bin").read_bytes() == b"first"
