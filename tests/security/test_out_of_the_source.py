"""Sources are data: they lead to no file outside of them, and no code in them runs."""

from __future__ import annotations

import csv
import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from daskim.errors import SourceError
from daskim.lake import ImageSpec, list_images, standardise_block

SPEC = ImageSpec(8, 8, flat_std=0.0)
# What must never be read: its colour is in no other file.
SECRET = (201, 17, 93)


def png(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.png"
    path.write_bytes(png(SECRET))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "own.png").write_bytes(png((1, 2, 3)))
    return folder


class Code:
    """A pickle that leaves a file when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.mark),)


def statuses(*inputs: object, **how: Any) -> list[str]:
    """The status of each image of a source; none of them shows the secret."""
    listing = list_images([str(item) for item in inputs], **how)
    pixels, table = standardise_block(listing.table, SPEC)
    found = [str(status) for status in table["status"].to_pylist()]
    readable = np.array([status == "ok" for status in found])
    assert not (np.abs(pixels[readable].reshape(-1, 3).astype(int) - SECRET).sum(1) < 30).any()
    return found


def write_manifest(path: Path, column: str, names: list[str]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({column: name}) + "\n" for name in names))
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({column: names}), path)
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([[column], *([name] for name in names)])


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_names_in_a_manifest_stay_in_its_folder(suffix: str, root: Path, secret: Path) -> None:
    (root / "link.png").symlink_to(secret)
    (root / "door").symlink_to(secret.parent)
    names = [
        "../secret.png",
        "sub/../../secret.png",
        "./.././secret.png",
        str(secret),
        "//" + str(secret),
        "link.png",
        "door/secret.png",
        "sub/../own.png",
    ]
    write_manifest(root / f"list{suffix}", "file_name", names)
    assert statuses(root / f"list{suffix}") == ["outside-source"] * 7 + ["ok"]


def test_escapes_in_a_manifest_of_apply_lead_nowhere_else(root: Path, secret: Path) -> None:
    write = [["daskim_id", "file_name"], ["a", r"\x2e\x2e/secret.png"], ["b", r"sub/\x2e\x2e/\x2e\x2e/secret.png"]]
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(write)
    assert statuses(root / "list.csv") == ["outside-source"] * 2


@pytest.mark.parametrize(
    ("uri", "status"),
    [
        ("{path}", "outside-source"),
        ("file://{path}", "outside-source"),
        ("local://{path}", "outside-source"),
        ("simplecache::file://{path}", "outside-source"),
        ("simplecache::{path}", "missing"),  # a name in the manifest's folder, as it has no ://
        ("filecache::local://{path}", "outside-source"),
        ("zip://secret.png::{path}", "outside-source"),
        ("zip://secret.png::file://{path}", "outside-source"),
        ("reference://secret.png::memory://far/refs.json", "unsupported"),
        ("simplecache::memory://far/own.png", "unsupported"),
        ("dask::memory://far/own.png", "unsupported"),
        ("memory://far/own.png", "ok"),
    ],
)
def test_a_remote_manifest_reaches_nothing_local(
    uri: str, status: str, secret: Path, memory: fsspec.AbstractFileSystem
) -> None:
    memory.pipe("/far/own.png", png((1, 2, 3)))
    references = {"version": 1, "refs": {"secret.png": [f"file://{secret}"]}}
    memory.pipe("/far/refs.json", json.dumps(references).encode())
    memory.pipe("/far/list.csv", f"uri\n{uri.format(path=secret)}\n".encode())
    assert statuses("memory://far/list.csv") == [status]


@pytest.mark.parametrize(
    "protocol", ["reference", "simplecache", "filecache", "blockcache", "github", "git", "nothing"]
)
def test_a_local_manifest_reads_only_from_stores(protocol: str, root: Path) -> None:
    """References may name any file, and caches write; to name a local file as it is, is a manifest's right."""
    refs = root / "refs.json"
    refs.write_text(json.dumps({"version": 1, "refs": {"own.png": [f"file://{root}/own.png"]}}))
    write_manifest(root / "list.csv", "uri", [f"{protocol}://own.png::file://{refs}", f"file://{root}/own.png"])
    assert statuses(root / "list.csv") == ["unsupported", "ok"]


def test_links_in_a_folder_lead_nowhere_else(root: Path, secret: Path) -> None:
    (root / "link.png").symlink_to(secret)
    (root / "sub" / "inside.png").symlink_to(root / "own.png")
    (root / "door").symlink_to(secret.parent)
    (root / "loop").symlink_to(root)
    (root / "chain.png").symlink_to(root / "link.png")
    assert statuses(root) == ["outside-source", "outside-source", "ok", "ok"]


