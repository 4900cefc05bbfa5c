"""Tokens against PyWavelets, signatures and pairs against datasketch, measured recall against its formula."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import pywt
from datasketch import MinHash, MinHashLSH
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from daskim.kernels import lsh
from daskim.kernels.lsh import bands as bands_module

U4 = np.uint32


def positions(side: int) -> np.ndarray:
    """Position of every coefficient of `pywt.wavedec2` at full depth, band by band: columns first, last, second, ..."""
    levels = side.bit_length() - 1
    order = [np.zeros((1, 1), dtype=int)]
    at = 1
    for level in range(levels, 0, -1):
        width = side >> level
        column = [2 * k if k < (width + 1) // 2 else 2 * (width - 1 - k) + 1 for k in range(width)]
        for _ in range(3):
            order.append(at + np.arange(width)[:, None] * width + np.array(column)[None, :])
            at += width * width
    return np.concatenate([band.ravel() for band in order])


def by_pywt(luma: np.ndarray) -> np.ndarray:
    """Haar coefficients of one thumbnail in the order of positions."""
    coefficients = pywt.wavedec2(luma.astype(np.float64), "db1", mode="periodization")
    flat = [coefficients[0].ravel(), *[band.ravel() for level in coefficients[1:] for band in level]]
    out = np.empty(luma.size)
    out[positions(luma.shape[0])] = np.concatenate(flat)
    return out


def expected_tokens(luma: np.ndarray, count: int) -> list[int]:
    values = np.round(by_pywt(luma) * luma.shape[0]).astype(int)  # whole numbers for uint8
    values[0] = 0
    best = sorted(range(1, values.size), key=lambda p: (-abs(values[p]), p))[:count]
    return [2 * p + int(values[p] < 0) if values[p] else -1 for p in best]


def smooth(count: int, side: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    waves = rng.standard_normal((count, side, side)).cumsum(1).cumsum(2)
    waves -= waves.min(axis=(1, 2), keepdims=True)
    return (waves * (255 / waves.max(axis=(1, 2), keepdims=True))).astype(np.uint8)


class TestTokens:
    @pytest.mark.parametrize("side", [2, 4, 8, 32])
    @pytest.mark.parametrize("colours", [2, 5, 256])
    def test_against_pywavelets(self, side: int, colours: int) -> None:
        """Few grey levels make many ties and zeros."""
        count = min(40, side * side - 1)
        luma = np.random.default_rng(side).integers(0, colours, (300, side, side)).astype(np.uint8)
        luma[0] = 7
        luma[1, :, : side // 2] = 9
        found = lsh.signed_top_coefficients(luma, count)
        assert found.dtype == np.int64
        assert found.tolist() == [expected_tokens(each, count) for each in luma]

    def test_floats_that_are_whole_give_the_same(self) -> None:
        luma = smooth(50, 32, 0)
        np.testing.assert_array_equal(
            lsh.signed_top_coefficients(luma.astype(np.float32)), lsh.signed_top_coefficients(luma)
        )

    def test_brightness_and_contrast_do_not_matter(self) -> None:
        luma = smooth(50, 32, 1) // 2
        tokens = lsh.signed_top_coefficients(luma)
        np.testing.assert_array_equal(lsh.signed_top_coefficients(luma + np.uint8(90)), tokens)
        np.testing.assert_array_equal(lsh.signed_top_coefficients(luma * np.uint8(2)), tokens)
        np.testing.assert_array_equal(lsh.signed_top_coefficients(luma.astype(np.float32) * 0.25 - 3.5), tokens)

    def test_fewer_tokens_are_the_first_ones(self) -> None:
        luma = smooth(20, 32, 2)
        np.testing.assert_array_equal(
            lsh.signed_top_coefficients(luma, 20), lsh.signed_top_coefficients(luma, 60)[:, :20]
        )

    def test_blocks_do_not_matter(self) -> None:
        luma = smooth(700, 16, 3)
        together = lsh.signed_top_coefficients(luma)
        np.testing.assert_array_equal(together[500:600], lsh.signed_top_coefficients(luma[500:600]))
        assert lsh.signed_top_coefficients(luma[:0]).shape == (0, 40)

    def test_flat_thumbnails_have_no_token(self) -> None:
        luma = np.full((2, 32, 32), 0.1, dtype=np.float32)
        assert (lsh.signed_top_coefficients(luma) == -1).all()

    @pytest.mark.parametrize("side", [64, 128, 2048])
    def test_the_largest_sums_fit(self, side: int) -> None:
        luma = np.full((1, side, side), 255.0, dtype=np.float32)
        luma[:, :, side // 2 :] = -255.0
        tokens = lsh.signed_top_coefficients(luma, 3)
        assert tokens.tolist() == [[2 * 2, -1, -1]]  # cV of the deepest level, positive

    @pytest.mark.parametrize(
        ("luma", "count", "what"),
        [
            (np.zeros((1, 24, 24), np.uint8), 5, "power of two"),
            (np.zeros((1, 16, 32), np.uint8), 5, "power of two"),
            (np.zeros((1, 1, 1), np.uint8), 1, "power of two"),
            (np.zeros((8, 8), np.uint8), 5, "power of two"),
            (np.zeros((1, 4, 4), np.uint8), 16, "1 to 15"),
            (np.zeros((1, 4, 4), np.uint8), 0, "1 to 15"),
            (np.full((1, 4, 4), np.nan, np.float32), 3, "not finite"),
            (np.full((1, 4, 4), 256.0, np.float32), 3, "not within"),
        ],
    )
    def test_what_is_refused(self, luma: np.ndarray, count: int, what: str) -> None:
        with pytest.raises(ValueError, match=what):
            lsh.signed_top_coefficients(luma, count)


class TestMirror:
    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from([2, 4, 8, 32]), st.sampled_from([2, 3, 256]), st.integers(0, 2**32 - 1))
    def test_every_coefficient_has_its_place(self, side: int, colours: int, seed: int) -> None:
        luma = np.random.default_rng(seed).integers(0, colours, (20, side, side)).astype(np.uint8)
        tokens = lsh.signed_top_coefficients(luma, side * side - 1)
        there = lsh.signed_top_coefficients(luma[:, :, ::-1], side * side - 1)
        np.testing.assert_array_equal(np.sort(lsh.mirrored_tokens(tokens, side), axis=1), np.sort(there, axis=1))
        np.testing.assert_array_equal(lsh.mirrored_tokens(lsh.mirrored_tokens(tokens, side), side), tokens)

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from([2, 3, 256]), st.integers(1, 63), st.integers(0, 2**32 - 1))
    def test_one_token_at_most_differs_at_the_cut(self, colours: int, count: int, seed: int) -> None:
        luma = np.random.default_rng(seed).integers(0, colours, (40, 8, 8)).astype(np.uint8)
        found = lsh.mirrored_tokens(lsh.signed_top_coefficients(luma, count), 8)
        there = lsh.signed_top_coefficients(luma[:, :, ::-1], count)
        assert max(len(set(a) - set(b)) for a, b in zip(found.tolist(), there.tolist())) <= 1


def sketch(tokens: list[int], count: int, seed: int) -> MinHash:
    minhash = MinHash(num_perm=count, seed=seed, scheme="affine32", hashfunc=int)
    minhash.update_batch([token for token in tokens if token >= 0])
    return minhash


class TestSignatures:
    @settings(max_examples=80, deadline=None)
    @given(
        hnp.arrays(np.int64, st.tuples(st.integers(0, 12), st.integers(0, 50)), elements=st.integers(-1, 299)),
        st.sampled_from([1, 7, 128]),
        st.integers(0, 3),
    )
    def test_bit_for_bit_datasketch(self, tokens: np.ndarray, count: int, seed: int) -> None:
        found = lsh.signatures(tokens, lsh.signature_table(300, count, seed))
        assert found.dtype == np.uint32
        assert found.shape == (len(tokens), count)
        for row, signature in zip(tokens.tolist(), found):
            np.testing.assert_array_equal(signature, sketch(row, count, seed).hashvalues)

    def test_many_rows(self) -> None:
        tokens = np.random.default_rng(0).integers(-1, 2048, (600, 40))
        found = lsh.signatures(tokens, lsh.signature_table(2048, 64, 5))
        for row in (0, 255, 256, 511, 512, 599):
            np.testing.assert_array_equal(found[row], sketch(tokens[row].tolist(), 64, 5).hashvalues)

    def test_parameters_are_datasketch_s(self) -> None:
        np.testing.assert_array_equal(lsh.permutations(9, 4), MinHash(num_perm=9, seed=4).permutations)
        assert MinHash(num_perm=2).scheme == lsh.SCHEME  # the default of the installed release

    def test_a_seed_that_hashes_a_token_to_the_empty_value_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        worst = np.array([[1], [2**32 - 1]], dtype=np.uint32)  # h + 2^32 - 1, and token 0 is mixed to 0
        monkeypatch.setattr(MinHash, "_init_permutations", lambda self, count: worst)
        with pytest.raises(ValueError, match="another seed"):
            lsh.signature_table(4, 1, 987)


def random_sets(n: int, seed: int, *, empty: int = 0) -> np.ndarray:
    """Token sets of 40 in families that share a part of them."""
    rng = np.random.default_rng(seed)
    families = rng.permuted(np.tile(np.arange(512), (n // 6 + 1, 1)), axis=1)[:, :40]
    tokens = families[rng.integers(0, len(families), n)]
    swap = rng.random(tokens.shape) < rng.choice([0.0, 0.1, 0.3, 0.6], n)[:, None]
    tokens = np.where(swap, rng.integers(0, 512, tokens.shape), tokens)
    tokens[rng.choice(n, empty, replace=False)] = -1
    return tokens


def all_pairs(signature: np.ndarray, b: int, r: int, cap: int = 10**9) -> set[tuple[int, int]]:
    pairs: set[tuple[int, int]] = set()
    for band in range(b):
        found = lsh.band_pairs(signature[:, band * r : band * r + r], cap=cap)
        assert (found.a < found.b).all()
        listed = list(zip(found.a.tolist(), found.b.tolist()))
        assert len(set(listed)) == len(listed)
        pairs |= set(listed)
    return pairs


def by_index(signature: np.ndarray, queries: np.ndarray, b: int, r: int, count: int) -> set[tuple[int, int]]:
    """(query, row) by datasketch's MinHashLSH."""
    index = MinHashLSH(num_perm=count, params=(b, r))
    for row, values in enumerate(signature):
        index.insert(row, MinHash(hashvalues=values, scheme="affine32"))
    asked = enumerate(MinHash(hashvalues=values, scheme="affine32") for values in queries)
    return {(q, row) for q, minhash in asked for row in index.query(minhash)}


