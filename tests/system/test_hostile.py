"""Odd, broken and malicious files: the run ends, every file is accounted for, nothing outside is touched."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

import daskim
from daskim.lake import STATUSES


def state_of(folder: Path) -> dict[str, str]:
    """Digest of every regular file, and target of every link."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        elif path.is_file():
            found[str(path)] = hashlib.blake2b(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def hostile(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    shutil.copytree(data / "hostile", root / "lake", symlinks=True)
    for path in [root / "lake", *(root / "lake").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    with tarfile.open(root / "lake" / "generated.tar.gz") as archive:
        archive.extractall(root / "lake", filter="fully_trusted")
    (root / "lake" / "generated.tar.gz").unlink()
    secret = root / "outside"
    secret.mkdir()
    shutil.copy(next((root / "lake" / "generated").glob("ok_base*")), secret / "secret.png")
    (root / "lake" / "leads-out").symlink_to(secret)
    (root / "lake" / "leads-out.png").symlink_to(secret / "secret.png")
    os.mkfifo(root / "lake" / "pipe.jpg")
    return root / "lake"


@pytest.mark.slow
def test_every_file_is_accounted_for(hostile: Path, tmp_path: Path, command: Any) -> None:
    before = state_of(hostile)
    done = command(hostile, "--run", tmp_path / "run", "--n-clusters", "0.9")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert state_of(hostile) == before
    found = daskim.open_run(tmp_path / "run")
    files = sum(1 for _, _, names in os.walk(hostile) for _ in names)
    links = sum(1 for path in hostile.rglob("*") if path.is_symlink() and path.is_dir())
    assert len(found.images) + sum(found.summary["ignored_files"].values()) == files + links
    assert set(found.images["status"]) <= set(STATUSES)
    broken = found.images[~found.images["status"].isin(["ok", "flat"])]
    assert (broken["reason"] != "").all()
    plan = found.plan.set_index("id")
    assert (plan.loc[broken["id"], "decision"] == "review").all()
    assert plan["kept_id"].dropna().isin(plan.index[plan["decision"] == "keep"]).all()


@pytest.mark.slow
def test_nothing_outside_is_read_and_bombs_take_no_memory(hostile: Path, tmp_path: Path) -> None:
    found = daskim.reduce(hostile, run=tmp_path / "run")
    images = found.images.set_index("id")
    assert images.loc["leads-out.png", "status"] == "outside-source"
    assert images.loc["pipe.jpg", "status"] == "not-a-file"
    assert not images.index.str.startswith("leads-out/").any()
    bombs = images[images.index.str.contains("bomb_") & (images["status"] != "ok")]
    assert set(bombs["status"]) == {"too-large"}
    size = found.summary["peak_rss_bytes_by_stage"]
    assert size["images"] - size["index"] < 400_000_000


def test_too_many_broken_images_end_the_run(hostile: Path, tmp_path: Path, command: Any) -> None:
    words = (hostile, "--run", tmp_path / "run", "--max-bad", "0.1")
    done = command(*words)
    assert done.returncode == 3
    assert "--max-bad" in done.stderr
    assert not (tmp_path / "run" / "summary.json").exists()
    assert command(hostile, "--run", tmp_path / "run", "--max-bad", "0.9").returncode == 0
