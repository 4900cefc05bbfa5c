"""Spectral clustering component by component, by the parts of the graph that the stage `spectrum` left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from daskim.errors import SettingsError
from daskim.kernels.density import stand_in_spectrum
from daskim.kernels.embedding import DENSE_ROWS, SPARSE_CLUSTERS, spectral_clusters
from daskim.kernels.graph import ComponentBlocks, laplacian, similarity_matrix
from daskim.kernels.lanczos import lanczos_start, lanczos_steps, probes, ritz_spectrum
from daskim.kernels.spectral import block_spectra, dense_spectrum, share_clusters
from daskim.settings import Spectrum
from daskim.stages import Context
from daskim.store import Run

__all__ = ["NAME", "by_spectrum"]

NAME = "spectral"
REMEDY = (
    "Take clusters.by = threshold or medoids, fewer clusters.n_clusters, or raise similarities.min_similarity until "
    "components are smaller."
)


@dataclass(frozen=True)
class Parts:
    """The table `components` of the stage `spectrum`, as arrays over the readable images and over the components.

    Attributes
    ----------
    component, degree : ndarray, shape (n,)
    sizes, part : ndarray, shape (components,)
    pieces : dict of str to list of str
        Keys of the table `graph`, by the name of a part.
    """

    component: np.ndarray
    degree: np.ndarray
    sizes: np.ndarray
    part: np.ndarray
    pieces: dict[str, list[str]]

    def of(self, key: str) -> np.ndarray:
        """Components of a part, ascending: the order in which it holds them."""
        return np.flatnonzero(self.part == int(key))


def by_spectrum(context: Context, wanted: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Cluster of each readable image, its distance to the cluster's middle, and facts.

    Raises
    ------
    SettingsError
        Fewer clusters than components; a large component that would have to be cut into many clusters.
    """
    parts = _parts(context.run)
    count = len(parts.sizes)
    if wanted < count:
        raise SettingsError(
            f"{wanted:,} spectral clusters are fewer than the {count:,} components of the similarity graph: which of "
            "them to join is not defined",
            f"Set clusters.n_clusters to {count:,} or more (or auto), lower similarities.min_similarity so that fewer "
            "components are left, or take clusters.by = threshold or medoids.",
        )
    share = np.ones(count, dtype=np.int64) if wanted == count else _shares(context, parts, wanted)
    _refuse(parts, share)
    label = np.zeros(len(parts.component), dtype=np.int64)
    size = parts.sizes[parts.component]
    distance = np.clip(1.0 - parts.degree / np.maximum(size - 1, 1), 0.0, 1.0)
    order, start = _by_component(parts)
    apart = share[parts.component] == size  # also images without an edge
    label[apart], distance[apart] = np.flatnonzero(apart), 0.0
    cut = (share > 1) & (share < parts.sizes)
    keys = [key for key in parts.pieces if cut[parts.of(key)].any()]
    calls = [
        (parts.pieces[key], parts.sizes[parts.of(key)], share[parts.of(key)], context.settings.spectrum.seed)
        for key in keys
    ]
    context.engine.each(NAME, "clusters", keys, calls, cluster_part)
    for key in keys:
        mine = parts.of(key)
        images = np.concatenate([order[start[c] : start[c + 1]] for c in mine.tolist()])
        done = cut[parts.component[images]]
        label[images[done]] = context.run.load("partial", NAME, f"label-{key}.npy")[done]
        distance[images[done]] = context.run.load("partial", NAME, f"distance-{key}.npy")[done]
    facts = {"n_components": count, "cut_components": int(cut.sum()), "largest_share": int(share.max())}
    return parts.component * len(label) + label, distance, facts


def _parts(run: Run) -> Parts:
    columns = ["row", "component", "part", "degree"]
    table = run.read_table("components", columns).to_pandas().sort_values("row")
    component = table["component"].to_numpy()
    sizes = np.bincount(component)
    part = np.empty(len(sizes), dtype=np.int64)
    part[component] = table["part"].to_numpy()
    pieces: dict[str, list[str]] = {}
    for key in run.parts("graph"):
        if key.partition("-")[2]:
            pieces.setdefault(key.partition("-")[0], []).append(key)
    return Parts(component, table["degree"].to_numpy(), sizes, part, pieces)