@pytest.mark.parametrize(("b", "r"), [(16, 1), (12, 2), (16, 4), (9, 7)])
class TestPairs:
    def test_those_of_datasketch(self, b: int, r: int) -> None:
        signature = lsh.signatures(random_sets(400, r), lsh.signature_table(512, 64, 1))
        expected = {(a, c) for a, c in by_index(signature, signature, b, r, 64) if a < c}
        assert len(expected) > 100
        assert all_pairs(signature, b, r) == expected

    def test_two_sides(self, b: int, r: int) -> None:
        table = lsh.signature_table(512, 64, 1)
        both = lsh.signatures(random_sets(400, r, empty=0), table)
        left, right = both[:150], both[150:]
        pairs: set[tuple[int, int]] = set()
        for band in range(b):
            part = slice(band * r, band * r + r)
            found = lsh.band_pairs_between(left[:, part], right[:, part], cap=10**9)
            assert not found.capped.size
            pairs |= set(zip(found.a.tolist(), found.b.tolist()))
        assert pairs == by_index(right, left, b, r, 64)

    def test_keys_that_collide_are_told_apart(self, b: int, r: int, monkeypatch: pytest.MonkeyPatch) -> None:
        signature = lsh.signatures(random_sets(200, r), lsh.signature_table(512, 64, 1))
        expected = all_pairs(signature, b, r)
        if r > 2:  # up to 2 the keys are exact
            monkeypatch.setattr(bands_module, "band_keys", lambda values, band, r: values[:, 0].astype(np.uint64) % 5)
        assert all_pairs(signature, b, r) == expected

    def test_empty_sets_meet_nothing(self, b: int, r: int) -> None:
        tokens = random_sets(100, r, empty=30)
        signature = lsh.signatures(tokens, lsh.signature_table(512, 64, 1))
        empty = set(np.flatnonzero((tokens < 0).all(axis=1)).tolist())
        assert len(empty) == 30
        assert not empty & {row for pair in all_pairs(signature, b, r) for row in pair}
        found = lsh.band_pairs_between(signature[:, :r], signature[:, :r], cap=100)
        assert not empty & (set(found.a.tolist()) | set(found.b.tolist()))
        assert set(range(100)) - empty == {a for a, c in zip(found.a.tolist(), found.b.tolist()) if a == c}

    def test_none_one_and_all_empty(self, b: int, r: int) -> None:
        one = np.zeros((1, r), dtype=U4)
        for values in (one[:0], one, np.full((5, r), lsh.EMPTY), np.arange(3 * r, dtype=U4).reshape(3, r)):
            found = lsh.band_pairs(values, cap=3)
            assert [part.size for part in found] == [0, 0, 0]
            assert found.a.dtype == found.b.dtype == np.int64
        assert [part.size for part in lsh.band_pairs_between(one[:0], one, cap=3)] == [0, 0, 0]
        assert [part.size for part in lsh.band_pairs_between(one, one[:0], cap=3)] == [0, 0, 0]
        met = lsh.band_pairs_between(one, one, cap=3)
        assert (met.a.tolist(), met.b.tolist()) == ([0], [0])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=40), st.integers(1, 3), st.integers(2, 12))
