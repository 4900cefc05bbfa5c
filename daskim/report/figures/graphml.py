"""The graph of near-duplicates as GraphML, for Gephi, Cytoscape, networkx and the like."""

from __future__ import annotations

import io

import networkx as nx

from daskim.report.figures.graph import graph_of
from daskim.report.words import visible
from daskim.results import FinishedRun

__all__ = ["EDGES", "graphml_of"]

# Edges that are written, the most alike first.
EDGES = 200_000


def graphml_of(run: FinishedRun) -> bytes | None:
    """Nodes (row) with id, label, split, cluster and decision; edges with similarity. None where no two are alike.

    Characters that XML forbids, and others that do not show, are written as codes.
    """
    if not run.has("pairs") and not run.has("leakage"):
        return None
    found, total = graph_of(run, EDGES)
    if not total:
        return None
    rows = sorted(found)
    graph = nx.Graph(edges=total)
    facts = _facts(run, rows)
    graph.add_nodes_from((row, facts[row]) for row in rows)
    edges = ((min(a, b), max(a, b), value) for a, b, value in found.edges(data="similarity"))
    graph.add_weighted_edges_from(sorted(edges), weight="similarity")
    written = io.BytesIO()
    nx.write_graphml_xml(graph, written)
    return written.getvalue()


def _facts(run: FinishedRun, rows: list[int]) -> dict[int, dict[str, str | int]]:
    images = run.table("images", ["row", "id", "label", "split"]).set_index("row").loc[rows]
    facts: dict[int, dict[str, str | int]] = {row: {} for row in rows}
    for name in ("id", "label", "split"):
        for row, value in zip(rows, images[name].tolist()):
            if isinstance(value, str):
                facts[row][name] = visible(value)
    if run.has("clusters"):
        cluster = run.table("clusters", ["row", "cluster"]).set_index("row").loc[rows, "cluster"]
        for row, value in zip(rows, cluster.tolist()):
            facts[row]["cluster"] = int(value)
    if run.has("plan"):
        plan = run.table("plan", ["row", "decision"]).set_index("row").loc[rows, "decision"]
        for row, value in zip(rows, plan.tolist()):
            facts[row]["decision"] = str(value)
    return facts