def test_members_of_a_shard_are_bytes_in_it(root: Path, secret: Path) -> None:
    with tarfile.open(root / "shard.tar", "w") as tar:
        for index, (name, kind, target) in enumerate(
            [
                ("../../secret.png", tarfile.REGTYPE, ""),
                (str(secret), tarfile.REGTYPE, ""),
                ("symlink.png", tarfile.SYMTYPE, str(secret)),
                ("hardlink.png", tarfile.LNKTYPE, str(secret)),
                ("device.png", tarfile.CHRTYPE, ""),
                ("fifo.png", tarfile.FIFOTYPE, ""),
            ]
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            data = png((index, 2, 3)) if kind == tarfile.REGTYPE else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert statuses(root / "shard.tar") == ["ok", "ok", *["not-a-file"] * 4]
    assert sorted(path.name for path in root.parent.iterdir()) == ["secret.png", "source"]


def test_paths_in_a_parquet_file_stay_in_its_folder(root: Path, secret: Path) -> None:
    (root / "link.png").symlink_to(secret)
    paths = ["own.png", "../secret.png", str(secret), f"file://{secret}", "link.png"]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array([{"bytes": None, "path": path} for path in paths], kind)
    pq.write_table(pa.table({"image": column}), root / "set.parquet")
    assert statuses(root / "set.parquet") == ["ok", *["outside-source"] * 4]


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "labels.npy", "labels.npz"])
def test_pickles_in_numpy_files_are_not_loaded(name: str, root: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    objects = np.array([Code(mark)] * 4, dtype=object)
    images = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    if name == "labels.npy":
        np.save(root / "x.npy", images)
        np.save(root / "labels.npy", objects, allow_pickle=True)
    elif name == "x.npy":
        np.save(root / name, objects.reshape(4, 1, 1), allow_pickle=True)
    else:
        np.savez(root / "x.npz", x=images if name == "labels.npz" else objects.reshape(4, 1, 1), labels=objects)
    with pytest.raises(SourceError, match=r"Object arrays|images are numbers"):
        statuses(root / ("x.npy" if name.endswith("npy") else "x.npz"))
    assert not mark.exists()


@pytest.mark.parametrize("dtype", ["|u1", "|O"])
@pytest.mark.parametrize("where", ["filters", "second filter", "compressor"])
def test_pickles_in_zarr_arrays_are_not_loaded(where: str, dtype: str, root: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    array = root / "x.zarr"
    array.mkdir()
    pickled = {"id": "pickle", "protocol": 5}
    about: dict[str, Any] = {"zarr_format": 2, "shape": [4, 8, 8, 3], "chunks": [4, 8, 8, 3], "dtype": dtype}
    about |= {"fill_value": 0, "order": "C", "compressor": None, "filters": None}
    about |= {
        "filters": {"filters": [pickled]},
        "second filter": {"filters": [{"id": "shuffle", "elementsize": 1}, pickled]},
        "compressor": {"compressor": pickled},
    }[where]
    (array / ".zarray").write_text(json.dumps(about))
    (array / "0.0.0.0").write_bytes(pickle.dumps(Code(mark)))
    with pytest.raises(SourceError):
        statuses(array)
    assert not mark.exists()


@pytest.mark.parametrize("linked", ["0.0.0.0", "folder"])
def test_chunks_of_a_zarr_array_are_no_links_to_other_files(linked: str, root: Path, tmp_path: Path) -> None:
    """Without this, the bytes of any file would be the pixels of an image."""
    array = root / "x.zarr"
    array.mkdir()
    chunk = np.full((4, 8, 8, 3), SECRET, dtype=np.uint8)
    folder = linked == "folder"
    about = {"zarr_format": 2, "shape": [4, 8, 8, 3], "chunks": [4, 8, 8, 3], "dtype": "|u1", "fill_value": 0}
    about |= {"order": "C", "compressor": None, "filters": None, "dimension_separator": "/" if folder else "."}
    (array / ".zarray").write_text(json.dumps(about))
    outside = tmp_path / "outside"
    (outside / "0" / "0").mkdir(parents=True)
    (outside / "0" / "0" / "0").write_bytes(chunk.tobytes())
    (array / ("0" if folder else linked)).symlink_to(outside if folder else outside / "0" / "0" / "0")
    for source, how in ((array, {}), (root, {"format": "array"})):
        with pytest.raises(SourceError, match="leads out of it"):
            statuses(source, **how)
    (array / "0").unlink(missing_ok=True)
    (array / "0.0.0.0").unlink(missing_ok=True)
    assert "ok" in statuses(array)
