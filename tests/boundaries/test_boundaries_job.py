"""The command `boundaries` on a real run with a real small model: the pairs, the table, the summary, the mistakes."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import daskim
import daskim.boundaries as library
from daskim.boundaries.pairs import choose
from daskim.boundaries.pool import Images, Pool, order_of
from daskim.jobs.boundaries import main
from daskim.kernels.proportions import share_interval
from daskim.results import FinishedRun, open_run

SIDE = 16


@pytest.fixture
def run(run_path: Path, tmp_path: Path) -> Path:
    """The run, to be written into."""
    return Path(shutil.copytree(run_path, tmp_path / "run"))


@pytest.fixture(scope="module")
def told(run_path: Path, trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run with boundaries of the ONNX model, and figures beside it."""
    run = Path(shutil.copytree(run_path, tmp_path_factory.mktemp("told") / "run"))
    words = ["--model", trained.file("plain"), "--limit", "40", "--quiet", "--figures", str(run.parent / "figures")]
    assert main([str(run), *words]) == 0
    return run


@pytest.fixture(scope="module")
def found(told: Path) -> FinishedRun:
    return open_run(told)


@pytest.fixture(scope="module")
def table(found: FinishedRun) -> pd.DataFrame:
    return found.table("boundaries")


def summary_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "boundaries" / "summary.json").read_text())  # type: ignore[no-any-return]


