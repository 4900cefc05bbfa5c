"""The suite of benchmarks itself: tables, saved runs, comparisons, pictures."""

from __future__ import annotations

import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench import BENCHMARKS, Options
from tests.bench.__main__ import arguments, main
from tests.bench.compare import changes, compared, obstacles
from tests.bench.measured import Measured
from tests.bench.plot import draw, pictures, slope
from tests.bench.record import Record, load, save
from tests.bench.table import Table, Target, show
from tests.bench.units import better, unit_of

CONTEXT = {"cores": 2, "cpu": "a CPU", "load": 0.1, "threads": {"openblas": 1}, "versions": {"numpy": "2"}}
COLUMNS = ["contender", "us per image", "against naive", "pairs"]


def table(ours: list[float], naive: float = 10.0, pairs: int = 7, n: int = 1000) -> Table:
    rows = [["naive", Measured([naive] * 3), "1.00 x", pairs], ["daskim", Measured(ours), "2.00 x", pairs]]
    return Table("demo: a | b", {"n": n, "tau": 0.5}, COLUMNS, rows, [("equal", True)], [Target("time", 5.0, 6.0)])


def record(*tables: Table, **context: object) -> Record:
    return Record("demo", 3, False, {**CONTEXT, **context}, list(tables))


def test_every_benchmark_is_there() -> None:
    folder = Path(__file__).parent / "bench"
    assert [name for name in BENCHMARKS if not (folder / f"{name}.py").is_file()] == []


def test_columns_know_their_units() -> None:
    names = ["us per image", "seconds", "new files, MB", "peak MB, process tree", "images/s", "GF/s", "clusters"]
    units = [unit_of(name) for name in names]
    assert units == ["us", "s", "MB", "MB", "1/s", "GF/s", ""]
    assert [better(name, unit) for name, unit in zip(names, units)] == [-1, -1, -1, -1, 1, 1, 0]
    assert (better("recall", ""), unit_of("CPU use, %"), better("CPU use, %", "%")) == (1, "%", 1)


def test_a_table_knows_its_numbers_and_keys() -> None:
    mixed = Table("t", {}, ["job", "stage", "seconds", "note"], [["a", "x", 1.0, ""], ["a", "y", None, "late"]])
    assert mixed.keys == [0, 1]
    assert mixed.numeric == [2]
    assert table([5.0]).keys == [0]
    assert table([5.0]).numeric == [1, 3]
    assert Table("t", {}, ["k", "n"], [["a", np.int64(3)], ["b", np.float64(2)]]).numeric == [1]


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=5), st.floats(1e-3, 1e3))
def test_measured_scales_with_its_rounds(rounds: list[float], factor: float) -> None:
    one = Measured(rounds)
    assert one == pytest.approx(float(np.median(rounds)))
    scaled = factor * one / 2
    assert isinstance(scaled, Measured)
    assert scaled.rounds == pytest.approx([factor * value / 2 for value in rounds])
    assert not isinstance(one / one, Measured)
    assert round(one, 1).rounds == tuple(round(value, 1) for value in rounds)


def test_a_saved_run_comes_back(tmp_path: Path) -> None:
    before = table([4.0, 5.0, 9.0])
    before.rows.append(["numpy's numbers", np.float64(1.5), None, np.int64(3)])
    save(record(before), tmp_path / "run.json")
    after = load(tmp_path / "run.json").tables[0]
    assert after.rows == before.rows
    assert after.rows[1][1].rounds == (4.0, 5.0, 9.0)
    assert after.targets == before.targets
    assert after.checks == before.checks


@pytest.mark.parametrize("text", ["{", "[]", '{"benchmark": "x"}'])
def test_what_is_no_record_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(SystemExit, match="no record"):
        load(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        ([4.9, 5.0, 5.1], ""),
        ([5.1, 6.5, 7.0], "slower"),
        ([5.05, 6.5, 7.0], ""),  # the rounds overlap
        ([5.2, 5.2, 5.2], ""),  # beyond the rounds, by less than 5 %
        ([2.0, 2.1, 2.2], "faster"),
        ([5.2], ""),  # one round: nobody knows its spread
        ([6.0], "slower"),
    ],
)
def test_slower_is_what_is_beyond_the_spread(now: list[float], verdict: str) -> None:
    found = {(one.row, one.column): one for one in changes(table([4.9, 5.0, 5.06]), table(now))}
    assert found["daskim", "us per image"].verdict == verdict
    assert found["naive", "us per image"].verdict == ""
    assert found["daskim", "us per image"].ratio == pytest.approx(np.median(now) / 5.0)


def test_a_comparison_names_what_got_slower_and_what_differs() -> None:
    text = "\n".join(compared(record(table([5.0] * 3)), record(table([8.0] * 3, pairs=8), load=1.9)))
    assert "demo: a | b: daskim: us per image slower: 5 -> 8" in text
    assert "differs" in text
    assert "Other work ran now (load 1.9 on 2 cores)" in text


