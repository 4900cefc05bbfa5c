"""Where the registration of two images begins: of some centre crops of either, mirrored or not, the two most alike.

Crops are compared on the coarsest level as whole numbers, so that their products are exact in any order: then the
order of a pair, or what else is compared with it, cannot matter.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["UNIT", "start", "unit_crops"]

# Units of the crops: products of two images of unit norm then add up to 2^28 at most.
UNIT = 2.0**14


def unit_crops(crops: list[np.ndarray]) -> NDArray[np.int16]:
    """Crops over their norms, in whole numbers, as they are and mirrored.

    Parameters
    ----------
    crops : list of ndarrays, shape (b, y, c, x), float32
        Less the means of their channels.

    Returns
    -------
    ndarray, shape (b, 2, crops, size), int16
        Times `UNIT`.
    """
    images = np.stack(crops, axis=1)
    b, count = images.shape[:2]
    flat = images.reshape(b, count, math.prod(images.shape[2:]))
    norm = np.sqrt(np.vecdot(flat, flat)) + np.float32(1e-6)
    whole = np.rint(images / norm[:, :, None, None, None] * np.float32(UNIT)).astype(np.int16)
    return np.stack([whole, whole[..., ::-1]], axis=1).reshape(b, 2, count, flat.shape[2])


def start(
    left: np.ndarray, right: np.ndarray, pixels: np.ndarray, others: np.ndarray
) -> tuple[NDArray[np.bool_], NDArray[np.intp], NDArray[np.float64]]:
    """What each of p pairs begins with.

    The wider picture is moved onto the crop, which it covers.

    Parameters
    ----------
    left, right : ndarray, shape (p, 2, crops, size), int16
        From `unit_crops`; the first crop is the whole image.
    pixels, others : ndarray, shape (p, ...), uint8
        The images, which tell apart those that have equal crops.

    Returns
    -------
    swap : ndarray, shape (p,), bool
        Whether the right image is the template.
    best : ndarray, shape (p,), int
        Mirrored, which is the crop, crop (as one number, the crop last): the first of the largest products.
    product : ndarray, shape (p,), float64
        The largest.
    """
    turned = _comes_first(((right[:, 0, 0], left[:, 0, 0]), (others, pixels)))
    p, _, count, _ = left.shape
    swapped = turned[:, None, None, None]
    one, other = np.where(swapped, right, left)[:, 0], np.where(swapped, left, right)
    one = one.astype(np.float64)  # exact, and faster than whole numbers
    found = np.empty((p, 2, 2, count))  # mirrored, which is the crop, crop
    for m in range(2):
        form = other[:, m].astype(np.float64)
        found[:, m, 0] = np.vecdot(one[:, :1], form)  # the template is a crop of the other
        found[:, m, 1] = np.vecdot(one, form[:, :1])
    flat = found.reshape(p, 4 * count)
    best = flat.argmax(axis=1)
    return turned ^ (best // count % 2 == 1), best, flat.max(axis=1)


def _comes_first(stacks: tuple[tuple[np.ndarray, np.ndarray], ...]) -> NDArray[np.bool_]:
    """Whether the first number in which two images differ is larger in the first: so that no order of a pair matters.

    Each tuple holds numbers of the first and of the second image; later ones count where all earlier are equal.
    """
    larger = np.zeros(len(stacks[0][0]), dtype=bool)
    todo = np.arange(len(larger))
    for one, other in stacks:
        if not todo.size:
            break
        a, b = (images[todo].reshape(len(todo), -1) for images in (one, other))
        first = (a != b).argmax(axis=1)
        rows = np.arange(len(todo))
        larger[todo] = a[rows, first] > b[rows, first]
        todo = todo[a[rows, first] == b[rows, first]]  # such as images without contrast
    return larger
