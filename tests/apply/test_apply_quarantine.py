"""Moves that can be taken back: links, shared files, changed sources, stores, a process killed between two steps."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from odd_set import SETTINGS, picture, save

import daskim
from daskim.apply import UndoFile
from daskim.jobs.apply import main

Sums = Callable[[Path], dict[str, str]]


def dropped(found: daskim.FinishedRun) -> set[str]:
    return set(found.plan.loc[found.plan["decision"] == "drop", "id"])


def undo_of(found: daskim.FinishedRun) -> str:
    (path,) = Path(found.run, "apply").glob("*/undo.jsonl")
    return str(path)


def test_moved_and_put_back(own_run: daskim.FinishedRun, own_source: Path, tmp_path: Path, sums: Sums) -> None:
    before = sums(own_source)
    words = [own_run.run, "--quarantine", str(tmp_path / "q"), "--quiet"]
    assert main(words) == 0
    assert sums(own_source) == before
    assert main([*words, "--execute"]) == 0
    gone = {repr(os.fsencode(own_source / daskim_name)) for daskim_name in map(name_of, dropped(own_run))}
    after = sums(own_source)
    assert len(gone) > 5
    assert after == {name: what for name, what in before.items() if name not in gone}
    assert len(sums(tmp_path / "q")) == len(gone)
    assert "zz link.png" in str(list((tmp_path / "q").rglob("*link*"))), "a link moves as a link"
    assert main([*words, "--execute"]) == 0, "again: nothing to do"
    assert main([own_run.run, "--to", str(tmp_path / "out"), "--execute", "--quiet"]) == 0, "what is kept is there"
    undo = ["--undo", undo_of(own_run), "--quiet"]
    assert main(undo) == 0
    assert sums(own_source) == after
    assert main([*undo, "--execute"]) == 0
    assert sums(own_source) == before, "names, bytes, times and links are what they were"
    assert not (tmp_path / "q").exists()
    assert main([*undo, "--execute"]) == 0
    assert main([*words, "--execute"]) == 0, "and once more"
    assert sums(own_source) == after


def name_of(id: str) -> str:
    from daskim.lake import unescape

    return unescape(id)


def test_what_else_moves(own_run: daskim.FinishedRun, own_source: Path, tmp_path: Path) -> None:
    more = ["--influential", "leave-out", "--flat", "leave-out", "--broken", "leave-out", "--max-drop", "0.9"]
    assert main([own_run.run, "--quarantine", str(tmp_path / "q"), *more, "--execute", "--quiet"]) == 0
    moved = {path.name for path in (tmp_path / "q").rglob("*.png")}
    assert {"white.png", "broken.png", "alike.png"} <= moved
    assert main([own_run.run, "--quarantine", str(tmp_path / "r"), *more[:-1], "0.1", "--execute", "--quiet"]) == 8


def test_a_file_that_a_kept_link_leads_to_stays(tmp_path: Path, sums: Sums, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "set"
    for seed in range(4):
        save(folder, b"a/%d.png" % seed, picture(seed))
    os.symlink("3.png", folder / "a" / "0link.png")  # comes before its file, and is kept for it
    settings = {**SETTINGS, "clusters.n_clusters": 4, "plan.policy": "first"}
    run = daskim.reduce(folder, run=tmp_path / "run", settings=settings, workers=1)
    assert dropped(run) == {"a/3.png"}
    before = sums(folder)
    assert main([run.run, "--quarantine", str(tmp_path / "q"), "--execute"]) == 0
    assert "stays: a/3.png" in capfd.readouterr().out
    assert sums(folder) == before


def test_a_hidden_folder_of_the_source_will_do(own_run: daskim.FinishedRun, own_source: Path, tmp_path: Path) -> None:
    assert main([own_run.run, "--quarantine", str(own_source / ".quarantine"), "--execute", "--quiet"]) == 0
    again = daskim.reduce(own_source, settings=SETTINGS, workers=1)
    assert set(again.images["id"]) == set(own_run.images["id"]) - dropped(own_run)


@pytest.mark.parametrize("which", ["dropped", "kept"])
def test_changed_sources_stop_it_before_the_first_move(
    which: str, own_run: daskim.FinishedRun, own_source: Path, tmp_path: Path, sums: Sums
) -> None:
    row = own_run.plan[(own_run.plan["decision"] == "drop") & own_run.plan["id"].str.contains("zz near plain")].iloc[0]
    id = row["id"] if which == "dropped" else row["kept_id"]
    save(own_source, id.encode(), picture(50))
    before = sums(own_source)
    words = [own_run.run, "--quarantine", str(tmp_path / "q"), "--quiet", "--execute"]
    assert main(words) == 7
    assert sums(own_source) == before
    assert main([*words, "--skip-changed"]) == 0
    assert (own_source / row["id"]).exists(), "it stays where it, or what was kept for it, is another image now"
    assert len(sums(tmp_path / "q")) >= 3


@pytest.mark.parametrize("which", ["dropped", "kept"])
def test_other_bytes_or_no_bytes_end_the_removal(
    which: str,
    own_run: daskim.FinishedRun,
    own_source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    row = own_run.plan[(own_run.plan["decision"] == "drop") & own_run.plan["id"].str.contains("zz near plain")].iloc[0]
    file = own_source / (row["id"] if which == "dropped" else row["kept_id"])
    about, data = file.stat(), file.read_bytes()
    file.write_bytes(data[:-20] + b"x" + data[-19:])
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    words = [own_run.run, "--quarantine", str(tmp_path / "q"), "--execute"]
    assert main(words) == 7
    told = capfd.readouterr().err
    assert "the removal stopped" in told
    assert "--undo" in told
    assert (own_source / row["id"]).exists()
    file.write_bytes(data)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))

    def unreadable(*words: object) -> bytes:
        raise PermissionError(13, "no")

    from daskim.apply import quarantine

    monkeypatch.setattr(quarantine, "digest_of_file", unreadable)
    assert main(words) == 4
    assert "the removal stopped" in capfd.readouterr().err
    monkeypatch.undo()
    assert main(words) == 0


def test_across_devices(
    own_run: daskim.FinishedRun, own_source: Path, tmp_path: Path, sums: Sums, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.link

    def elsewhere(source: Any, target: Any, **rest: Any) -> None:
        if ".daskim-partial-" not in os.fspath(source):
            raise OSError(18, "cross-device link")
        real(source, target, **rest)

    before = sums(own_source)
    monkeypatch.setattr(os, "link", elsewhere)
    assert main([own_run.run, "--quarantine", str(tmp_path / "q"), "--execute", "--quiet"]) == 0
    assert len(sums(own_source)) < len(before)
    assert main(["--undo", undo_of(own_run), "--execute", "--quiet"]) == 0
    assert sums(own_source) == before, "times too"


def test_nothing_in_the_quarantine_or_the_source_is_overwritten(
    own_run: daskim.FinishedRun, own_source: Path, tmp_path: Path, sums: Sums, capfd: pytest.CaptureFixture[str]
) -> None:
    name = sorted(dropped(own_run))[3]
    save(tmp_path / "q", name_of(name).encode(), picture(60))
    before = sums(tmp_path / "source"), sums(tmp_path / "q")
    words = [own_run.run, "--quarantine", str(tmp_path / "q"), "--execute"]
    assert main(words) == 2
    assert (sums(tmp_path / "source"), sums(tmp_path / "q")) == before
    shutil.rmtree(tmp_path / "q")
    assert main(words) == 0
    save(own_source, name_of(name).encode(), picture(61))
    taken = (own_source / name_of(name)).read_bytes()
    capfd.readouterr()
    assert main(["--undo", undo_of(own_run), "--execute"]) == 7
    assert "something else lies at" in capfd.readouterr().err
    assert (own_source / name_of(name)).read_bytes() == taken
    (own_source / name_of(name)).unlink()
    lost = next(path for path in (tmp_path / "q").rglob("*.png"))
    kept = lost.read_bytes()
    lost.write_bytes(kept + b"x")
    assert main(["--undo", undo_of(own_run), "--execute"]) == 7, "what changed in the quarantine is not put back"
    lost.write_bytes(kept)
    assert main(["--undo", undo_of(own_run), "--execute"]) == 0


def test_a_store(memory: Any, tmp_path: Path) -> None:
    for seed in range(4):
        for copy in range(2):
            save(tmp_path / "set", b"a/%d-%d.png" % (seed, copy), picture(seed))
    memory.put(str(tmp_path / "set") + "/", "/bucket/set/", recursive=True)
    names = set(memory.find("/bucket/set"))
    contents = {name: memory.cat_file(name) for name in names}
    settings = {**SETTINGS, "clusters.n_clusters": 4}
    run = daskim.reduce("memory://bucket/set", run="memory://bucket/run", settings=settings, workers=1)
    words = ["memory://bucket/run", "--quarantine", "memory://bucket/q", "--execute", "--quiet"]
    assert main(words) == 2, "the notes need a disk"
    assert main([*words, "--undo-file", str(tmp_path / "undo.jsonl")]) == 0
    assert len(memory.find("/bucket/q")) == len(dropped(run)) == 4
    assert (
        set(memory.find("/bucket/set")) | {"/bucket/set" + p[len("/bucket/q") :] for p in memory.find("/bucket/q")}
        == names
    )
    assert main(["--undo", str(tmp_path / "undo.jsonl"), "--execute", "--quiet"]) == 0
    assert {name: memory.cat_file(name) for name in memory.find("/bucket/set")} == contents
    assert memory.find("/bucket/q") == []


STEPS = {
    "before-the-note": ("UndoFile.add", "before"),
    "after-the-note": ("UndoFile.add", "after"),
    "between-the-names": ("_rename", "after"),
}


@pytest.mark.parametrize("step", STEPS)
def test_killed_between_two_steps(step: str, tmp_path: Path, sums: Sums) -> None:
    for seed in range(12):
        for copy in range(2):
            save(tmp_path / "set", b"a/%d-%d.png" % (seed, copy), picture(seed))
    settings = {**SETTINGS, "clusters.n_clusters": 12}
    run = daskim.reduce(tmp_path / "set", run=tmp_path / "run", settings=settings, workers=1)
    before = sums(tmp_path / "set")
    name, when = STEPS[step]
    code = (
        "import os, signal, sys\n"
        "from daskim.apply import moves as module\n"
        f"owner, name = (module.UndoFile, 'add') if {name!r} == 'UndoFile.add' else (module, '_rename')\n"
        "real, count = getattr(owner, name), iter(range(10**9))\n"
        "def step(*words):\n"
        "    last = next(count) == 6\n"
        f"    if last and {when!r} == 'before': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    done = real(*words)\n"
        f"    if last and {when!r} == 'after': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return done\n"
        "setattr(owner, name, step)\n"
        "from daskim.jobs.apply import main\n"
        "main(sys.argv[1:])\n"
    )
    words = [run.run, "--quarantine", str(tmp_path / "q"), "--execute", "--quiet"]
    killed = subprocess.run([sys.executable, "-c", code, *words], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    half = len(sums(tmp_path / "q"))
    assert step != "between-the-names" or half == 7
    assert 0 < half < 12
    with open(undo_of(run), "ab") as file:
        file.write(b'{"event": "mo')  # and a line that never reached the disk whole
    if step == "between-the-names":  # back from the middle of a move, too
        assert main(["--undo", undo_of(run), "--execute", "--quiet"]) == 0
        assert sums(tmp_path / "set") == before
    assert main(words) == 0
    assert len(sums(tmp_path / "q")) == len(dropped(run)) == 12
    assert len(sums(tmp_path / "set")) == 12
    assert main(["--undo", undo_of(run), "--execute", "--quiet"]) == 0
    assert sums(tmp_path / "set") == before
    lines = Path(undo_of(run)).read_bytes().splitlines()
    assert all(json.loads(line) for line in lines)
    assert UndoFile(undo_of(run)).records() == {}


def test_a_manifest(tmp_path: Path, sums: Sums, capfd: pytest.CaptureFixture[str]) -> None:
    for seed in range(6):
        save(tmp_path / "m", b"%d.png" % seed, picture(seed % 3))
    (tmp_path / "m" / "list.csv").write_text("file_name\n" + "".join(f"{seed}.png\n" for seed in range(6)))
    settings = {**SETTINGS, "clusters.n_clusters": 3}
    run = daskim.reduce(tmp_path / "m" / "list.csv", run=tmp_path / "run", settings=settings, workers=1)
    before = sums(tmp_path / "m")
    assert main([run.run, "--quarantine", str(tmp_path / "q"), "--execute"]) == 0
    assert "goes on naming" in capfd.readouterr().out
    assert len(sums(tmp_path / "q")) == 3
    assert main(["--undo", undo_of(run), "--execute", "--quiet"]) == 0
    assert sums(tmp_path / "m") == before
    assert np.array_equal(np.sort(run.plan["row"]), np.arange(6))


def test_a_link_that_has_moved_is_still_one(
    own_run: daskim.FinishedRun, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from daskim.apply import quarantine

    real, count = quarantine.move, iter(range(10**9))

    def third(*words: Any, **rest: Any) -> None:
        if next(count) == 3:
            raise OSError(5, "input/output error")
        real(*words, **rest)

    monkeypatch.setattr(quarantine, "move", third)
    words = [own_run.run, "--quarantine", str(tmp_path / "q"), "--execute"]
    assert main(words) == 4
    assert "the removal stopped after 3 moves" in capfd.readouterr().err
    monkeypatch.undo()
    assert main(words) == 0
    told = capfd.readouterr().out
    assert "stays" not in told
    assert "(3 were there from an earlier attempt)" in told
