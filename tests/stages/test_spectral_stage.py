"""Clusters of the similarity graph: shares of components, leaders without chains, medoids, and what is refused."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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

from daskim.compute.threads import Threads
from daskim.engine import Engine
from daskim.errors import BlockFailed, SettingsError
from daskim.kernels.embedding import spectral_clusters
from daskim.kernels.graph import similarity_matrix
from daskim.stages import spectral, spectrum
from daskim.stages.spectral import parts as spectral_parts
from daskim.stages.spectrum import graph
from daskim.store import Run


def clusters_of(
    engine: Engine,
    n: int,
    pairs: Pairs,
    *,
    least: float = 0.5,
    broken: tuple[int, ...] = (),
    source: Any = None,
    seed: int = 0,
    **values: Any,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table `clusters` by row and the facts."""
    write_images(engine.run, n, broken=broken)
    write_pairs(engine.run, *pairs, min_similarity=least, source=source, seed=seed)
    context = context_of(engine, some_settings(**values), n)
    seal(context, spectrum.STAGE)
    facts = seal(context, spectral.STAGE)
    return engine.run.read_table("clusters").to_pandas().set_index("row"), facts


def members(table: pd.DataFrame) -> set[tuple[int, ...]]:
    """Clusters of several images."""
    groups = table[table["cluster"] >= 0].groupby("cluster").groups.values()
    return {tuple(sorted(group)) for group in groups if len(group) > 1}


def check(table: pd.DataFrame, facts: dict[str, Any], n: int, broken: tuple[int, ...] = ()) -> None:
    """What holds for every clustering."""
    assert table.index.tolist() == list(range(n))
    good = table.drop(index=list(broken))
    assert (table.loc[list(broken), "cluster"] == -1).all()
    assert (table.loc[list(broken), "size"] == 0).all()
    firsts = good["cluster"].drop_duplicates().tolist()
    assert firsts == list(range(len(firsts)))  # numbered by the first image
    np.testing.assert_array_equal(good["size"], good.groupby("cluster")["cluster"].transform("size"))
    assert (good["distance"] >= 0).all()
    assert (good.loc[good["size"] == 1, "distance"] == 0).all()
    sizes = good.groupby("cluster").size()
    assert facts["n_clusters"] == len(sizes)
    assert facts["n_several"] == (sizes > 1).sum()
    assert facts["largest"] == sizes.max()


# --- spectral -----------------------------------------------------------------------------------------------------


def test_components_are_clusters_where_there_are_as_many(engine: Engine) -> None:
    pairs = cliques(([1, 5, 8], 0.8), ([2, 7], 0.6))
    pairs = tuple(np.append(column, more) for column, more in zip(pairs, (8, 9, 0.7)))  # 9 hangs on 8
    table, facts = clusters_of(engine, 11, pairs, broken=(4,), clusters__n_clusters=6)
    check(table, facts, 11, (4,))
    assert members(table) == {(1, 5, 8, 9), (2, 7)}
    assert facts["by"] == "spectral"
    assert facts["cut_components"] == 0
    assert not engine.run.marked("spectral")  # no eigenvectors were needed
    # 1 - mean similarity to the others, those without an edge counting 0
    expected = {1: 1 - 1.6 / 3, 5: 1 - 1.6 / 3, 8: 1 - 2.3 / 3, 9: 1 - 0.7 / 3, 2: 0.4, 7: 0.4, 0: 0.0}
    assert table["distance"].loc[list(expected)].tolist() == pytest.approx(list(expected.values()))


def test_fewer_clusters_than_components(engine: Engine) -> None:
    with pytest.raises(SettingsError, match="5 spectral clusters are fewer than the 7 components") as error:
        clusters_of(engine, 10, cliques(([1, 5, 8], 0.8), ([2, 7], 0.6)), clusters__n_clusters=5)
    assert "clusters.n_clusters to 7" in error.value.hint
    assert "threshold or medoids" in error.value.hint


def two_communities() -> Pairs:
    """Images 0..7 and 8..15 with a weak link between them, a pair (16, 17), and 18, 19 alone."""
    pairs = cliques((list(range(8)), 0.9), (list(range(8, 16)), 0.8), ([16, 17], 0.6))
    return tuple(np.append(column, more) for column, more in zip(pairs, (7, 8, 0.5)))  # type: ignore[return-value]


