"""The best rows of each query, and directions that no data decides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from daskim.kernels.coarse import cosine_directions, forms, width
from daskim.kernels.nearest import best_rows

entries = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.sampled_from([0.0, 0.25, 0.5, 1.0])), max_size=60)


@given(entries, st.integers(1, 4))
def test_best_rows_as_sorting_each_query_says(entries: list[tuple[int, int, float]], count: int) -> None:
    query, row, score = (np.array(column) for column in zip(*entries)) if entries else (np.zeros(0, int),) * 3
    found = list(zip(*(column.tolist() for column in best_rows(query, row, score, count))))
    expected = []
    for one in sorted({entry[0] for entry in entries}):
        best: dict[int, float] = {}
        for asked, other, value in entries:
            if asked == one:
                best[other] = max(value, best.get(other, -1.0))
        expected += [(one, *pair) for pair in sorted(best.items(), key=lambda pair: (-pair[1], pair[0]))[:count]]
    assert found == expected


@given(entries, entries, st.integers(1, 4))
def test_lists_may_be_brought_up_to_date(
    old: list[tuple[int, int, float]], new: list[tuple[int, int, float]], count: int
) -> None:
    """The best of all are the best of the best of some and the rest."""

    def of(some: list[tuple[int, int, float]]) -> list[np.ndarray]:
        return [np.array(column) for column in zip(*some)] if some else [np.zeros(0, int)] * 3

    held = best_rows(*of(old), count)
    merged = best_rows(*(np.concatenate(both) for both in zip(held, of(new))), count)
    whole = best_rows(*of([*old, *new]), count)
    assert all(np.array_equal(one, other) for one, other in zip(merged, whole))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("k", [1, 12, 48, 1000])
def test_directions_are_orthonormal_and_leave_out_the_means(channels: int, k: int) -> None:
    found = cosine_directions(channels, k)
    assert found.shape == (width(channels), min(k, width(channels) - channels))
    np.testing.assert_allclose(found.T @ found, np.eye(found.shape[1]), atol=1e-5)
    by_channel = found.reshape(8, channels, 8, -1).mean(axis=(0, 2))
    np.testing.assert_allclose(by_channel, 0.0, atol=1e-6)


def test_all_directions_keep_every_correlation() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    whole = forms(images, (0.75,), mirror=True).reshape(-1, width(3))
    seen = whole @ cosine_directions(3, 1000)
    np.testing.assert_allclose(seen @ seen.T, whole @ whole.T, atol=1e-5)


def test_the_first_directions_hold_most_of_photographs() -> None:
    from daskim.synthetic import photographs

    tiles = [photo[y : y + 32, x : x + 32] for photo in photographs().values() if photo.ndim == 3
             for y in range(0, photo.shape[0] - 32, 64) for x in range(0, photo.shape[1] - 32, 64)]  # fmt: skip
    whole = forms(np.stack(tiles)[..., :3], (), mirror=False)[:, 0].astype(np.float64)
    share = [((whole @ cosine_directions(3, k)) ** 2).sum() / (whole**2).sum() for k in (12, 24, 48, 96)]
    assert share == sorted(share)
    assert share[2] > 0.85
