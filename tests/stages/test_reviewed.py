"""What a person said of pairs is honoured by both methods; what cannot be read is told with its line."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import daskim
from daskim.errors import SettingsError, SourceError, StaleRun
from daskim.jobs.reduce import main
from daskim.kernels.leaders import follow_leaders, follow_links
from daskim.lake import read_reviewed

METHODS = ["wavelet", "similarity"]
SIDE = 16


@given(st.data())
def test_images_kept_apart_never_share_a_leader(data: st.DataObject) -> None:
    k = data.draw(st.integers(1, 10))
    pair = st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)).filter(lambda p: p[0] != p[1])
    pairs = data.draw(st.lists(pair, max_size=12)) if k > 1 else []
    links = data.draw(st.lists(pair, max_size=30)) if k > 1 else []
    fixed = np.array(data.draw(st.lists(st.booleans(), min_size=k, max_size=k)))
    order = np.array(data.draw(st.permutations(range(k))))
    one, other = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    a, b = np.array(links, dtype=np.int64).reshape(-1, 2).T
    images = np.zeros((k, 4), dtype=np.uint8)
    by_link = follow_links(order, a, b, fixed, apart=(one, other))
    by_sight, _ = follow_leaders(images, order, 1.0, fixed, apart=(one, other))
    linked = {frozenset(p) for p in links}
    for leader in (by_link, by_sight):
        assert (leader[leader] == leader).all()
        assert all(leader[x] != leader[y] for x, y in pairs)
        assert not (fixed & (leader != np.arange(k))).any()
    assert all(leads == i or frozenset((int(leads), i)) in linked for i, leads in enumerate(by_link))
    if not pairs and not fixed.any():
        assert len(set(by_sight.tolist())) == 1


def photographs(n: int, seed: int = 0) -> np.ndarray:
    """Smooth images that have nothing to do with one another, (n, 16, 16, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 4, 4, 3)).astype(np.float64)
    return np.repeat(np.repeat(coarse, 4, axis=1), 4, axis=2).astype(np.uint8)


def near(image: np.ndarray, seed: int) -> np.ndarray:
    """A copy with a little noise."""
    noise = np.random.default_rng(seed).integers(-3, 4, image.shape)
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)


class Case:
    """Rows 0, 1, 2: one picture and two near copies; 3, 4: exact copies; 5..25: others. All but the last one label."""

    def __init__(self, folder: Path, method: str) -> None:
        self.folder, self.method = folder, method
        pictures = photographs(23)
        images = [pictures[0], near(pictures[0], 1), near(pictures[0], 2), pictures[1], pictures[1], *pictures[2:]]
        labels = ["a"] * len(images)
        images.append(near(pictures[5], 3))
        labels.append("b")  # alike to row 8, of another label
        np.savez(folder / "set.npz", images=np.stack(images), labels=np.array(labels))
        self.n = len(images)

    def plan(self, *verdicts: tuple[int, int, str], **settings: object) -> daskim.FinishedRun:
        values: dict[str, object] = {"method": self.method, "images.size": "native", **settings}
        if self.method == "wavelet":
            values["clusters.n_clusters"] = 20
        if verdicts:
            name = self.folder / f"reviewed{len(list(self.folder.iterdir()))}.csv"
            with name.open("w", newline="") as file:
                rows = [(f"set.npz/images#{a:08d}", f"set.npz/images#{b:08d}", verdict) for a, b, verdict in verdicts]
                csv.writer(file).writerows([("a", "b", "verdict"), *rows])
            values["plan.reviewed"] = str(name)
        return daskim.reduce(self.folder / "set.npz", settings=values, workers=2)


def families(found: daskim.FinishedRun) -> list[int]:
    """The row that stands for each row."""
    row = dict(zip(found.plan["id"], found.plan["row"]))
    return [row[kept] if isinstance(kept, str) else own for own, kept in zip(found.plan["row"], found.plan["kept_id"])]


