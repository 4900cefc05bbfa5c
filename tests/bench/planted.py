"""Images with planted edits: pairs that a search must find."""

from __future__ import annotations

import numpy as np

from tests.bench.inputs import images

__all__ = ["KINDS", "planted"]

KINDS = ("noise", "shift", "brightness", "exact")


def planted(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n images, of which about 7 % are edits of others, a quarter of each kind, at the end.

    Returns
    -------
    images : ndarray, shape (n, 32, 32, 3), uint8
    original : ndarray, shape (n,), int64
        Row of the image that was edited; -1 for the others. No image is edited twice.
    kind : ndarray, shape (n,), int64
        Index into `KINDS`, -1 for the others: noise of up to 3 grey levels, 1 pixel to the right, 8 levels brighter,
        the same pixels.
    """
    each = max(2, round(0.0175 * n))
    plain = n - each * len(KINDS)
    rng = np.random.default_rng(0)
    out = np.concatenate([images(n)[:plain], np.empty((n - plain, 32, 32, 3), np.uint8)])
    original, kind = np.full(n, -1), np.full(n, -1)
    original[plain:] = rng.permutation(plain)[: n - plain]
    kind[plain:] = np.arange(n - plain) % len(KINDS)
    for row in range(plain, n):
        pixels = out[original[row]].astype(np.int16)
        if kind[row] == 0:
            pixels += rng.integers(-3, 4, pixels.shape, dtype=np.int16)
        elif kind[row] == 1:
            pixels = np.concatenate([pixels[:, :1], pixels[:, :-1]], axis=1)
        elif kind[row] == 2:
            pixels += 8
        out[row] = np.clip(pixels, 0, 255)
    return out, original, kind
