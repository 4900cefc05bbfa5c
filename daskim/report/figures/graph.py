"""The graph of near-duplicates: its groups, drawn one beside the other."""

from __future__ import annotations

from collections.abc import Iterable

import networkx as nx
import numpy as np
from matplotlib.axes import Axes

from daskim.report.figures.ink import BLUE, GREY, ORANGE, Drawing, Ink, bare, legend, panel, sheet, strokes
from daskim.report.near import near_pairs
from daskim.report.words import counted
from daskim.results import FinishedRun

__all__ = ["draw", "graph_of", "laid_out"]

# Images and edges that are drawn, and images of one group: a spring layout takes time like their square.
MOST, EDGES, GROUP = 300, 1500, 80
STEPS = 60
# Side of the square of a single image, at most, as a share of the width.
UNIT = 0.09
COLOURS = (("stays", BLUE), ("may go", GREY), ("alike, labels differ", ORANGE))
SIDES = (("evaluated", BLUE), ("other split", GREY), ("labels differ", ORANGE))


def graph_of(run: FinishedRun, most: int) -> tuple[nx.Graph, int]:
    """Images as nodes, pairs at or above the threshold as edges (`similarity`); at most so many edges, and how many
    there are in all.
    """
    table, total = near_pairs(run, most)
    graph = nx.Graph()
    ends = zip(table["a"].to_pylist(), table["b"].to_pylist(), table["similarity"].to_pylist())
    graph.add_weighted_edges_from(ends, weight="similarity")
    return graph, total


def draw(run: FinishedRun, ink: Ink) -> Drawing | None:
    """The largest connected groups, each laid out by itself, packed into rows."""
    if not run.has("pairs") and not run.has("leakage"):
        return None
    graph, total = graph_of(run, 50_000)
    if not graph.number_of_edges():
        return None
    groups = sorted((sorted(group) for group in nx.connected_components(graph)), key=lambda g: (-len(g), g[0]))
    shown: list[list[int]] = []
    free = MOST
    for group in groups:
        if free < 2 or sum(graph.subgraph(g).number_of_edges() for g in shown) > EDGES:
            break
        shown.append(_core(graph, group, min(GROUP, free)))
        free -= len(shown[-1])
    place, height = laid_out(graph, shown)
    canvas = sheet(5.6 * height + 0.5)
    axes = panel(canvas, 0.1, 0.35, 0.1, 0.1)
    bare(axes)
    axes.set_xlim(0, 1)
    axes.set_ylim(height, 0)
    drawn = graph.subgraph(place)
    edges = sorted((min(a, b), max(a, b), s) for a, b, s in drawn.edges(data="similarity"))
    edges = sorted(edges, key=lambda edge: -edge[2])[:EDGES]
    strokes(axes, [[place[a], place[b]] for a, b, _ in edges], color=GREY, linewidth=0.7, alpha=0.6)
    kinds, names = _kinds(run, sorted(place))
    _dots(axes, place, kinds)
    legend(axes, names)
    images = graph.number_of_nodes()
    part = "" if len(place) == images else f" Drawn: {counted(len(place), 'image')} of the largest groups."
    return Drawing(
        canvas,
        "Graph of near-duplicates",
        f"Each dot is an image, each line a pair at or above the threshold.{part}",
        f"{counted(total, 'pair')} link {counted(images, 'image')} into {counted(len(groups), 'group')}, the largest "
        f"of {len(groups[0]):,}.",
    )


def _core(graph: nx.Graph, group: list[int], most: int) -> list[int]:
    """At most so many images of a group, connected: in the order of their distance from the one with most links."""
    if len(group) <= most:
        return group
    first = max(group, key=lambda node: (graph.degree(node), -node))
    order = [first]
    for _, node in nx.bfs_edges(graph, first, sort_neighbors=sorted):
        order.append(node)
        if len(order) == most:
            break
    return sorted(order)


def laid_out(graph: nx.Graph, groups: list[list[int]]) -> tuple[dict[int, tuple[float, float]], float]:
    """Places of the images in a strip of width 1, and its height: each group a square, as large as it has images."""
    side = [float(np.sqrt(len(group))) for group in groups]
    scale = min(UNIT, 1.0 / max(max(side) * 1.6, float(np.sqrt(sum(s * s for s in side) * 1.9))))
    place: dict[int, tuple[float, float]] = {}
    x = y = shelf = 0.0
    for group, length in zip(groups, side):
        box = length * scale
        if x + box > 1.0:
            x, y, shelf = 0.0, y + shelf, 0.0
        shelf = max(shelf, box)
        for node, (u, v) in _square(graph, group).items():
            place[node] = (x + box * (0.5 + 0.4 * u), y + box * (0.5 + 0.4 * v))
        x += box
    return place, y + shelf


def _square(graph: nx.Graph, group: list[int]) -> dict[int, tuple[float, float]]:
    """A group within [-1, 1]^2."""
    if len(group) == 2:
        return {group[0]: (-0.6, 0.25), group[1]: (0.6, -0.25)}
    part = nx.Graph()
    part.add_nodes_from(group)
    part.add_edges_from(sorted(tuple(sorted(edge)) for edge in graph.subgraph(group).edges()))
    found = nx.spring_layout(part, seed=0, iterations=STEPS, weight=None)
    spread = np.array([found[node] for node in group])
    spread -= (spread.max(axis=0) + spread.min(axis=0)) / 2
    spread /= max(float(np.abs(spread).max()), 1e-9)
    return {node: (float(u), float(v)) for node, (u, v) in zip(group, spread)}


def _kinds(run: FinishedRun, rows: list[int]) -> tuple[dict[int, int], tuple[tuple[str, str], ...]]:
    """Which of three kinds each image is, and their names with their colours."""
    if run.has("leakage"):
        found = run.table("leakage", ["row", "agreement"])
        ours = set(found["row"].tolist())
        contested = set(found.loc[found["agreement"] == "conflict", "row"].tolist())
        return {row: 2 if row in contested else 0 if row in ours else 1 for row in rows}, SIDES
    if not run.has("plan"):
        return dict.fromkeys(rows, 0), COLOURS[:1]
    # of a run that this one is against, images have no decision here
    plan = run.table("plan", ["row", "decision", "rule"]).set_index("row").reindex(rows)
    kind = np.where(plan["rule"] == "influential", 2, np.where(plan["decision"] == "drop", 1, 0))
    return dict(zip(rows, kind.tolist())), COLOURS


def _dots(axes: Axes, place: dict[int, tuple[float, float]], kinds: dict[int, int]) -> None:
    for index, colour in enumerate((BLUE, GREY, ORANGE)):
        some: Iterable[tuple[float, float]] = [place[row] for row in sorted(place) if kinds[row] == index]
        if some:
            x, y = zip(*some)
            axes.plot(x, y, "o", color=colour, markersize=4, markeredgewidth=0)
