"""The spectrum of a run's graph: planted answers, Lanczos beside exact values, tasks that fail, and the paper's 454."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from planted_graphs import (
    Failing,
    Pairs,
    above,
    aquarium_pairs,
    cliques,
    context_of,
    giant_and_small,
    on_a_sphere,
    seal,
    some_settings,
    write_images,
    write_pairs,
)
from scipy.linalg import eigvalsh

from daskim.compute.threads import Threads
from daskim.engine import Engine
from daskim.errors import BlockFailed, SettingsError
from daskim.kernels.density import wasserstein
from daskim.kernels.graph import laplacian, similarity_matrix
from daskim.stages import spectrum
from daskim.stages.spectrum import STAGE, edges, giant, graph, rows, steps
from daskim.store import Run


def facts_of(engine: Engine, n: int, pairs: Pairs, *, least: float = 0.5, **values: Any) -> dict[str, Any]:
    write_images(engine.run, n)
    write_pairs(engine.run, *pairs, min_similarity=least)
    return seal(context_of(engine, some_settings(**values), n), STAGE)


def tables(run: Run) -> dict[str, pd.DataFrame]:
    return {name: run.read_table(name).to_pandas() for name in ("spectrum", "gaps_curve", "components", "graph")}


def assert_same_tables(one: dict[str, pd.DataFrame], other: dict[str, pd.DataFrame]) -> None:
    for name in one:
        pd.testing.assert_frame_equal(one[name], other[name], check_exact=True)


@pytest.fixture
def another(tmp_path: Path) -> Callable[[int], Engine]:
    """Engines of further runs, with some threads."""
    made = iter(range(100))

    def make(threads: int) -> Engine:
        return Engine(Threads(threads, 10**10), Run(str(tmp_path / f"another{next(made)}")))

    return make


# --- planted graphs ---------------------------------------------------------------------------------------------


def test_spectrum_of_planted_cliques(engine: Engine) -> None:
    # m images at similarity w have eigenvalues 0 and m w (m - 1 times); image 4 is broken, 0 and 9 have no pair
    pairs = cliques(([1, 5, 8], 0.8), ([2, 7], 0.6), ([3, 6], 1.0))
    below = (np.array([0, 2]), np.array([9, 9]), np.array([0.49, 0.3]))
    write_images(engine.run, 10, broken=[4], flat=[9])
    write_pairs(engine.run, *(np.concatenate(column) for column in zip(pairs, below)))
    context = context_of(engine, some_settings(spectrum__gamma=0.41, spectrum__gap_rule="complement"), 10)
    facts = seal(context, STAGE)
    table = tables(engine.run)
    expected = [0, 0, 0, 0, 0, 1.2, 2.0, 2.4, 2.4]
    np.testing.assert_allclose(table["spectrum"]["value"], expected, atol=1e-14)
    np.testing.assert_array_equal(table["spectrum"]["weight"], 1)
    np.testing.assert_array_equal(table["spectrum"]["error"], 0)
    assert sorted(table["spectrum"]["size"]) == [1, 1, 2, 2, 2, 2, 3, 3, 3]
    assert set(table["spectrum"]["by"]) == {"exact"}
    assert (facts["images"], facts["edges"], facts["n_components"], facts["n_single"]) == (9, 5, 5, 2)
    assert (facts["largest_component"], facts["by_lanczos"], facts["largest_error"]) == (3, 0, 0)
    assert facts["largest"] == pytest.approx(2.4)
    assert facts["trace"]["graph"] == pytest.approx(2 * (3 * 0.8 + 0.6 + 1.0))
    assert facts["squares"]["graph"] == pytest.approx(sum(value**2 for value in expected))
    assert facts["trace"]["relative"] < 1e-14 > facts["squares"]["relative"]
    assert facts["zeros"] == {"count": 5, "error": 0, "components": 5}
    assert facts["moments"] is facts["distance"] is None
    assert facts["gaps"] == {"count": 2, "lower": 2, "upper": 2}  # 1.2 and 0.8; not 0.4
    assert (facts["n_clusters"], facts["rule"]) == (7, "complement")
    assert "2 of the 8 gaps" in facts["why"]
    assert any("components: 5, the largest of 3 images" in note for note in context.notes)
    curve = table["gaps_curve"].set_index("gamma")
    assert curve.loc[0.41].tolist() == [7, 2]
    assert (curve["complement"].diff().dropna() >= 0).all()
    components = table["components"].set_index("row")
    assert components.index.tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert components["component"].tolist() == [0, 1, 2, 3, 1, 3, 2, 1, 4]
    assert components["part"].tolist() == [-1, 0, 0, 0, 0, 0, 0, 0, -1]
    assert components["degree"].tolist() == pytest.approx([0, 1.6, 0.6, 1, 1.6, 1, 0.6, 1.6, 0])
    edges = table["graph"]
    assert list(zip(edges["a"], edges["b"])) == [(1, 5), (1, 8), (2, 7), (3, 6), (5, 8)]
    assert list(zip(edges["i"], edges["j"])) == [(0, 1), (0, 2), (3, 4), (5, 6), (1, 2)]


@pytest.mark.parametrize("pairs", [(np.zeros(0), np.zeros(0), np.zeros(0)), (np.array([0]), np.array([1]), [0.2])])
@pytest.mark.parametrize("method", ["auto", "exact", "lanczos"])
def test_a_graph_without_an_edge(engine: Engine, pairs: Any, method: str) -> None:
    facts = facts_of(engine, 5, pairs, spectrum__method=method)
    table = tables(engine.run)
    assert (facts["n_clusters"], facts["n_components"], facts["largest"], facts["edges"]) == (5, 5, 0, 0)
    assert table["spectrum"]["value"].tolist() == [0] * 5
    assert len(table["graph"]) == 0
    assert table["components"]["part"].tolist() == [-1] * 5


@pytest.mark.parametrize("negative", ["clip", "signed", "absolute"])
def test_all_pairs_and_their_negative_similarities(engine: Engine, negative: Any) -> None:
    pairs = on_a_sphere(40)
    facts = facts_of(engine, 40, pairs, candidates__method="all", similarities__negative=negative)
    dense = laplacian(similarity_matrix(40, *pairs, negative=negative).toarray())
    np.testing.assert_allclose(tables(engine.run)["spectrum"]["value"], eigvalsh(dense), atol=1e-12)
    assert facts["trace"]["graph"] == pytest.approx(np.trace(dense))
    assert facts["squares"]["graph"] == pytest.approx((dense**2).sum())
    assert facts["edges"] == (int((pairs[2] > 0).sum()) if negative == "clip" else 780)


# --- nothing but the graph decides -------------------------------------------------------------------------------


def test_neither_parts_nor_workers_nor_packing_matter(
    engine: Engine, another: Callable[[int], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = above(on_a_sphere(300, twins=5), 0.85)
    facts = facts_of(engine, 300, pairs, least=0.85)
    assert facts["n_components"] > 20
    assert facts["largest_component"] > 5
    first = tables(engine.run)
    other = another(1)
    write_images(other.run, 300)
    write_pairs(other.run, *pairs, min_similarity=0.85, parts=11, seed=5)
    assert seal(context_of(other, some_settings(), 300, rows=7), STAGE) == facts
    assert_same_tables(tables(other.run), first)
    monkeypatch.setattr(graph, "WORK", 1e5)
    monkeypatch.setattr(edges, "PIECE", 4)
    packed = another(2)
    assert facts_of(packed, 300, pairs, least=0.85)["n_clusters"] == facts["n_clusters"]
    assert len([name for name in packed.run.marked("spectrum") if name.startswith("exact-")]) > 5
    found = tables(packed.run)
    for name in ("spectrum", "gaps_curve"):
        pd.testing.assert_frame_equal(found[name], first[name], rtol=0, atol=1e-13)
    assert len(packed.run.parts("graph")) > len({key[:6] for key in packed.run.parts("graph")}) > 5
    pd.testing.assert_frame_equal(
        found["graph"].sort_values(["a", "b"], ignore_index=True)[["a", "b", "similarity"]],
        first["graph"].sort_values(["a", "b"], ignore_index=True)[["a", "b", "similarity"]],
    )


# --- Lanczos ------------------------------------------------------------------------------------------------------


def test_lanczos_beside_the_exact_spectrum(engine: Engine, another: Callable[[int], Engine]) -> None:
    pairs = on_a_sphere(400, twins=5)
    exact = facts_of(another(2), 400, pairs, candidates__method="all")
    facts = facts_of(engine, 400, pairs, candidates__method="all", spectrum__method="lanczos")
    table = tables(engine.run)["spectrum"]
    assert set(table["by"]) == {"lanczos"}
    assert table["weight"].sum() == pytest.approx(400)
    assert set(table["size"]) == {400}
    assert facts["by_lanczos"] == 400
    assert facts["distance"]["relative"] < 0.01
    assert facts["largest"] == pytest.approx(exact["largest"], rel=1e-10)
    assert facts["trace"]["graph"] == exact["trace"]["graph"]
    for name in ("trace", "squares"):
        assert 0 < facts[name]["error"] < 0.05 * facts[name]["graph"]
        assert abs(facts[name]["eigenvalues"] - facts[name]["graph"]) < 4 * facts[name]["error"]
    assert abs(facts["zeros"]["count"] - 1) < 4 * facts["zeros"]["error"]
    values = eigvalsh(laplacian(similarity_matrix(400, *pairs)).toarray())
    for j, (mean, error) in enumerate(facts["moments"]):
        assert abs(mean - (values**j).mean()) <= 4 * error + 1e-12
    gaps = facts["gaps"]
    assert gaps["lower"] <= exact["gaps"]["count"] <= gaps["upper"]
    assert 0 < gaps["lower"] <= gaps["count"]
    assert facts["n_clusters"] == 400 - gaps["count"]
    assert f"between {gaps['lower']} and {gaps['upper']}" in facts["why"]


def test_one_probe_has_no_error(engine: Engine) -> None:
    facts = facts_of(engine, 60, on_a_sphere(60), least=-1, spectrum__method="lanczos", spectrum__probes=1)
    assert facts["trace"]["error"] is facts["zeros"]["error"] is facts["moments"][1][1] is None


GIANT: dict[str, Any] = {"least": 0.3, "spectrum__exact": 100, "spectrum__steps": 40, "spectrum__probes": 5}


def test_giants_by_lanczos_and_the_rest_exactly(engine: Engine, another: Callable[[int], Engine]) -> None:
    n, pairs = giant_and_small()
    exact = facts_of(another(2), n, pairs, least=0.3)
    facts = facts_of(engine, n, pairs, **GIANT)
    table = tables(engine.run)["spectrum"]
    assert facts["by_lanczos"] == facts["largest_component"] == 150
    known = table[table["by"] == "exact"]
    np.testing.assert_allclose(known["value"], sorted([0] * 26 + [2.7] * 34), atol=1e-12)
    rest = table[table["by"] == "lanczos"]
    assert len(rest) == 40 * 5
    assert rest["weight"].sum() == pytest.approx(150)
    assert table["weight"].sum() == pytest.approx(n)
    assert set(rest["size"]) == {150}
    assert facts["n_components"] == 27
    assert abs(facts["zeros"]["count"] - 27) < 4 * facts["zeros"]["error"] + 1e-6
    assert facts["gaps"]["lower"] <= exact["gaps"]["count"] <= facts["gaps"]["upper"]
    assert facts["largest"] == pytest.approx(exact["largest"], rel=1e-9)
    assert facts["moments"][0][0] == pytest.approx(1)
    assert facts["distance"] is None
    curve = tables(engine.run)["gaps_curve"].set_index("gamma")
    assert curve.loc[0.4].tolist() == [n - facts["gaps"]["count"], max(1, facts["gaps"]["count"])]


def test_exact_refuses_a_giant(engine: Engine) -> None:
    n, pairs = giant_and_small()
    with pytest.raises(SettingsError, match=r"a component has 150 images, more than spectrum.exact = 100") as error:
        facts_of(engine, n, pairs, **GIANT, spectrum__method="exact")
    assert "spectrum.method = auto" in error.value.hint


def many_edges_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes at which the smallest graph takes the way of the largest."""
    monkeypatch.setattr(edges, "HELD", 300)
    monkeypatch.setattr(edges, "PIECE", 70)
    monkeypatch.setattr(rows, "GROUP", 200)
    monkeypatch.setattr(rows, "NONZEROS", 700)


