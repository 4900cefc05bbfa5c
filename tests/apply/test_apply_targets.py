"""Every kind of target, read back by daskim: ids, labels, splits, pixels; nothing before --execute, nothing twice."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from odd_set import SETTINGS, facts, picture, read_back, save

import daskim
from daskim.apply import Request, carry_out, propose
from daskim.errors import GuardTripped, SettingsError, SourceError, StaleRun
from daskim.jobs.apply import main
from daskim.lake import locate, open_folder

Sums = Callable[[Path], dict[str, str]]
FORMS = ["copies", "symlinks", "hardlinks", "manifest", "webdataset", "parquet"]


def kept(found: daskim.FinishedRun) -> list[str]:
    return found.plan.loc[found.plan["decision"] == "keep", "id"].tolist()  # type: ignore[no-any-return]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("form", FORMS)
def test_read_back(form: str, run: daskim.FinishedRun, source: Path, tmp_path: Path, sums: Sums) -> None:
    before = sums(source)
    target = tmp_path / "out"
    words = [run.run, "--to", str(target), "--as", form, "--quiet"]
    assert main(words) == 0
    assert not target.exists(), "nothing is written before --execute"
    assert main([*words, "--execute"]) == 0
    assert sums(source) == before or form == "hardlinks"
    ids = kept(run)
    assert len(ids) < len(run.plan) - 6
    assert read_back(target / "kept.csv" if form in ("symlinks", "manifest") else target) == facts(run, ids)


def test_the_table_beside_copies_holds_ids_that_paths_cannot(tmp_path: Path) -> None:
    """A manifest whose ids, labels and splits say anything at all."""
    rows = [("../up.png", "a/b", "train"), ("x.png", "..", "hold out"), ("y.png", None, None), ("z.png", "=1", "test")]
    save(tmp_path, b"up.png", picture(0))
    for seed, (name, _, _) in enumerate(rows[1:], 1):
        save(tmp_path / "m", name.encode(), picture(seed))
    with (tmp_path / "m" / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uri", "label", "split"])
        writer.writerows([str((tmp_path / "m" / name).resolve()), label, split] for name, label, split in rows)
    run = daskim.reduce(
        tmp_path / "m" / "list.csv", run=tmp_path / "run", settings={**SETTINGS, "clusters.n_clusters": 4}
    )
    for form in ("copies", "webdataset", "parquet", "manifest"):
        target = tmp_path / "out" / form
        assert main([run.run, "--to", str(target), "--as", form, "--execute", "--quiet"]) == 0
        back = read_back(target / "kept.csv" if form in ("copies", "manifest") else target)
        assert back == facts(run, kept(run))
    inside = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out" / "copies").rglob("*.png")]
    assert len(inside) == 4
    assert any(path.parts[1:3] == ("test", "=1") for path in inside), (
        "labels are those of the set, not of a spreadsheet"
    )


def test_image_folder_layout(run: daskim.FinishedRun, tmp_path: Path) -> None:
    assert main([run.run, "--to", str(tmp_path / "out"), "--execute", "--quiet"]) == 0
    for split in ("train", "test"):  # as torchvision's ImageFolder: classes are the folders, each with images
        classes = sorted(entry.name for entry in os.scandir(tmp_path / "out" / split) if entry.is_dir())
        expected = run.plan[(run.plan["decision"] == "keep") & (run.plan["split"] == split)]
        assert classes == sorted(set(expected["label"]))
        for name in classes:
            assert len(list((tmp_path / "out" / split / name).iterdir())) == int((expected["label"] == name).sum())


def test_arrays_become_png_without_loss(tmp_path: Path) -> None:
    images = np.stack([picture(seed) for seed in range(6)] * 2)
    np.savez(tmp_path / "train.npz", images=images, labels=np.arange(12) % 3 * 7)
    run = daskim.reduce(tmp_path / "train.npz", run=tmp_path / "run", settings={**SETTINGS, "clusters.n_clusters": 6})
    for form in ("copies", "webdataset", "parquet"):
        target = tmp_path / form
        assert main([run.run, "--to", str(target), "--as", form, "--execute", "--quiet"]) == 0
        assert read_back(target / "kept.csv" if form == "copies" else target) == facts(run, kept(run))
    assert len(list((tmp_path / "copies").rglob("*.png"))) == len(kept(run)) < 12
    with tarfile.open(tmp_path / "webdataset" / os.listdir(tmp_path / "webdataset")[-1]) as tar:
        numbers = {tar.extractfile(name).read() for name in tar.getnames() if name.endswith(".cls")}  # type: ignore[union-attr]
    assert numbers <= {b"0", b"7", b"14"}
    assert pq.read_schema(next((tmp_path / "parquet").iterdir())).field("label").type == "int64"


def test_floats_are_refused_with_a_word(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((4, 8, 8, 3)))
    run = daskim.reduce(tmp_path / "x.npy", run=tmp_path / "run", settings={**SETTINGS, "clusters.n_clusters": 4})
    with pytest.raises(SettingsError, match="without loss"):
        carry_out(propose(run, Request("copies", str(tmp_path / "out"))))


def test_parquet_is_what_the_datasets_library_expects(
    run: daskim.FinishedRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([run.run, "--to", str(tmp_path / "out"), "--as", "parquet", "--execute"]) == 0
    assert "1 images have no split" in capfd.readouterr().out
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["images-000000.parquet", "test-00000-of-00001.parquet", "train-00000-of-00001.parquet"]
    schema = pq.read_schema(tmp_path / "out" / files[2])
    about = json.loads(schema.metadata[b"huggingface"])
    features = about["info"]["features"]
    assert list(features) == schema.names
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"_type": "ClassLabel", "names": ["cat", "dog", "flat"]}
    assert [field.name for field in schema.field("image").type] == ["bytes", "path"]
    table = pq.read_table(tmp_path / "out" / files[2]).to_pylist()
    label = dict(zip(run.plan["id"], run.plan["label"]))
    assert all(features["label"]["names"][row["label"]] == label[row["daskim_id"]] for row in table)


def test_shards_are_cut_by_size_and_the_same_again(run: daskim.FinishedRun, tmp_path: Path) -> None:
    for form in ("webdataset", "parquet"):
        contents = []
        for again in ("one", "two"):
            target = tmp_path / form / again
            assert (
                main([run.run, "--to", str(target), "--as", form, "--shard-size", "1KB", "--execute", "--quiet"]) == 0
            )
            contents.append({path.name: path.read_bytes() for path in target.iterdir()})
        assert contents[0] == contents[1]
        assert len([name for name in contents[0] if name.startswith("train")]) > 1
    with tarfile.open(min((tmp_path / "webdataset" / "one").glob("train-00000-*.tar"))) as tar:
        members = tar.getmembers()
    assert {member.name.rpartition(".")[2] for member in members} == {"png", "cls", "json"}
    assert {(member.mtime, member.uid, member.mode, member.uname) for member in members} == {(0, 0, 0o644, "")}


@pytest.mark.parametrize("form", ["copies", "parquet", "webdataset"])
def test_a_store_as_target(form: str, run: daskim.FinishedRun, tmp_path: Path, memory: Any) -> None:
    words = [run.run, "--to", "memory://bucket/out", "--as", form, "--quiet"]
    assert main([*words, "--execute"]) == 0
    assert main([*words, "--execute"]) == 0
    where = "memory://bucket/out/kept.csv" if form == "copies" else "memory://bucket/out"
    assert read_back(where) == facts(run, kept(run))
    fsspec.filesystem("memory").pipe_file("/bucket/out/strange.png", b"x")
    assert main([*words[:-1], "--influential", "leave-out", "--execute"]) == 2


def test_a_dry_run_writes_nothing(
    own_run: daskim.FinishedRun, tmp_path: Path, sums: Sums, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sums(tmp_path)
    for words in (
        ["--to", str(tmp_path / "out")],
        ["--to", str(tmp_path / "out"), "--as", "parquet", "--influential", "leave-out", "--flat", "leave-out"],
        ["--to", str(tmp_path / "out.jsonl")],
        ["--quarantine", str(tmp_path / "q"), "--broken", "leave-out"],
        ["--review", str(tmp_path / "list.csv")],
    ):
        assert main([own_run.run, *words]) == 0
        out = capfd.readouterr().out
        assert "Nothing was written" in out
        assert "--execute" in out.splitlines()[-1]
        assert "\x1b" not in out
    assert main([own_run.run]) == 0
    assert sums(tmp_path) == before


def test_again_is_nothing_and_a_lost_file_comes_again(
    run: daskim.FinishedRun, tmp_path: Path, sums: Sums, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [run.run, "--to", str(tmp_path / "out"), "--execute"]
    assert main(words) == 0
    before = sums(tmp_path / "out")
    capfd.readouterr()
    assert main(words) == 0
    assert "Nothing to do" in capfd.readouterr().out
    assert sums(tmp_path / "out") == before
    (tmp_path / "out" / "loose.png").unlink()
    assert main(words) == 0
    assert (tmp_path / "out" / "loose.png").exists()
    (tmp_path / "out" / "loose.png").write_bytes(b"mine now")
    assert main(words) == 2
    assert "loose.png" in capfd.readouterr().err
    assert (tmp_path / "out" / "loose.png").read_bytes() == b"mine now"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_in_the_way_is_named_and_stays(
    form: str, run: daskim.FinishedRun, tmp_path: Path, sums: Sums, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out"
    names = {"manifest": "kept.csv", "parquet": "x.parquet", "webdataset": "x.tar"}
    save(target, names.get(form, "train/cat/plain.png").encode(), picture(99))
    before = sums(target)
    assert main([run.run, "--to", str(target), "--as", form, "--execute"]) == 2
    assert names.get(form, "plain.png") in capfd.readouterr().err
    assert sums(target) == before


def test_a_changed_source_is_refused_before_the_first_write(
    own_run: daskim.FinishedRun, own_source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    save(own_source, b"loose.png", picture(77))
    (own_source / "test" / "dog" / "back\\slash.png").unlink()
    save(own_source, b"test/dog/new.png", picture(78))
    words = [own_run.run, "--to", str(tmp_path / "out")]
    for more in ([], ["--execute"]):
        assert main([*words, *more]) == StaleRun.exit_code
        told = capfd.readouterr()
        assert "loose.png" in told.err
        assert "is gone" in told.err
        assert "the run has not seen: 1." in told.out
        assert not (tmp_path / "out").exists()
    assert main([*words, "--execute", "--skip-changed"]) == 0
    there = {row["daskim_id"] for row in read_csv(tmp_path / "out" / "kept.csv")}
    assert there == set(kept(own_run)) - {"loose.png", "test/dog/back\\slash.png"}


@pytest.mark.parametrize("form", ["copies", "parquet"])
def test_other_bytes_under_the_same_time_and_size(
    form: str, own_run: daskim.FinishedRun, own_source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = own_source / "train" / "cat" / "plain.png"
    about, data = file.stat(), bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(about.st_atime_ns, about.st_mtime_ns))
    words = [own_run.run, "--to", str(tmp_path / "out"), "--as", form, "--execute"]
    assert main(words) == StaleRun.exit_code, "told after the others are done"
    assert "plain.png" in capfd.readouterr().err
    there = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert "plain.png" not in there
    assert "kept.csv" not in there
    assert len(there) > 5 if form == "copies" else there == ["images-000000.parquet", "test-00000-of-00001.parquet"]
    assert main([*words, "--skip-changed"]) == 0
    gone = {"train/cat/plain.png", "train/cat/zz link.png", "train/cat/zz copy plain.png"}
    back = read_back(tmp_path / "out" / "kept.csv" if form == "copies" else tmp_path / "out")
    assert set(kept(own_run)) - gone <= set(back) < set(kept(own_run))


def test_an_image_that_cannot_be_read_is_told_last(
    own_run: daskim.FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pread
    first = [True]

    def once(fd: int, count: int, at: int) -> bytes:
        if first.pop() if first else False:
            raise OSError(5, "input/output error")
        return real(fd, count, at)

    proposal = propose(own_run, Request("copies", str(tmp_path / "out")))
    monkeypatch.setattr(os, "pread", once)
    with pytest.raises(SourceError, match="could not be read"):
        carry_out(proposal)
    monkeypatch.undo()
    outcome = carry_out(propose(own_run, Request("copies", str(tmp_path / "out"))))
    assert outcome.done == 1
    assert outcome.before == len(kept(own_run)) - 1


def test_what_is_left_out(run: daskim.FinishedRun, tmp_path: Path) -> None:
    rows = run.plan.set_index("id")
    influential, flat = set(rows.index[rows["rule"] == "influential"]), set(rows.index[rows["status"] == "flat"])
    assert influential
    assert flat == {"train/flat/white.png"}
    proposal = propose(run, Request("copies", str(tmp_path / "out"), influential="leave-out", flat="leave-out"))
    assert set(proposal.planned.table["id"]) == set(kept(run)) - influential - flat
    with pytest.raises(GuardTripped, match="max-drop"):
        propose(run, Request("copies", str(tmp_path / "out"), max_drop=0.01))


MISTAKES: list[tuple[str, int, str]] = [
    ("", 2, "RUN"),
    ("{here}/nothing", 4, "nothing"),
    ("{here}/source", 4, "no finished run"),
    ("{run} --to {here}/a --review {here}/b", 2, "--to and --review"),
    ("{run} --as parquet", 2, "--to"),
    ("{run} --to {here}/a --as zip", 2, "webdataset"),
    ("{run} --to {here}/a --broken keep", 2, "--quarantine"),
    ("{run} --to {here}/a --max-drop 2", 2, "0 to 1"),
    ("{run} --to {here}/a --max-drop 0", 8, "--max-drop"),
    ("{run} --to {here}/a --shard-size lots", 2, "256MB"),
    ("{run} --to {here}/source/inside", 2, "inside the source"),
    ("{run} --to {here}/source", 2, "holds the source"),
    ("{run} --to {here}", 2, "holds the source"),
    ("{run} --to {here}/text.txt", 2, "text.txt"),
    ("{run} --to nosuch://x/y", 2, "nosuch"),
    ("{run} --to memory://x/y --as symlinks", 2, "on a disk"),
    ("{run} --quarantine {here}/source/q", 2, "hidden"),
    ("{run} --review {here}/text.csv", 2, "text.csv"),
    ("--undo {here}/nothing.jsonl", 4, "nothing.jsonl"),
    ("--undo {here}/text.csv", 2, "line 1"),
    ("{run} --to {here}/a --storage-option x", 2, "key=value"),
]


def test_mistakes(
    own_run: daskim.FinishedRun, own_source: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], sums: Sums
) -> None:
    (tmp_path / "text.txt").write_text("mine")
    (tmp_path / "text.csv").write_text("mine\n")
    before = sums(tmp_path)
    for line, code, told in MISTAKES:
        words = [word.format(here=tmp_path, run=own_run.run) for word in line.split()]
        assert main([*words, "--execute", "--json"]) == code, line
        out, error = capfd.readouterr()
        assert told in error, line
        assert "Traceback" not in error
        assert len(error.strip().splitlines()) >= 2, "what is wrong, and what to do"
        assert json.loads(out.splitlines()[-1])["event"] == "error"
    assert sums(tmp_path) == before


def test_a_run_whose_file_digests_are_of_another_kind_is_refused(
    own_run: daskim.FinishedRun, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seal = Path(own_run.run, "state", "images", "sealed.json")
    told = json.loads(seal.read_text())
    del told["facts"]["file_digest"]
    seal.write_text(json.dumps(told))
    assert main([own_run.run, "--to", str(tmp_path / "target"), "--execute"]) == 2
    error = capfd.readouterr().err
    assert "digests of another kind" in error
    assert "reduce anew" in error
    assert not (tmp_path / "target").exists()


def test_inside_others_there_are_no_files_to_link(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.stack([picture(seed) for seed in range(4)]))
    run = daskim.reduce(tmp_path / "x.npy", run=tmp_path / "run", settings={**SETTINGS, "clusters.n_clusters": 4})
    for words in (["--to", "x", "--as", "symlinks"], ["--to", "x.csv"], ["--quarantine", "q"]):
        assert main([run.run, *words, "--quiet"]) == 2


def test_review_is_a_table_that_no_spreadsheet_runs(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    near = picture(0) ^ np.uint8(1)
    save(tmp_path / "set", b"=cmd|'/c calc'!A0/@a.png", picture(0))
    save(tmp_path / "set", b"+label/b.png", near)
    for seed in range(1, 5):
        save(tmp_path / "set", b"other/%d.png" % seed, picture(seed))
    settings = {**SETTINGS, "clusters.n_clusters": 5, "method": "similarity"}
    run = daskim.reduce(tmp_path / "set", run=tmp_path / "run", settings=settings)
    assert main([run.run, "--review", str(tmp_path / "lists"), "--execute"]) == 0
    rows = read_csv(tmp_path / "lists" / "influential.csv")
    assert [row["label"] for row in rows] == ["'+label", "'=cmd|'/c calc'!A0"] or len(rows) == 2
    assert not [cell for row in rows for cell in row.values() if cell.startswith(("=", "+", "-", "@"))]
    assert {row["new_label"] for row in rows} == {""}
    assert rows[0]["nearest_id"] == rows[1]["id"]
    assert float(rows[0]["rms"]) == 1.0
    assert float(rows[0]["similarity"]) > 0.9
    capfd.readouterr()
    assert main([run.run, "--review", str(tmp_path / "lists"), "--execute"]) == 0
    assert "Nothing to do" in capfd.readouterr().out


def test_killed_half_way_and_resumed(tmp_path: Path) -> None:
    """The process is killed inside its 40th file; the same command goes on, and the result is that of one attempt."""
    for seed in range(120):
        save(tmp_path / "set", b"a/%03d.png" % seed, picture(seed))
    run = daskim.reduce(tmp_path / "set", run=tmp_path / "run", settings={**SETTINGS, "clusters.n_clusters": 120})
    code = (
        "import os, signal, sys\n"
        "from daskim.lake import write\n"
        "real, count = write._settle, iter(range(10**9))\n"
        "def settle(*words):\n"
        "    if next(count) == 40: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(*words)\n"
        "write._settle = settle\n"
        "from daskim.jobs.apply import main\n"
        "main(sys.argv[1:])\n"
    )
    words = [run.run, "--to", str(tmp_path / "out"), "--execute", "--quiet"]
    killed = subprocess.run([sys.executable, "-c", code, *words], timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    folder = open_folder(locate(str(tmp_path / "out")))
    left = list(folder.files())
    whole = [name for name in left if name.endswith(".png")]
    assert 0 < len(whole) < 120
    assert any(".daskim-partial-" in name for name in left), "a half one was left"
    assert main(words) == 0
    assert main([run.run, "--to", str(tmp_path / "once"), "--execute", "--quiet"]) == 0
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == {
        p.name: p.read_bytes() for p in (tmp_path / "once").rglob("*") if p.is_file()
    }
