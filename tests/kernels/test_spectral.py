"""Spectra of blocks against the whole, gap rules by hand, shares by merging, spectral clusters against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eigvalsh
from scipy.sparse import csr_array
from sklearn.cluster import SpectralClustering
from sklearn.metrics import adjusted_rand_score

from daskim.kernels import embedding
from daskim.kernels.embedding import spectral_clusters
from daskim.kernels.graph import component_blocks, laplacian, similarity_matrix
from daskim.kernels.spectral import (
    block_spectra,
    clusters_by_height,
    clusters_from_gaps,
    dense_spectrum,
    eigen_gaps,
    share_clusters,
)


def random_graph(n: int, share: float, seed: int) -> csr_array:
    rng = np.random.default_rng(seed)
    a, b = np.triu_indices(n, 1)
    listed = rng.random(a.size) < share
    return similarity_matrix(n, a[listed], b[listed], rng.random(listed.sum()))


def images_like(n: int, seed: int = 0, directions: int = 12, twins: int = 0) -> np.ndarray:
    """S of n points on a sphere, negatives clipped; the first 2 * twins are identical pairs (0, 1), (2, 3), ..."""
    rng = np.random.default_rng(seed)
    points = rng.standard_normal((n, directions)) * np.geomspace(1, 0.2, directions)
    points[1 : 2 * twins : 2] = points[0 : 2 * twins : 2]
    points /= np.linalg.norm(points, axis=1)[:, None]
    similarity = np.maximum((points[:, None] * points[None]).sum(axis=2), 0.0)
    same = np.arange(0, 2 * twins, 2)
    similarity[same, same + 1] = similarity[same + 1, same] = 1.0
    np.fill_diagonal(similarity, 0.0)
    return similarity


# --- spectra ----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 90),
    share=st.sampled_from([0.0, 0.005, 0.02, 0.05, 0.5]),
    kind=st.sampled_from(["unnormalised", "symmetric", "random-walk"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_spectra_of_blocks_are_the_spectrum(n, share, kind, seed):
    matrix = random_graph(n, share, seed)
    blocks = component_blocks(matrix)
    values = block_spectra(blocks, kind)
    dense = laplacian(matrix, kind).toarray()
    whole = np.sort(np.linalg.eigvals(dense).real) if kind == "random-walk" else eigvalsh(dense)
    np.testing.assert_allclose(np.sort(values), whole, atol=1e-6 if kind == "random-walk" else 1e-10)
    np.testing.assert_allclose(dense_spectrum(matrix, kind), np.sort(values), atol=1e-10)
    np.testing.assert_allclose(dense_spectrum(matrix.toarray(), kind), np.sort(values), atol=1e-10)
    assert (np.abs(values) < 1e-10).sum() == blocks.sizes.size  # zero multiplicity = components
    np.testing.assert_allclose(values[blocks.start[:-1]], 0, atol=1e-10)
    for c in range(blocks.sizes.size):
        assert (np.diff(values[blocks.start[c] : blocks.start[c + 1]]) >= 0).all()
    assert values.sum() == pytest.approx(dense.trace(), abs=1e-9)
    if kind == "unnormalised":
        assert values.sum() == pytest.approx(matrix.sum(), abs=1e-9)  # the sum of degrees
    if kind != "random-walk":
        assert (values**2).sum() == pytest.approx((dense**2).sum(), abs=1e-9)


def test_giant_components_are_left_out():
    matrix = random_graph(60, 0.04, seed=3)
    blocks = component_blocks(matrix)
    largest = int(np.sort(blocks.sizes)[-2])
    values = block_spectra(blocks, largest=largest)
    assert blocks.sizes.max() > largest > 1
    np.testing.assert_array_equal(np.isnan(values), np.repeat(blocks.sizes > largest, blocks.sizes))
    np.testing.assert_array_equal(values[~np.isnan(values)], block_spectra(blocks)[~np.isnan(values)])


def test_spectrum_by_hand():
    pair = similarity_matrix(2, np.array([0]), np.array([1]), np.array([0.6]))
    np.testing.assert_allclose(dense_spectrum(pair), [0, 1.2], atol=1e-15)
    np.testing.assert_allclose(dense_spectrum(pair, "symmetric"), [0, 1.2 / 1.6], atol=1e-15)


# --- gaps -------------------------------------------------------------------------------------------------------


def test_gap_rules_by_hand():
    values = np.array([5.0, 0.0, 0.25, 1.25, 1.5])  # gaps .25, 1, .25, 3.5
    assert eigen_gaps(values, 0.5) == 2
    assert eigen_gaps(values, 1.0) == 1  # larger, not equal
    assert clusters_from_gaps(values, 0.5) == 3
    assert clusters_from_gaps(values, 0.5, "literal") == 2
    assert clusters_from_gaps(values, 9.0) == 5
    assert clusters_from_gaps(values, 9.0, "literal") == 1
    assert clusters_from_gaps(values, 0.0) == 1
    assert clusters_from_gaps(np.zeros(1), 0.4) == clusters_from_gaps(np.zeros(1), 0.4, "literal") == 1


@settings(deadline=None, max_examples=60)
@given(n=st.integers(1, 50), seed=st.integers(0, 2**32 - 1), step=st.sampled_from([0.0, 0.5]))
def test_the_curve_is_the_rules_at_each_gamma(n, seed, step):
    rng = np.random.default_rng(seed)
    values = rng.exponential(size=n) * 3
    values = np.round(values / step) * step if step else values
    gammas = np.sort(rng.uniform(0, 2, 9)).round(1)
    complement, literal = clusters_by_height(values, gammas)
    for at, gamma in enumerate(gammas):
        gaps = sum(bool(y - x > gamma) for x, y in zip(np.sort(values), np.sort(values)[1:]))
        assert eigen_gaps(values, gamma) == gaps
        assert complement[at] == clusters_from_gaps(values, gamma) == n - gaps
        assert literal[at] == clusters_from_gaps(values, gamma, "literal") == max(1, gaps)
    assert (np.diff(complement) >= 0).all()
    assert (literal <= np.maximum(1, np.ptp(values) / np.maximum(gammas, 1e-9))).all()


def test_gaps_of_half_a_spectrum_are_refused():
    with pytest.raises(ValueError, match="whole spectrum"):
        clusters_from_gaps(np.array([0.0, np.nan]), 0.4)
    with pytest.raises(ValueError, match="whole spectrum"):
        clusters_from_gaps(np.zeros(0), 0.4)
    with pytest.raises(ValueError, match="gamma"):
        clusters_from_gaps(np.zeros(3), -0.1)
    with pytest.raises(ValueError, match="complement, literal"):
        clusters_from_gaps(np.zeros(3), 0.4, "both")


# --- shares -----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(
    n=st.integers(1, 60),
    share=st.sampled_from([0.0, 0.02, 0.05, 0.5]),
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
)
def test_shares_are_the_smallest_of_the_merged_spectrum(n, share, data, seed):
    blocks = component_blocks(random_graph(n, share, seed))
    parts = blocks.sizes.size
    nc = data.draw(st.integers(parts, n))
    values = block_spectra(blocks, "symmetric")
    shares = share_clusters(values, blocks.start, nc)
    assert shares.dtype == np.int64
    assert shares.sum() == nc
    assert (shares >= 1).all()
    assert (shares <= blocks.sizes).all()
    owner = np.repeat(np.arange(parts), blocks.sizes)
    expected = np.bincount(owner[np.lexsort((owner, values.round(9)))[:nc]], minlength=parts)
    np.testing.assert_array_equal(shares, expected)
    noise = np.random.default_rng(seed).uniform(-1e-13, 1e-13, n)
    np.testing.assert_array_equal(share_clusters(values + noise, blocks.start, nc), shares)


def test_shares_by_hand_with_ties():
    # Three equal pairs, a pair that is less alike, one image: the loosest pair is divided first, then by number.
    values = np.array([0, 0.9, 0, 0.9 + 1e-13, 0, 0.4, 0, 0, 0.9 - 1e-13])
    start = np.array([0, 2, 4, 6, 7, 9])
    for nc, shares in ((5, [1, 1, 1, 1, 1]), (6, [1, 1, 2, 1, 1]), (7, [2, 1, 2, 1, 1]), (8, [2, 2, 2, 1, 1])):
        np.testing.assert_array_equal(share_clusters(values, start, nc), shares)


def test_a_nearly_disconnected_component_does_not_take_from_another():
    # Its second eigenvalue rounds to the zero of the others, each of which still has its one cluster.
    values, start = np.array([0.0, 1e-14, 0.0, 0.0]), np.array([0, 2, 3, 4])
    np.testing.assert_array_equal(share_clusters(values, start, 3), [1, 1, 1])


def test_impossible_shares_say_why():
    values, start = np.array([0, 0.5, 0, 0.5, 0]), np.array([0, 2, 4, 5])
    with pytest.raises(ValueError, match="2 clusters are fewer than the 3 components"):
        share_clusters(values, start, 2)
    with pytest.raises(ValueError, match="6 clusters are more than the 5 images"):
        share_clusters(values, start, 6)
    with pytest.raises(ValueError, match="whole spectrum"):
        share_clusters(np.array([0, np.nan]), np.array([0, 2]), 1)


# --- spectral clusters ------------------------------------------------------------------------------------------


def groups_apart(sizes: list[int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups of high similarity inside (0.6 to 0.95) and low between (0.001 to 0.03), shuffled; S and the groups."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    n = group.size
    inside = group[:, None] == group
    values = np.where(inside, rng.uniform(0.6, 0.95, (n, n)), rng.uniform(0.001, 0.03, (n, n)))
    values = np.triu(values, 1)
    return values + values.T, group


@pytest.mark.parametrize("kind", ["symmetric", "random-walk"])
@pytest.mark.parametrize("seed", range(4))
def test_against_scikit_learn_on_groups_apart(kind, seed):
    sizes = [[20, 30, 25], [8, 12, 40, 9], [50, 10], [15] * 8][seed]
    similarity, group = groups_apart(sizes, seed)
    k = len(sizes)
    with_ones = similarity + np.eye(len(similarity))
    theirs = SpectralClustering(k, affinity="precomputed", random_state=0, assign_labels="kmeans").fit(with_ones)
    ours = spectral_clusters(similarity, k, kind=kind)
    assert adjusted_rand_score(theirs.labels_, ours.label) == 1
    assert adjusted_rand_score(group, ours.label) == 1
    sparse = spectral_clusters(csr_array(similarity), k, kind=kind)
    np.testing.assert_array_equal(sparse.label, ours.label)


@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 60),
    data=st.data(),
    kind=st.sampled_from(["symmetric", "random-walk", "unnormalised"]),
    seed=st.integers(0, 2**31),
)
def test_every_partition_is_whole_and_described(n, data, kind, seed):
    k = data.draw(st.integers(1, n))
    twins = data.draw(st.integers(0, n // 2))
    found = spectral_clusters(images_like(n, seed % 1000, twins=twins), k, kind=kind, seed=seed)
    np.testing.assert_array_equal(np.unique(found.label), np.arange(k))
    first = np.unique(found.label, return_index=True)[1]
    assert (np.diff(first) > 0).all()  # numbered by the first member
    np.testing.assert_array_equal(found.label[found.central], np.arange(k))
    for c in range(k):
        inside = np.flatnonzero(found.label == c)
        least = found.distance[inside].min()
        assert found.central[c] == inside[found.distance[inside] <= least + 1e-9][0]
        if len(inside) == 1:
            assert found.distance[inside] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", ["symmetric", "random-walk"])
def test_identical_images_share_a_cluster_at_any_k(kind):
    similarity = images_like(100, seed=5, twins=5)
    order = np.random.default_rng(0).permutation(100)
    place = np.argsort(order)
    for k in (1, 2, 10, 40, 70, 90, 93, 94, 95):  # 95 different images
        label = spectral_clusters(similarity[np.ix_(order, order)], k, kind=kind).label[place]
        np.testing.assert_array_equal(label[0:10:2], label[1:10:2])
        assert len(np.unique(label)) == k
    # Beyond that some must part: the copies with the larger numbers do, one pair after the other.
    label = spectral_clusters(similarity, 97, kind=kind).label
    assert (label[0:10:2] == label[1:10:2]).sum() == 3
    assert len(np.unique(label)) == 97


def test_the_unnormalised_embedding_parts_identical_images():
    # Why it is not the default: e_i - e_j has the eigenvalue d_i + 1, far up in the spectrum.
    similarity = images_like(100, seed=5, twins=5)
    label = spectral_clusters(similarity, 90, kind="unnormalised").label
    assert (label[0:10:2] == label[1:10:2]).sum() < 5


def test_larger_families_of_identical_images():
    similarity = images_like(60, seed=1)
    for copies in ((0, 1, 2, 3), (10, 20, 30)):
        for copy in copies[1:]:
            similarity[copy], similarity[:, copy] = similarity[copies[0]], similarity[:, copies[0]]
        similarity[np.ix_(copies, copies)] = 1.0
    np.fill_diagonal(similarity, 0)
    for k in (5, 30, 50, 55):
        label = spectral_clusters(similarity, k).label
        assert len(set(label[[0, 1, 2, 3]])) == len(set(label[[10, 20, 30]])) == 1


@pytest.mark.parametrize("kind", ["symmetric", "random-walk"])
@pytest.mark.parametrize("k", [2, 5, 12, 25, 40, 90, 110])
def test_the_order_of_the_images_does_not_matter(kind, k):
    similarity = images_like(120, seed=k, twins=4)
    order = np.random.default_rng(k).permutation(120)
    ours = spectral_clusters(similarity, k, kind=kind)
    shuffled = spectral_clusters(similarity[np.ix_(order, order)], k, kind=kind)
    assert adjusted_rand_score(ours.label[order], shuffled.label) == 1
    np.testing.assert_allclose(shuffled.distance, ours.distance[order], atol=1e-9)


def test_the_basis_of_a_tied_eigenspace_does_not_matter():
    # Four equal groups joined alike: eigenvalues 2 to 4 are one value, and k = 3 cuts through it.
    similarity = np.kron(np.eye(4), np.full((6, 6), 0.9)) + np.kron(1 - np.eye(4), np.full((6, 6), 0.05))
    np.fill_diagonal(similarity, 0)
    values = dense_spectrum(similarity, "symmetric")
    assert values[3] - values[1] < 1e-12
    label = spectral_clusters(similarity, 3).label
    assert all(len(set(label[at : at + 6])) == 1 for at in range(0, 24, 6))


def test_lloyd_never_leaves_more_error_than_ward():
    similarity = images_like(150, seed=2)
    for k in (20, 60, 120):
        points = embedding._embedding(similarity, k, "symmetric", 0)
        each = np.arange(150)
        start = embedding._ward(points, each, each, k)
        ended = spectral_clusters(similarity, k)

        def error(label, points=points, k=k):
            return sum(((points[label == c] - points[label == c].mean(axis=0)) ** 2).sum() for c in range(k))

        assert error(ended.label) <= error(start) + 1e-12
        assert error(ended.label) == pytest.approx((ended.distance**2).sum(), abs=1e-9)


def test_empty_clusters_are_filled():
    places = np.array([[0.0], [0.1], [5.0], [5.2], [9.0]])
    label = embedding._filled(places, np.array([0, 0, 2, 2, 2]), 4)
    np.testing.assert_array_equal(label, [0, 0, 3, 2, 1])  # 9 is farthest from the mean 6.4, then 5


@pytest.mark.parametrize("kind", ["symmetric", "random-walk", "unnormalised"])
def test_large_blocks_go_by_arpack_to_the_same_partition(kind, monkeypatch):
    similarity, group = groups_apart([60, 80, 50, 70], seed=9)
    similarity[0], similarity[:, 0] = similarity[1], similarity[:, 1]
    similarity[0, 1] = similarity[1, 0] = 1.0
    np.fill_diagonal(similarity, 0)
    group[0] = group[1]
    dense = spectral_clusters(similarity, 4, kind=kind)
    monkeypatch.setattr(embedding, "DENSE_ROWS", 200)
    sparse = spectral_clusters(csr_array(similarity), 4, kind=kind)
    np.testing.assert_array_equal(sparse.label, dense.label)
    np.testing.assert_array_equal(sparse.central, dense.central)
    np.testing.assert_allclose(sparse.distance, dense.distance, atol=1e-7)
    assert adjusted_rand_score(group, sparse.label) == 1
    with pytest.raises(ValueError, match=r"at most 200\. Raise min_similarity"):
        spectral_clusters(csr_array(similarity), 201, kind=kind)


@pytest.mark.parametrize("k", [0, 7])
def test_impossible_numbers_of_clusters_are_refused(k):
    with pytest.raises(ValueError, match=f"{k} clusters of 6 images"):
        spectral_clusters(images_like(6), k)


def test_unconnected_and_signed_blocks_are_clustered_too():
    two = np.kron(np.eye(2), np.full((5, 5), 0.5))
    np.fill_diagonal(two, 0)
    np.testing.assert_array_equal(spectral_clusters(two, 2).label, [0] * 5 + [1] * 5)
    signed = np.where(np.kron(np.eye(2), np.ones((5, 5))) > 0, 0.7, -0.4)
    np.fill_diagonal(signed, 0)
    np.testing.assert_array_equal(spectral_clusters(signed, 2).label, [0] * 5 + [1] * 5)
