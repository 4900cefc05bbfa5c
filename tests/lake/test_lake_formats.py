"""Every format, recognised by what it holds: ids, labels, splits, and the same pixels back."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from pictures import column, encode, picture, tar

from daskim.errors import SettingsError, SourceError
from daskim.lake import ImageSpec, list_images, native_size, read_images, standardise_block
from daskim.lake.manifest import list_manifest
from daskim.lake.place import locate

NATIVE = ImageSpec(40, 48, fit="native")
PICTURES = [picture(seed) for seed in range(4)]
STACK = np.stack(PICTURES)


def pixels_of(listing, spec=NATIVE, options=None):
    pixels, table = standardise_block(listing.table, spec, options)
    assert set(column(table, "status")) == {"ok"}, column(table, "reason")
    assert column(table, "id") == column(listing.table, "id")
    return pixels


def write_folder(root: Path) -> None:
    for index, name in enumerate(("train/cat/a.png", "train/dog/sub/b.PNG", "val/cat/c.png", "d.png")):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(PICTURES[index]))


def test_folder(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "notes.TXT").write_text("x")
    (tmp_path / "list.csv").write_text("file_name\nd.png\n")
    (tmp_path / ".DS_Store").write_text("x")
    (tmp_path / "bare").write_bytes(encode(PICTURES[0]))
    (tmp_path / "LICENSE").write_text("free")
    listing = list_images([str(tmp_path)])
    assert column(listing.table, "id") == ["bare", "d.png", "train/cat/a.png", "train/dog/sub/b.PNG", "val/cat/c.png"]
    assert column(listing.table, "split") == [None, None, "train", "train", "val"]
    assert column(listing.table, "label") == [None, None, "cat", "dog", "cat"]
    assert listing.ignored == {"": 1, ".csv": 1, ".txt": 1, "hidden": 1}
    np.testing.assert_array_equal(pixels_of(listing), STACK[[0, 3, 0, 1, 2]])
    assert native_size(listing) == (40, 48)


def test_one_image_file(tmp_path):
    (tmp_path / "one.png").write_bytes(encode(PICTURES[0]))
    listing = list_images([str(tmp_path / "one.png")])
    assert column(listing.table, "id") == ["one.png"]
    np.testing.assert_array_equal(pixels_of(listing)[0], PICTURES[0])


def test_memory_folder_with_brackets_in_names(memory):
    memory.pipe("/set/train/a/x[1].png", encode(PICTURES[0]))
    memory.pipe("/set/train/a/x*.png", encode(PICTURES[1]))
    memory.pipe("/set/bare", encode(PICTURES[2]))
    memory.pipe("/set/empty.png", b"")
    listing = list_images(["memory://set"])
    assert column(listing.table, "id") == ["bare", "empty.png", "train/a/x*.png", "train/a/x[1].png"]
    assert column(listing.table, "status") == ["ok", "empty", "ok", "ok"]
    pixels, _ = standardise_block(listing.table, NATIVE)
    np.testing.assert_array_equal(pixels[[0, 2, 3]], STACK[[2, 1, 0]])
    del memory.store["/set/train/a/x[1].png"]
    assert column(standardise_block(listing.table, NATIVE)[1], "status")[-1] == "missing"


@pytest.mark.parametrize("ext", ["csv", "tsv", "jsonl", "parquet"])
def test_manifest(tmp_path, ext):
    write_folder(tmp_path)
    records = [
        {"file_name": "train/cat/a.png", "label": "1", "split": "s", "other": 1},
        {"file_name": "d.png", "label": None, "split": None, "other": 1},
        {"file_name": "no.png", "label": "x", "split": None, "other": 1},
        {"file_name": "../up.png", "label": "x", "split": None, "other": 1},
    ]
    path = tmp_path / f"list.{ext}"
    if ext == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif ext == "jsonl":
        path.write_text("\n".join(map(json.dumps, records)) + "\n")
    else:
        sep = "," if ext == "csv" else "\t"
        lines = [sep.join(records[0])] + [sep.join(str(v or "") for v in r.values()) for r in records]
        path.write_text("\ufeff" + "\n".join(lines) + "\n")
    listing = list_images([str(path)])
    assert column(listing.table, "id") == ["train/cat/a.png", "d.png", "no.png", "../up.png"]
    assert column(listing.table, "label") == ["1", None, "x", "x"]
    assert column(listing.table, "split") == ["s", None, None, None]
    assert column(listing.table, "status") == ["ok", "ok", "missing", "outside-source"]
    pixels, table = standardise_block(listing.table, NATIVE)
    np.testing.assert_array_equal(pixels[:2], STACK[[0, 3]])
    assert column(table, "status") == ["ok", "ok", "missing", "outside-source"]


@pytest.mark.parametrize("ext", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 9])
def test_a_manifest_is_read_in_pieces(tmp_path, monkeypatch, ext, count):
    """As many lines at a time as come: the table is that of all at once."""
    write_folder(tmp_path)
    (tmp_path / "in").symlink_to(tmp_path / "train")
    (tmp_path / "link.png").symlink_to("d.png")
    names = [
        "train/cat/a.png",
        "link.png",
        None,
        "./d.png",
        "in/cat/a.png",
        "train",
        "../x",
        "train/../d.png",
        "no/b.png",
    ]
    records = [{"file_name": name, "label": str(row)} for row, name in enumerate(names[:count])]
    path = tmp_path / f"m.{ext}"
    if ext == "parquet":
        schema = pa.schema([("file_name", pa.string()), ("label", pa.string())])
        pq.write_table(pa.Table.from_pylist(records, schema), path)
    elif ext == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records) or '{"file_name": "d.png"}\n')
    else:
        sep = "," if ext == "csv" else "\t"
        lines = [("file_name", "label"), *((r["file_name"] or "", r["label"]) for r in records)]
        path.write_text("\n".join(map(sep.join, lines)) + "\n")
    place = locate(str(path))
    whole = list_manifest(place, path.suffix)
    monkeypatch.setattr("daskim.lake.manifest.CHUNK", 4)
    pieces = list_manifest(place, path.suffix)
    assert repr(pieces.to_pylist()) == repr(whole.to_pylist())  # nan is not equal to itself
    if count == 9:
        status = column(whole, "status")
        assert status == ["ok", "ok", "missing", "ok", "ok", "not-a-file", "outside-source", "ok", "missing"]
        assert column(whole, "id")[2] == f"m.{ext}#00000002"
        real = [column(whole, "uri")[row] for row in (0, 1, 4)]
        assert real == [str(tmp_path / name) for name in ("train/cat/a.png", "d.png", "train/cat/a.png")]


def test_manifest_in_a_folder_needs_its_format(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "m.csv").write_text("file_name,label\nd.png,z\n")
    assert list_images([str(tmp_path)]).table.num_rows == 4
    assert column(list_images([str(tmp_path)], format="manifest").table, "label") == ["z"]


def test_manifest_uris(tmp_path, memory):
    memory.pipe("/far/b.png", encode(PICTURES[1]))
    (tmp_path / "set").mkdir()
    (tmp_path / "a b.png").write_bytes(encode(PICTURES[0]))
    (tmp_path / "set" / "link.png").symlink_to(tmp_path / "a b.png")
    uris = [str(tmp_path / "a b.png"), (tmp_path / "a b.png").as_uri(), "memory://far/b.png", "link.png", "odd://x/y"]
    (tmp_path / "set" / "m.csv").write_text("uri\n" + "\n".join(uris) + "\n")
    listing = list_images([str(tmp_path / "set" / "m.csv")])
    pixels, table = standardise_block(listing.table, NATIVE)
    assert column(table, "status") == ["ok", "ok", "ok", "outside-source", "unsupported"]
    np.testing.assert_array_equal(pixels[:3], STACK[[0, 0, 1]])
    memory.pipe("/far/m.csv", f"uri\n{tmp_path / 'a b.png'}\nb.png\n".encode())
    far = list_images(["memory://far/m.csv"])
    assert column(far.table, "status") == ["outside-source", "ok"]
    np.testing.assert_array_equal(standardise_block(far.table, NATIVE)[0][1], PICTURES[1])


def test_a_remote_manifest_does_not_hand_its_options_to_other_stores(memory, monkeypatch):
    memory.pipe("/far/m.csv", b"uri\nhttp://elsewhere/x.png\nmemory://far/b.png\n")
    memory.pipe("/far/b.png", encode(PICTURES[1]))
    options = {"token": "TOPSECRET"}
    listing = list_images(["memory://far/m.csv"], storage_options=options)
    seen = []

    def note(url, given=None, **kwargs):
        seen.append((url, dict(given or {})))
        return __import__("daskim.lake.place", fromlist=["x"]).locate("memory://far/b.png")

    monkeypatch.setattr("daskim.lake.read.locate", note)
    assert len(list(read_images(listing.table, options))) == 2
    assert seen == [("http://elsewhere/x.png", {}), ("memory://far/b.png", options)]


@pytest.mark.parametrize(
    ("text", "message"),
    [("a,b\n1,2\n", "neither a file_name"), ("file_name\n\xff", "cannot read"), ("", "neither")],
)
def test_bad_manifests(tmp_path, text, message):
    (tmp_path / "m.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(SourceError, match=message):
        list_images([str(tmp_path / "m.csv")])


@pytest.mark.parametrize("store", ["local", "memory"])
def test_webdataset(tmp_path, memory, store):
    first = tar(
        {
            "./k/1.jpg.png": encode(PICTURES[0]),
            "k/1.cls": b"7\n",
            "k/1.json": b'{"label": "no"}',
            "2.png": encode(PICTURES[1]),
            "2.json": b'{"label": 3, "x": 1}',
            "3.left.png": encode(PICTURES[2]),
            "3.txt": b"a caption " * 100,
            "3.npy": b"zz",
        }
    )
    second = tar({"2.png": encode(PICTURES[3]), "2.txt": b"word", "e.png": b""})
    if store == "local":
        (tmp_path / "train-00.tar").write_bytes(first)
        (tmp_path / "train-01.tar").write_bytes(second)
        listing = list_images([str(tmp_path)])
    else:
        memory.pipe({"/s/train-00.tar": first, "/s/train-01.tar": second})
        listing = list_images(["memory://s"])
    names = ["00.tar/k/1.jpg.png", "00.tar/2.png", "00.tar/3.left.png", "01.tar/2.png", "01.tar/e.png"]
    assert column(listing.table, "id") == [f"train-{name}" for name in names]
    assert column(listing.table, "label") == ["7", "3", None, "word", None]
    assert set(column(listing.table, "split")) == {"train"}
    assert listing.ignored == {".npy": 1}
    pixels, table = standardise_block(listing.table, NATIVE)
    np.testing.assert_array_equal(pixels[:4], STACK)
    assert column(table, "status")[-1] == "empty"


@pytest.mark.parametrize(
    ("damage", "status", "kept"),
    [
        (lambda t: t[: len(t) // 2], "truncated", 2),
        (lambda t: t.replace(b"2.png" + bytes(20), b"2.png" + b"\x01" * 20), "corrupt", 2),
        (lambda t: t + tar({"z.png": b"x"}), "corrupt", 4),
        (lambda t: t.rstrip(b"\x00") + b"\x00" * (-len(t.rstrip(b"\x00")) % 512), "truncated", 4),
    ],
)
def test_damaged_shards_lose_nothing_silently(tmp_path, damage, status, kept):
    whole = tar({f"{i}.png": encode(PICTURES[i]) for i in range(4)})
    (tmp_path / "a.tar").write_bytes(damage(whole))
    listing = list_images([str(tmp_path / "a.tar")])
    assert column(listing.table, "id")[-1] == "a.tar/"
    _, table = standardise_block(listing.table, NATIVE)
    found = column(table, "status")
    assert found[:kept] == ["ok"] * kept
    assert found[kept:-1] in ([], ["truncated"])
    assert found[-1] == status


def test_compressed_shard_says_what_to_do(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar({"a.png": encode(PICTURES[0])})))
    for given in (tmp_path, tmp_path / "a.tar.gz"):
        with pytest.raises(SourceError, match=r"(?s)[Cc]ompressed.*[Uu]npack"):
            list_images([str(given)])


def hf_metadata(names):
    features = {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def write_parquet(path, rows, metadata=None, **options):
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table(
        {
            "image": pa.array([row[0] for row in rows], image),
            "label": pa.array([row[1] for row in rows], pa.int64()),
        }
    )
    pq.write_table(table.replace_schema_metadata(metadata), path, **options)


def test_parquet_structs(tmp_path):
    (tmp_path / "inside.png").write_bytes(encode(PICTURES[2]))
    rows = [
        ({"bytes": encode(PICTURES[0]), "path": "p/0.png"}, 1),
        ({"bytes": encode(PICTURES[1]), "path": None}, 0),
        ({"bytes": None, "path": "inside.png"}, -1),
        ({"bytes": None, "path": "../x.png"}, None),
        (None, 9),
        ({"bytes": b"", "path": "e.png"}, 1),
    ]
    path = tmp_path / "train-00000-of-00001.parquet"
    write_parquet(path, rows, hf_metadata(["cat", "dog"]), row_group_size=2)
    listing = list_images([str(path)])
    name = path.name
    assert column(listing.table, "id") == [
        "p/0.png", f"{name}#00000001", "inside.png", "../x.png", f"{name}#00000004", "e.png"
    ]  # fmt: skip
    assert column(listing.table, "label") == ["dog", "cat", None, None, "9", "dog"]
    assert set(column(listing.table, "split")) == {"train"}
    pixels, table = standardise_block(listing.table, NATIVE)
    assert column(table, "status") == ["ok", "ok", "ok", "outside-source", "missing", "empty"]
    np.testing.assert_array_equal(pixels[:3], STACK[:3])
    shuffled = listing.table.take([2, 0, 1])
    np.testing.assert_array_equal(standardise_block(shuffled, NATIVE)[0], STACK[[2, 0, 1]])


def test_parquet_binary_split_column_and_large_groups(tmp_path, memory, monkeypatch):
    table = pa.table({"img": [encode(p) for p in PICTURES] * 40, "split": ["a", "b", None, "a"] * 40})
    file = pa.BufferOutputStream()
    pq.write_table(table, file)
    memory.pipe("/p/x.parquet", file.getvalue().to_pybytes())
    listing = list_images(["memory://p"])
    assert column(listing.table, "split")[:4] == ["a", "b", None, "a"]
    np.testing.assert_array_equal(pixels_of(listing)[80:84], STACK)
    monkeypatch.setattr("daskim.lake.parquet._GROUP_BOUND", 1)
    order = [159, 3, 3, 70, 0]
    got = standardise_block(listing.table.take(order), NATIVE)[0]
    np.testing.assert_array_equal(got, STACK[[row % 4 for row in order]])


def test_a_row_group_is_decoded_once(tmp_path, monkeypatch):
    write_parquet(tmp_path / "a.parquet", [({"bytes": encode(p), "path": None}, 1) for p in PICTURES])
    listing = list_images([str(tmp_path / "a.parquet")])
    calls = []
    load = __import__("daskim.lake.parquet", fromlist=["x"])._load_group
    monkeypatch.setattr("daskim.lake.parquet._load_group", lambda *a: calls.append(1) or load(*a))
    for start in range(4):
        standardise_block(listing.table.slice(start, 1), NATIVE)
    assert len(calls) == 1


def test_broken_parquet(tmp_path):
    write_parquet(tmp_path / "a.parquet", [({"bytes": encode(PICTURES[0]), "path": None}, 1)])
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(data[:-20])
    listing = list_images([str(tmp_path)])
    assert column(listing.table, "status") == ["ok", "corrupt"]
    (tmp_path / "a.parquet").write_bytes(b"PAR1" + bytes(len(data) - 4))
    assert column(standardise_block(listing.table, NATIVE)[1], "status") == ["corrupt", "corrupt"]
    with pytest.raises(SourceError, match="cannot read"):
        list_images([str(tmp_path / "b.parquet")])


def test_several_image_columns_are_ambiguous(tmp_path):
    pq.write_table(pa.table({"png": [b"a"], "jpg": [b"b"]}), tmp_path / "a.parquet")
    with pytest.raises(SettingsError, match="several image columns"):
        list_images([str(tmp_path / "a.parquet")])


@pytest.mark.parametrize("store", ["local", "memory"])
def test_npy_and_npz(tmp_path, memory, store):
    np.save(tmp_path / "x_train.npy", STACK)
    np.save(tmp_path / "y_train.npy", np.array([3, 1, 2, 0]))
    np.savez(tmp_path / "b.npz", x_train=STACK[:2], y_train=["u", "v"], x_test=STACK[2:], y_test=[[5], [6]])
    np.savez_compressed(tmp_path / "c.npz", images=STACK[:, :, :, 0], labels=[1.0, np.nan, 2.5, 0])
    where = str(tmp_path)
    if store == "memory":
        for path in tmp_path.iterdir():
            memory.pipe(f"/n/{path.name}", path.read_bytes())
        where = "memory://n"
    for name in ("x_train.npy", ""):
        listing = list_images([f"{where}/{name}".rstrip("/")])
        one = [i for i, row in enumerate(column(listing.table, "id")) if row.startswith("x_train.npy#")]
        assert column(listing.table, "id")[one[0]] == "x_train.npy#00000000"
        assert [column(listing.table, "label")[i] for i in one] == ["3", "1", "2", "0"]
        assert {column(listing.table, "split")[i] for i in one} == {"train"}
        np.testing.assert_array_equal(pixels_of(listing)[one], STACK)
    listing = list_images([f"{where}/b.npz"])
    assert column(listing.table, "id")[0] == "b.npz/x_test#00000000"
    assert column(listing.table, "label") == ["5", "6", "u", "v"]
    assert column(listing.table, "split") == ["test", "test", "train", "train"]
    np.testing.assert_array_equal(pixels_of(listing), STACK[[2, 3, 0, 1]])
    listing = list_images([f"{where}/c.npz"])
    assert column(listing.table, "label") == ["1", None, "2.5", "0"]
    np.testing.assert_array_equal(pixels_of(listing, ImageSpec(40, 48, mode="L"))[..., 0], STACK[..., 0])


def test_npy_with_rows_missing(tmp_path):
    np.save(tmp_path / "a.npy", STACK)
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[: -STACK[0].nbytes - 5])
    listing = list_images([str(tmp_path / "a.npy")])
    assert column(listing.table, "status") == ["ok", "ok", "truncated"]
    assert column(listing.table, "id")[-1] == "a.npy/"
    assert "2 of 4" in column(listing.table, "reason")[-1]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 3, 8, 8), np.uint8), "moveaxis"),
        (np.zeros((8, 8, 3), np.uint8), "one image"),
        (np.zeros(4, np.uint8), "stack of images"),
        (np.asfortranarray(STACK), "Fortran"),
        (np.zeros((2, 4, 4), complex), "numbers"),
        (np.array([[[{}]]]), "numbers"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(SourceError, match=message):
        list_images([str(tmp_path / "a.npy")])


def test_wrong_number_of_labels(tmp_path):
    np.save(tmp_path / "a.npy", STACK)
    np.save(tmp_path / "labels.npy", np.arange(3))
    with pytest.raises(SourceError, match="4 labels"):
        list_images([str(tmp_path / "a.npy")])


@pytest.mark.parametrize("store", ["local", "memory"])
def test_zarr(tmp_path, memory, store):
    root = str(tmp_path) if store == "local" else "memory://z"
    group = zarr.open_group(f"{root}/g.zarr", mode="w")
    group.create_array("images", data=STACK, chunks=(3, 40, 48, 3))
    group.create_array("labels", data=np.array([4, 3, 2, 1]))
    listing = list_images([f"{root}/g.zarr"])
    assert column(listing.table, "id")[1] == "g.zarr/images#00000001"
    assert column(listing.table, "label") == ["4", "3", "2", "1"]
    np.testing.assert_array_equal(pixels_of(listing), STACK)
    np.testing.assert_array_equal(standardise_block(listing.table.take([3, 0, 3]), NATIVE)[0], STACK[[3, 0, 3]])
    assert column(list_images([root]).table, "id") == column(listing.table, "id")
    zarr.open_array(f"{root}/one", mode="w", shape=STACK.shape, chunks=STACK.shape, dtype="u1")[:] = STACK
    np.testing.assert_array_equal(pixels_of(list_images([f"{root}/one"])), STACK)


def idx_bytes(array: np.ndarray) -> bytes:
    return b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path, packed):
    grey, labels = STACK[..., 0], np.array([7, 8, 9, 1], np.uint8)
    for prefix in ("train", "t10k"):
        for name, array in ((f"{prefix}-images-idx3-ubyte", grey), (f"{prefix}-labels-idx1-ubyte", labels)):
            data = idx_bytes(array)
            if packed:
                (tmp_path / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (tmp_path / name).write_bytes(data)
    listing = list_images([str(tmp_path)])
    assert column(listing.table, "id")[0] == "t10k-images-idx3-ubyte#00000000"
    assert column(listing.table, "split") == ["test"] * 4 + ["train"] * 4
    assert column(listing.table, "label") == ["7", "8", "9", "1"] * 2
    got = pixels_of(listing, ImageSpec(40, 48, mode="L"))
    np.testing.assert_array_equal(got[4:, ..., 0], grey)
    lone = list_images([str(tmp_path / f"train-images-idx3-ubyte{'.gz' * packed}")])
    assert column(lone.table, "label") == ["7", "8", "9", "1"]


def test_cut_idx_keeps_what_is_there(tmp_path):
    data = idx_bytes(np.random.default_rng(0).integers(0, 256, (50, 40, 48), dtype=np.uint8))
    packed = gzip.compress(data)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(packed[: len(packed) // 2])
    listing = list_images([str(tmp_path)])
    status = column(listing.table, "status")
    assert 15 <= status.count("ok") <= 30
    assert status[-1] == "truncated"
    assert column(standardise_block(listing.table, ImageSpec())[1], "status") == status


def test_ambiguous_and_empty_inputs(tmp_path):
    with pytest.raises(SourceError, match="does not exist"):
        list_images([str(tmp_path / "no")])
    with pytest.raises(SourceError, match="it is empty"):
        list_images([str(tmp_path)])
    (tmp_path / "a.csv").write_text("file_name\nx.png\n")
    with pytest.raises(SourceError, match="format manifest"):
        list_images([str(tmp_path)])
    (tmp_path / "x.png").write_bytes(encode(PICTURES[0]))
    write_parquet(tmp_path / "a.parquet", [({"bytes": encode(PICTURES[0]), "path": None}, 1)])
    with pytest.raises(SettingsError, match=r"(?s)ambiguous.*--format folder or --format parquet"):
        list_images([str(tmp_path)])
    assert list_images([str(tmp_path)], format="parquet").ignored == {".csv": 1, ".png": 1}
    assert list_images([str(tmp_path)], format="folder").table.num_rows == 1
    with pytest.raises(SettingsError, match="parquet"):
        list_images([str(tmp_path)], format="parket")
    with pytest.raises(SettingsError, match="unknown protocol"):
        list_images(["s4://bucket/x"])
    with pytest.raises(SettingsError, match="password"):
        list_images(["ftp://me:secret@host/x"])
    (tmp_path / "odd.bin").write_bytes(b"hello there")
    with pytest.raises(SourceError, match="not recognised"):
        list_images([str(tmp_path / "odd.bin")])


def test_several_inputs_limit_and_sample(tmp_path):
    write_folder(tmp_path / "one")
    write_folder(tmp_path / "two")
    with pytest.raises(SourceError, match=r"(?s)'d.png'.*one.*two.*common parent"):
        list_images([str(tmp_path / "one"), str(tmp_path / "two")])
    both = [str(tmp_path / "one"), str(tmp_path / "two" / "val")]
    listing = list_images(both)
    assert column(listing.table, "source") == [0, 0, 0, 0, 1]
    assert listing.sources == tuple(both)
    assert column(list_images(both, limit=2).table, "id") == column(listing.table, "id")[:2]
    drawn = column(list_images(both, sample=3, seed=5).table, "id")
    assert drawn == [name for name in column(listing.table, "id") if name in drawn]
    assert len(drawn) == 3
    assert drawn == column(list_images(both, sample=3, seed=5).table, "id")
    assert list_images(both, sample=99).table.num_rows == 5
    for bad in ({"limit": 0}, {"sample": -1}, {"limit": 1, "sample": 1}):
        with pytest.raises(SettingsError):
            list_images(both, **bad)


def test_read_images_keeps_order_across_formats(tmp_path):
    write_folder(tmp_path / "one")
    np.save(tmp_path / "s.npy", STACK)
    listing = list_images([str(tmp_path / "one"), str(tmp_path / "s.npy")])
    order = [7, 0, 6, 1, 5, 2, 4, 3]
    kinds = [type(raw) for raw in read_images(listing.table.take(order))]
    assert kinds == [np.ndarray, bytes] * 4
