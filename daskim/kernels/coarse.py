"""Images on 8 x 8 cells, brightness and contrast taken off, in the forms in which they are looked up.

The means over cells are the coarse approximation of the Haar transform (up to a factor). Less the mean of each channel
and over their norm, the inner product of two images is their correlation: neither brightness nor contrast matters. An
image is looked up as it is, as centre crops of it, and each of those mirrored, among images as they are: so a crop
finds what it was cut from, and that finds the crop.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from daskim.kernels.registration import cell_means, cell_weights

__all__ = ["CELLS", "cosine_directions", "forms", "luma", "odd_directions", "width"]

# Cells along each axis, whatever the image's aspect.
CELLS = 8
# ITU-R BT.601, as in JPEG.
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)

# What the contrasts of colour count against that of grey, in squared frequency: of photographs, red less blue has about
# a twelfth of the energy of grey at the same frequency, green less both a sixtieth (measured on CIFAR-10).
COLOUR = (1.0, 12.0, 60.0)


def width(channels: int) -> int:
    """Numbers of one form of an image."""
    return CELLS * CELLS * channels


def cosine_directions(channels: int, k: int) -> np.ndarray:
    """The k cosines over the cells that hold most of the energy of photographs; shape (width, k), float32, orthonormal.

    Parameters
    ----------
    channels : int
        1, or 3 as RGB, whose grey, red less blue and green less both are told apart.
    k : int
        At most all but the means, which are 0, are returned.

    Notes
    -----
    The energy of photographs falls with the square of the frequency (Field 1987), so the order follows from the
    frequencies alone, and images that come later are looked up in the same directions. On CIFAR-10 the first 48 of 192
    hold 91.3 % of the energy; the leading principal directions of that set hold 93.3 %.
    """
    place = (np.arange(CELLS) + 0.5) * np.pi / CELLS
    waves = np.cos(np.arange(CELLS)[:, None] * place)
    waves /= np.linalg.norm(waves, axis=1, keepdims=True)
    mixed = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) if channels == 3 else np.eye(channels)
    mixed = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    down, colour, across = _frequencies(channels, k)
    found = np.einsum("ky,kc,kx->kycx", waves[down], mixed[colour], waves[across])
    return found.reshape(len(down), width(channels)).T.astype(np.float32)


def odd_directions(channels: int, k: int) -> np.ndarray:
    """Which of `cosine_directions` change their sign when the image is mirrored; shape (k,), bool. The others stay."""
    return _frequencies(channels, k)[2] % 2 == 1


def _frequencies(channels: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequency down, colour and frequency across of the directions, those of most energy first."""
    weight = np.array(COLOUR) if channels == 3 else np.ones(channels)
    frequency = np.arange(CELLS) ** 2
    cost = (frequency[:, None, None] + frequency[None, None, :]) * weight[None, :, None]
    order = np.argsort(cost, axis=None, kind="stable")[channels:]  # the first are the means
    down, colour, across = np.unravel_index(order[:k], cost.shape)
    return down, colour, across


def forms(images: np.ndarray, crops: Sequence[float], *, mirror: bool) -> np.ndarray:
    """Every form of some images.

    Parameters
    ----------
    images : ndarray, shape (b, h, w, c), uint8
    crops : sequence of float
        Shares of the side, 0 to 1, of the centre crops besides the whole.
    mirror : bool

    Returns
    -------
    ndarray, shape (b, forms, CELLS * CELLS * c), float32
        The whole image first; with `mirror` each is followed by its mirrored form. Unit norm; zeros for images without
        contrast.
    """
    b, height, across, channels = images.shape
    pixels = images.transpose(0, 1, 3, 2).astype(np.float32)
    out = []
    sides = [
        [cell_weights(size, CELLS, size * (1 - share) / 2, size * (1 + share) / 2) for size in (height, across)]
        for share in (1.0, *crops)
    ]
    # the rows of all forms in one product: twice as fast as one after the other
    down = np.concatenate([weights for weights, _ in sides])
    rows = np.matmul(down, pixels.reshape(b, height, channels * across))
    rows = rows.reshape(b, len(sides), CELLS * channels, across)
    for form_rows, (_, weights) in zip(rows.swapaxes(0, 1), sides):
        cells = np.matmul(form_rows, weights.T).reshape(b, CELLS, channels, CELLS)
        cells -= cells.mean(axis=(1, 3), keepdims=True)
        for form in (cells, cells[..., ::-1]) if mirror else (cells,):
            flat = form.reshape(b, width(channels))
            norm = np.sqrt(np.einsum("bk,bk->b", flat, flat))
            out.append(flat / np.where(norm > 1e-3, norm, np.inf)[:, None].astype(np.float32))
    return np.stack(out, axis=1)


def luma(images: np.ndarray, side: int, share: float = 1.0) -> np.ndarray:
    """Luma of images (b, h, w, c) uint8, or of their centre crops, on side x side cells; (b, side, side), float32."""
    _, height, across, channels = images.shape
    pixels = images.astype(np.float32)
    grey = pixels @ LUMA if channels == 3 else pixels.mean(axis=3)
    if (height, across) == (side, side) and share == 1.0:
        return np.minimum(grey, np.float32(255))  # rounded weights may sum to more than 1
    sides = [cell_weights(size, side, size * (1 - share) / 2, size * (1 + share) / 2) for size in (height, across)]
    cells = cell_means(grey[:, :, None], sides[0], sides[1])[:, :, 0]
    return np.minimum(cells, np.float32(255))
