"""Job files, manifests and runs are data: code that they name is not run, unless the command line names it too."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from daskim.errors import DaskimError, SettingsError
from daskim.jobs import apply, boundaries, compare, diff, reduce, report
from daskim.resolve import PLUGINS, foreign_code, from_toml, job_file, known_keys, refuse_code, resolve, to_toml
from daskim.results import FinishedRun

NAME = "planted_code"
PLUGIN = f"{NAME}.Harmless"
SOURCE = """
from pathlib import Path
from daskim.similarities.ssim import Ssim

Path(__file__).with_suffix(".ran").touch()


class Harmless(Ssim):
    versions = {"harmless": "1"}
"""


@pytest.fixture
def planted_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that tells by a file that it was imported; the path of that file."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / f"{NAME}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()
    yield folder / f"{NAME}.ran"
    sys.modules.pop(NAME, None)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(f'method = "similarity"\n[similarities]\nname = "{PLUGIN}"\n')
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (24, 16, 16, 3), dtype=np.uint8)
    images[12:] = images[:12]
    path = tmp_path_factory.mktemp("source") / "images.npz"
    np.savez(path, images=images, labels=np.arange(24) % 3)
    return path


@pytest.fixture
def finished(source: Path, tmp_path: Path) -> Path:
    """A run whose settings somebody has changed to name code."""
    run = tmp_path / "finished"
    words = [str(source), "--run", str(run), "--method", "similarity", "--size", "16", "--quiet", "--no-report"]
    assert reduce.main(words) == 0
    settings = run / "settings.toml"
    text = settings.read_text()
    assert 'name = "aligned"' in text
    text = text.replace('name = "aligned"', f'name = "{PLUGIN}"').replace('verify = "ssim"', f'verify = "{PLUGIN}"')
    settings.write_text(text.replace('transform = "wavelet"', f'transform = "{PLUGIN}"'))
    return run


@pytest.mark.parametrize("key", PLUGINS)
def test_a_job_file_that_names_code_is_refused(
    key: str, planted_module: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stage, _, name = key.partition(".")
    job = tmp_path / "job.toml"
    job.write_text(f'[{stage}]\n{name} = "{PLUGIN}"\n')
    for command in (reduce, compare):
        assert command.main([str(source), "--job", str(job), "--run", str(tmp_path / "run")]) == 2
        told = capsys.readouterr().err
        assert key in told
        assert f"--set {key}={PLUGIN}" in told
    assert not planted_module.exists()
    assert NAME not in sys.modules
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [("--similarity", PLUGIN), ("--set", f"similarities.name={PLUGIN}")])
def test_the_command_line_may_say_that_the_job_file_is_right(
    words: tuple[str, ...], planted_module: Path, job: Path, source: Path, tmp_path: Path
) -> None:
    asked = [str(source), "--job", str(job), "--run", str(tmp_path / "run"), "--size", "16", "--quiet", "--no-report"]
    assert reduce.main([*asked, *words]) == 0
    assert planted_module.exists()


def test_trust_in_one_plugin_is_no_trust_in_another(planted_module: Path, job: Path) -> None:
    with pytest.raises(SettingsError, match=PLUGIN):
        job_file(str(job), trusted={"other.Plugin"})
    assert job_file(str(job), trusted={PLUGIN})["similarities.name"] == PLUGIN
    assert foreign_code({"similarities.name": "ssim", "wavelets.transform": 3, "clusters.verify": "a.B"}) == {"a.B"}
    refuse_code(dict.fromkeys(PLUGINS, "ssim"), "job file", ())


def test_every_setting_that_may_name_code_is_watched() -> None:
    assert set(PLUGINS) <= set(known_keys())
    named = {key for key, meaning in known_keys().items() if "module.Class" in meaning or "your own" in meaning}
    assert named <= set(PLUGINS)


def test_no_command_runs_code_that_a_run_names(
    finished: Path, planted_module: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(finished)
    model = tmp_path / "model.onnx"
    model.write_bytes(b"no model")
    report.main([run, "--quiet"])
    apply.main([run, "--to", str(tmp_path / "to")])
    diff.main([run, run])
    boundaries.main([run, "--model", str(model)])
    capsys.readouterr()
    assert reduce.main([str(source), "--run", str(tmp_path / "next"), "--against", run]) == 2
    assert "would run code" in capsys.readouterr().err
    assert not planted_module.exists()
    assert NAME not in sys.modules


def test_pairs_drawn_for_a_model_are_judged_without_the_code_of_the_run(
    planted_module: Path, source: Path, tmp_path: Path
) -> None:
    from daskim.boundaries import drawn

    run = SimpleNamespace(
        settings=from_toml(f'[similarities]\nname = "{PLUGIN}"\n', "a run"),
        summary={"similarities": {}, "size": {"height": 16, "width": 16, "channels": 3}},
    )
    name, _ = drawn._lowest_drawn(run, None, 0, 0, 0)  # type: ignore[arg-type]
    assert name == drawn.PLAIN
    assert not planted_module.exists()


@pytest.mark.parametrize("where", ["filters", "compressor"])
def test_arrays_of_a_run_hold_no_code(where: str, finished: Path, tmp_path: Path) -> None:
    array = finished / "arrays" / "images"
    assert array.is_dir()
    shutil.rmtree(array)
    array.mkdir()
    pickled = {"id": "pickle", "protocol": 5}
    about = {"zarr_format": 2, "shape": [24, 16, 16, 3], "chunks": [24, 16, 16, 3], "dtype": "|u1", "fill_value": 0}
    about |= {"order": "C", "compressor": None, "filters": None}
    (array / ".zarray").write_text(json.dumps(about | {where: [pickled] if where == "filters" else pickled}))
    mark = tmp_path / "ran"
    (array / "0.0.0.0").write_bytes(b"cos\nmkdir\n(V" + str(mark).encode() + b"\ntR.")
    found = FinishedRun(str(finished), json.loads((finished / "summary.json").read_text()))
    with pytest.raises((DaskimError, ValueError, KeyError, OSError)):
        found.standard(np.arange(3))
    report.main([str(finished), "--quiet"])
    assert not mark.exists()


STRANGE = [
    "__import__('pathlib').Path('ran').touch()",
    "{{ cycler.__init__.__globals__.os.system('touch ran') }}",
    "$(touch ran)",
    "`touch ran`",
    "!!python/object/apply:os.system ['touch ran']",
    "cos\nsystem\n(S'touch ran'\ntR.",
    "../../../../etc/passwd",
    "%s%n{0.__class__}",
]


def test_strange_values_are_values(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every setting is given every text: it is refused in words, or is an ordinary name, and nothing runs."""
    monkeypatch.chdir(tmp_path)
    keys = [key for key in known_keys() if "." in key]
    taken = set()
    for key in keys:
        for text in STRANGE:
            try:
                resolve([("job file x", {key: text})])
                taken.add(key)
            except SettingsError as error:
                assert key in error.what  # noqa: PT017
    assert taken <= {"source.format", "wavelets.name", "plan.reviewed", *PLUGINS}
    job = tmp_path / "job.toml"
    for key in sorted(taken):
        stage, _, name = key.partition(".")
        job.write_text(f"[{stage}]\n{name} = {json.dumps(STRANGE[1])}\n")
        words = [str(source), "--job", str(job), "--run", str(tmp_path / "run"), "--quiet", "--no-report"]
        assert reduce.main(words) in (2, 4), key
    told = capsys.readouterr()
    assert "Traceback" not in told.err + told.out
    assert not (tmp_path / "ran").exists()


def test_settings_that_are_written_and_read_again_stay_texts() -> None:
    for text in STRANGE:
        settings = from_toml(f"[plan]\nreviewed = {json.dumps('s3://' + text)}\n", "here")
        assert from_toml(to_toml(settings), "again").plan.reviewed == "s3://" + text