def test_the_share_of_each_component_by_the_merged_spectrum(engine: Engine) -> None:
    # 4 components; the smallest eigenvalue above their zeros is that of the weak link
    table, facts = clusters_of(engine, 20, two_communities(), clusters__n_clusters=5)
    check(table, facts, 20)
    assert members(table) == {tuple(range(8)), tuple(range(8, 16)), (16, 17)}
    assert (facts["n_components"], facts["cut_components"], facts["largest_share"]) == (4, 1, 2)
    inside = table.loc[:7, "distance"]
    assert inside.iloc[7] == inside.max()  # the image at the link is the farthest from the middle


@pytest.mark.parametrize("wanted", [4, 5, 6, 8, 12, 19, 20])
def test_exactly_as_many_clusters_as_asked(engine: Engine, wanted: int) -> None:
    table, facts = clusters_of(engine, 20, two_communities(), clusters__n_clusters=wanted)
    check(table, facts, 20)
    assert facts["n_clusters"] == facts["n_clusters_asked"] == wanted


def test_one_component_is_clustered_as_by_the_kernel(engine: Engine) -> None:
    pairs = on_a_sphere(120, twins=6)
    table, facts = clusters_of(engine, 120, pairs, candidates__method="all", clusters__n_clusters=0.9)
    found = spectral_clusters(similarity_matrix(120, *pairs), 108)
    np.testing.assert_array_equal(table["cluster"], found.label)
    np.testing.assert_allclose(table["distance"], found.distance, atol=1e-12)
    check(table, facts, 120)
    for twin in range(0, 12, 2):
        assert table["cluster"][twin] == table["cluster"][twin + 1]


