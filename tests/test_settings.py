"""The job file: layers, mistakes, and the way back to TOML."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskim.errors import SettingsError
from daskim.resolve import job_file, known_keys, parse_assignment, resolve, to_toml
from daskim.settings import Settings
from daskim.stages.clusters import asked_clusters

LAYERS = ("job file x.toml", "--set", "command line")


def flat(text: str) -> dict[str, Any]:
    """A TOML document as `stage.key` values."""
    out: dict[str, Any] = {}
    for name, value in tomllib.loads(text).items():
        out.update(
            {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
        )
    return out


@given(st.lists(st.one_of(st.none(), st.floats(1.5, 1e12)), min_size=3, max_size=3))
def test_later_layers_win(values: list[float | None]) -> None:
    layers = [(name, {} if v is None else {"columns.tau": v}) for name, v in zip(LAYERS, values)]
    given_values = [v for v in values if v is not None]
    assert resolve(layers).columns.tau == (given_values[-1] if given_values else 1e5)


def test_layers_join_key_by_key() -> None:
    settings = resolve([("a", {"columns.tau": 10.0, "images.size": "8"}), ("b", {"columns.stop": 0.5})])
    assert (settings.columns.tau, settings.columns.stop, settings.images.size) == (10.0, 0.5, "8x8")


def test_defaults_are_those_of_the_paper() -> None:
    settings = resolve([])
    assert settings.wavelets.name == "db1"
    assert settings.wavelets.level == 1
    assert settings.columns.tau == 1e5
    assert asked_clusters(settings) == 0.94
    assert settings.plan.policy == "centre"
    assert settings.images.size == "32x32"


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("colums.tau", "columns.tau"),
        ("clusters.nclusters", "clusters.n_clusters"),
        ("plan.max_drops", "plan.max_drop"),
        ("methd", "method"),
    ],
)
def test_unknown_key_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve([("--set", {wrong: 1})])
    assert "--set" in caught.value.what
    assert wrong in caught.value.what
    assert near in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("columns.tau", 0.5, "greater than 1"),
        ("columns.tau", "much", "number"),
        ("columns.tau", float("nan"), "greater than 1"),
        ("columns.method", "svd", "cholesky-qr"),
        ("columns.stop", 1.0, "less than 1"),
        ("images.size", "32by32", "HxW"),
        ("images.size", "0x32", "HxW"),
        ("images.size", "32x32x32", "HxW"),
        ("images.mode", "CMYK", "RGB"),
        ("images.max_bad", 1.5, "less than or equal to 1"),
        ("blocks.rows", 0, "greater than or equal to 1"),
        ("blocks.rows", 2.5, "integer"),
        ("wavelets.level", 10, "less than or equal to 9"),
        ("clusters.n_clusters", 0, "whole number"),
        ("clusters.n_clusters", -0.5, "share between 0 and 1"),
        ("clusters.n_clusters", 1.5, "whole number"),
        ("clusters.n_clusters", 1.0, "whole number"),
        ("clusters.n_clusters", True, "whole number"),
        ("clusters.n_clusters", float("inf"), "whole number"),
        ("clusters.n_clusters", "most", "whole number"),
        ("clusters.regime", "ward", "join"),
        ("plan.policy", "best", "prefer-split NAME"),
        ("plan.policy", "prefer-split", "prefer-split NAME"),
        ("plan.max_rms", -1.0, "greater than or equal to 0"),
        ("plan.protect", "test", "tuple"),
        ("source.limit", 0, "greater than or equal to 1"),
        ("method", "ssim", "wavelet"),
    ],
)
def test_wrong_value_names_key_origin_and_meaning(key: str, value: Any, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        resolve([("job file mine.toml", {key: value})])
    assert caught.value.what.startswith(f"job file mine.toml: {key} = {value!r}")
    assert told in caught.value.what
    assert known_keys()[key] in caught.value.hint


@given(st.one_of(st.integers(1, 10**12), st.floats(0.0, 1.0, exclude_min=True, exclude_max=True)))
def test_n_clusters_is_a_number_or_a_share(value: int | float) -> None:
    found = resolve([("x", {"clusters.n_clusters": value})]).clusters.n_clusters
    assert found == value
    assert type(found) is type(value)
    assert resolve([("x", {"clusters.n_clusters": 4.0e4})]).clusters.n_clusters == 40_000  # TOML's 4e4 is a float


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("columns.tau=1e4", ("columns.tau", 1e4)),
        (" columns.tau = 1e4 ", ("columns.tau", 1e4)),
        ("plan.policy=first", ("plan.policy", "first")),
        ("plan.policy=prefer-split train", ("plan.policy", "prefer-split train")),
        ('plan.protect=["test", "val"]', ("plan.protect", ["test", "val"])),
        ("clusters.per_class=true", ("clusters.per_class", True)),
        ("images.size=32x32", ("images.size", "32x32")),
        ("wavelets.name=a=b", ("wavelets.name", "a=b")),
        ("wavelets.name=", ("wavelets.name", "")),
    ],
)
def test_assignments(text: str, expected: tuple[str, Any]) -> None:
    assert parse_assignment(text) == expected


@pytest.mark.parametrize("text", ["columns.tau", "=3", "", " = "])
def test_no_assignment(text: str) -> None:
    with pytest.raises(SettingsError, match="no assignment"):
        parse_assignment(text)


text_values = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "source.inputs": st.lists(text_values, max_size=3),
            "source.format": text_values,
            "wavelets.transform": text_values,
            "wavelets.name": text_values,
            "columns.tau": st.floats(1.0, exclude_min=True, allow_infinity=True),
            "columns.stop": st.floats(0.0, 1.0, exclude_max=True),
            "clusters.n_clusters": st.one_of(
                st.integers(1, 10**9), st.floats(0.0, 1.0, exclude_min=True, exclude_max=True)
            ),
            "clusters.per_class": st.booleans(),
            "plan.max_rms": st.one_of(st.none(), st.floats(0.0, 1e300)),
            "plan.protect": st.lists(text_values, max_size=3),
            "blocks.rows": st.one_of(st.none(), st.integers(1, 10**12)),
        },
    )
)
def test_toml_round_trips(values: dict[str, Any]) -> None:
    settings = resolve([("test", values)])
    again = resolve([("toml", flat(to_toml(settings)))])
    assert again == settings
    assert type(again.clusters.n_clusters) is type(settings.clusters.n_clusters)


def test_every_key_is_described_and_written() -> None:
    text = to_toml(Settings())
    for key, meaning in known_keys().items():
        assert meaning, key
        name = key.rpartition(".")[2]
        assert f"\n{name} = " in f"\n{text}" or f"\n# {name} is not set" in text, key


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("demo", "wavelet"),
        ("demo.toml", "wavelet"),
        ("cifar10", "wavelet"),
        ("imagenet", "wavelet"),
        ("landmarks", "similarity"),
        ("nightly-dedup", "similarity"),
    ],
)
def test_shipped_job_files_are_found_by_name_and_are_valid(
    name: str, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve([(name, job_file(name))]).method == method


def test_a_file_here_goes_before_a_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "demo").write_text("[columns]\ntau = 123.0\n")
    monkeypatch.chdir(tmp_path)
    assert job_file("demo") == {"columns.tau": 123.0}


@pytest.mark.parametrize("name", ["nothing", "../demo", "", "jobs"])
def test_missing_job_file_lists_what_ships(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match="no such file") as caught:
        job_file(name)
    assert "demo" in caught.value.hint
    assert "cifar10" in caught.value.hint


@pytest.mark.parametrize(
    "content", [b"[columns\ntau = 3", b"tau", b"[columns]\ntau = 1\ntau = 2\n", b"\xff\xfe\x00", b"x = 1e"]
)
def test_bad_toml_names_the_file(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        job_file(str(file))
    assert "bad.toml" in caught.value.what
    assert caught.value.hint


@pytest.mark.parametrize(
    "content", ["images = 3\n", "[columns.more]\nx = 1\n", "[method]\nx = 1\n", "[[plan]]\nx = 1\n"]
)
def test_toml_of_another_shape_is_refused(content: str, tmp_path: Path) -> None:
    file = tmp_path / "odd.toml"
    file.write_text(content)
    with pytest.raises(SettingsError, match="unknown setting"):
        resolve([("job file odd.toml", job_file(str(file)))])
