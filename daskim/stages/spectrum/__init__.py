"""The spectrum of the similarity graph, and the number of clusters it suggests.

Components come first: those of up to `spectrum.exact` images are solved, larger ones (with method = lanczos all images
that have an edge, as one block) are seen through products with random vectors. Leaves `components` and `graph`
(`daskim.stages.spectrum.graph`), `spectrum` and `gaps_curve` (`daskim.stages.spectrum.facts`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from daskim.errors import SettingsError
from daskim.settings import Settings
from daskim.stages import Context, Need, Size, Stage
from daskim.stages.spectrum.edges import HELD, NAME, PIECE, part_name
from daskim.stages.spectrum.exact import exact_values
from daskim.stages.spectrum.facts import Spectra, checks, distance, write_tables
from daskim.stages.spectrum.giant import BASIS_BYTES, lanczos_spectra
from daskim.stages.spectrum.graph import Graph, similarity_graph
from daskim.stages.spectrum.rows import GROUP, NONZEROS, SINGLE, Giant
from daskim.statuses import READABLE

__all__ = ["GAPS_UP_TO", "LINKS", "STAGE", "wanted_clusters"]

# Images up to which n_clusters = auto reads the gaps: there are at most lambda_max / gamma of them, whatever n is.
GAPS_UP_TO = 5000
# Edges for each image that memory is planned for, but with candidates.method = all. Near-duplicates in CIFAR-10 are
# fewer than one for each image.
LINKS = 8


def wanted_clusters(asked: int | float | str | None, n: int) -> int | None:
    """The number of clusters of n readable images: as given, or the share rounded, at least 1; None for auto.

    Raises
    ------
    SettingsError
        More clusters than images.
    """
    if asked is None or isinstance(asked, str):
        return None
    count = asked if isinstance(asked, int) else max(1, round(asked * n))
    if count > n:
        raise SettingsError(f"clusters.n_clusters = {count} is more than the {n} readable images", "Ask for fewer.")
    return count


def _run(context: Context) -> dict[str, Any]:
    run, settings = context.run, context.settings
    images = run.read_table("images", ["row", "status"]).to_pandas()
    rows = np.sort(images.loc[images["status"].isin(READABLE), "row"].to_numpy(dtype=np.int64))
    fixed = wanted_clusters(settings.clusters.n_clusters, len(rows))
    near = float(run.facts("similarities")["min_similarity"])
    graph = similarity_graph(
        run,
        rows,
        near,
        everything=settings.candidates.method == "all",
        negative=settings.similarities.negative,
        alone=settings.spectrum.exact,
    )
    spectra, facts = _spectra(context, graph)
    write_tables(run, spectra, settings.spectrum.gamma)
    facts.update(checks(spectra, graph))
    gaps = spectra.gap_count(settings.spectrum.gamma)
    count, why = _number(settings, graph, spectra, near) if fixed is None else (fixed, "as set")
    context.say(
        f"spectrum: {graph.edges:,} pairs link {graph.n:,} images; components: {len(graph.sizes):,}, the largest of "
        f"{int(graph.sizes.max()):,} images"
    )
    context.say(f"spectrum: n_clusters = {count:,} ({why.partition('. ')[0]})")
    if fixed is None and count > graph.near_components:
        context.say(
            f"spectrum: the pairs at min_similarity = {near:g} make only {graph.near_components:,} components: some of "
            f"them end up in different clusters; clusters.n_clusters = {graph.near_components} is as many as components"
        )
    return {
        **facts,
        "near_components": graph.near_components,
        "gaps": {"count": gaps.count, "lower": gaps.lower, "upper": gaps.upper},
        "gamma": settings.spectrum.gamma,
        "rule": settings.spectrum.gap_rule,
        "n_clusters": count,
        "why": why,
    }


def _spectra(context: Context, graph: Graph) -> tuple[Spectra, dict[str, Any]]:
    """Eigenvalues or their density, block by block, and facts about the graph."""
    settings = context.settings.spectrum
    largest = [int(graph.inside(part).max()) for part in range(len(graph.pieces))]
    too_large = [part for part, size in enumerate(largest) if size > settings.exact]
    if too_large and settings.method == "exact":
        raise SettingsError(
            f"spectrum.method = exact: a component has {max(largest):,} images, more than spectrum.exact = "
            f"{settings.exact:,}",
            "Take spectrum.method = auto, raise spectrum.exact (32 bytes times its square), or raise "
            "similarities.min_similarity until components are smaller.",
        )
    sizes = np.diff(graph.start).tolist()
    if settings.method == "lanczos":
        whole = Giant("whole", tuple(graph.pieces), tuple(graph.links), tuple(sizes))
        giants = [whole] if graph.pieces else []
    else:
        giants = [
            Giant(part_name(part), (graph.pieces[part],), (graph.links[part],), (sizes[part],)) for part in too_large
        ]
    cheap = [part for part in range(len(graph.pieces)) if part not in set(too_large)]
    beside = settings.method == "lanczos" and graph.n <= settings.exact
    values = exact_values(context, graph, cheap if settings.method != "lanczos" or beside else [])
    density, gaps = lanczos_spectra(context, giants)
    single = graph.part[graph.component] < 0
    known = single if settings.method == "lanczos" else np.isfinite(values)
    size = graph.sizes[graph.component]
    spectra = Spectra(values[known], size[known], density, gaps, 2.0 * float(graph.degree.max()))
    return spectra, {
        "images": graph.n,
        "edges": graph.edges,
        "n_components": len(graph.sizes),
        "largest_component": int(graph.sizes.max()),
        "n_single": int(single.sum()),
        "by_lanczos": sum(giant.images for giant in giants),
        "distance": distance(spectra, values) if beside and giants else None,
    }


def _number(settings: Settings, graph: Graph, spectra: Spectra, near: float) -> tuple[int, str]:
    """n_clusters = auto: a number, and why it is that."""
    everything = settings.candidates.method == "all"
    gamma, rule = settings.spectrum.gamma, settings.spectrum.gap_rule
    gaps = spectra.gap_count(gamma)
    told = f"{gaps.count:,} of the {graph.n - 1:,} gaps between eigenvalues exceed gamma = {gamma:g}"
    if gaps.lower < gaps.upper:
        told += f", as far as Lanczos resolves them: between {gaps.lower:,} and {gaps.upper:,}"
    complement = graph.n - gaps.count
    few = graph.n <= GAPS_UP_TO
    if rule == "literal":
        return max(1, gaps.count), f"{told}; rule literal"
    if rule == "complement" or (rule == "auto" and few and everything):
        return complement, f"{told}; rule complement"
    top = spectra.largest()[0]
    if not everything:
        why = "images that are alike share eigenvalues, so that gaps tell little of a graph of near-duplicates only"
    else:
        why = f"gaps tell little of more than {GAPS_UP_TO:,} images"
    return graph.near_components, (
        f"the components at min_similarity = {near:g}: {why}. Eigenvalues reach {top:.4g}, so that at most "
        f"{int(top / gamma):,} gaps can exceed gamma = {gamma:g}; {told}, and rule complement would give {complement:,}"
    )


def _need(size: Size, settings: Settings, workers: int) -> Need:
    n, spectrum = size.n, settings.spectrum
    possible = n * (n - 1) // 2
    listed = possible if settings.candidates.method == "all" else min(LINKS * n, possible)
    edges = min(listed, settings.candidates.most_pairs(n))
    solved = min(n, spectrum.exact)
    piece = 150 * min(PIECE, edges)
    task, process = 32 * solved**2 + piece, 0
    driver = 120 * min(HELD, edges) + 300 * n + piece
    blocks, write = 1 + n // 1000, 40 * edges + 80 * n
    if n > spectrum.exact or spectrum.method == "lanczos":
        entries = 2 * edges + n
        block = min(NONZEROS, entries)
        operand = n * spectrum.probes * (4 if entries > SINGLE else 8)
        task = max(task, 110 * min(GROUP, edges), 75 * block, 24 * block + 3 * BASIS_BYTES + 64 * n)
        if workers == 1 or block == entries:
            task = max(task, 24 * block + 5 * operand)
            rounds = 1
        else:
            task = max(task, 24 * block + 3 * operand * block // entries)
            process = operand + 8 * n
            rounds = min(-(-entries // block), 2 * workers)
        blocks += spectrum.steps * rounds + 2 * edges // GROUP + entries // block
        write += 28 * entries + 32 * edges
    return Need(blocks=blocks, read=24 * edges, write=write, task=task, driver=driver, process=process)


STAGE = Stage(
    name=NAME,
    version=2,
    reads=("similarities",),
    settings=("spectrum", "similarities.negative", "clusters.n_clusters", "candidates.method"),
    leaves=("tables/components", "tables/graph", "tables/spectrum", "tables/gaps_curve"),
    run=_run,
    need=_need,
)