def test_neither_parts_nor_workers_matter(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = above(on_a_sphere(300, twins=5), 0.85)
    first, facts = clusters_of(engine, 300, pairs, least=0.85, clusters__n_clusters=260)
    check(first, facts, 300)
    assert facts["cut_components"] > 1
    other = Engine(Threads(1, 10**10), Run(str(tmp_path / "other")))
    table, again = clusters_of(other, 300, pairs, least=0.85, seed=3, clusters__n_clusters=260)
    pd.testing.assert_frame_equal(table, first, check_exact=True)
    assert again == facts
    monkeypatch.setattr(graph, "WORK", 1e5)
    packed = Engine(Threads(2, 10**10), Run(str(tmp_path / "packed")))
    table, again = clusters_of(packed, 300, pairs, least=0.85, seed=3, clusters__n_clusters=260)
    np.testing.assert_array_equal(table["cluster"], first["cluster"])
    assert len([name for name in packed.run.marked("spectral") if name.startswith("shares-")]) > 2


def test_a_run_that_was_stopped_goes_on(engine: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(graph, "WORK", 1e5)
    pairs = above(on_a_sphere(300, twins=5), 0.85)
    whole = Engine(Threads(1, 10**10), Run(str(tmp_path / "whole")))
    table, facts = clusters_of(whole, 300, pairs, least=0.85, clusters__n_clusters=260)
    monkeypatch.setattr(spectral_parts, "cluster_part", Failing(spectral_parts.cluster_part, 2))
    with pytest.raises(BlockFailed, match="lost"):
        clusters_of(engine, 300, pairs, least=0.85, clusters__n_clusters=260)
    again, more = clusters_of(engine, 300, pairs, least=0.85, clusters__n_clusters=260)
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    assert more == facts
    assert engine.computed["spectral"] <= whole.computed["spectral"]


GIANT: dict[str, Any] = {"least": 0.3, "spectrum__exact": 100, "spectrum__steps": 60, "spectrum__probes": 16}


def test_the_share_of_a_giant_is_that_of_its_density(engine: Engine, tmp_path: Path) -> None:
    n, pairs = giant_and_small()
    exact = Engine(Threads(1, 10**10), Run(str(tmp_path / "exact")))
    _, facts = clusters_of(exact, n, pairs, least=0.3, clusters__n_clusters=60)
    found, about = clusters_of(engine, n, pairs, **GIANT, clusters__n_clusters=60)
    check(found, about, n)
    assert about["n_clusters"] == 60
    assert facts["largest_share"] > 10
    assert abs(about["largest_share"] - facts["largest_share"]) <= 0.02 * 150 + 1
    # one that is not cut needs no spectrum
    found, about = clusters_of(
        Engine(Threads(1, 10**10), Run(str(tmp_path / "one"))), n, pairs, **GIANT, clusters__n_clusters=27
    )
    assert (about["cut_components"], about["largest"]) == (0, 150)


@pytest.mark.parametrize("most", [5, 1000])
def test_a_giant_that_cannot_be_cut_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    n, pairs = giant_and_small()
    monkeypatch.setattr(spectral_parts, "DENSE_ROWS", 100)
    monkeypatch.setattr(spectral_parts, "SPARSE_CLUSTERS", most)
    if most == 1000:  # the kernel finds it out: ARPACK did not converge

        def never(*args: Any, **kwargs: Any) -> None:
            raise ValueError("too close together for ARPACK")

        monkeypatch.setattr(spectral_parts, "spectral_clusters", never)
    match = "at most 5 are possible" if most == 5 else "too close together"
    with pytest.raises(SettingsError, match=match) as error:
        clusters_of(engine, n, pairs, **GIANT, clusters__n_clusters=60)
    assert "clusters.by = threshold or medoids" in error.value.hint
    assert "min_similarity" in error.value.hint


@pytest.mark.slow
def test_the_identical_pairs_of_the_paper(engine: Engine, data: Path) -> None:
    n, pairs = 500, aquarium_pairs(data)
    table, facts = clusters_of(engine, n, pairs, least=0.7, candidates__method="all")
    check(table, facts, n)
    assert facts["n_clusters"] == 454
    a, b, similarity = pairs
    same = similarity > 0.999
    assert same.sum() == 5
    cluster = table["cluster"].to_numpy()
    np.testing.assert_array_equal(cluster[a[same]], cluster[b[same]])


# --- threshold ----------------------------------------------------------------------------------------------------


def test_leaders_make_no_chain(engine: Engine) -> None:
    # a path 0-1-2-3-4: 1, 2, 3 have two pairs each, 1 is asked first; 3 leads what is left
    pairs = (np.arange(4), np.arange(1, 5), np.array([0.9, 0.8, 0.6, 0.7]))
    table, facts = clusters_of(engine, 6, pairs, broken=(5,), clusters__by="threshold")
    check(table, facts, 6, (5,))
    assert members(table) == {(0, 1, 2), (3, 4)}
    assert table["distance"].tolist() == pytest.approx([0.1, 0, 0.2, 0, 0.3, 0])
    assert facts["by"] == "threshold"


def test_an_image_goes_to_the_most_similar_leader(engine: Engine) -> None:
    # 0 and 1 lead (four pairs each), 2 has a pair with both
    pairs = tuple(
        np.array(column) for column in zip(*[(0, k, 0.9) for k in (2, 3, 4, 5)], *[(1, k, 0.95) for k in (2, 6, 7, 8)])
    )
    table, _ = clusters_of(engine, 9, pairs, clusters__by="threshold")
    assert members(table) == {(0, 3, 4, 5), (1, 2, 6, 7, 8)}
    assert table["distance"][2] == pytest.approx(0.05)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**31), least=st.sampled_from([0.3, 0.5, 0.8]), everything=st.booleans())
def test_everyone_is_above_the_threshold_to_the_leader(
    tmp_path_factory: pytest.TempPathFactory, seed: int, least: float, everything: bool
) -> None:
    n = 40
    a, b, similarity = on_a_sphere(n, seed, twins=4)
    if not everything:
        a, b, similarity = above((a, b, similarity), 0.2)
    engine = Engine(Threads(1, 10**10), Run(str(tmp_path_factory.mktemp("made") / "run")))
    method = "all" if everything else "join"
    table, facts = clusters_of(
        engine, n, (a, b, similarity), least=least, clusters__by="threshold", candidates__method=method
    )
    check(table, facts, n)
    dense = np.eye(n)
    dense[a, b] = dense[b, a] = similarity
    for _, group in table.groupby("cluster"):
        (leader,) = group.index[group["distance"] == 0][:1]
        np.testing.assert_allclose(1 - dense[leader, group.index], group["distance"], atol=1e-15)
        assert (dense[leader, group.index] >= least).all()
    leaders = table.index[table["distance"] == 0]
    first = leaders[~table.loc[leaders, "cluster"].duplicated()]
    apart = dense[np.ix_(first, first)] - np.eye(len(first))
    assert (apart < least).all()  # no two leaders are near-duplicates
    for twin in range(0, 8, 2):
        assert table["cluster"][twin] == table["cluster"][twin + 1]


