"""Runs whose source and results lie in a bucket of a real S3 server: equal to local ones, through faults too."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import KEY, S3, SECRET, Door, door
from pictures import encode

from daskim.jobs import apply, reduce, report
from daskim.jobs.options import storage_options
from daskim.lake import Failure, list_images, read_images
from daskim.store import Run
from daskim.synthetic import planted_families

SETTINGS = ["--set", "blocks.rows=40", "--size", "16x16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images of 16 x 16 in three classes, and one that is broken."""
    root = tmp_path_factory.mktemp("lake")
    for row, image in enumerate(planted_families(120, size=(16, 16), redundancy=0.3, seed=3).images):
        path = root / f"class{row % 3}" / f"{row:04d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(image))
    (root / "class0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and nothing more")
    return root


@pytest.fixture(scope="module")
def fs(s3: S3, folder: Path) -> Any:
    """The bucket `pictures` with the same images below `lake`."""
    fs = s3.fs()
    fs.mkdir("pictures")
    for path in sorted(folder.rglob("*.png")):
        fs.pipe_file("pictures/lake/" + path.relative_to(folder).as_posix(), path.read_bytes(), ACL="public-read")
    return fs


@pytest.fixture(scope="module")
def plan_hash(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """That of an undisturbed run on a disk."""
    run = tmp_path_factory.mktemp("local") / "run"
    assert reduce.main([str(folder), "--run", str(run), "--quiet", "--no-report", *SETTINGS]) == 0
    return str(json.loads((run / "summary.json").read_text())["plan_hash"])


@pytest.fixture
def before(s3: S3, impatient: None) -> Iterator[Door]:
    with door(s3.endpoint) as made:
        yield made


def through(made: Door) -> list[str]:
    return S3(made.endpoint).words


def go(run: str, words: list[str], *more: str) -> int:
    return reduce.main(["s3://pictures/lake", "--run", run, "--quiet", "--no-report", *SETTINGS, *words, *more])


def summary(fs: Any, run: str) -> dict[str, Any]:
    return dict(json.loads(fs.cat_file(run + "/summary.json")))


def test_a_run_in_a_bucket_is_that_of_a_disk(
    s3: S3, fs: Any, plan_hash: str, capfd: pytest.CaptureFixture[str]
) -> None:
    run = "s3://pictures/whole"
    assert reduce.main(["s3://pictures/lake", "--run", run, *SETTINGS, *s3.words]) == 0
    said = capfd.readouterr()
    assert "report.html" in said.out
    found = summary(fs, run)
    assert found["plan_hash"] == plan_hash
    assert sum(found["status"].values()) - found["status"]["ok"] == 1
    assert fs.info(run + "/report.html")["ContentType"].startswith("text/html")
    assert b"data:image/" in fs.cat_file(run + "/report.html")
    for path in fs.find("pictures/whole"):
        held = fs.cat_file(path)
        assert KEY.encode() not in held, path
        assert SECRET.encode() not in held, path
    assert KEY not in said.out + said.err
    assert SECRET not in said.out + said.err
    assert report.main([run, "--format", "json", *s3.words]) == 0
    assert json.loads(capfd.readouterr().out)


def test_apply_into_a_bucket(s3: S3, fs: Any, capfd: pytest.CaptureFixture[str]) -> None:
    if not fs.exists("pictures/whole/summary.json"):
        assert go("s3://pictures/whole", s3.words) == 0
    words = ["s3://pictures/whole", "--to", "s3://pictures/reduced", "--execute", *s3.words]
    assert apply.main(words) == 0
    kept = fs.cat_file("pictures/whole/keep.txt").decode().split()
    written = [path for path in fs.find("pictures/reduced") if path.endswith(".png")]
    assert len(written) == len(kept)
    for path in written[:5]:
        assert fs.cat_file(path) == fs.cat_file(path.replace("/reduced/", "/lake/"))
    said = capfd.readouterr()
    assert SECRET not in said.out + said.err
    assert apply.main(words) == 0
    assert "Nothing to do" in capfd.readouterr().out


def test_killed_and_resumed(s3: S3, fs: Any, plan_hash: str) -> None:
    run = "s3://pictures/killed"
    words = ["s3://pictures/lake", "--run", run, "--quiet", "--no-report", *SETTINGS, *s3.words]
    process = subprocess.Popen([sys.executable, "-m", "daskim.jobs.reduce", *words])
    try:
        for _ in range(600):
            if fs.exists("pictures/killed/state/images/blocks/block-000001.json"):
                break
            assert process.poll() is None, "it was over before it could be killed"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not fs.exists("pictures/killed/summary.json")
    assert go(run, s3.words) == 0
    assert summary(fs, run)["plan_hash"] == plan_hash


def test_a_store_that_fails_now_and_then(fs: Any, plan_hash: str, before: Door) -> None:
    count = [0]

    def rule(method: str, path: str) -> str | None:
        count[0] += 1
        return {0: "503", 7: "500", 14: "reset"}.get(count[0] % 21)

    before.rule = rule
    assert go("s3://pictures/shaky", through(before)) == 0
    found = summary(fs, "pictures/shaky")
    assert found["plan_hash"] == plan_hash
    assert count[0] > 200


def test_a_store_that_refuses_writes_ends_the_run_which_goes_on_later(
    fs: Any, plan_hash: str, before: Door, capfd: pytest.CaptureFixture[str]
) -> None:
    def rule(method: str, path: str) -> str | None:
        return "503" if method == "PUT" and "/arrays/wavelets/c/" in path else None

    before.rule = rule
    assert go("s3://pictures/refused", through(before)) == 4
    said = capfd.readouterr().err
    assert "SlowDown" in said or "reduce your request rate" in said
    assert "still so after" in said
    assert SECRET not in said
    before.rule = lambda method, path: None
    assert go("s3://pictures/refused", through(before)) == 0
    assert summary(fs, "pictures/refused")["plan_hash"] == plan_hash


def test_a_run_that_may_not_be_written_to(before: Door, fs: Any, capfd: pytest.CaptureFixture[str]) -> None:
    before.rule = lambda method, path: "403" if method == "PUT" else None
    start = time.monotonic()
    assert go("s3://pictures/denied", through(before)) == 4
    said = capfd.readouterr().err
    assert "cannot write" in said
    assert SECRET not in said
    assert "Traceback" not in said
    assert time.monotonic() - start < 20


def test_a_source_that_answers_nothing_is_no_set_of_broken_images(
    fs: Any, plan_hash: str, before: Door, capfd: pytest.CaptureFixture[str]
) -> None:
    count = [0]

    def rule(method: str, path: str) -> str | None:
        count[0] += path.endswith(".png")
        return "500" if count[0] > 30 and "/lake/" in path else None  # in the middle of a batch

    before.rule = rule
    assert go("s3://pictures/silent", through(before)) == 4
    said = capfd.readouterr().err
    assert "the source does not answer" in said
    assert SECRET not in said
    before.rule = lambda method, path: None
    assert go("s3://pictures/silent", through(before)) == 0
    assert summary(fs, "pictures/silent")["plan_hash"] == plan_hash


def test_what_becomes_of_single_objects(fs: Any, before: Door) -> None:
    """One always fails, one is written anew between its listing and its reading."""
    path = "pictures/lake/class1/0007.png"
    old = fs.cat_file(path)
    new = encode(np.asarray(planted_families(2, size=(16, 16), seed=9).images[0]))
    done = []

    def rule(method: str, asked: str) -> Any:
        if asked.endswith("0004.png") and method == "GET":
            return "500"
        if asked.endswith("0007.png") and method == "GET" and not done:
            done.append(1)
            return lambda: fs.pipe_file(path, new)
        return None

    before.rule = rule
    try:
        assert go("s3://pictures/single", through(before)) == 0
        status = summary(fs, "pictures/single")["status"]
        assert (status["read-error"], status["changed"]) == (1, 1)
    finally:
        fs.pipe_file(path, old, ACL="public-read")


def test_requester_pays_and_anonymous(fs: Any, before: Door) -> None:
    options = {**S3(before.endpoint).options, "requester_pays": True}
    table = list_images(["s3://pictures/lake"], storage_options=options, limit=40).table
    assert not [raw for raw in read_images(table, options) if isinstance(raw, Failure)]
    run = Run("s3://pictures/payer", options)
    run.write(b"x", "a")
    run.create_array("x", (4, 4), "u1", 4)[:] = 1
    asked = [headers for method, path, headers in before.seen if method in ("GET", "PUT")]
    assert len(asked) > 40
    assert all(one.get("x-amz-request-payer") == "requester" for one in asked)
    before.seen.clear()
    public = storage_options(["anon=true", f"endpoint_url={before.endpoint}"])
    table = list_images(["s3://pictures/lake"], storage_options=public, limit=40).table
    assert not [raw for raw in read_images(table, public) if isinstance(raw, Failure)]
    assert len(before.seen) > 40
    assert not [path for _, path, headers in before.seen if "Authorization" in headers]


def test_a_run_of_another_kind_than_its_source(s3: S3, fs: Any, folder: Path) -> None:
    own = [word.replace("--storage-option", "--run-option") for word in s3.words]
    words = [str(folder), "--run", "s3://pictures/other", "--quiet", "--no-report", "--limit", "40", *SETTINGS, *own]
    assert reduce.main(words) == 0
    assert report.main(["s3://pictures/other", "--format", "html", "--quiet", *own]) == 0
    assert b"data:image/" in fs.cat_file("pictures/other/report.html")


def test_a_bucket_that_is_not_there(s3: S3, capfd: pytest.CaptureFixture[str]) -> None:
    assert reduce.main(["s3://nowhere-at-all/lake", "--quiet", *s3.words]) == 4
    assert "does not exist" in capfd.readouterr().err


def test_a_run_over_http_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert reduce.main([str(folder), "--run", "https://127.0.0.1:1/run"]) == 2
    assert "nothing can be written over http" in capfd.readouterr().err
