"""Mistakes: each is told with what is wrong and what to do, in one exit code, without a traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daskim.jobs.reduce import main

# Words of the command line ({set}, {run}, {here} are filled in), exit code, and what must be said.
MISTAKES: list[tuple[str, int, str]] = [
    ("{here}/nothing.npz", 4, "nothing.npz"),
    ("{here}/empty", 4, "empty"),
    ("{here}/text.txt", 4, "text.txt"),
    ("nosuch://bucket/images", 2, "nosuch"),
    ("{set} {set}", 4, "set.npz"),
    ("{set} --bogus", 2, "--bogus"),
    ("{set} --lim 3", 2, "--limit"),
    ("{set} --limit 0", 2, "source.limit"),
    ("{set} --limit three", 2, "--limit"),
    ("{set} --limit", 2, "--limit"),
    ("{set} --limit 3 --sample 3", 2, "sample"),
    ("{set} --method ssim", 2, "wavelet"),
    ("{set} --format zip", 2, "webdataset"),
    ("{set} --format folder", 4, "holds no image"),
    ("{set} --size 32x32x32", 2, "HxW"),
    ("{set} --mode HSV", 2, "RGB"),
    ("{set} --wavelet db99", 2, "db9"),
    ("{set} --level 10", 2, "wavelets.level"),
    ("{set} --tau 1", 2, "columns.tau"),
    ("{set} --tau 1e12 --set columns.method=cholesky-qr", 2, "tsqr"),
    ("{set} --n-clusters 0", 2, "share"),
    ("{set} --n-clusters 1.5", 2, "share"),
    ("{set} --n-clusters inf", 2, "share"),
    ("{set} --n-clusters nan", 2, "share"),
    ("{set} --n-clusters 31", 2, "more than the 30"),
    ("{set} --policy best", 2, "prefer-split NAME"),
    ("{set} --protect train", 2, "No image of this set has a split"),
    ("{set} --max-drop 1.5", 2, "plan.max_drop"),
    ("{set} --max-drop 0", 8, "plan.max_drop"),
    ("{set} --max-rms=-1", 2, "plan.max_rms"),
    ("{set} --max-bad 2", 2, "images.max_bad"),
    ("{set} --set tau=3", 2, "unknown setting tau"),
    ("{set} --set colums.tau=3", 2, "columns.tau"),
    ("{set} --set columns.tau", 2, "stage.key=value"),
    ("{set} --set columns.method=svd", 2, "cholesky-qr"),
    ("{set} --set wavelets.transform=fourier", 2, "wavelet"),
    ("{set} --set wavelets.transform=no.such.Thing", 2, "package.module.Class"),
    ("{set} --set wavelets.transform=os.path", 2, "package.module.Class"),
    ("--set source.inputs=3", 2, "source.inputs"),
    ("--set source.inputs=[1,2]", 2, "source.inputs"),
    ("{set} --job nothing", 2, "cifar10, demo"),
    ("{set} --job {here}/bad.toml", 2, "bad.toml"),
    ("{set} --job {here}/wrong.toml", 2, "columns.tau"),
    ("{set} --cluster cloud", 2, "threads"),
    ("{set} --cluster local:4", 2, "--workers"),
    ("{set} --cluster address:", 2, "address:tcp://"),
    ("{set} --cluster address:nonsense://x", 4, "dask scheduler"),
    ("{set} --cluster address:tcp://127.0.0.1:9 --memory 4GB", 2, "--memory"),
    ("{set} --workers 0", 2, "--workers"),
    ("{set} --workers=-1", 2, "--workers"),
    ("{set} --workers 1000000", 2, "--workers"),
    ("{set} --memory lots", 2, "4GB"),
    ("{set} --memory infGB", 2, "4GB"),
    ("{set} --memory 100MB", 2, "--memory"),
    ("{set} --storage-option secret", 2, "key=value"),
    ("{set} --restart wavelet", 2, "wavelets"),
    ("{set} --run {here}/text.txt", 4, "--run"),
    ("{set} --run {here}/text.txt/below", 4, "--run"),
    ("{set} --run nosuch://bucket/run", 4, "nosuch"),
    ("--run {here}/text.txt/below", 4, "--run"),
]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mistakes")
    rng = np.random.default_rng(0)
    np.savez(folder / "set.npz", images=np.repeat(rng.integers(0, 256, (15, 8, 8, 3)).astype(np.uint8), 2, axis=0))
    (folder / "text.txt").write_text("no image")
    (folder / "empty").mkdir()
    (folder / "bad.toml").write_text("[columns\n")
    (folder / "wrong.toml").write_text("[columns]\ntau = 'big'\n")
    return folder


def words(line: str, here: Path, run: Path) -> list[str]:
    filled = [word.format(here=here, set=here / "set.npz", run=run) for word in line.split()]
    return filled if "--run" in filled else [*filled, "--run", str(run)]


@pytest.mark.parametrize(("line", "code", "told"), MISTAKES, ids=[line for line, _, _ in MISTAKES])
def test_mistakes(
    line: str, code: int, told: str, here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*words(line, here, tmp_path / "run"), "--quiet"]) == code
    out, error = capfd.readouterr()
    assert out == ""
    assert error.startswith("error: ")
    assert told in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) >= 2, "what is wrong, and what to do"
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(("line", "code", "told"), MISTAKES[::6], ids=[line for line, _, _ in MISTAKES[::6]])
def test_mistakes_as_json(
    line: str, code: int, told: str, here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*words(line, here, tmp_path / "run"), "--json"]) == code
    lines = [json.loads(text) for text in capfd.readouterr().out.splitlines()]
    errors = [event for event in lines if event["event"] == "error"]
    assert len(errors) == 1
    assert lines[-1] == errors[0]
    assert told in errors[0]["what"] + errors[0]["hint"]
    assert errors[0]["kind"].isidentifier()
    assert errors[0]["hint"]


def test_an_empty_word_is_no_place(here: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for line in (["", "--run", str(tmp_path / "run")], [str(here / "set.npz"), "--run", ""], ["--run", ""]):
        assert main(line) == 2
        assert "empty" in capfd.readouterr().err


@pytest.mark.slow
def test_a_scheduler_that_is_not_there(command: Callable[..., Any], here: Path, tmp_path: Path) -> None:
    done = command(here / "set.npz", "--run", tmp_path / "run", "--cluster", "address:tcp://127.0.0.1:9", timeout=90)
    assert done.returncode == 4
    assert "address:tcp://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_names_cannot_drive_a_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    evil = tmp_path / "a\x1b[31m\u202eb[bold]"
    assert main([str(evil), "--run", str(tmp_path / "run")]) == 4
    error = capfd.readouterr().err
    assert "\x1b" not in error
    assert "\u202e" not in error
    assert "[bold]" in error


def test_an_input_that_is_no_text_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A name of bytes that are no UTF-8 cannot stand in settings.toml."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype(np.uint8))
    code = main([str(folder), "--run", str(tmp_path / "run"), "--size", "8x8", "--quiet"])
    error = capfd.readouterr().err
    assert code in (0, 2)
    assert "Traceback" not in error
    assert error if code else not error


def test_the_help_names_every_exit_code(command: Callable[..., Any]) -> None:
    done = command("--help")
    assert done.returncode == 0
    for word in ("--run", "--set", "--restart", "2 usage", "3 too many", "4 source", "5 a block", "7 the run", "8 a"):
        assert word in " ".join(done.stdout.split()), word
    version = command("--version")
    assert version.returncode == 0
    assert version.stdout.strip().count(".") == 2
