"""Names, links, devices, stores that fail, threads, and what is printed on stderr."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import column, encode, picture

from daskim.errors import SourceError
from daskim.lake import (
    ImageSpec,
    escape,
    list_images,
    native_size,
    quiet_native_stderr,
    read_images,
    standardise_block,
    unescape,
)
from daskim.lake.cache import Cache

PNG = encode(picture(1))


@given(st.binary(max_size=30))
def test_names_come_back(raw):
    name = os.fsdecode(raw)
    stored = escape(name)
    stored.encode("utf-8")
    assert not any(ord(char) < 32 or ord(char) == 127 for char in stored)
    assert os.fsencode(unescape(stored)) == raw


@given(st.lists(st.sampled_from(["\\", "x", "0", "a", "5", "c", "\n", "\udcff", "%"]), max_size=8))
def test_names_stay_distinct_and_come_back(parts):
    name = "".join(parts)
    assert unescape(escape(name)) == name


def test_ordinary_names_stay_as_they_are():
    for name in ("a b/ü%20\\n.png", "x\\y", "图.jpg", "100%.jpg"):
        assert escape(name) == name
    assert escape("a\nb\udcff") == "a\\x0ab\\xff"


def test_odd_names_are_read(tmp_path):
    names = [b"new\nline.png", b"\xff\xfe.png", b"back\\x41.png", "ünï.png".encode(), b"-dash.png", b" .png"]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(PNG)
    listing = list_images([str(tmp_path)])
    _, table = standardise_block(listing.table, ImageSpec())
    assert set(column(table, "status")) == {"ok"}
    assert {os.fsencode(unescape(name)) for name in column(table, "id")} == set(names)
    assert column(table, "id") == sorted(column(table, "id"))


def test_links_and_devices(tmp_path):
    root = tmp_path / "set"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x.png").write_bytes(PNG)
    (root / "ok.png").write_bytes(PNG)
    (root / "in.png").symlink_to("ok.png")
    (root / "out.png").symlink_to(tmp_path / "far" / "x.png")
    (root / "gone.png").symlink_to("nowhere.png")
    (root / "self.png").symlink_to("self.png")
    (root / "loop").symlink_to(root)
    (root / "sub" / "up").symlink_to("..")
    (root / "far").symlink_to(tmp_path / "far")
    (root / "dir.png").mkdir()
    os.mkfifo(root / "pipe.png")
    sock = socket.socket(socket.AF_UNIX)
    cwd = os.getcwd()
    try:
        os.chdir(root)  # a socket's path is bounded to about 100 bytes
        sock.bind("sock.png")
    finally:
        os.chdir(cwd)
        sock.close()
    listing = list_images([str(root)])
    got = dict(zip(column(listing.table, "id"), column(listing.table, "status")))
    assert got.pop("self.png") in ("read-error", "missing")
    assert got == {
        "ok.png": "ok",
        "in.png": "ok",
        "out.png": "outside-source",
        "gone.png": "missing",
        "pipe.png": "not-a-file",
        "sock.png": "not-a-file",
    }
    assert listing.ignored == {"directory-link": 3}
    assert column(standardise_block(listing.table, ImageSpec())[1], "status").count("ok") == 2


def test_a_file_swapped_after_listing_is_not_followed_or_opened(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "set" / name).write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    listing = list_images([str(tmp_path / "set")])
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "set" / name).unlink()
    (tmp_path / "set" / "a.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(tmp_path / "set" / "b.png")
    _, table = standardise_block(listing.table, ImageSpec())
    assert column(table, "status") == ["read-error", "not-a-file", "missing"]


def test_unreadable_folder_is_a_row(tmp_path, monkeypatch):
    (tmp_path / "shut").mkdir()
    (tmp_path / "a.png").write_bytes(PNG)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    table = list_images([str(tmp_path)]).table
    assert column(table, "id") == ["a.png", "shut/"]
    assert column(table, "status") == ["ok", "no-permission"]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FileNotFoundError("x"), "missing"),
        (PermissionError("denied for key=TOPSECRET"), "no-permission"),
        (TimeoutError("x"), "timeout"),
        (OSError("bucket TOPSECRET?sig=abc"), "read-error"),
        (ValueError("odd"), "read-error"),
    ],
)
def test_store_failures_are_statuses_and_keep_secrets(memory, monkeypatch, error, status):
    memory.pipe("/s/a.png", PNG)
    memory.pipe("/s/b.png", PNG)
    listing = list_images(["memory://s"])
    cat = type(memory).cat_file

    def fail(self, path, *args, **kwargs):
        if path.endswith("a.png"):
            raise error
        return cat(self, path, *args, **kwargs)

    monkeypatch.setattr(type(memory), "cat_file", fail)
    _, table = standardise_block(listing.table, ImageSpec(), {"secret": "TOPSECRET"})
    assert column(table, "status") == [status, "ok"]
    assert "TOPSECRET" not in column(table, "reason")[0]
    assert "sig=abc" not in column(table, "reason")[0]


def test_a_store_that_refuses_is_a_source_error(memory, monkeypatch):
    memory.pipe("/s/a.png", PNG)

    def refuse(self, *args, **kwargs):
        raise RuntimeError("no credentials for TOPSECRET")

    monkeypatch.setattr(type(memory), "ls", refuse)
    with pytest.raises(SourceError, match=r"RuntimeError: no credentials for \*\*\*"):
        list_images(["memory://s"], storage_options={"secret": "TOPSECRET"})


def test_an_input_that_is_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(PNG)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "one.png").symlink_to("real/a.png")
    for source, name in (("link", "a.png"), ("one.png", "one.png")):
        listing = list_images([str(tmp_path / source)])
        assert column(listing.table, "id") == [name]
        assert column(standardise_block(listing.table, ImageSpec())[1], "status") == ["ok"]


def test_options_never_end_in_the_listing(memory):
    memory.pipe("/s/a.png", PNG)
    listing = list_images(["memory://s"], storage_options={"secret": "TOPSECRET"})
    assert "TOPSECRET" not in repr(listing)
    assert "TOPSECRET" not in str(listing.table.to_pylist())


def test_file_urls_and_relative_paths(tmp_path, monkeypatch):
    (tmp_path / "a b.png").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    assert column(list_images([tmp_path.as_uri()]).table, "uri") == column(list_images(["."]).table, "uri")
    assert column(list_images([(tmp_path / "a b.png").as_uri()]).table, "id") == ["a b.png"]


def test_chained_url(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("cat/a.png", PNG)
    listing = list_images([f"zip://::file://{tmp_path}/a.zip"])
    assert column(listing.table, "label") == ["cat"]
    assert column(standardise_block(listing.table, ImageSpec())[1], "status") == ["ok"]


def test_files_above_the_bound_are_not_read(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    listing = list_images([str(tmp_path)])
    (tmp_path / "a.png").unlink()  # reading would give `missing`
    _, table = standardise_block(listing.table, ImageSpec(max_bytes=10))
    assert column(table, "status") == ["too-large"]
    assert column(table, "bytes") == [len(PNG)]


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(SourceError, match="1 not-an-image"):
        native_size(list_images([str(tmp_path)]))


def test_threads_agree_with_one(tmp_path):
    for index in range(40):
        kind = ("PNG", "JPEG", "TIFF")[index % 3]
        data = encode(picture(index), kind)
        (tmp_path / f"{index:02d}.{kind.lower()}").write_bytes(data[: len(data) // 2] if index % 7 == 0 else data)
    table = list_images([str(tmp_path)]).table
    pixels, rows = standardise_block(table, ImageSpec())
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: standardise_block(table.slice(start, 5), ImageSpec()), range(0, 40, 5)))
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), pixels)
    assert [row for part in parts for row in part[1].to_pylist()] == rows.to_pylist()


def test_records_pickle(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    listing = list_images([str(tmp_path)])
    assert pickle.loads(pickle.dumps(ImageSpec())) == ImageSpec()
    assert pickle.loads(pickle.dumps(listing)).table == listing.table


def test_an_unfinished_read_leaves_nothing_open(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    reader = read_images(list_images([str(tmp_path)]).table)
    assert next(reader) == PNG
    reader.close()


def test_progress_is_told(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    seen: list[int] = []
    list_images([str(tmp_path)], progress=seen.append)
    assert seen == [1]


def test_native_chatter_goes_to_the_log(caplog, capfd):
    caplog.set_level(logging.DEBUG, logger="daskim.lake.stderr")
    with quiet_native_stderr(), quiet_native_stderr():
        os.write(2, b"libwhatever: strange\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
    assert [record.getMessage() for record in caplog.records] == ["native decoder: libwhatever: strange"]


def test_python_stderr_goes_on_while_native_is_caught(tmp_path):
    import subprocess

    script = (
        "import logging, os, sys\n"
        "from daskim.lake import quiet_native_stderr\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "with quiet_native_stderr():\n"
        "    os.write(2, b'NATIVE\\n'); print('progress', file=sys.stderr); logging.info('logged')\n"
        "print('after', file=sys.stderr); os.write(2, b'native again\\n')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.splitlines() == ["progress", "INFO:root:logged", "after", "native again"]


def test_chatter_from_many_threads(capfd):
    def work(index: int) -> None:
        for _ in range(50):
            with quiet_native_stderr():
                os.write(2, b"noise\n")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    os.write(2, b"end\n")
    assert capfd.readouterr().err == "end\n"


def test_cache_is_bounded_and_loads_once():
    cache = Cache(10)
    loads: list[int] = []

    def load(key: int) -> int:
        return cache.get(key, lambda: (loads.append(key) or key, 4))

    assert [load(key) for key in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert loads == [1, 2, 3, 2]
    with pytest.raises(ValueError, match="no"):
        cache.get(9, lambda: (_ for _ in ()).throw(ValueError("no")))
    assert load(9) == 9