def distance_of(one: pd.DataFrame, other: pd.DataFrame) -> float:
    """Wasserstein-1 distance of two tables `spectrum`, as a share of the range."""
    columns = (table[name].to_numpy() for table in (one, other) for name in ("value", "weight"))
    return wasserstein(*columns) / float(np.ptp(one["value"]))


def test_a_graph_beyond_memory_is_the_same_graph(
    engine: Engine, another: Callable[[int], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    n, pairs = giant_and_small()
    whole = another(1)
    facts = facts_of(whole, n, pairs, **GIANT)
    many_edges_in_files(monkeypatch)
    write_images(engine.run, n)
    write_pairs(engine.run, *pairs, min_similarity=0.3, parts=17, seed=3)
    values = {key: value for key, value in GIANT.items() if key != "least"}
    found = seal(context_of(engine, some_settings(**values), n), STAGE)
    assert found["squares"]["graph"] == pytest.approx(facts["squares"]["graph"], rel=1e-14)
    for name in ("edges", "n_components", "largest_component", "n_single", "near_components", "gaps", "n_clusters"):
        assert found[name] == facts[name]
    mine, other = tables(engine.run), tables(whole.run)
    pd.testing.assert_frame_equal(mine["components"], other["components"], check_exact=True)
    by = ["a", "b"]
    pd.testing.assert_frame_equal(
        mine["graph"].sort_values(by, ignore_index=True), other["graph"].sort_values(by, ignore_index=True)
    )
    assert distance_of(mine["spectrum"], other["spectrum"]) < 5e-3  # rounding decides where ghosts appear
    assert engine.run.parts("graph") != whole.run.parts("graph")
    one = another(1)  # from one part, which is larger than what is held
    write_images(one.run, n)
    write_pairs(one.run, *pairs, min_similarity=0.3, parts=1)
    assert seal(context_of(one, some_settings(**values), n), STAGE) == found
    assert_same_tables(tables(one.run), mine)
    left = [name for name in engine.run.names("partial", "spectrum") if name.startswith(("edges", "laid", "count"))]
    assert not left


@pytest.mark.parametrize("nonzeros", [10**6, 700])
def test_rows_are_those_of_the_laplacian(engine: Engine, monkeypatch: pytest.MonkeyPatch, nonzeros: int) -> None:
    pairs = on_a_sphere(150)
    expected = laplacian(similarity_matrix(150, *pairs, negative="signed"))
    many_edges_in_files(monkeypatch)
    monkeypatch.setattr(rows, "NONZEROS", nonzeros)
    values = {"least": -1, "similarities__negative": "signed", "spectrum__method": "lanczos", "spectrum__steps": 2}
    facts_of(engine, 150, pairs, **values)
    bounds = tuple(engine.run.marker("spectrum", "bounds-whole")["bounds"])
    made = rows.Rows("whole", 150, "f8", bounds)
    assert (made.blocks > 4) == (nonzeros == 700)
    for at in range(made.blocks):
        block = rows.load_rows(engine.run, made, at)
        assert block.has_canonical_format
        np.testing.assert_array_equal(block.toarray(), expected[bounds[at] : bounds[at + 1]].toarray())


@pytest.mark.parametrize("single", [2**26, 100])
def test_steps_in_rounds_of_tasks_give_the_bits_of_single_tasks(
    engine: Engine, another: Callable[[int], Engine], monkeypatch: pytest.MonkeyPatch, single: int
) -> None:
    n, pairs = giant_and_small()
    reference = another(2)
    facts_of(reference, n, pairs, **GIANT)
    many_edges_in_files(monkeypatch)
    monkeypatch.setattr(rows, "SINGLE", single)
    apart = another(2)
    facts = facts_of(apart, n, pairs, **GIANT)
    names = apart.run.marked("spectrum")
    assert len([name for name in names if name.startswith("density-000000-00039-")]) == 4
    assert not [name for name in names if name.startswith("steps-density")]
    together = another(1)
    assert facts_of(together, n, pairs, **GIANT) == facts
    assert_same_tables(tables(together.run), tables(apart.run))
    assert [name for name in together.run.marked("spectrum") if name.startswith("steps-density")]
    monkeypatch.setattr(giant, "_way", lambda *_: (False, True))
    assert facts_of(engine, n, pairs, **GIANT) == facts  # rows that stay in memory
    assert_same_tables(tables(engine.run), tables(apart.run))
    # what is saved of vectors is of the last step alone
    kept = [name for name in apart.run.names("partial", "spectrum") if name.startswith("density-")]
    assert all("-00039-" in name or "-00040-numbers" in name or "left" in name for name in kept)
    assert distance_of(tables(apart.run)["spectrum"], tables(reference.run)["spectrum"]) < 5e-3


@pytest.mark.parametrize(
    ("name", "at", "threads"),
    [
        ("some_steps", 1, 1),
        ("some_steps", 6, 1),
        ("step_in_tasks", 3, 2),
        ("step_in_tasks", 90, 2),
        ("step_in_tasks", 150, 2),
        ("left_over", 1, 2),
        ("gather_rows", 2, 2),
        ("lay_out", 3, 1),
    ],
)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
    another: Callable[[int], Engine], monkeypatch: pytest.MonkeyPatch, name: str, at: int, threads: int
) -> None:
    n, pairs = giant_and_small()
    many_edges_in_files(monkeypatch)
    whole = another(threads)
    facts = facts_of(whole, n, pairs, **GIANT)
    module = next(module for module in (giant, steps, rows) if hasattr(module, name))
    failing = Failing(getattr(module, name), at)
    monkeypatch.setattr(module, name, failing)
    engine = another(threads)
    with pytest.raises(BlockFailed, match="lost"):
        facts_of(engine, n, pairs, **GIANT)
    before = engine.computed["spectrum"]
    assert facts_of(engine, n, pairs, **GIANT) == facts
    assert_same_tables(tables(engine.run), tables(whole.run))
    assert before < engine.computed["spectrum"] <= whole.computed["spectrum"]  # nothing was done twice


def test_another_number_of_workers_takes_over(
    another: Callable[[int], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    n, pairs = giant_and_small()
    many_edges_in_files(monkeypatch)
    whole = another(2)
    facts = facts_of(whole, n, pairs, **GIANT)
    for name, first, then, at in (("step_in_tasks", 2, 1, 110), ("some_steps", 1, 2, 4)):
        module = steps if name == "step_in_tasks" else giant
        engine = another(first)
        with monkeypatch.context() as patch:
            patch.setattr(module, name, Failing(getattr(module, name), at))
            with pytest.raises(BlockFailed, match="lost"):
                facts_of(engine, n, pairs, **GIANT)
        engine = Engine(Threads(then, 10**10), engine.run)
        assert facts_of(engine, n, pairs, **GIANT) == facts
        assert_same_tables(tables(engine.run), tables(whole.run))


# --- the number of clusters ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "expected"), [(7, 7), (1, 1), (0.5, 30), (0.001, 1), (60, 60), (None, 58), ("auto", 58)]
)
def test_a_number_or_share_as_given(engine: Engine, asked: Any, expected: int) -> None:
    pairs = cliques(([3, 4], 0.9), ([10, 20], 0.6))
    facts = facts_of(engine, 60, pairs, clusters__n_clusters=asked)
    assert facts["n_clusters"] == expected
    assert (facts["why"] == "as set") == (asked not in (None, "auto"))


def test_more_clusters_than_readable_images(engine: Engine) -> None:
    write_images(engine.run, 10, broken=[0, 1])
    write_pairs(engine.run, [2], [3], [0.9])
    with pytest.raises(SettingsError, match=r"clusters.n_clusters = 9 is more than the 8 readable images"):
        seal(context_of(engine, some_settings(clusters__n_clusters=9), 10), STAGE)
    assert seal(context_of(engine, some_settings(clusters__n_clusters=0.9), 10), STAGE)["n_clusters"] == 7


def test_the_gap_rule_that_keeps_alike_images_apart_says_so(engine: Engine) -> None:
    # three equal pairs have one eigenvalue: the rule sees one gap
    write_images(engine.run, 10)
    write_pairs(engine.run, *cliques(([1, 2], 0.9), ([3, 4], 0.9), ([5, 6], 0.9)))
    assert seal(context_of(engine, some_settings(), 10), STAGE)["n_clusters"] == 7  # auto: components
    context = context_of(engine, some_settings(spectrum__gap_rule="complement"), 10)
    facts = seal(context, STAGE)
    assert (facts["n_clusters"], facts["near_components"]) == (9, 7)
    assert any("make only 7 components" in note and "n_clusters = 7" in note for note in context.notes)
    context = context_of(engine, some_settings(clusters__n_clusters=9), 10)
    seal(context, STAGE)
    assert not any("make only" in note for note in context.notes)


def test_the_literal_rule(engine: Engine) -> None:
    facts = facts_of(engine, 10, cliques(([1, 2], 0.9), ([3, 4], 0.6)), spectrum__gap_rule="literal")
    assert (facts["n_clusters"], facts["rule"], facts["gaps"]["count"]) == (2, "literal", 2)


@pytest.mark.parametrize("method", ["join", "all"])
def test_above_5000_images_auto_is_the_components_at_min_similarity(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(spectrum, "GAPS_UP_TO", 58)
    near, far = cliques(([3, 4, 5], 0.9), ([10, 20], 0.6)), cliques((list(range(30, 60)), 0.4))
    pairs = tuple(np.concatenate(column) for column in zip(near, far))
    write_images(engine.run, 60, broken=[0, 1])
    write_pairs(engine.run, *pairs, min_similarity=0.5)
    context = context_of(engine, some_settings(candidates__method=method), 60)
    facts = seal(context, STAGE)
    assert facts["why"].startswith("the components" if method == "join" else "3 of the 57 gaps")
    monkeypatch.setattr(spectrum, "GAPS_UP_TO", 57)
    context = context_of(engine, some_settings(candidates__method=method), 60)
    facts = seal(context, STAGE)
    # 58 readable images, 5 of them in two groups; the graph of all pairs has the clique of 30 besides
    assert facts["n_clusters"] == 55
    assert facts["n_components"] == (55 if method == "join" else 26)
    (note,) = [note for note in context.notes if "n_clusters" in note]
    most = int(facts["largest"] / 0.4)
    assert "the components at min_similarity" in note
    assert f"at most {most} gaps can exceed gamma = 0.4" in facts["why"]
    assert f"rule complement would give {58 - facts['gaps']['count']}" in facts["why"]
    assert facts["gaps"]["count"] <= most


# --- memory, and the paper ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"candidates__method": "all"},
        {"candidates__method": "all", "spectrum__method": "lanczos"},
        {"candidates__method": "all", "spectrum__exact": 100, "spectrum__probes": 4, "spectrum__steps": 20},
    ],
)
def test_memory_stays_within_what_is_promised(engine: Engine, values: dict[str, Any]) -> None:
    n = 700
    write_images(engine.run, n)
    write_pairs(engine.run, *on_a_sphere(n), parts=20)
    context = context_of(engine, some_settings(**values), n)
    need = STAGE.need(context.known, context.settings, 2)
    tracemalloc.start()
    try:
        STAGE.run(context)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * need.task + need.driver


@pytest.mark.slow
def test_the_figures_of_the_paper(engine: Engine, data: Path) -> None:
    facts = facts_of(engine, 500, aquarium_pairs(data), least=0.7, candidates__method="all")
    assert facts["gaps"] == {"count": 46, "lower": 46, "upper": 46}
    assert facts["n_clusters"] == 454
    assert facts["largest"] == pytest.approx(107.504, abs=5e-4)
    assert facts["zeros"] == {"count": 1, "error": 0, "components": 1}
    curve = tables(engine.run)["gaps_curve"].set_index("gamma")
    assert curve.loc[0.4].tolist() == [454, 46]
