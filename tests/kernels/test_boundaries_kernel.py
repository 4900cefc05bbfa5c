"""Boundaries on lines: against classifiers whose flips are known, against a dense walk, and against itself reversed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daskim.kernels.boundaries import Path, boundaries, line

ZERO, ONE = np.zeros((1, 1, 1, 1), np.float32), np.ones((1, 1, 1, 1), np.float32)


def position(images: np.ndarray) -> np.ndarray:
    """Alpha of a point on the line from black to white."""
    return images[:, 0, 0, 0].astype(np.float64)


def pieces(edges: list[float], labels: list[int], k: int):
    """Hard labels: class labels[i] between edges[i - 1] and edges[i]."""

    def classify(images: np.ndarray) -> np.ndarray:
        return np.eye(k)[np.array(labels)[np.searchsorted(edges, position(images))]]

    return classify


@st.composite
def steps_and_pieces(draw) -> tuple[int, list[float], list[int]]:
    """Stretches that are all longer than an interval of the grid."""
    steps = draw(st.integers(4, 80))
    widths = draw(st.lists(st.floats(1.05 / steps, 0.5), min_size=1, max_size=12))
    edges = [edge for edge in np.cumsum(widths).tolist() if edge < 1 - 1.05 / steps]
    labels = [draw(st.integers(0, 4))]
    for _ in edges:
        labels.append(draw(st.integers(0, 4).filter(lambda label: label != labels[-1])))
    return steps, edges, labels


@settings(deadline=None, max_examples=150)
@given(made=steps_and_pieces(), tol=st.sampled_from([1e-4, 1e-3, 1e-2, 0.3]), batch=st.integers(1, 40))
def test_every_stretch_longer_than_a_step_is_found(made, tol, batch):
    steps, edges, labels = made
    (path,) = boundaries(pieces(edges, labels, 5), ZERO, ONE, steps=steps, tol=tol, batch=batch)
    assert path.classes.tolist() == labels
    assert len(path.alphas) == len(edges)
    assert (path.widths <= min(tol, 1 / steps) * (1 + 1e-12)).all()
    assert (np.abs(path.alphas - edges) <= path.widths / 2 + 1e-7).all()  # float32 pixels
    assert path.returns == (len(set(labels)) < len(labels))
    assert path.scores.shape == (steps + 1, 5)


@st.composite
def scored(draw) -> tuple[np.ndarray, np.ndarray]:
    """Scores of k classes as straight lines between knots: (knots,), (knots, k)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    knots = draw(st.integers(2, 9))
    at = np.concatenate([[0.0], np.sort(rng.random(knots - 2)), [1.0]])
    return at, rng.normal(size=(knots, draw(st.integers(2, 6)))).cumsum(axis=0)


def interpolated(at: np.ndarray, values: np.ndarray):
    def classify(images: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(position(images), at, column) for column in values.T], axis=1)

    return classify


def dense_walk(classify, points: int) -> tuple[np.ndarray, list[int]]:
    """Flips and classes on so many points."""
    alpha = np.arange(points + 1) / points
    winner = classify(alpha.astype(np.float32).reshape(-1, 1, 1, 1)).argmax(axis=1)
    flips = np.flatnonzero(np.diff(winner))
    return (alpha[flips] + alpha[flips + 1]) / 2, [int(winner[0]), *winner[flips + 1].tolist()]


@settings(deadline=None, max_examples=100)
@given(model=scored())
def test_against_a_dense_walk(model):
    classify = interpolated(*model)
    alphas, classes = dense_walk(classify, 2**16)
    (path,) = boundaries(classify, ZERO, ONE, steps=64, tol=1e-4)
    # what is told is there, to the bracket
    for alpha, width in zip(path.alphas, path.widths):
        assert np.abs(alphas - alpha).min() <= width / 2 + 2.0**-16
    # and what lasts longer than a step is told
    lasting = [pair for pair in pairwise([0.0, *alphas, 1.0]) if pair[1] - pair[0] > 1 / 64 + 2.0**-15]
    for start, stop in lasting:
        here = classes[np.searchsorted(alphas, (start + stop) / 2)]
        inside = path.classes[np.searchsorted(path.alphas, np.linspace(start, stop, 41)[1:-1])]
        assert here in inside
    if all(b - a > 1 / 64 + 2.0**-15 for a, b in pairwise([0.0, *alphas, 1.0])):
        assert path.classes.tolist() == classes


