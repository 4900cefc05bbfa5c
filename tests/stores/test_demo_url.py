"""The demo where RUN is a URL: its images lie below RUN, where workers on other machines read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest

from daskim.errors import SourceError
from daskim.jobs import reduce
from daskim.lake import locate, upload

SETTINGS = ["--size", "16x16", "--no-report"]


@pytest.mark.slow
def test_the_demo_is_made_below_a_url_and_found_there_again(memory: fsspec.AbstractFileSystem, capsys: Any) -> None:
    words = ["--run", "memory://bucket/run", *SETTINGS]
    assert reduce.main([*words, "--plan", "--quiet"]) == 0
    assert not memory.exists("/bucket"), "a plan leaves nothing"
    assert reduce.main(words) == 0
    assert "Planted in the demo, and found" in capsys.readouterr().out
    images = memory.find("/bucket/run/demo", detail=True)
    assert len(images) == 2719
    summary = json.loads(memory.cat_file("/bucket/run/summary.json"))
    assert summary["n_images"] == 2719
    assert reduce.main(words) == 0
    assert "nothing was left to do" in capsys.readouterr().err
    assert memory.find("/bucket/run/demo", detail=True) == images, "what is there is not written again"


def test_a_folder_is_brought_to_a_bucket(s3: Any, impatient: None, tmp_path: Path) -> None:
    for name, data in {"a/1.png": b"one", "a/2.png": b"two", "b/c/3.png": b"three"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    fs = s3.fs()
    fs.mkdir("demos")
    place = locate("s3://demos/run", s3.options).join("demo")
    assert upload(tmp_path, place) == 3
    assert fs.cat_file("demos/run/demo/b/c/3.png") == b"three"
    (tmp_path / "a/1.png").write_bytes(b"another")
    assert upload(tmp_path, place) == 1
    assert fs.cat_file("demos/run/demo/a/1.png") == b"another"
    with pytest.raises(SourceError, match="cannot write below s3://nowhere/run"):
        upload(tmp_path, locate("s3://nowhere/run", s3.options))
