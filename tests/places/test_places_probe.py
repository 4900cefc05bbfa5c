"""What is looked at before any work: versions everywhere, and that every worker sees INPUT and RUN."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from daskim.compute import Place, open_place
from daskim.compute.versions import compare_versions
from daskim.errors import SourceError
from daskim.jobs.reduce import main
from daskim.probe import check_workers
from daskim.store import Run

StartWorker = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def local() -> Iterator[Place]:
    with closing(open_place("local", workers=2)) as place:
        yield place


def test_workers_that_see_the_same_are_asked_and_leave_nothing(local: Place, pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert check_workers(local, Run(str(run)), [str(pictures)]) == 2
    assert not run.exists()  # the run begins later
    run.mkdir()
    (run / "mine").write_text("stays")
    assert check_workers(local, Run(str(run)), [str(pictures)]) == 2
    assert os.listdir(run) == ["mine"]


def test_threads_have_nothing_to_prove(tmp_path: Path) -> None:
    with closing(open_place("threads", workers=1)) as place:
        assert check_workers(place, Run(str(tmp_path / "run")), ["/nowhere"]) == 0


def test_a_run_in_the_memory_of_this_process_is_refused(local: Place, pictures: Path) -> None:
    with pytest.raises(SourceError, match=r"RUN memory://.*not the driver's.*process \d+") as caught:
        check_workers(local, Run("memory://here/run"), [str(pictures)])
    assert "URL that all can reach" in caught.value.hint


def test_a_run_to_compare_with_must_be_seen_too(local: Place, pictures: Path, tmp_path: Path) -> None:
    seen, unseen = Run(str(tmp_path / "seen")), Run("memory://before")
    for run in (seen, unseen):
        run.write(b"method = 'wavelet'\n", "settings.toml")
    assert check_workers(local, Run(str(tmp_path / "run")), [str(pictures)], others=[seen]) == 2
    with pytest.raises(SourceError, match="RUN memory://before: is not here"):
        check_workers(local, Run(str(tmp_path / "run")), [str(pictures)], others=[unseen])


def test_an_input_that_is_not_there_is_left_to_the_listing(local: Place, tmp_path: Path) -> None:
    assert check_workers(local, Run(str(tmp_path / "run")), [str(tmp_path / "nothing")]) == 2


def private(*hidden: Path) -> tuple[str, ...]:
    """A command whose process, and no other, sees empty folders where these are."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("file systems of its own need root and unshare")
    mounts = " && ".join(f"mount -t tmpfs none {shlex.quote(str(folder))}" for folder in hidden)
    if subprocess.run(["unshare", "-m", "sh", "-c", mounts], capture_output=True).returncode:
        pytest.skip("no mount in a namespace of its own is allowed here")
    return "unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh"


def test_a_worker_with_a_private_disk_is_refused(
    scheduler: str, start_worker: StartWorker, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start_worker()
    lonely = start_worker(*private(tmp_path, pictures))
    run = tmp_path / "run"
    words = [str(pictures), "--run", str(run), "--cluster", f"address:{scheduler}", "--workers", "2", "--no-report"]
    assert main(words) == 4
    told = capsys.readouterr().err
    assert f"INPUT {pictures}: {pictures}/00.png: FileNotFoundError" in told
    assert f"RUN {run}: is not the driver's" in told
    assert f"process {lonely.pid}" in told
    assert "All workers and this machine must see the same INPUT and RUN" in told
    assert "and 1 more" not in told  # the other worker sees all
    assert not run.exists()


def test_a_manifest_is_not_enough_where_its_images_are_on_a_private_disk(
    scheduler: str, start_worker: StartWorker, pictures: Path, tmp_path: Path
) -> None:
    manifest = tmp_path / "all.csv"
    manifest.write_text("uri\n" + "".join(f"{file}\n" for file in sorted(pictures.iterdir())))
    start_worker(*private(pictures))
    with (
        closing(open_place(f"address:{scheduler}")) as place,
        pytest.raises(SourceError, match=r"INPUT .*all\.csv: .*00\.png") as caught,
    ):
        check_workers(place, Run(str(tmp_path / "run")), [str(manifest)])
    assert "RUN" not in caught.value.what


def test_a_worker_that_may_not_write_is_told(
    scheduler: str, start_worker: StartWorker, pictures: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    path = shlex.quote(str(run))
    before = private(pictures)
    readonly = f'mount --bind {path} {path} && mount -o remount,bind,ro {path} && exec "$@"'
    start_worker(*before[:4], readonly, "sh")
    with closing(open_place(f"address:{scheduler}")) as place, pytest.raises(SourceError) as caught:
        check_workers(place, Run(str(run)), [str(pictures)])
    assert "cannot be written" in caught.value.what
    assert "Read-only file system" in caught.value.what
    assert not os.listdir(run)


def test_other_software_on_a_worker_is_refused_by_name(
    scheduler: str, start_worker: StartWorker, tmp_path: Path
) -> None:
    for name, version in (("pillow", "9.0.0"), ("pandas", "2.99.1")):
        (tmp_path / f"{name}-{version}.dist-info").mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (tmp_path / f"{name}-{version}.dist-info" / "METADATA").write_text(text)
    start_worker()
    start_worker(python=str(tmp_path))
    with pytest.raises(SourceError, match=r"pillow is 9\.0\.0 where here it is \d+.*\(worker tcp://127") as caught:
        open_place(f"address:{scheduler}", workers=2)
    assert "one image, or one lock file" in caught.value.hint


HERE = {"python": "3.11.7", "machine": "x86_64", "daskim": "1", "dask": "2026.8.0", "numpy": "2.4.6", "pillow": "12.0"}


@pytest.mark.parametrize(
    ("name", "other", "refused"),
    [
        ("python", "3.11.9", False),
        ("python", "3.12.1", True),
        ("machine", "aarch64", False),
        ("daskim", "2", True),
        ("daskim", "", True),
        ("dask", "2026.8.1", True),
        ("numpy", "2.3.0", False),
        ("numpy", "1.26.4", True),
        ("pillow", "12.1", True),
    ],
)
def test_what_may_differ_is_a_note(name: str, other: str, refused: bool) -> None:
    breaks, notes = compare_versions(HERE, {"worker a": HERE, "worker b": {**HERE, name: other}})
    told, none = (breaks, notes) if refused else (notes, breaks)
    assert none == []
    assert len(told) == 1
    assert f"{name} is {other or 'not installed'} where here it is {HERE[name]} (worker b)" in told[0]


def test_a_scheduler_needs_no_decoders_and_a_silent_worker_is_no_good_one() -> None:
    assert compare_versions(HERE, {"scheduler": {**HERE, "pillow": ""}}) == ([], [])
    assert compare_versions(HERE, {"scheduler": {**HERE, "dask": "1"}})[0]
    assert compare_versions(HERE, {"worker a": None})[0] == ["no answer from worker a"]