class TestPairs:
    def test_kinds_are_what_they_are_called(self, found, table):
        images, pairs = found.images.set_index("row"), found.pairs.set_index(["a", "b"])
        assert table["kind"].unique().tolist() == ["similar", "influential", "dissimilar", "random"]
        assert (table["a"] < table["b"]).all()
        assert not table.duplicated(["kind", "a", "b"]).any()
        for row in table.itertuples():
            assert (row.a_id, row.b_id) == (images.loc[row.a, "id"], images.loc[row.b, "id"])
            assert (row.a_label, row.b_label) == (images.loc[row.a, "label"], images.loc[row.b, "label"])
        alike = table[table["kind"].isin(["similar", "influential"])]
        np.testing.assert_array_equal(alike["similarity"], pairs.loc[list(zip(alike["a"], alike["b"])), "similarity"])
        assert (alike["similarity"] >= 0.7).all()
        agree = table["a_label"] == table["b_label"]
        assert agree[table["kind"] == "similar"].all()
        assert not agree[table["kind"] == "influential"].any()
        assert agree[table["kind"] == "random"].sum() == agree[table["kind"] == "dissimilar"].sum() == 20

    def test_exact_duplicates_are_left_out(self, found, table):
        exact = found.table("exact").groupby("group")["row"].agg(tuple)
        assert len(exact) == 3
        listed = set(zip(table["a"], table["b"]))
        assert not listed & {pair for rows in exact for pair in combinations(sorted(rows), 2)}
        assert (table["rms"] > 0).all()

    def test_dissimilar_are_the_lowest_of_all(self, found, table):
        images = found.images.set_index("row")
        pairs = found.pairs
        pairs = pairs[(images["status"] == "ok").loc[pairs["a"]].to_numpy()]
        agree = images["label"].loc[pairs["a"]].to_numpy() == images["label"].loc[pairs["b"]].to_numpy()
        mine = table[table["kind"] == "dissimilar"]
        for same in (True, False):
            lowest = np.sort(pairs["similarity"][agree == same])[:20]
            listed = mine[(mine["a_label"] == mine["b_label"]) == same]
            np.testing.assert_array_equal(np.sort(listed["similarity"]), lowest)
        assert "the lowest ssim of all" in summary_of(Path(found.run))["kinds"]["dissimilar"]["basis"]

    def test_planted_copies_under_another_label_are_influential(self, table, found):
        mine = table[table["kind"] == "influential"]
        planted = {(20 + index, 159 + index) for index in range(6)}
        order = [int(Path(name).stem[-3:]) for name in found.images.sort_values("row")["id"] if "broken" not in name]
        number = dict(zip(found.images.sort_values("row").query("status == 'ok'")["row"], order))
        assert {tuple(sorted((number[a], number[b]))) for a, b in zip(mine["a"], mine["b"])} >= planted

    def test_a_sample_does_not_depend_on_the_order_of_pairs(self):
        a, b = np.triu_indices(60, 1)
        shuffled = np.random.default_rng(0).permutation(len(a))
        pools = []
        for order in (np.arange(len(a)), shuffled):
            pool = Pool(50)
            for part in np.array_split(order, 7):
                pool.take(a[part], b[part], np.zeros(len(part)), order_of(a[part], b[part], 3))
            pools.append(pool.by_row())
        np.testing.assert_array_equal(pools[0], pools[1])
        assert pool.seen == len(a)
        value = order_of(a, b, 3)
        assert 0 <= value.min() < 0.01 < 0.99 < value.max() < 1
        assert abs(value.mean() - 0.5) < 0.03
        assert (value != order_of(a, b, 4)).all()

    def test_a_run_of_candidates_draws_the_dissimilar_ones(self, run_path, tmp_path):
        source = open_run(run_path).settings.source.inputs[0]
        settings = {"method": "similarity", "images.size": "16x16"}
        made = daskim.reduce(source, run=tmp_path / "run", settings=settings, workers=1)
        (chosen,) = choose(made, Images.of(made), ["dissimilar"], 10, 0, print)
        assert "drawn at random" in chosen.basis
        assert "200 pairs of different clusters" in chosen.basis
        cluster = made.clusters.set_index("row")["cluster"]
        assert (cluster.loc[chosen.a].to_numpy() != cluster.loc[chosen.b].to_numpy()).all()
        assert chosen.similarity.max() < 0.5
        again = choose(made, Images.of(made), ["dissimilar"], 10, 0, print)[0]
        assert np.array_equal(chosen.a, again.a)
        other = choose(made, Images.of(made), ["dissimilar"], 10, 1, print)[0]
        assert not np.array_equal(chosen.a, other.a)

    def test_large_sets_are_drawn_from_without_making_all_pairs(self, monkeypatch):
        n = 3000
        code = np.arange(n) % 3
        everything = np.ones(n, dtype=bool)
        ids = np.array([str(row) for row in range(n)], dtype=object)
        images = Images(ids, ids, code, everything, everything, np.arange(n), np.full(n, -1))
        monkeypatch.setattr(np, "triu_indices", None)  # what would be made of all pairs
        (chosen,) = choose(None, images, ["random"], 500, 0, print)  # type: ignore[arg-type]
        agree = code[chosen.a] == code[chosen.b]
        assert (agree.sum(), len(agree)) == (250, 500)
        assert (chosen.a < chosen.b).all()
        assert len(set(zip(chosen.a.tolist(), chosen.b.tolist()))) == 500

    def test_a_run_of_compare(self, run):
        """Pairs across splits: one of one label and one of two, not the exact one."""
        store = open_run(run).store
        labels = open_run(run).images.query("status == 'ok'").groupby("label")["row"].agg(list)
        one, other = labels["cat"], labels["coffee"]
        exact = open_run(run).table("exact").groupby("group")["row"].agg(list).iloc[0]
        rows = [(one[9], one[8]), (one[9], other[8]), tuple(exact)]
        leaks = {"row": [a for a, _ in rows], "other_row": [b for _, b in rows], "similarity": [0.9, 0.8, 1.0]}
        store.write_part("leakage", "000000", pa.table(leaks))
        facts = {"min_similarity": 0.6, "similarity": "aligned"}
        store.write_json({**open_run(run).summary, "method": "compare", "leakage": facts}, "summary.json")
        made = open_run(run)
        similar, influential = choose(made, Images.of(made), ["similar", "influential"], 10, 0, print)
        assert list(zip(similar.a, similar.b, similar.similarity)) == [(one[8], one[9], 0.9)]
        assert list(zip(influential.a, influential.b)) == [tuple(sorted(rows[1]))]
        assert similar.basis == "aligned of at least 0.6 between splits, labels that do not differ"

    def test_a_run_of_the_wavelet_method(self, run_path, tmp_path, trained):
        source = open_run(run_path).settings.source.inputs[0]
        settings = {"images.size": "16x16", "clusters.n_clusters": 0.7}
        made = daskim.reduce(source, run=tmp_path / "run", settings=settings, workers=1)
        assert main([made.run, "--model", trained.file("plain"), "--limit", "30", "--quiet"]) == 0
        table = made.table("boundaries")
        plan, row = made.plan.set_index("row"), made.images.set_index("id")["row"]
        similar = table[table["kind"] == "similar"]
        assert len(similar) > 5
        for pair in similar.itertuples():
            kept = {row.get(plan.loc[pair.a, "kept_id"]), row.get(plan.loc[pair.b, "kept_id"])}
            assert kept & {pair.a, pair.b}
        cluster = made.clusters.set_index("row")["cluster"]
        influential = table[table["kind"] == "influential"]
        assert len(influential)
        assert (cluster.loc[influential["a"]].to_numpy() == cluster.loc[influential["b"]].to_numpy()).all()
        basis = summary_of(Path(made.run))["kinds"]["dissimilar"]["basis"]
        assert basis.startswith("the lowest ssim of 600 pairs of different clusters")