@pytest.fixture(params=METHODS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return Case(tmp_path, request.param)


def test_different_keeps_apart(case: Case) -> None:
    before = families(case.plan())
    assert before[0] == before[1] == before[2], "one family, unless a person says otherwise"
    assert before[3] == before[4]
    found = case.plan((0, 1, "different"), (1, 2, "different"), (4, 3, "different"))
    after = families(found)
    assert after[0] != after[1]
    assert after[1] != after[2]
    assert after[0] == after[2], "what nobody spoke about stays"
    assert after[3] != after[4], "exact copies too"
    assert set(found.plan["decision"][[3, 4]]) == {"keep"}
    assert found.summary["plan"]["reviewed"]["exact_different"] == 1
    assert any("exact duplicates" in note for note in found.summary["notes"])


def test_same_joins_what_is_not_alike(case: Case) -> None:
    found = case.plan((10, 12, "same"), (15, 26, "same"))
    leader = families(found)
    assert leader[10] == leader[12]
    dropped = found.plan[found.plan["id"] == found.plan["id"][12 if leader[12] == 10 else 10]].iloc[0]
    assert (dropped["decision"], dropped["rule"]) == ("drop", "reviewed")
    assert leader[15] == 15, "other labels: not joined"
    assert leader[26] == 26
    assert found.summary["plan"]["reviewed"]["dropped"] == 1


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_the_one_to_keep(case: Case, kept: int) -> None:
    others = [row for row in range(3) if row != kept]
    leader = families(case.plan((kept, others[0], "keep-a"), (others[1], kept, "keep-b")))
    assert leader[:3] == [kept] * 3


def test_protected_images_stay_whatever_was_said(case: Case) -> None:
    leader = families(case.plan((0, 1, "keep-a"), (2, 1, "keep-a"), (0, 2, "keep-b")))
    assert leader[0] == leader[1] == 2 or (leader[0] == 2 and leader[1] in (1, 2))
    everywhere = case.plan((10, 12, "same"), (12, 14, "different"), (10, 14, "same"))
    after = families(everywhere)
    assert after[12] != after[14], "never dropped for one third image either"


def test_alike_but_labelled_differently_is_settled_by_different(case: Case) -> None:
    assert set(case.plan().influential["row"]) == {8, 26}
    assert case.plan((8, 26, "different")).influential.empty
    assert set(case.plan((8, 26, "same")).influential["row"]) == {8, 26}, "labels are to be settled first"


def test_verdicts_hold_whatever_the_order_of_rows_in_the_file(case: Case) -> None:
    rows = [(0, 1, "different"), (10, 12, "same"), (3, 4, "keep-b"), (5, 6, "same")]
    plans = [families(case.plan(*order)) for order in itertools.islice(itertools.permutations(rows), 0, 24, 13)]
    assert all(plan == plans[0] for plan in plans)


def test_the_pure_form_and_a_bound_honour_it_too(tmp_path: Path) -> None:
    case = Case(tmp_path, "similarity")
    for values in ({"clusters.verify": "none"}, {"plan.max_rms": 20.0}):
        leader = families(case.plan((0, 1, "different"), (10, 12, "same"), **values))
        assert leader[0] != leader[1]
        assert leader[10] == leader[12]


BAD = [
    ("a,b\nx,y\n", "line 1"),
    ("a,b,verdict\nx,y\n", "line 2"),
    ('a,b,verdict\n"x\ny",z,same\nx,y,equal\n', "line 4"),
    ("a,b,verdict\nx,x,same\n", "line 2"),
    ("a,b,verdict\nx,y,same\n\ny,x,different\n", "contradicts line 2"),
    ("a,b,verdict\nx,y,keep-a\ny,x,keep-a\n", "contradicts line 2"),
    ('a,b,verdict\nx,"y,same\n', "CSV"),
]


@pytest.mark.parametrize(("text", "told"), BAD, ids=range(len(BAD)))
def test_malformed_rows_are_told_with_their_line(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "reviewed.csv").write_text(text)
    with pytest.raises(SettingsError, match=told):
        read_reviewed(str(tmp_path / "reviewed.csv"))


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "reviewed.csv").write_bytes(b"a,b,verdict\nx,\xff,same\n")
    with pytest.raises(SettingsError, match="line 2"):
        read_reviewed(str(tmp_path / "reviewed.csv"))
    with pytest.raises(SourceError, match=r"nothing\.csv"):
        read_reviewed(str(tmp_path / "nothing.csv"))


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)).filter(lambda p: p[0] != p[1]), max_size=8))
def test_any_id_comes_back(pairs: list[tuple[str, str]]) -> None:
    import io

    from daskim.lake.reviewed import _parse

    unique = {frozenset(pair): pair for pair in pairs}.values()
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("a", "b", "verdict"), *((a, b, "same") for a, b in unique)])
    found = _parse(text.getvalue(), "reviewed.csv", "")
    assert list(zip(found.a, found.b)) == list(unique)


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, "wavelet")
    monkeypatch.chdir(tmp_path)
    words = [str(tmp_path / "set.npz"), "--run", "run", "--size", "native", "--n-clusters", "20"]
    assert main(words) == 0
    (tmp_path / "run" / "reviewed.csv").write_text(
        "a,b,verdict\nset.npz/images#00000000,set.npz/images#00000001,different\ngone,away,same\n"
    )
    capfd.readouterr()
    assert main(words) == 0
    assert "--reviewed" in capfd.readouterr().err, "verdicts that lie in the run are never ignored in silence"
    assert main([*words, "--reviewed", "run/reviewed.csv"]) == StaleRun.exit_code
    assert main([*words, "--reviewed", "run/reviewed.csv", "--restart", "plan"]) == 0
    assert "1 of 2 rows name images that are not in this set" in capfd.readouterr().err
    leader = families(daskim.open_run(tmp_path / "run"))
    assert leader[0] != leader[1]
    assert main([*words, "--reviewed", "run/reviewed.csv"]) == 0, "from another folder or again: nothing to do"
    with (tmp_path / "run" / "reviewed.csv").open("a") as file:
        file.write("set.npz/images#00000003,set.npz/images#00000004,different\n")
    capfd.readouterr()
    assert main([*words, "--reviewed", "run/reviewed.csv"]) == StaleRun.exit_code
    assert "reviewed pairs" in capfd.readouterr().err, "the file changed: its digest is part of the plan"
    assert main([*words, "--reviewed", "nothing.csv"]) == SourceError.exit_code
    assert case.n == 27