def test_capped_buckets_are_stars(names: list[int], r: int, cap: int) -> None:
    values = np.array(names, dtype=U4)[:, None].repeat(r, axis=1)
    expected, sizes = set(), []
    for name in set(names):
        rows = [row for row, other in enumerate(names) if other == name]
        if len(rows) > cap:
            expected |= {(rows[0], row) for row in rows[1:]}
            sizes.append(len(rows))
        else:
            expected |= {(a, c) for a in rows for c in rows if a < c}
    found = lsh.band_pairs(values, cap=cap)
    assert sorted(zip(found.a.tolist(), found.b.tolist())) == sorted(expected)
    assert found.capped.tolist() == sorted(sizes, reverse=True)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=30), st.lists(st.integers(0, 4), max_size=30), st.integers(2, 12))
def test_capped_buckets_of_two_sides(left: list[int], right: list[int], cap: int) -> None:
    expected, sizes = set(), []
    for name in set(left) & set(right):
        first = [row for row, other in enumerate(left) if other == name]
        second = [row for row, other in enumerate(right) if other == name]
        if len(first) + len(second) > cap:
            expected |= {(first[0], c) for c in second} | {(a, second[0]) for a in first}
            sizes.append(len(first) + len(second))
        else:
            expected |= {(a, c) for a in first for c in second}
    one, other = (np.array(side, dtype=U4)[:, None] for side in (left, right))
    found = lsh.band_pairs_between(one, other, cap=cap)
    assert sorted(zip(found.a.tolist(), found.b.tolist())) == sorted(expected)
    assert found.capped.tolist() == sorted(sizes, reverse=True)