class TestTable:
    def test_flips_are_those_of_a_dense_walk(self, found, table, trained):
        def classes(alpha: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
            points = (1 - alpha)[:, None] * first + alpha[:, None] * second
            return trained.model.predict_proba(points.astype(np.float32)).argmax(axis=1)

        pixels = found.standard(np.arange(len(found.images))).reshape(len(found.images), -1) / 255.0
        alpha = np.arange(4097) / 4096
        checked = 0
        for row in table.iloc[::3].itertuples():
            winner = classes(alpha, pixels[row.a], pixels[row.b])
            flips = np.flatnonzero(np.diff(winner))
            if len(flips) == len(row.alphas):
                np.testing.assert_allclose(row.alphas, (alpha[flips] + alpha[flips + 1]) / 2, atol=1e-3)
                assert row.classes.tolist() == [winner[0], *winner[flips + 1]]
                checked += 1
            else:  # two flips within one bracket, or a stretch too short to be promised
                assert min(np.diff([0, *alpha[flips], 1])) < 1 / 64
            assert (row.class_a, row.class_b) == (winner[0], winner[-1])
            assert row.returns == (len(set(row.classes)) < len(row.classes))
        assert checked > 0.9 * len(table.iloc[::3])

    def test_regions_of_a_linear_model_are_convex(self, table):
        """PCA and logistic regression are linear: no line leaves a region and comes back."""
        assert not table["returns"].any()
        assert ((table["boundaries"] == 0) == (table["class_a"] == table["class_b"])).all()
        assert table["boundaries"].max() <= 2  # three classes

    def test_the_summary_counts_the_table(self, found, table):
        summary = summary_of(Path(found.run))
        assert summary["classes"] == 3
        assert summary["preprocessing"]["layout"] == "flat"
        assert summary["kinds"]["similar"]["available"] > 30
        for kind, group in table.groupby("kind"):
            told = summary["kinds"][kind]
            none = int((group["boundaries"] == 0).sum())
            assert told["pairs"] == len(group)
            assert (told["no_boundary"]["count"], told["no_boundary"]["of"]) == (none, len(group))
            assert (told["no_boundary"]["low"], told["no_boundary"]["high"]) == share_interval(none, len(group))
            assert told["mean_boundaries"] == pytest.approx(group["boundaries"].mean())
            assert told["one_class"]["count"] == (group["class_a"] == group["class_b"]).sum()
            assert told["no_boundary_in_class"]["of"] == told["one_class"]["count"]
            assert told["returns"]["count"] == group["returns"].sum()
            assert sum(told["flips"]) == group["boundaries"].sum()
            same = (group["a_label"] == group["b_label"]).sum()
            assert told["labels"].get("same", {"pairs": 0})["pairs"] == same
        drawn = summary["kinds"]
        assert drawn["similar"]["no_boundary"]["share"] > 0.9 > drawn["random"]["no_boundary"]["share"]

    def test_a_function_gives_the_same_table(self, run, callables, table):
        words = ["--model", f"{callables}:pixels", "--layout", "nhwc", "--limit", "40", "--quiet"]
        assert main([str(run), *words]) == 0
        other = open_run(run).table("boundaries")
        columns = ["kind", "a", "b", "class_a", "class_b", "boundaries", "returns"]
        pd.testing.assert_frame_equal(other[columns], table[columns])
        for one, two in zip(table["alphas"], other["alphas"]):
            np.testing.assert_allclose(one, two, atol=1e-3)

    def test_groups_of_pairs_do_not_matter(self, run, trained, table, monkeypatch):
        monkeypatch.setattr(library, "GROUP_BYTES", 100_000)
        assert main([str(run), "--model", trained.file("plain"), "--limit", "40", "--quiet"]) == 0
        other = open_run(run)
        assert len(other.store.parts("boundaries")) > 20
        compared = other.table("boundaries").drop(columns="least_margin")
        pd.testing.assert_frame_equal(compared, table.drop(columns="least_margin"))
        assert other.table("boundary_lines")["kind"].value_counts().min() >= 4

    def test_an_earlier_result_is_replaced(self, run, trained):
        for limit in ("30", "3"):
            words = ["--model", trained.file("plain"), "--limit", limit, "--pairs", "random", "--quiet"]
            assert main([str(run), *words]) == 0
        assert len(open_run(run).table("boundaries")) == 3
        assert list(summary_of(run)["kinds"]) == ["random"]

    def test_a_run_that_is_done_again_loses_it(self, run, trained):
        assert main([str(run), "--model", trained.file("plain"), "--limit", "2", "--quiet"]) == 0
        made = open_run(run)
        daskim.reduce(
            made.settings.source.inputs, run=run, settings=made.settings, workers=1, restart="plan"
        )  # fmt: skip
        assert not made.has("boundaries")
        assert not made.has("boundary_lines")
        assert not (run / "boundaries").exists()

    def test_figures(self, told):
        names = {path.name for path in (told.parent / "figures").iterdir()}
        assert names == {f"boundary-{name}.{kind}" for name in ("shares", "flips", "lines") for kind in ("svg", "png")}
        lines = (told.parent / "figures" / "boundary-lines.svg").read_text()
        assert lines.count("class ") >= 4
        assert "\x1b" not in lines


class TestImages:
    def test_larger_images_are_read_again(self, run, callables, monkeypatch):
        seen = []
        monkeypatch.setattr(
            "told_model.scores", lambda batch: seen.append(batch) or np.eye(2)[np.zeros(len(batch), int)]
        )
        words = ["--model", f"{callables}:scores", "--size", "24x20", "--pairs", "random", "--limit", "2", "--quiet"]
        assert main([str(run), *words, "--steps", "1", "--scale", "1"]) == 0
        table = open_run(run).table("boundaries")
        source = Path(open_run(run).settings.source.inputs[0])
        held = np.concatenate(seen[1:])
        assert held.shape[1:] == (24, 20, 3)
        for row in table.itertuples():
            for name in (row.a_id, row.b_id):
                expected = np.asarray(Image.open(path_of(source, name)).resize((20, 24), Image.Resampling.BILINEAR))
                assert (np.abs(held - expected).max(axis=(1, 2, 3)) < 1e-3).any()

    def test_grey_models_see_grey_images(self, run, callables, monkeypatch):
        shapes = []
        monkeypatch.setattr(
            "told_model.scores", lambda batch: shapes.append(batch.shape) or np.tile([1.0, 0.0], (len(batch), 1))
        )
        words = ["--model", f"{callables}:scores", "--mode", "L", "--pairs", "random", "--limit", "2", "--quiet"]
        assert main([str(run), *words]) == 0
        assert {shape[1:] for shape in shapes} == {(16, 16, 1)}

    def test_images_that_changed_or_went(self, run_path, tmp_path, callables, monkeypatch, capsys):
        source = Path(shutil.copytree(open_run(run_path).settings.source.inputs[0], tmp_path / "pictures"))
        settings = {"method": "similarity", "images.size": "16x16", "similarities.name": "ssim"}
        made = daskim.reduce(source, run=tmp_path / "run", settings=settings, workers=1)
        names = made.plan.query("status == 'ok'")["id"].tolist()
        path_of(source, names[0]).unlink()
        Image.new("RGB", (16, 16), (9, 9, 9)).save(path_of(source, names[1]))
        pairs = tmp_path / "pairs.csv"
        pairs.write_text(
            "a,b\n" + "".join(f"{quoted(a)},{quoted(b)}\n" for a, b in [names[:2], names[1:3], names[2:4]])
        )
        monkeypatch.setattr("told_model.scores", lambda batch: np.tile([1.0, 0.0], (len(batch), 1)))
        words = [made.run, "--model", f"{callables}:scores", "--pairs", str(pairs)]
        assert main([*words, "--size", "20"]) == 0
        said = capsys.readouterr()
        assert "2 left out" in said.out
        assert "1 images differ" in said.err
        assert summary_of(tmp_path / "run")["kinds"]["listed"]["unreadable"] == 2


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def path_of(source: Path, name: str) -> Path:
    """The file of an id: the only one whose name is told the same way."""
    (found,) = [path for path in source.rglob("*.png") if path.name[-7:] == name[-7:] and path.parent.name in name]
    return found


class TestCommand:
    def test_pairs_of_a_file_with_hostile_ids(self, run, trained, tmp_path, capsys):
        names = open_run(run).images["id"].tolist()
        hostile = next(name for name in names if "<b>" in name)
        file = tmp_path / "pairs.csv"
        with file.open("w", newline="", encoding="utf-8-sig") as stream:
            csv.writer(stream).writerows([["verdict", "a", "b"], ["same", hostile, names[5]], ["", names[7], hostile]])
        words = [str(run), "--model", trained.file("plain"), "--pairs", str(file), "--figures", str(tmp_path / "f")]
        assert main(words) == 0
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err
        assert "\u202e" not in said.out + said.err
        table = open_run(run).table("boundaries")
        assert table[["a_id", "b_id"]].to_numpy().tolist() == [[hostile, names[5]], [names[7], hostile]]
        assert table["kind"].tolist() == ["listed", "listed"]
        drawing = (tmp_path / "f" / "boundary-lines.svg").read_text()
        assert "<b>" not in drawing
        assert "\u202e" not in drawing

    def test_what_is_printed(self, run, trained, capsys):
        assert main([str(run), "--model", trained.file("plain"), "--limit", "20"]) == 0
        said = capsys.readouterr().out
        for words in ("no boundary", "similar", "labels differ", "drawn at random, seed 0", "of the random pairs."):
            assert words in said

    def test_json_lines(self, run, trained, capsys):
        assert main([str(run), "--model", trained.file("plain"), "--limit", "5", "--json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert lines[-1]["event"] == "summary"
        assert lines[-1]["kinds"] == summary_of(run)["kinds"]
        assert main([str(run), "--model", "no.onnx", "--json"]) == 4
        (error,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert (error["event"], error["kind"]) == ("error", "SourceError")

    @pytest.mark.parametrize(
        ("words", "code", "told"),
        [
            ("{run}", 2, "--model"),
            ("--model {model}", 2, "RUN"),
            ("{here}/no-run --model {model}", 4, "no finished run"),
            ("{run} --model {model} --pairs alike", 2, "similar, influential, dissimilar, random"),
            ("{run} --model {model} --pairs similar,,random", 2, "no kind of pairs is ''"),
            ("{run} --model {model} --pairs {here}/no.csv", 4, "no.csv"),
            ("{run} --model {model} --pairs {here}/head.csv", 2, "no columns a and b"),
            ("{run} --model {model} --pairs {here}/empty.csv", 2, "no columns a and b"),
            ("{run} --model {model} --pairs {here}/none.csv", 2, "holds no pairs"),
            ("{run} --model {model} --pairs {here}/unknown.csv", 2, "line 2: the run has no image"),
            ("{run} --model {model} --pairs {here}/short.csv", 2, "line 2: the run has no image None"),
            ("{run} --model {model} --pairs {here}/latin.csv", 2, "UTF-8"),
            ("{run} --model {model} --pairs {here}/itself.csv", 2, "with itself"),
            ("{run} --model {model} --limit 0", 2, "--limit"),
            ("{run} --model {model} --limit many", 2, "--limit"),
            ("{run} --model {model} --steps 0", 2, "--steps"),
            ("{run} --model {model} --steps 5000", 2, "4096"),
            ("{run} --model {model} --tol 0", 2, "--tol"),
            ("{run} --model {model} --tol nan", 2, "--tol"),
            ("{run} --model {model} --tol 2", 2, "--tol"),
            ("{run} --model {model} --seed=-1", 2, "--seed"),
            ("{run} --model {model} --size 32x32", 2, "16x16 (RGB)"),
            ("{run} --model {model} --layout nchw", 2, "give flat"),
            ("{run} --model {model} --output label", 2, "no scores of shape"),
            ("{run} --model told_model:raises", 5, "RuntimeError"),
            ("{run} --model told_model:nothing", 5, "not finite"),
            ("{run} --model told_model:one_column", 2, "a score for each class"),
            ("{run} --model {model} --figures {here}/text.txt/below", 4, "--figures"),
            ("{run} --model {model} --storage-option x", 2, "key=value"),
            ("{run} --model {model} --mod L", 2, "--mode"),
            ("{run} {run} --model {model}", 2, ""),
        ],
    )
    def test_mistakes(self, run_path, trained, callables, tmp_path, capsys, words, code, told):
        name = open_run(run_path).images["id"].iloc[5]
        texts = {
            "head": "x,y\n1,2\n",
            "empty": "",
            "none": "a,b\n",
            "unknown": "a,b\nno,no2\n",
            "short": f"a,b\n{name}\n",
        }
        for stem, text in {**texts, "itself": f"a,b\n{name},{name}\n"}.items():
            (tmp_path / f"{stem}.csv").write_text(text)
        (tmp_path / "latin.csv").write_bytes("a,b\n\xe9,2\n".encode("latin-1"))
        (tmp_path / "text.txt").write_text("no folder")
        path = run_path
        if "--figures" in words:
            path = Path(shutil.copytree(run_path, tmp_path / "run"))
            words += " --limit 1"
        filled = [word.format(run=path, here=tmp_path, model=trained.file("plain")) for word in words.split()]
        assert main([*filled, "--quiet"]) == code
        said = capsys.readouterr()
        assert told in said.err
        assert said.err.startswith("error: ")
        assert "Traceback" not in said.err
        assert "\x1b" not in said.err
        if path == run_path:  # a mistake leaves nothing behind
            assert not (run_path / "boundaries").exists()

    def test_a_run_without_such_pairs(self, tmp_path, trained, capsys):
        images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
        np.savez(tmp_path / "set.npz", images=images)
        made = daskim.reduce(tmp_path / "set.npz", run=tmp_path / "run", settings={"images.size": "16x16"}, workers=1)
        assert main([made.run, "--model", trained.file("plain"), "--pairs", "influential,similar"]) == 2
        assert "no similar or influential pairs" in capsys.readouterr().err
        assert main([made.run, "--model", trained.file("plain")]) == 0
        kinds = summary_of(tmp_path / "run")["kinds"]
        assert kinds["random"]["pairs"] == 15
        assert list(kinds["random"]["labels"]) == ["unknown"]
        assert kinds["similar"]["no_boundary"]["share"] is None
