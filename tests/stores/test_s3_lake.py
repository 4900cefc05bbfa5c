"""The lake in a bucket: listings by pages, formats as on a disk, bounded reads, exclusive creation."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs
import zarr
from loopback import S3, Door, door
from pictures import column, encode, picture, tar

from daskim.errors import SourceError
from daskim.lake import Failure, list_images, locate, open_folder, read_images
from daskim.lake.cache import SHARED
from daskim.lake.fetch import CONNECTIONS, Wanted, fetch
from daskim.retry import Retry
from daskim.store import Run

PICTURES = {f"train/c{i % 2}/{i:02d}.png": encode(picture(i, 12, 12)) for i in range(30)}


@pytest.fixture(scope="module")
def fs(s3: S3) -> Any:
    fs = s3.fs()
    fs.mkdir("formats")
    return fs


def put(fs: Any, root: Path, files: dict[str, bytes]) -> None:
    """The same files in the bucket, below `formats/NAME`, and in a folder."""
    for name, data in files.items():
        fs.pipe_file(f"formats/{root.name}/{name}", data)
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def array(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def shard() -> bytes:
    file = io.BytesIO()
    structs = [{"bytes": data, "path": name} for name, data in PICTURES.items()]
    pq.write_table(pa.table({"image": structs, "label": [0] * 30}), file, row_group_size=7)
    return file.getvalue()


FORMATS = {
    "folder": PICTURES,
    "webdataset": {"train-0000.tar": tar({f"{i:02d}.png": data for i, data in enumerate(PICTURES.values())})},
    "parquet": {"train-00000-of-00001.parquet": shard()},
    "array": {"train.npy": array(np.stack([picture(i, 12, 12) for i in range(30)]))},
    "manifest": {"list.csv": ("file_name\n" + "\n".join(PICTURES)).encode(), **PICTURES},
}


@pytest.mark.parametrize("kind", FORMATS)
def test_a_bucket_holds_what_a_folder_holds(s3: S3, fs: Any, tmp_path: Path, kind: str) -> None:
    root = tmp_path / kind
    put(fs, root, FORMATS[kind])
    where = ["/list.csv"] if kind == "manifest" else [""]
    near, far = (list_images([str(one) + where[0]], **more).table for one, more in _both(s3, root))
    for name in ("id", "label", "split", "format", "item", "status"):
        assert column(near, name) == column(far, name), name
    SHARED.clear()
    one, two = list(read_images(near)), list(read_images(far, s3.options))
    assert len(one) == 30
    for a, b in zip(one, two):
        assert not isinstance(a, Failure)
        assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
    if kind == "folder":
        assert all(size > 0 for size in column(far, "bytes"))
    if kind != "manifest":
        assert all(column(far, "etag"))
        assert all(time == time for time in column(far, "mtime"))


def _both(s3: S3, root: Path) -> list[tuple[str, dict[str, Any]]]:
    return [(str(root), {}), (f"s3://formats/{root.name}", {"storage_options": s3.options})]


def test_zarr_in_a_bucket(s3: S3, fs: Any) -> None:
    stack = np.stack([picture(i, 12, 12) for i in range(30)])
    made = zarr.create_array("s3://formats/z/all.zarr", data=stack, chunks=(8, 12, 12, 3), storage_options=s3.options)
    assert made.shape == stack.shape
    listing = list_images(["s3://formats/z"], storage_options=s3.options)
    assert np.array_equal(np.stack(list(read_images(listing.table, s3.options))), stack)


def test_pages_of_a_listing(s3: S3, fs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in PICTURES.items():
        fs.pipe_file("formats/pages/" + name, data)
    others = (".hidden.png", "b/.x/y.png", "note.txt", "g.zarr/zarr.json", "run/.daskim-run", "run/!.png", "run/z.png")
    for name in others:
        fs.pipe_file("formats/pages/" + name, b"x")
    pages, whole = [], s3fs.S3FileSystem.call_s3

    def few(self: Any, method: str, **words: Any) -> Any:
        if method == "list_objects_v2":
            words["MaxKeys"] = 4
        found = whole(self, method, **words)
        pages.append(len(found.get("Contents", ())))
        return found

    monkeypatch.setattr(s3fs.S3FileSystem, "call_s3", few)
    listing = list_images(["s3://formats/pages"], format="folder", storage_options=s3.options)
    assert column(listing.table, "id") == sorted(PICTURES)
    assert listing.ignored == {".txt": 1, ".zarr": 1, "daskim-run": 1, "hidden": 2}
    assert len(pages) == 10
    assert max(pages) == 4


def test_reads_are_bounded_and_patient(s3: S3, fs: Any) -> None:
    for i in range(60):
        fs.pipe_file(f"formats/many/{i:02d}", bytes([i]) * (100 + i))
    with door(s3.endpoint) as before:
        far = S3(before.endpoint)
        place = locate("s3://formats/many", far.options)
        wanted = [Wanted(f"formats/many/{i:02d}", 100 + i, None) for i in range(60)]
        failed: set[str] = set()

        def rule(method: str, path: str) -> str:
            if path not in failed:
                failed.add(path)
                return "503"
            return "slow"

        before.rule = rule
        answers = fetch(place.fs, wanted, 1000, retry=Retry(first=0.01, bound=20))
        assert answers == [bytes([i]) * (100 + i) for i in range(60)]
        assert 1 < before.most <= CONNECTIONS
        assert len(failed) == 60


def test_files_of_unknown_size(s3: S3, fs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daskim.lake.fetch.UNKNOWN", 1000)
    sizes = [0, 1, 999, 1000, 1001, 5000, 5001]
    for size in sizes:
        fs.pipe_file(f"formats/unknown/{size}", b"x" * size)
    wanted = [Wanted(f"formats/unknown/{size}", -1, None) for size in sizes]
    answers = [answer() if callable(answer) else answer for answer in fetch(fs, wanted, 5000)]
    assert [len(answer) if isinstance(answer, bytes) else answer.status for answer in answers] == [
        *sizes[:-1],
        "too-large",
    ]


def test_another_version_is_not_read(s3: S3, fs: Any) -> None:
    fs.pipe_file("formats/version/a", b"first")
    tag = fs.info("formats/version/a")["ETag"].strip('"')
    cases = [Wanted("formats/version/a", 5, tag), Wanted("formats/version/a", 4, None)]
    cases += [Wanted("formats/version/a", 5, "0" * 32), Wanted("formats/version/none", 5, tag)]
    got = fetch(fs, cases, 1000)
    assert [answer if isinstance(answer, bytes) else answer.status for answer in got] == [
        b"first",
        "changed",
        "changed",
        "missing",
    ]
    pinned = locate("s3://formats/version/a", s3.options).pinned(tag, float("nan"))
    assert pinned.read(1, 3) == b"ir"
    fs.pipe_file("formats/version/a", b"other")
    with pytest.raises(OSError, match="no longer the file"):
        pinned.read(1, 3)


def test_a_container_that_changes_is_not_mixed(s3: S3, fs: Any) -> None:
    path = "formats/mixed/train-00000-of-00001.parquet"
    fs.pipe_file(path, shard())
    table = list_images(["s3://formats/mixed"], storage_options=s3.options).table
    reader = read_images(table, s3.options)
    assert all(isinstance(next(reader), bytes) for _ in range(7))
    fs.pipe_file(path, shard() + b"")
    fs.pipe_file(path, shard()[:-10] + b"0123456789")
    rest = list(reader)
    assert {raw.status for raw in rest if isinstance(raw, Failure)} == {"changed"}
    assert len(rest) == 23


def test_creation_is_exclusive(s3: S3, fs: Any) -> None:
    target = open_folder(locate("s3://formats/target", s3.options))
    target.write("a/b.bin", b"one")
    with pytest.raises(FileExistsError):
        target.write("a/b.bin", b"two")
    with door(s3.endpoint) as before:
        # Somebody else is quicker, after the look: the store itself refuses.
        race = open_folder(locate("s3://formats/target", S3(before.endpoint).options))

        def rule(method: str, path: str) -> Any:
            return (lambda: fs.pipe_file("formats/target/race.bin", b"theirs")) if method == "PUT" else None

        before.rule = rule
        with pytest.raises(FileExistsError):
            race.write("race.bin", b"mine")
        assert fs.cat_file("formats/target/race.bin") == b"theirs"
        # An answer that is lost: the second try finds what the first has written.
        before.rule = lost_once(fs, "formats/target/lost.bin", b"mine")
        race.write("lost.bin", b"mine")
        assert fs.cat_file("formats/target/lost.bin") == b"mine"


def lost_once(fs: Any, path: str, data: bytes) -> Any:
    """Writes the file and loses the answer, the first time."""
    done: list[int] = []

    def rule(method: str, asked: str) -> Any:
        if method == "PUT" and not done:
            done.append(1)
            fs.pipe_file(path, data)
            return "reset"
        return None

    return rule


@pytest.mark.usefixtures("impatient")
def test_a_run_waits_for_its_store(s3: S3, fs: Any) -> None:
    with door(s3.endpoint) as before:
        run = Run("s3://formats/store", S3(before.endpoint).options)
        failures = ["503", "reset", "500"]
        before.rule = lambda method, path: failures.pop() if failures else None
        run.write(b"data", "a", "b.txt")
        assert run.read("a", "b.txt") == b"data"
        array = run.create_array("x", (40, 4), "u1", 10)
        failures[:] = ["503", "reset"]
        array[0:10] = np.ones((10, 4), "u1")
        failures[:] = ["reset", "503"]
        assert run.array("x")[0:20].sum() == 40
        failures[:] = ["503"]
        assert run.names("a") == ["b.txt"]
        failures[:] = ["503"]
        assert not run.exists("a", "c.txt")
        run.remove("a")
        assert run.names("a") == []
        before.rule = lambda method, path: "503"
        with pytest.raises(SourceError, match="still so after"):
            run.read("a", "b.txt")
        with pytest.raises(SourceError, match="cannot write"):
            run.write(b"", "a")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    SHARED.clear()


def test_a_door_counts(s3: S3, fs: Any) -> None:
    """The door itself hands on what it is given."""
    with door(s3.endpoint) as before:
        assert isinstance(before, Door)
        far = S3(before.endpoint).fs()
        far.pipe_file("formats/door", b"abc")
        assert far.cat_file("formats/door", start=1) == b"bc"
        assert before.most >= 1