def test_a_number_of_clusters_does_nothing_to_a_threshold_and_is_told(engine: Engine) -> None:
    write_images(engine.run, 5)
    write_pairs(engine.run, [0], [1], [0.9])
    context = context_of(engine, some_settings(clusters__by="threshold", clusters__n_clusters=2), 5)
    seal(context, spectrum.STAGE)
    assert seal(context, spectral.STAGE)["n_clusters"] == 4
    assert any("min_similarity decides" in note for note in context.notes)


# --- medoids ------------------------------------------------------------------------------------------------------


def test_medoids_of_planted_stars(engine: Engine) -> None:
    # 3 and 8 are like all of theirs, which are like one another little or not at all
    stars = [(3, k, 0.9) for k in (4, 5, 6)] + [(k, 8, 0.8) for k in (7, 9)] + [(4, 5, 0.3), (6, 7, 0.2)]
    pairs = tuple(np.array(column) for column in zip(*[(min(a, b), max(a, b), s) for a, b, s in stars]))
    table, facts = clusters_of(engine, 10, pairs, clusters__by="medoids", clusters__n_clusters=5)
    check(table, facts, 10)
    assert members(table) == {(3, 4, 5, 6), (7, 8, 9)}
    assert table["distance"].tolist() == pytest.approx([0, 0, 0, 0, 0.1, 0.1, 0.1, 0.2, 0, 0.2])
    assert (facts["alone"], facts["n_clusters_asked"]) == (0, 5)


def test_an_image_that_no_medoid_is_listed_with_stays_alone(engine: Engine) -> None:
    pairs = cliques(([0, 1, 2, 3], 0.9))
    table, facts = clusters_of(engine, 6, pairs, clusters__by="medoids", clusters__n_clusters=1)
    check(table, facts, 6)
    assert members(table) == {(0, 1, 2, 3)}
    assert (facts["alone"], facts["n_clusters"], facts["n_clusters_asked"]) == (2, 3, 1)


@pytest.mark.parametrize("wanted", [2, 3, 5, 7, 8, 9])
def test_exact_duplicates_share_a_medoid(engine: Engine, wanted: int) -> None:
    # (0, 4), (1, 5), (2, 6) are copies; copies have the same pairs
    base = {(0, 1): 0.7, (1, 2): 0.6, (2, 3): 0.55, (3, 7): 0.8, (7, 8): 0.4}
    copies = {0: (0, 4), 1: (1, 5), 2: (2, 6)}
    listed = {(0, 4): 1.0, (1, 5): 1.0, (2, 6): 1.0}
    for (one, other), value in base.items():
        for i in copies.get(one, (one,)):
            for j in copies.get(other, (other,)):
                listed[min(i, j), max(i, j)] = value
    a, b = (np.array(column) for column in zip(*listed))
    source = ["exact" if value == 1 else "join" for value in listed.values()]
    pairs = (a, b, np.array(list(listed.values())))
    for by in ("medoids", "threshold"):
        table, facts = clusters_of(engine, 9, pairs, source=source, clusters__by=by, clusters__n_clusters=wanted)
        check(table, facts, 9)
        for one, other in copies.values():
            assert table["cluster"][one] == table["cluster"][other]
            assert table["distance"][one] == table["distance"][other]
    assert facts["n_clusters_asked"] == wanted


@pytest.mark.parametrize("by", ["spectral", "threshold", "medoids"])
def test_memory_stays_within_what_is_promised(engine: Engine, by: str) -> None:
    n = 500
    write_images(engine.run, n)
    a, b, similarity = on_a_sphere(n)
    write_pairs(engine.run, a, b, np.abs(similarity), min_similarity=0.3)
    context = context_of(engine, some_settings(clusters__by=by, candidates__method="all"), n)
    seal(context, spectrum.STAGE)
    need = spectral.STAGE.need(context.known, context.settings, 2)
    tracemalloc.start()
    try:
        spectral.STAGE.run(context)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * need.task + need.driver


@pytest.mark.parametrize("by", ["spectral", "threshold", "medoids"])
def test_without_a_pair_everyone_is_alone(engine: Engine, by: str) -> None:
    none = (np.zeros(0), np.zeros(0), np.zeros(0))
    table, facts = clusters_of(engine, 4, none, broken=(0,), clusters__by=by)
    check(table, facts, 4, (0,))
    assert table["cluster"].tolist() == [-1, 0, 1, 2]
