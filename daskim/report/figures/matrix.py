"""The similarity matrix, in the order of the labels and re-ordered so that alike images stand together."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from daskim.report.facts import NO_LABEL
from daskim.report.figures.alike import Alike, alike_of, cluster_of
from daskim.report.figures.ink import BLUE, ORANGE, Drawing, Ink, bare, panel, sheet
from daskim.report.words import counted
from daskim.results import FinishedRun

__all__ = ["draw", "spectral_order"]

# Images in the matrix, and cells along a side of the picture: more do not show, and pictures are bounded.
MOST, SIDE = 512, 256
# Steps of the colour: fewer colours pack better.
STEPS = 6
# Labels that are written beside the matrix, and the least share of the side that has room for one.
NAMED, ROOM = 8, 0.05


def draw(run: FinishedRun, ink: Ink) -> Drawing | None:
    """Two pictures of one matrix: by label, and by cluster in spectral order."""
    alike = alike_of(run, MOST)
    if alike is None:
        return None
    label = _labels(run, alike.rows)
    cluster = cluster_of(run)[alike.rows]
    by_label = np.lexsort((alike.rows, label.astype(str)))
    by_cluster = spectral_order(alike.matrix, cluster)
    named = len(set(label)) > 1
    left, gap = (0.85 if named else 0.1), 0.2
    side = (5.7 - left - gap) / 2
    canvas = sheet(side + 0.45)
    for index, (order, title) in enumerate(
        [(by_label, "by label" if named else "as listed"), (by_cluster, "by cluster, in spectral order")]
    ):
        start = left + index * (side + gap)
        axes = panel(canvas, start, 0.1, 5.8 - start - side, 0.35)
        _picture(axes, alike, order, title)
        if index == 0 and named:
            _names(axes, label[order], ink)
    above, of = _counts(alike)
    told = f"{counted(len(alike.rows), 'image')}" + ("" if alike.whole else " of the largest clusters")
    near = f"; {above:,} of {counted(of, 'pair')} at or above {alike.least:g}" if alike.least is not None else ""
    inside = _inside(alike.matrix, cluster)
    mean = f"; mean {inside:.2f} within clusters" if inside is not None else ""
    return Drawing(
        canvas,
        "Similarity matrix",
        f"Each row and column is an image: {'the whole set' if alike.whole else told}. The stronger the blue, the more "
        f"alike ({alike.measure})"
        + (f"; orange from {alike.least:g} on" if alike.least is not None else "")
        + ". Blocks on the diagonal are clusters.",
        f"Similarity ({alike.measure}) of {told}{near}{mean}.",
    )


def spectral_order(matrix: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """An order in which clusters stay together, and alike clusters stand side by side.

    Images are ordered by the second eigenvector of the normalised Laplacian of the similarities (Barnard, Pothen and
    Simon 1995); a little weight between all makes the graph one piece.
    """
    weight = np.clip(np.nan_to_num(matrix), 0.0, None) + 1e-3
    degree = weight.sum(axis=1) ** -0.5
    last = len(weight) - 2
    with threadpool_limits(1):  # the same bits on any number of cores
        _, vectors = eigh(weight * degree[:, None] * degree[None, :], subset_by_index=[last, last])
    place = vectors[:, 0] * degree
    place *= 1.0 if place[np.argmax(np.abs(place))] > 0 else -1.0
    place = np.round(place, 9)
    _, inverse = np.unique(cluster, return_inverse=True)
    mean = np.bincount(inverse, place) / np.bincount(inverse)
    return np.lexsort((np.arange(len(place)), place, inverse, mean[inverse]))


def _labels(run: FinishedRun, rows: np.ndarray) -> np.ndarray:
    column = run.table("images", ["row", "label"]).set_index("row")["label"].reindex(rows)
    return column.astype(object).where(column.notna(), NO_LABEL).to_numpy(dtype=object)


def _picture(axes: Axes, alike: Alike, order: np.ndarray, title: str) -> None:
    matrix = alike.matrix[np.ix_(order, order)].copy()
    np.fill_diagonal(matrix, np.nan)  # an image is like itself: that would hide what stands beside it
    cells = _smaller(matrix)
    axes.imshow(_coloured(cells, alike.least), interpolation="none", aspect="auto")
    size = len(cells)
    bare(axes)
    axes.add_patch(Rectangle((-0.5, -0.5), size, size, fill=False, edgecolor=BLUE, linewidth=0.6, alpha=0.5))
    axes.set_xlim(-0.5, size - 0.5)
    axes.set_ylim(size - 0.5, -0.5)
    axes.set_title(title, fontsize=9, loc="left")


def _smaller(matrix: np.ndarray) -> np.ndarray:
    """The highest similarity of each square of cells, so that no near-duplicate vanishes."""
    step = -(-len(matrix) // SIDE)
    known = np.nan_to_num(matrix)
    if step == 1:
        return known
    size = -(-len(known) // step)
    padded = np.zeros((size * step, size * step))
    padded[: len(known), : len(known)] = known
    return padded.reshape(size, step, size, step).max(axis=(1, 3))


def _coloured(matrix: np.ndarray, least: float | None) -> np.ndarray:
    """Blue that covers the more, the more alike; orange at and above `least`; RGBA, uint8."""
    out = np.empty((*matrix.shape, 4), dtype=np.uint8)
    out[..., :3] = np.round(255 * np.array(to_rgb(BLUE)))
    level = np.clip(matrix, 0.0, 1.0) / (least if least is not None and least > 0 else 1.0)
    out[..., 3] = np.round(np.round(np.clip(level, 0.0, 1.0) * STEPS) / STEPS * 255)
    if least is not None:
        out[matrix >= least] = [*(round(255 * value) for value in to_rgb(ORANGE)), 255]
    out[out[..., 3] == 0] = 0
    return out


def _names(axes: Axes, label: np.ndarray, ink: Ink) -> None:
    """Names of the largest labels beside their rows."""
    start = np.flatnonzero(np.r_[True, label[1:] != label[:-1]])
    size = np.diff(np.r_[start, len(label)])
    cells = axes.get_ylim()[0] + 0.5
    for at in np.argsort(-size, kind="stable")[:NAMED].tolist():
        if size[at] < ROOM * len(label):
            break
        middle = (start[at] + size[at] / 2) / len(label) * cells - 0.5
        axes.text(
            -0.02, middle, ink.label(label[start[at]], 12), transform=axes.get_yaxis_transform(), ha="right",
            va="center", fontsize=8,
        )  # fmt: skip


def _counts(alike: Alike) -> tuple[int, int]:
    """Pairs at or above the threshold, and all pairs."""
    value = alike.matrix[np.triu_indices(len(alike.rows), 1)]
    return int((value >= alike.least).sum()) if alike.least is not None else 0, len(value)


def _inside(matrix: np.ndarray, cluster: np.ndarray) -> float | None:
    """Mean similarity of the compared pairs of one cluster."""
    same = np.triu(cluster[:, None] == cluster[None, :], 1) & np.isfinite(matrix)
    return float(matrix[same].mean()) if same.any() else None
