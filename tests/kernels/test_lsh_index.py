"""Single look-ups: the answers of the bulk join, in memory and in a Redis server of the test's own."""

from __future__ import annotations

import importlib.util
import pickle
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from daskim.kernels.lsh import Index, band_pairs, signature_table, signatures

B, R, COUNT, SEED = 12, 3, 48, 7


def sets(n: int = 200) -> np.ndarray:
    """Token sets; each tenth is a copy of the one before with some tokens changed, and row 5 is empty."""
    rng = np.random.default_rng(0)
    tokens = rng.permuted(np.tile(np.arange(2048), (n, 1)), axis=1)[:, :40]
    tokens[1::10] = tokens[::10]
    tokens[1::10, :5] = rng.integers(0, 2048, tokens[1::10, :5].shape)
    tokens[5] = -1
    return tokens


def joined(signature: np.ndarray) -> dict[int, list[int]]:
    """Rows that share a band with each row, itself included."""
    near: dict[int, set[int]] = {row: {row} for row in range(len(signature)) if row != 5}
    for band in range(B):
        pairs = band_pairs(signature[:, band * R : band * R + R], cap=1000)
        for a, b in zip(pairs.a.tolist(), pairs.b.tolist()):
            near[a].add(b)
            near[b].add(a)
    return {row: sorted(others) for row, others in near.items()}


def check(index: Index, tokens: np.ndarray, signature: np.ndarray) -> None:
    expected = joined(signature)
    assert sum(len(others) > 1 for others in expected.values()) >= 30
    for row, others in expected.items():
        found = index.query(signature[row])
        assert found.dtype == np.int64
        assert found.tolist() == others
    assert index.query_tokens(tokens[11]).tolist() == expected[11]
    assert index.query_tokens(tokens[5]).tolist() == []
    assert index.query(signature[5]).tolist() == []


@pytest.fixture
def filled() -> tuple[np.ndarray, np.ndarray]:
    tokens = sets()
    return tokens, signatures(tokens, signature_table(2048, COUNT, SEED))


def test_the_answers_of_the_join(filled: tuple[np.ndarray, np.ndarray]) -> None:
    tokens, signature = filled
    index = Index(B, R, COUNT, seed=SEED)
    assert index.query(signature[0]).tolist() == []
    index.insert(range(100), signature[:100])
    index.insert(np.arange(100, 200), signature[100:])
    check(index, tokens, signature)
    check(pickle.loads(pickle.dumps(index)), tokens, signature)


def test_rows_keep_their_names(filled: tuple[np.ndarray, np.ndarray]) -> None:
    index = Index(B, R, COUNT, seed=SEED)
    index.insert([10**12, 3], filled[1][:2])
    assert index.query(filled[1][0]).tolist() == [3, 10**12]


def test_a_row_twice_or_without_signature_is_refused(filled: tuple[np.ndarray, np.ndarray]) -> None:
    index = Index(B, R, COUNT, seed=SEED)
    index.insert([1], filled[1][:1])
    with pytest.raises(ValueError, match="already exists"):
        index.insert([1], filled[1][1:2])
    with pytest.raises(ValueError, match="shorter"):
        index.insert([2, 3], filled[1][2:3])


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """A server without persistence on a free port of this machine; ended with the test."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    if importlib.util.find_spec("redis") is None:
        pytest.skip("the Python package redis is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen([*words, "--dir", str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            assert server.poll() is None, "redis-server ended at once"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        else:
            pytest.fail("redis-server does not listen")
        yield {"type": "redis", "basename": b"images", "redis": {"host": "127.0.0.1", "port": port}}
    finally:
        server.terminate()
        server.wait(timeout=20)


def test_in_redis(redis: dict[str, Any], filled: tuple[np.ndarray, np.ndarray]) -> None:
    tokens, signature = filled
    index = Index(B, R, COUNT, seed=SEED, storage=redis)
    index.insert(range(len(signature)), signature)
    check(index, tokens, signature)
    check(pickle.loads(pickle.dumps(index)), tokens, signature)
    check(Index(B, R, COUNT, seed=SEED, storage=redis), tokens, signature)  # another process finds what was stored
    apart = Index(B, R, COUNT, seed=SEED, storage={**redis, "basename": b"others"})
    assert apart.query(signature[0]).tolist() == []