@settings(deadline=None, max_examples=60)
@given(model=scored(), steps=st.sampled_from([16, 64]))
def test_reversal(model, steps):
    classify = interpolated(*model)
    (there,) = boundaries(classify, ZERO, ONE, steps=steps, tol=1e-3)
    (back,) = boundaries(classify, ONE, ZERO, steps=steps, tol=1e-3)
    assert back.classes.tolist() == there.classes[::-1].tolist()
    np.testing.assert_allclose(back.alphas, (1 - there.alphas)[::-1], rtol=0, atol=1e-3)
    assert back.returns == there.returns
    assert back.margin == pytest.approx(there.margin, abs=1e-5)


def wave(where: float, width: float):
    """Class 1 within `width` / 2 of `where`, by scores that rise and fall evenly; class 0 elsewhere."""

    def classify(images: np.ndarray) -> np.ndarray:
        rival = 1.0 - np.abs(position(images) - where)
        return np.stack([np.full(len(images), 1.0 - width / 2), rival], axis=1)

    return classify


@settings(deadline=None, max_examples=60)
@given(where=st.floats(0.1, 0.9), share=st.floats(0.25, 0.99))
def test_a_change_and_back_inside_one_interval_is_found(where, share):
    (path,) = boundaries(wave(where, share / 64), ZERO, ONE, steps=64, tol=1e-4)
    assert path.classes.tolist() == [0, 1, 0]
    assert path.returns
    np.testing.assert_allclose(path.alphas, [where - share / 128, where + share / 128], rtol=0, atol=1e-4)


def test_what_gives_no_warning_is_missed_as_the_docstring_says():
    narrow = pieces([0.501, 0.509], [0, 1, 0], 2)
    (path,) = boundaries(narrow, ZERO, ONE, steps=64)
    assert path.classes.tolist() == [0]
    (path,) = boundaries(narrow, ZERO, ONE, steps=128)
    assert path.classes.tolist() == [0, 1, 0]


def test_calls_are_bounded_and_batched():
    asked: list[int] = []

    def classify(images: np.ndarray) -> np.ndarray:
        asked.append(len(images))
        angle = 40 * position(images)  # two classes that stay close together all along
        return np.stack([1e-3 * np.sin(angle), 1e-3 * np.cos(3 * angle)], axis=1)

    paths = boundaries(classify, np.repeat(ZERO, 3, axis=0), np.repeat(ONE, 3, axis=0), steps=32, batch=50)
    assert max(asked) <= 50
    flips = len(paths[0].alphas)
    assert flips > 20
    assert sum(asked) <= 3 * (33 + 4 * 32 + 2 * 6 * flips)
    quiet: list[int] = []
    boundaries(lambda x: quiet.append(len(x)) or np.tile([1.0, 0.0], (len(x), 1)), ZERO, ONE, steps=32)
    assert sum(quiet) == 33  # nothing is close: the grid is all


def test_pairs_do_not_touch_one_another():
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(4 * 4 * 3, 7))

    def classify(images: np.ndarray) -> np.ndarray:
        return np.sin(images.reshape(len(images), -1) @ weights)

    first, second = rng.normal(size=(2, 20, 4, 4, 3)).astype(np.float32)
    together = boundaries(classify, first, second, batch=7)
    for index, path in enumerate(together):
        (alone,) = boundaries(classify, first[index : index + 1], second[index : index + 1], batch=64)
        assert same(path, alone)
    assert sum(len(path.alphas) for path in together) > 20


def same(path: Path, other: Path) -> bool:
    return path.classes.tolist() == other.classes.tolist() and np.array_equal(path.alphas, other.alphas)


def test_ends_are_the_images_themselves():
    rng = np.random.default_rng(0)
    first, second = (255 * rng.random((2, 5, 3, 4, 1))).astype(np.float32)
    assert np.array_equal(line(first, second, np.zeros(5)), first)
    assert np.array_equal(line(first, second, np.ones(5)), second)
    np.testing.assert_allclose(line(first, second, np.full(5, 0.25)), 0.75 * first + 0.25 * second, rtol=1e-6)
    assert line(first, second, np.full(5, 0.3)).dtype == np.float32


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"tol": 0.0}, {"tol": 2.0}, {"tol": float("nan")}, {"batch": 0}])
def test_bad_arguments(wrong):
    with pytest.raises(ValueError, match="at least 1"):
        boundaries(pieces([0.5], [0, 1], 2), ZERO, ONE, **wrong)
    with pytest.raises(ValueError, match="shape"):
        boundaries(pieces([0.5], [0, 1], 2), ZERO, ONE[..., 0])


def test_no_pairs():
    assert boundaries(pieces([0.5], [0, 1], 2), ZERO[:0], ONE[:0]) == []