def _by_component(parts: Parts) -> tuple[np.ndarray, np.ndarray]:
    """Images by component, ascending within each, and where each component starts."""
    order = np.argsort(parts.component, kind="stable")
    return order, np.concatenate([[0], np.cumsum(parts.sizes)])


def _shares(context: Context, parts: Parts, wanted: int) -> np.ndarray:
    """How many clusters each component gets, from the eigenvalues of all normalised Laplacians."""
    settings, run = context.settings.spectrum, context.run
    keys = list(parts.pieces)
    calls = [(parts.pieces[key], parts.sizes[parts.of(key)], settings) for key in keys]
    context.engine.each(NAME, "shares", keys, calls, normalised_spectrum)
    values = np.zeros(len(parts.component))
    start = _by_component(parts)[1]
    for key in keys:
        mine = parts.of(key)
        places = np.concatenate([np.arange(start[c], start[c + 1]) for c in mine.tolist()])
        values[places] = run.load("partial", NAME, f"values-{key}.npy")
    return share_clusters(values, start, wanted)


def _refuse(parts: Parts, share: np.ndarray) -> None:
    """End where a component cannot be cut into its share: nothing else is done in its place unasked."""
    bad = np.flatnonzero((parts.sizes > DENSE_ROWS) & (share > SPARSE_CLUSTERS) & (share < parts.sizes))
    if bad.size:
        c = int(bad[0])
        raise SettingsError(
            f"a component of {parts.sizes[c]:,} images would be cut into {share[c]:,} spectral clusters: above "
            f"{DENSE_ROWS:,} images at most {SPARSE_CLUSTERS} are possible",
            REMEDY,
        )


def _entries(run: Run, pieces: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    names = ["i", "j", "similarity"]
    found = [[np.asarray(column) for column in run.read_part("graph", key, names).columns] for key in pieces]
    i, j, value = (np.concatenate(column) for column in zip(*found))
    return i, j, value


def _blocks(run: Run, pieces: list[str], sizes: np.ndarray) -> ComponentBlocks:
    """S among the images of a part, whose components follow one another."""
    m = int(sizes.sum())
    start = np.concatenate([[0], np.cumsum(sizes)])
    matrix = similarity_matrix(m, *_entries(run, pieces), negative="signed")  # what is stored are entries of S
    return ComponentBlocks(np.repeat(np.arange(len(sizes)), sizes), np.arange(m), start, matrix)


def normalised_spectrum(run: Run, key: str, pieces: list[str], sizes: np.ndarray, settings: Spectrum) -> dict[str, Any]:
    """Eigenvalues of the symmetric normalised Laplacian by component; of a giant one values of the same density."""
    blocks = _blocks(run, pieces, sizes)
    if len(sizes) == 1 and sizes[0] > settings.exact:
        matrix = laplacian(blocks.matrix, "symmetric")
        start = lanczos_start(probes(int(sizes[0]), settings.probes, seed=settings.seed))
        state = lanczos_steps(start, lambda vectors: matrix @ vectors, min(settings.steps, int(sizes[0])))
        values = stand_in_spectrum(ritz_spectrum(state))
    elif len(sizes) == 1:
        dense = blocks.matrix.toarray()
        del blocks
        values = dense_spectrum(dense, "symmetric")
    else:
        values = block_spectra(blocks, "symmetric", largest=int(sizes.max()))
    run.save(values, "partial", NAME, f"values-{key}.npy")
    return {}


def cluster_part(
    run: Run, key: str, pieces: list[str], sizes: np.ndarray, share: np.ndarray, seed: int
) -> dict[str, Any]:
    """Clusters of the components of a part that are cut; 0 in the others."""
    blocks = _blocks(run, pieces, sizes)
    label = np.zeros(len(blocks.label), dtype=np.int64)
    distance = np.zeros(len(blocks.label))
    for c in np.flatnonzero((share > 1) & (share < sizes)).tolist():
        try:
            block = blocks.block(c) if len(sizes) > 1 else blocks.matrix
            found = spectral_clusters(block, int(share[c]), seed=seed)
        except ValueError as error:
            raise SettingsError(f"spectral clusters of a component of {sizes[c]:,} images: {error}", REMEDY) from None
        label[blocks.images(c)], distance[blocks.images(c)] = found.label, found.distance
    run.save(label, "partial", NAME, f"label-{key}.npy")
    run.save(distance, "partial", NAME, f"distance-{key}.npy")
    return {"cut": int(((share > 1) & (share < sizes)).sum())}