def test_all_equal_is_linear() -> None:
    values = np.full((200_000, 5), 3, dtype=U4)
    found = lsh.band_pairs(values, cap=100)
    assert len(found.a) == len(values) - 1
    assert found.capped.tolist() == [len(values)]
    found = lsh.band_pairs_between(values, values, cap=100)
    assert len(found.a) == 2 * len(values) - 1


@pytest.mark.parametrize("r", [1, 2])
def test_packed_keys_are_exact(r: int) -> None:
    values = np.random.default_rng(r).integers(0, 2**32, (100, 6), dtype=U4)
    for band in range(6 // r):
        keys = lsh.band_keys(values, band, r)
        assert keys.dtype == np.uint64
        part = [int.from_bytes(row.astype(">u4").tobytes()) for row in values[:, band * r : band * r + r]]
        assert keys.tolist() == part


def test_mixed_keys_are_spread_and_depend_on_every_number() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(40, dtype=U4)] * 3), axis=-1).reshape(-1, 3)
    assert len(np.unique(lsh.band_keys(grid, 0, 3))) == len(grid)


class TestChoice:
    @pytest.mark.parametrize("similarity", [0.3, 0.5, 0.8])
    @pytest.mark.parametrize(("b", "r"), [(4, 1), (8, 2), (16, 4)])
    def test_recall_is_the_formula_s(self, similarity: float, b: int, r: int) -> None:
        """3,000 pairs of sets of exactly that similarity, each set under seeds of its own tokens."""
        rng = np.random.default_rng(b)
        pairs, size = 3000, 52
        shared = round(2 * similarity * size / (1 + similarity))
        exact = shared / (2 * size - shared)
        drawn = rng.permuted(np.tile(np.arange(2048), (pairs, 1)), axis=1)[:, : 2 * size - shared]
        table = lsh.signature_table(2048, 64, 1)
        left, right = (lsh.signatures(part, table) for part in (drawn[:, :size], drawn[:, size - shared :]))
        equal = (left == right)[:, : b * r].reshape(pairs, b, r)
        met = equal.all(axis=2).any(axis=1).mean()
        expected = lsh.hit_probability(exact, b, r)
        assert abs(met - expected) <= 3 * np.sqrt(expected * (1 - expected) / pairs)

    def test_hit_probability(self) -> None:
        assert lsh.hit_probability(0.0, 5, 2) == 0
        assert lsh.hit_probability(1.0, 5, 2) == 1
        j = np.linspace(0, 1, 11)
        np.testing.assert_allclose(lsh.hit_probability(j, 7, 3), 1 - (1 - j**3) ** 7, atol=1e-15)
        assert lsh.hit_probability(1e-6, 3, 3) == pytest.approx(3e-18)  # no cancellation

    @pytest.mark.parametrize("similarity", [0.3, 0.6, 0.9, 1.0])
    @pytest.mark.parametrize("recall", [0.5, 0.9, 0.999])
    @pytest.mark.parametrize("allowed", [64, 128])
    def test_no_choice_is_better(self, similarity: float, recall: float, allowed: int) -> None:
        rng = np.random.default_rng(0)
        sample = rng.beta(2, 20, 500)
        best = lsh.choose_bands(similarity, recall, 1001, allowed=allowed, background=sample)
        assert best.b * best.r <= best.permutations == allowed
        assert best.recall == pytest.approx(1 - (1 - similarity**best.r) ** best.b)
        assert best.recall >= recall
        assert best.candidates == pytest.approx(1000 * (1 - (1 - sample**best.r) ** best.b).mean())
        for r in range(1, allowed + 1):
            for b in range(2, allowed // r + 1):
                if 1 - (1 - similarity**r) ** b >= recall + 1e-12:
                    assert 1000 * (1 - (1 - sample**r) ** b).mean() >= best.candidates * (1 - 1e-9) - 1e-9

    def test_default_background(self) -> None:
        """Moments of Beta(3.2, 30.4): E[J^r] is the product of (alpha + i) / (alpha + beta + i)."""
        for similarity, recall in ((0.5, 0.3), (0.65, 0.95), (0.9, 0.9)):
            found = lsh.choose_bands(similarity, recall, 11)
            draws = np.random.default_rng(1).beta(3.2, 30.4, 2_000_000)
            values = lsh.hit_probability(draws, found.b, found.r)
            assert found.candidates / 10 == pytest.approx(values.mean(), abs=4 * values.std() / np.sqrt(len(draws)))

    def test_permutations_follow_from_n(self) -> None:
        assert lsh.choose_bands(0.5, 0.9, 1_000_000).permutations == 128
        large = lsh.choose_bands(0.5, 0.9, 1_000_001)
        assert large.permutations == 256
        assert large.r > lsh.choose_bands(0.5, 0.9, 1_000_000).r
        assert lsh.choose_bands(0.5, 0.9, 5).candidates < lsh.choose_bands(0.5, 0.9, 50).candidates

    def test_what_cannot_be_reached_is_told(self) -> None:
        with pytest.raises(ValueError, match=r"128 permutations cannot find a share of 0\.9 .* 0\.01 \(at most 0\.72"):
            lsh.choose_bands(0.01, 0.9, 100)
        for similarity, recall in ((0.0, 0.5), (1.1, 0.5), (0.5, 0.0), (0.5, 1.0)):
            with pytest.raises(ValueError, match="between 0 and 1"):
                lsh.choose_bands(similarity, recall, 100)


def test_the_parts_together() -> None:
    """Copies, brighter ones and mirrored ones are found; the record survives pickling."""
    luma = smooth(300, 32, 4) // 2
    luma[100:200] = luma[:100] + np.uint8(60)
    luma[200:] = luma[:100, :, ::-1]
    chosen = pickle.loads(pickle.dumps(lsh.choose_bands(0.65, 0.95, len(luma))))
    table = lsh.signature_table(2048, chosen.permutations, 1)
    tokens = lsh.signed_top_coefficients(luma)
    plain, turned = lsh.signatures(tokens, table), lsh.signatures(lsh.mirrored_tokens(tokens), table)
    assert {(a, a + 100) for a in range(100)} <= all_pairs(plain, chosen.b, chosen.r, cap=100)
    mirrored: set[tuple[int, int]] = set()
    for band in range(chosen.b):
        part = slice(band * chosen.r, (band + 1) * chosen.r)
        found = lsh.band_pairs_between(plain[:, part], turned[:, part], cap=100)
        mirrored |= set(zip(found.a.tolist(), found.b.tolist()))
    assert {(a, a + 200) for a in range(100)} | {(a + 200, a) for a in range(100)} <= mirrored


class TestSketches:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 140), st.integers(0, 2**32 - 1))
    def test_agreement_is_the_number_of_equal_bits(self, count: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        values = random.integers(0, 2**32, (2, 9, count), dtype=U4)
        values[1, :, ::3] = values[0, :, ::3]
        left, right = lsh.sketches(values)
        assert left.dtype == np.uint8
        assert left.shape == (9, -(-count // 8))
        i, j = random.integers(0, 9, (2, 30))
        bits = [(side * U4(0x9E3779B1)) >> U4(31) for side in values]
        expected = (bits[0][i] == bits[1][j]).sum(axis=1)
        np.testing.assert_array_equal(lsh.agreement(left, i, right, j, count), expected)
        np.testing.assert_array_equal(lsh.agreement(left, i, left, i, count), np.full(30, count))

    @pytest.mark.parametrize("shared", [0, 10, 20, 30, 36])
    def test_it_tells_the_similarity(self, shared: int) -> None:
        """Sets of 40 of which some are shared: K (1 + J) / 2 of K bits are equal, within what chance allows."""
        random = np.random.default_rng(shared)
        sets = np.array([random.permutation(2048)[: 80 - shared] for _ in range(300)])
        table = lsh.signature_table(2048, 128, 1)
        left, right = (lsh.sketches(lsh.signatures(tokens, table)) for tokens in (sets[:, :40], sets[:, 40 - shared :]))
        found = lsh.agreement(left, np.arange(300), right, np.arange(300), 128)
        jaccard = shared / (80 - shared)
        share = (1 + jaccard) / 2
        assert abs(found.mean() / 128 - share) < 5 * np.sqrt(share * (1 - share) / 128 / 300) + 0.004
        assert found.std() < 1.5 * np.sqrt(128 * share * (1 - share)) + 0.5

    def test_pairs_alike_are_kept(self) -> None:
        bands = lsh.choose_bands(0.75, 0.9, 60_000)
        least = lsh.least_agreement(0.5, bands.permutations)
        assert least == 96
        assert bands.recall * 0.999 < lsh.kept_recall(bands, 0.75, least) <= bands.recall
        assert lsh.least_agreement(0.0, 128) == 0
        assert lsh.kept_recall(bands, 0.75, 0) == bands.recall