@pytest.mark.parametrize(
    ("then", "now", "why"),
    [
        ({}, {"cpu": "another"}, "cpu was a CPU, is another"),
        ({}, {"cores": 64}, "cores was 2, is 64"),
        ({}, {"threads": {"openblas": 2}}, "threads was"),
    ],
)
def test_other_machines_are_not_called_slower(then: dict, now: dict, why: str) -> None:
    text = "\n".join(compared(record(table([5.0] * 3), **then), record(table([8.0] * 3), **now)))
    assert "Not comparable, so no verdict: " + why in text
    assert "slower: " not in text


def test_another_n_is_not_called_slower() -> None:
    small, large = table([5.0] * 3), table([8.0] * 3, n=50_000)
    assert obstacles(record(small), record(large), small, large) == ["n was 1,000, is 50,000"]
    large.facts = {"n": 1000, "tau": 0.55}  # a fraction may be measured
    assert obstacles(record(small), record(large), small, large) == []
    assert "slower: " in "\n".join(compared(record(small), record(large)))


def test_tables_of_one_title_are_told_apart_by_their_order() -> None:
    old = record(table([5.0] * 3), table([1.0] * 3))
    assert "slower: " not in "\n".join(compared(old, old))


def test_a_target_is_judged_where_it_is_asked() -> None:
    assert str(Target("time", 30.0, 25.0, unit="s")) == "TARGET MISSED: time: 30 s (at most 25 s)"
    assert Target("use", 90.0, 85.0, least=True).met
    assert str(Target("time", 1.0, 25.0, unjudged="asked of n = 50,000")).startswith("not judged: time")


def test_a_missed_target_is_shown_and_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    one = table([5.0])
    one.targets = [Target("time", 7.0, 6.0)]
    show(one, CONTEXT, first=True)
    told = capsys.readouterr().out
    assert "holds: equal" in told
    assert "TARGET MISSED: time: 7 (at most 6)" in told


def growth() -> Table:
    rows = [[name, n, factor * n**power] for name, factor, power in (("a", 1e-6, 1.0), ("b", 1e-9, 1.5))
            for n in (50_000, 500_000, 2_000_000)]  # fmt: skip
    return Table("growth", {}, ["stage", "n", "seconds"], rows)


def test_a_table_over_n_becomes_lines_with_their_exponents() -> None:
    (picture,) = pictures(growth())
    assert picture.over == [50_000, 500_000, 2_000_000]
    exponents = [slope(picture.over, values) for _, values in picture.series]
    assert exponents == pytest.approx([1.0, 1.5])
    assert slope([1, 2], [1.0, 2.0]) is None


def test_jobs_and_stages_become_bars_by_stage() -> None:
    rows = [["one", "images", 1.0], ["one", "plan", 2.0], ["two", "images", 3.0]]
    (picture,) = pictures(Table("t", {}, ["job", "stage", "seconds"], rows))
    assert picture.rows == ["images", "plan"]
    assert picture.series == [("one", [1.0, 2.0]), ("two", [3.0, None])]
    assert len(picture.places()) == 4


def test_pictures_are_well_formed(tmp_path: Path) -> None:
    odd = table([5.0, 6.0])
    odd.rows[0][0] = "<naive> & $x_1$"
    run = record(odd, growth())
    draw(run, tmp_path / "run.svg")
    root = ElementTree.parse(tmp_path / "run.svg").getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "<naive> & $x_1$" in texts
    assert any("n^1.50" in (text or "") for text in texts)
    assert not list(root.iter("{http://www.w3.org/2000/svg}script"))
    draw(run, tmp_path / "run.png")
    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw_is_told(tmp_path: Path) -> None:
    bare = Table("t", {}, ["what", "pairs"], [["a", 1]])
    with pytest.raises(SystemExit, match="nothing to draw"):
        draw(record(bare), tmp_path / "run.svg")


def test_two_saved_runs_are_compared_without_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(tmp_path / name) for name in ("old.json", "new.json", "new.svg")]
    save(record(table([5.0] * 3)), Path(files[0]))
    save(record(table([8.0] * 3)), Path(files[1]))
    assert main(["--compare", *files[:2], "--plot", files[2]]) == 0
    assert "slower: 5 -> 8" in capsys.readouterr().out
    assert Path(files[2]).read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["decode", "--plot", "run.pdf"], "neither in .svg nor in .png"),
        (["decode", "--compare", "a", "b"], "--compare runs nothing"),
        (["decode", "--repeat", "0"], "at least 1"),
        (["nothing"], "invalid choice"),
    ],
)
def test_wrong_words_are_told(words: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        arguments(words)
    assert why in capsys.readouterr().err


def test_a_benchmark_has_options_of_its_own() -> None:
    asked = arguments(["reduce", "--n", "100", "--source", "lake", "--jobs", "similarity"])
    assert (asked.n, asked.source, asked.jobs) == (100, ["lake"], ["similarity"])
    assert Options().more is not None
    assert math.isclose(arguments(["profile", "--raw", "a_wavelet.raw@50"]).raw[0].hertz, 50)
