"""How one image lies on another: mirror, scale and shift along each axis, found from coarse to fine.

A pair is registered by moving one image (the *moved*) until it agrees with the other (the *template*), up to brightness
of each channel and one contrast. The motion has four numbers: along each axis the position x of the template is looked
up at scale * x + shift of the moved image, both measured from the centre, in units of the side. Such a motion acts on
rows and columns apart, so that to apply it is two small matrix products, and to improve it is the inverse compositional
step of Baker and Matthews (2004, "Lucas-Kanade 20 years on", section 3.2): the derivatives are those of the template
and are made once a level.

All functions take stacks of p pairs as float32 arrays (p, y, c, x). No pair's numbers depend on the other pairs, to the
last bit: inner products are `vecdot`, as a product of a stack with a vector, or an einsum over more than 8,192 numbers,
adds up in an order that depends on the stack.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Match",
    "Motion",
    "Template",
    "cell_means",
    "cell_weights",
    "centred",
    "detrended",
    "match",
    "move",
    "overlap",
    "positions",
    "rough_match",
    "step",
    "template_of",
    "unmoved",
]

Stack = NDArray[np.float32]

# Scales and shifts that are looked for. Beyond them two pictures share less than half of their content.
SCALE = (0.55, 1.8)
SHIFT = 0.35
# Largest change of scale, and of the shift in sides, in one step: farther than that the derivatives say nothing.
STEP_SCALE = 0.1
STEP_SHIFT = 1 / 16
# Contrast ratios that are accounted for.
GAIN = (0.3, 3.0)
# Share of the mean diagonal that is added to the normal matrix: images without texture along an axis stay put.
RIDGE = 1e-3
# How far outside the outermost pixel centre, in pixels, a position still counts as seen.
MARGIN = 0.25


@dataclass(frozen=True)
class Motion:
    """Motions of p pairs.

    Attributes
    ----------
    scale, shift : ndarray, shape (2, p), float32
        Along y and x. scale 1 and shift 0 is no motion; shift in sides of the image.
    """

    scale: Stack
    shift: Stack

    def take(self, rows: np.ndarray) -> Motion:
        """The motions of some pairs."""
        return Motion(self.scale[:, rows], self.shift[:, rows])

    def either(self, where: np.ndarray, other: Motion) -> Motion:
        """The other motion where `where` (p,) is true, else this one."""
        return Motion(np.where(where, other.scale, self.scale), np.where(where, other.shift, self.shift))


@dataclass(frozen=True)
class Template:
    """Templates of p pairs at one level.

    Attributes
    ----------
    image, along_y, along_x : ndarray, shape (p, y, c, x)
        Pixels and their derivatives.
    inverse : ndarray, shape (p, 4, 4), float32
        Inverse normal matrices of the parameters (scale y, shift y, scale x, shift x), positions from -1/2 to 1/2.
    """

    image: Stack
    along_y: Stack
    along_x: Stack
    inverse: Stack

    def take(self, rows: np.ndarray) -> Template:
        """Some of the templates."""
        return Template(self.image[rows], self.along_y[rows], self.along_x[rows], self.inverse[rows])


def unmoved(scale: np.ndarray) -> Motion:
    """Motions of the given scales (p,), the same along both axes, about the centre."""
    both = np.stack([scale, scale]).astype(np.float32)
    return Motion(both, np.zeros_like(both))


def cell_weights(size: int, cells: int, low: float = 0.0, high: float | None = None) -> Stack:
    """Means over `cells` equal parts of [low, high) of an axis of `size` pixels; shape (cells, size), rows sum to 1."""
    edges = np.linspace(low, size if high is None else high, cells + 1)
    pixel = np.arange(size)
    inside = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    weights = np.maximum(inside, 0.0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def cell_means(images: Stack, down: Stack, across: Stack) -> Stack:
    """Images (b, y, c, x) averaged over cells by the weights of both axes."""
    b, height, channels, width = images.shape
    rows = np.matmul(down, images.reshape(b, height, channels * width))
    rows = rows.reshape(b, len(down) * channels, width)
    return np.matmul(rows, across.T).reshape(b, len(down), channels, len(across))


def positions(size: int) -> Stack:
    """Pixel centres from the centre of an axis, in sides; shape (size,), float32."""
    return ((np.arange(size) - (size - 1) / 2) / size).astype(np.float32)


def _look_up(scale: Stack, shift: Stack, size: int) -> tuple[Stack, NDArray[np.bool_]]:
    """Linear interpolation along one axis: matrices (p, size, size), and which positions are inside (p, size)."""
    at = scale[:, None] * positions(size) * size + (shift * size)[:, None] + np.float32((size - 1) / 2)
    seen = (at >= -MARGIN) & (at <= size - 1 + MARGIN)
    at = np.clip(at, 0, size - 1)
    weights = at[:, :, None] - np.arange(size, dtype=np.float32)
    np.abs(weights, out=weights)
    np.subtract(np.float32(1), weights, out=weights)
    np.maximum(weights, np.float32(0), out=weights)
    return weights, seen


def move(images: Stack, motion: Motion) -> tuple[Stack, NDArray[np.bool_], NDArray[np.bool_]]:
    """Images moved, and the rows (p, y) and columns (p, x) of the template that they show."""
    p, height, channels, width = images.shape
    down, seen_y = _look_up(motion.scale[0], motion.shift[0], height)
    across, seen_x = _look_up(motion.scale[1], motion.shift[1], width)
    rows = np.matmul(down, images.reshape(p, height, channels * width)).reshape(p, height * channels, width)
    return np.matmul(rows, across.transpose(0, 2, 1)).reshape(images.shape), seen_y, seen_x


def template_of(images: Stack) -> Template:
    """Derivatives and normal matrices of templates (p, y, c, x)."""
    p, height, _, width = images.shape
    along_y, along_x = np.zeros_like(images), np.zeros_like(images)
    np.subtract(images[:, 2:], images[:, :-2], out=along_y[:, 1:-1])
    np.subtract(images[..., 2:], images[..., :-2], out=along_x[..., 1:-1])
    along_y *= np.float32(height / 2)
    along_x *= np.float32(width / 2)
    y, x = positions(height), positions(width)
    normal = np.empty((p, 4, 4), dtype=np.float32)
    yy = np.einsum("pycx,pycx->py", along_y, along_y)
    xx = np.einsum("pycx,pycx->px", along_x, along_x)
    xy = np.einsum("pycx,pycx->pyx", along_y, along_x)
    normal[:, 0, 0], normal[:, 0, 1], normal[:, 1, 1] = np.vecdot(yy, y * y), np.vecdot(yy, y), yy.sum(axis=1)
    normal[:, 2, 2], normal[:, 2, 3], normal[:, 3, 3] = np.vecdot(xx, x * x), np.vecdot(xx, x), xx.sum(axis=1)
    by_x = np.matmul(xy, np.stack([x, np.ones_like(x)], axis=1))  # (p, y, 2)
    normal[:, 0, 2:], normal[:, 1, 2:] = np.einsum("pyk,y->pk", by_x, y), by_x.sum(axis=1)
    normal[:, 1, 0], normal[:, 3, 2] = normal[:, 0, 1], normal[:, 2, 3]
    normal[:, 2:, :2] = normal[:, :2, 2:].transpose(0, 2, 1)
    ridge = RIDGE * np.trace(normal, axis1=1, axis2=2) / 4 + np.float32(1e-3)
    normal[:, range(4), range(4)] += ridge[:, None]
    return Template(images, along_y, along_x, np.linalg.inv(normal))


@dataclass(frozen=True)
class Match:
    """How the images of p pairs agree under a motion.

    Attributes
    ----------
    template, moved : ndarray, shape (p, y, c, x), float32
        Both less the means of their channels over the shared part, and 0 outside it.
    correlation : ndarray, shape (p,), float32
        Of the two, -1 to 1.
    gain : ndarray, shape (p,), float32
        What the moved image is to be multiplied with, for the least squared difference.
    """

    template: Stack
    moved: Stack
    correlation: Stack
    gain: Stack

    def take(self, rows: np.ndarray) -> Match:
        """The matches of some pairs."""
        return Match(self.template[rows], self.moved[rows], self.correlation[rows], self.gain[rows])


def centred(images: Stack) -> Stack:
    """Images (p, y, c, x) less the mean of each channel."""
    _, height, _, width = images.shape
    return images - (_channel_sums(images) / np.float32(height * width))[:, None, :, None]


def detrended(images: Stack) -> Stack:
    """Images (p, y, c, x) less the plane of least squares of each channel: its mean and its gradients.

    The coordinates are centred, so mean and both slopes are orthogonal and come one by one.
    """
    level = centred(images)
    _, height, _, width = images.shape
    y, x = (np.arange(side, dtype=images.dtype) - images.dtype.type((side - 1) / 2) for side in (height, width))
    down = np.einsum("pycx,y->pc", level, y / max((y @ y) * width, 1))
    across = np.einsum("pycx,x->pc", level, x / max((x @ x) * height, 1))
    level -= down[:, None, :, None] * y[None, :, None, None]
    level -= across[:, None, :, None] * x
    return level


def _channel_sums(images: Stack) -> Stack:
    p, height, channels, width = images.shape
    rows: Stack = images.reshape(p, height, channels * width).sum(axis=1)
    return rows.reshape(p, channels, width).sum(axis=2)


def match(template: Stack, moved: Stack, motion: Motion) -> Match:
    """Move the images and compare them with centred templates over what both show."""
    image, seen_y, seen_x = move(moved, motion)
    if seen_y.all() and seen_x.all():
        return _agreement(template, centred(image))
    shared = (seen_y[:, :, None] & seen_x[:, None, :]).astype(np.float32)[:, :, None]
    size = np.maximum(seen_y.sum(axis=1) * seen_x.sum(axis=1), 1).astype(np.float32)
    cut = size < np.float32(seen_y.shape[1] * seen_x.shape[1])  # all other pairs get the same bits as above
    out = []
    for picture, some in ((template, cut), (image, np.ones_like(cut))):
        part = picture * shared
        part -= (_channel_sums(part) * some[:, None] / size[:, None])[:, None, :, None]
        part *= shared
        out.append(part)
    return _agreement(out[0], out[1])


def rough_match(template: Stack, moved: Stack, motion: Motion) -> Match:
    """As `match`, with the moved image repeated beyond its border: for the coarsest level, at half the cost."""
    return _agreement(template, centred(move(moved, motion)[0]))


def _agreement(left: Stack, right: Stack) -> Match:
    both, own = _dot(left, right), _dot(right, right)
    correlation = both / np.sqrt(_dot(left, left) * own + np.float32(1e-3))
    gain = np.clip(both / np.maximum(own, np.float32(1e-3)), *GAIN)
    return Match(left, right, correlation, gain.astype(np.float32, copy=False))


def _dot(left: Stack, right: Stack) -> Stack:
    p, size = len(left), left[:1].size
    return np.vecdot(left.reshape(p, size), right.reshape(p, size))


def step(template: Template, found: Match, motion: Motion) -> Motion:
    """The motion after one step that makes the two images agree better."""
    difference = found.moved * found.gain[:, None, None, None]
    difference -= found.template
    force_y = np.einsum("pycx,pycx->py", template.along_y, difference)
    force_x = np.einsum("pycx,pycx->px", template.along_x, difference)
    y, x = positions(force_y.shape[1]), positions(force_x.shape[1])
    force = np.stack([np.vecdot(force_y, y), force_y.sum(axis=1), np.vecdot(force_x, x), force_x.sum(axis=1)], axis=1)
    change = np.einsum("pjk,pk->jp", template.inverse, force)
    scale_change = 1 + np.clip(change[0::2], -STEP_SCALE, STEP_SCALE)
    shift_change = np.clip(change[1::2], -STEP_SHIFT, STEP_SHIFT)
    # the change moves the template; undoing it before the motion moves the other image instead
    scale = motion.scale / scale_change
    shift = np.clip(motion.shift - scale * shift_change, -SHIFT, SHIFT)
    return Motion(np.clip(scale, *SCALE).astype(np.float32), shift.astype(np.float32))


def overlap(motion: Motion) -> NDArray[np.float64]:
    """Share of the two pictures that both show: the geometric mean of the shares of either, (p,), 0 to 1."""
    scale, shift = motion.scale.astype(np.float64), motion.shift.astype(np.float64)
    low, high = np.maximum(shift - scale / 2, -0.5), np.minimum(shift + scale / 2, 0.5)
    share = np.maximum(high - low, 0.0)  # of the moved picture, along each axis
    return np.sqrt(np.prod(share, axis=0) * np.prod(share / scale, axis=0))
