"""A source on a web server: an index page, a manifest of URLs, and servers without range requests."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loopback import serving
from pictures import column, encode, picture, tar

from daskim.errors import SettingsError, SourceError
from daskim.jobs import reduce
from daskim.lake import Failure, list_images, locate, read_images
from daskim.lake.cache import SHARED

pytest.importorskip("aiohttp", reason="aiohttp is not there: pip install 'daskim[test]'")


class Web:
    """Files by their path, and how they are served."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.sizes = True
        self.asked: list[tuple[str, str]] = []


def page(web: Web, path: str) -> bytes | None:
    """An index page as Apache makes it."""
    names = {name[len(path) :].partition("/") for name in web.files if name.startswith(path)}
    if not names:
        return None
    links = ["?C=N;O=D", "/", *sorted({quote(first) + slash for first, slash, _ in names})]
    return ("<html>" + "".join(f'<a href="{html.escape(link)}">x</a>' for link in links) + "</html>").encode()


@pytest.fixture
def web() -> Iterator[tuple[Web, str]]:
    made = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None: ...

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            made.asked.append((self.command, path))
            data, kind = made.files.get(path), "application/octet-stream"
            if data is None and path.endswith("/"):
                data, kind = page(made, path), "text/html"
            if data is None:
                self.send_response_only(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            self.send_response_only(206 if wanted and made.ranges else 200)
            if wanted and made.ranges:
                start, stop = int(wanted[1]), min(int(wanted[2] or 1 << 60), len(data) - 1)
                self.send_header("Content-Range", f"bytes {start}-{stop}/{len(data)}")
                data = data[start : stop + 1]
            self.send_header("Content-Type", kind)
            self.send_header("Last-Modified", formatdate(1_700_000_000, usegmt=True))
            if kind != "text/html":
                self.send_header("ETag", f'"tag-{len(data)}"' if not wanted else '"part"')
            if made.sizes or self.command == "GET":
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET

    with serving(Handler) as endpoint:
        yield made, endpoint
    SHARED.clear()


def pictures(n: int = 12) -> dict[str, bytes]:
    return {f"/set/train/c {i % 2}/é{i:02d}.png": encode(picture(i, 12, 12)) for i in range(n)}


@pytest.mark.parametrize("ranges", [True, False])
def test_an_index_page(web: tuple[Web, str], ranges: bool) -> None:
    made, endpoint = web
    made.files, made.ranges = {**pictures(), "/set/notes.txt": b"x", "/other/z.png": b"x"}, ranges
    listing = list_images([endpoint + "/set/"])
    ids = column(listing.table, "id")
    assert ids == sorted(name.removeprefix("/set/") for name in pictures())
    assert listing.ignored == {".txt": 1}
    assert set(column(listing.table, "label")) == {"c 0", "c 1"}
    assert column(listing.table, "bytes") == [len(pictures()["/set/" + name]) for name in ids]
    assert set(column(listing.table, "mtime")) == {1_700_000_000.0}
    assert all(column(listing.table, "etag"))
    assert list(read_images(listing.table)) == [pictures()["/set/" + name] for name in ids]


def test_an_image_that_changes(web: tuple[Web, str]) -> None:
    made, endpoint = web
    made.files = pictures(4)
    table = list_images([endpoint + "/set/"]).table
    first = "/set/" + column(table, "id")[0]
    made.files[first] += b"more"
    del made.files["/set/" + column(table, "id")[1]]
    got = [raw.status if isinstance(raw, Failure) else "ok" for raw in read_images(table)]
    assert got == ["changed", "missing", "ok", "ok"]


@pytest.mark.parametrize(("ranges", "sizes"), [(True, True), (False, True), (False, False)])
def test_a_manifest_of_urls(web: tuple[Web, str], tmp_path: Path, ranges: bool, sizes: bool) -> None:
    made, endpoint = web
    made.files, made.ranges, made.sizes = pictures(), ranges, sizes
    urls = [endpoint + quote(name) for name in pictures()]
    (tmp_path / "list.csv").write_text("uri,label\n" + "".join(f"{url},a\n" for url in urls))
    table = list_images([str(tmp_path / "list.csv")]).table
    assert list(read_images(table)) == list(pictures().values())
    bounded = [raw.status for raw in read_images(table, max_bytes=100) if isinstance(raw, Failure)]
    assert bounded == ["too-large"] * 12


def shard() -> bytes:
    file = io.BytesIO()
    pq.write_table(
        pa.table({"image": [{"bytes": d, "path": n} for n, d in pictures().items()]}), file, row_group_size=5
    )
    return file.getvalue()


def test_containers_need_range_requests(web: tuple[Web, str]) -> None:
    made, endpoint = web
    array = io.BytesIO()
    np.save(array, np.stack([picture(i, 12, 12) for i in range(12)]))
    made.files = {
        "/a/train.parquet": shard(),
        "/b/train.tar": tar({f"{i:02d}.png": data for i, data in enumerate(pictures().values())}),
        "/c/train.npy": array.getvalue(),
    }
    for name in made.files:
        table = list_images([endpoint + name]).table
        got = list(read_images(table))
        assert len(got) == 12
        assert not [raw for raw in got if isinstance(raw, Failure)], name
    made.ranges = False
    SHARED.clear()
    for name in ("/a/train.parquet", "/c/train.npy"):
        with pytest.raises(SourceError, match="range requests"):
            list_images([endpoint + name])


def test_what_is_refused(web: tuple[Web, str], tmp_path: Path) -> None:
    _, endpoint = web
    with pytest.raises(SettingsError, match="signed URL"):
        list_images([endpoint + "/a.tar?X-Amz-Signature=0123"])
    with pytest.raises(SourceError, match="does not exist"):
        list_images([endpoint + "/none/"])
    (tmp_path / "list.csv").write_text(f"uri\n{endpoint}/a.png?sig=CANARY\n")
    with pytest.raises(SettingsError, match="signed URL") as caught:
        list_images([str(tmp_path / "list.csv")])
    assert "CANARY" not in str(caught.value)
    with pytest.raises(SettingsError, match="anon says nothing to https"):
        locate(endpoint + "/x", {"anon": True})


def test_a_whole_run(web: tuple[Web, str], tmp_path: Path) -> None:
    made, endpoint = web
    made.files = pictures(20)
    run = tmp_path / "run"
    assert reduce.main([endpoint + "/set/", "--run", str(run), "--quiet", "--no-report", "--size", "12x12"]) == 0
    assert len((run / "keep.txt").read_text().split("\n")) > 10
