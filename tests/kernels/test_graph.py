"""The similarity graph: matrix and Laplacians against dense formulas, components and blocks against the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import block_diag, csgraph, csr_array

from daskim.kernels.graph import component_blocks, laplacian, similarity_matrix

KINDS = ["unnormalised", "symmetric", "random-walk"]


@st.composite
def graphs(draw) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Pairs in any order, with negative, zero and equal similarities; often several components and lone images."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.integers(1, 40))
    a, b = np.triu_indices(n, 1)
    listed = rng.permutation(np.flatnonzero(rng.random(a.size) < draw(st.sampled_from([0.0, 0.03, 0.1, 0.5, 1.0]))))
    value = rng.uniform(-1, 1, listed.size)
    value[rng.random(listed.size) < draw(st.sampled_from([0.0, 0.3]))] = draw(st.sampled_from([0.0, 1.0]))
    return n, a[listed], b[listed], value


def dense_of(n: int, a: np.ndarray, b: np.ndarray, value: np.ndarray) -> np.ndarray:
    out = np.zeros((n, n))
    out[a, b] = value
    return out + out.T


@settings(deadline=None, max_examples=100)
@given(graph=graphs(), negative=st.sampled_from(["clip", "signed", "absolute"]))
def test_matrix_against_brute_force(graph, negative):
    n, a, b, value = graph
    kept = {"clip": np.maximum(value, 0), "signed": value, "absolute": np.abs(value)}[negative]
    matrix = similarity_matrix(n, a, b, value, negative=negative)
    assert isinstance(matrix, csr_array)
    assert matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix.toarray(), dense_of(n, a, b, kept))
    assert matrix.nnz == 2 * np.count_nonzero(kept)  # an entry is an edge
    assert matrix.has_sorted_indices


@pytest.mark.parametrize(
    ("a", "b", "value", "words"),
    [
        ([1], [1], [0.5], "a < b"),
        ([2], [1], [0.5], "a < b"),
        ([0], [3], [0.5], "a < b"),
        ([-1], [2], [0.5], "a < b"),
        ([0, 1, 0], [1, 2, 1], [0.5, 0.5, 0.5], "1 pairs are listed twice"),
        ([0], [1], [np.nan], "finite"),
    ],
)
def test_bad_pairs_are_refused(a, b, value, words):
    with pytest.raises(ValueError, match=words):
        similarity_matrix(3, np.array(a), np.array(b), np.array(value))


def test_unknown_words_list_the_known_ones():
    one = np.array([0]), np.array([1]), np.array([0.5])
    with pytest.raises(ValueError, match="clip, signed, absolute"):
        similarity_matrix(2, *one, negative="abs")
    with pytest.raises(ValueError, match="unnormalised, symmetric, random-walk"):
        laplacian(similarity_matrix(2, *one), "normalized")


def by_definition(similarity: np.ndarray, kind: str) -> np.ndarray:
    off = similarity - np.diag(np.diag(similarity))
    if kind == "unnormalised":
        return np.diag(np.abs(off).sum(axis=1)) - off
    whole = off + np.eye(len(off))
    degree = np.abs(whole).sum(axis=1)
    if kind == "random-walk":
        return np.eye(len(off)) - np.diag(1 / degree) @ whole
    return np.eye(len(off)) - np.diag(degree**-0.5) @ whole @ np.diag(degree**-0.5)


@settings(deadline=None, max_examples=100)
@given(graph=graphs(), negative=st.sampled_from(["clip", "signed"]), kind=st.sampled_from(KINDS), ones=st.booleans())
def test_laplacians_against_their_definition(graph, negative, kind, ones):
    sparse = similarity_matrix(*graph, negative=negative)
    dense = sparse.toarray()
    if ones:  # the diagonal is not read
        np.fill_diagonal(dense, 1.0)
        sparse = csr_array(dense)
    before = dense.copy()
    ours = laplacian(dense, kind)
    assert isinstance(ours, np.ndarray)
    np.testing.assert_allclose(ours, by_definition(dense, kind), atol=1e-14)
    np.testing.assert_array_equal(dense, before)
    thin = laplacian(sparse, kind)
    assert isinstance(thin, csr_array)
    np.testing.assert_allclose(thin.toarray(), ours, atol=1e-14)
    np.testing.assert_allclose(laplacian(np.stack([dense, 2 * dense]), kind)[0], ours, atol=1e-15)
    # Positive semidefinite whatever the signs, and normalised ones end at 2.
    values = np.linalg.eigvals(ours).real if kind == "random-walk" else np.linalg.eigvalsh(ours)
    assert values.min() > -1e-9
    assert kind == "unnormalised" or values.max() < 2 + 1e-9


def test_unnormalised_laplacian_against_scipy():
    rng = np.random.default_rng(0)
    a, b = np.triu_indices(30, 1)
    matrix = similarity_matrix(30, a, b, rng.random(a.size))
    np.testing.assert_allclose(laplacian(matrix).toarray(), csgraph.laplacian(matrix).toarray(), atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_is_in_the_null_space(kind):
    a, b = np.triu_indices(25, 1)
    matrix = similarity_matrix(25, a, b, np.random.default_rng(1).random(a.size))
    whole = np.asarray(matrix.sum(axis=1)).ravel() + 1
    vector = np.sqrt(whole) if kind == "symmetric" else np.ones(25)
    np.testing.assert_allclose(laplacian(matrix, kind) @ vector, 0, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_lone_images_have_exact_zeros(kind):
    matrix = similarity_matrix(4, np.array([1]), np.array([3]), np.array([0.3]))
    rows = laplacian(matrix, kind).toarray()[[0, 2]]
    np.testing.assert_array_equal(rows, 0)


def test_identical_images_have_eigenvalue_one_when_normalised():
    rng = np.random.default_rng(2)
    rows = rng.random((12, 12))
    dense = (rows + rows.T) / 2
    dense[7], dense[:, 7] = dense[3], dense[3]
    dense[3, 7] = dense[7, 3] = 1.0
    np.fill_diagonal(dense, 0)
    apart = np.zeros(12)
    apart[[3, 7]] = 1, -1
    np.testing.assert_allclose(laplacian(dense, "symmetric") @ apart, apart, atol=1e-13)
    np.testing.assert_allclose(laplacian(dense) @ apart, (dense[3].sum() + 1) * apart, atol=1e-13)


# --- components -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=100)
@given(graph=graphs())
def test_blocks_are_the_matrix_in_another_order(graph):
    matrix = similarity_matrix(*graph, negative="signed")
    n = matrix.shape[0]
    blocks = component_blocks(matrix)
    count, label = csgraph.connected_components(matrix, directed=False)
    assert blocks.sizes.size == count
    np.testing.assert_array_equal(np.sort(blocks.order), np.arange(n))
    parts = [blocks.images(c) for c in range(count)]
    assert all((np.diff(part) > 0).all() for part in parts)
    assert [int(part[0]) for part in parts] == sorted(int(part[0]) for part in parts)
    for c, part in enumerate(parts):
        assert (blocks.label[part] == c).all()
        assert (label[part] == label[part[0]]).all()
        np.testing.assert_array_equal(blocks.block(c).toarray(), matrix.toarray()[np.ix_(part, part)])
        assert blocks.block(c).has_sorted_indices
    np.testing.assert_array_equal(blocks.sizes, [len(part) for part in parts])
    rebuilt = block_diag([blocks.block(c) for c in range(count)]).toarray()
    np.testing.assert_array_equal(rebuilt, matrix.toarray()[np.ix_(blocks.order, blocks.order)])


def test_stored_zeros_join_nothing():
    matrix = csr_array((np.array([0.0, 0.0, 0.5, 0.5]), ([0, 1, 1, 2], [1, 0, 2, 1])), shape=(3, 3))
    blocks = component_blocks(matrix)
    np.testing.assert_array_equal(blocks.label, [0, 1, 1])
    assert blocks.matrix.nnz == 2


def test_a_graph_without_pairs():
    none = np.zeros(0, dtype=np.int64)
    blocks = component_blocks(similarity_matrix(3, none, none, np.zeros(0)))
    np.testing.assert_array_equal(blocks.sizes, [1, 1, 1])
    assert blocks.block(1).shape == (1, 1)
    assert blocks.block(1).nnz == 0
