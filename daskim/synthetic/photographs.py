"""The photographs and textures that scikit-image and scikit-learn carry inside their wheels."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from daskim.errors import SourceError

__all__ = ["photographs"]

# Photographs and textures only. Left out of the same folders: drawings and text, the second view of the
# stereo pair (near-duplicates that nobody planted), and pictures that are blur or plain ground nearly
# everywhere.
_PHOTOGRAPHS = {
    "skimage/data": (
        "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png",
        "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg",
        "rocket.jpg",
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}  # fmt: skip


def photographs() -> dict[str, np.ndarray]:
    """The photographs that lie in the installed wheels of scikit-image and scikit-learn.

    The files are read where the wheels put them. Neither package is imported and its loaders are not called,
    so nothing can be downloaded.

    Returns
    -------
    dict of str to ndarray
        By name ("astronaut"), sorted: (height, width, 3) uint8 RGB; a grey photograph has three equal
        channels. 16 of them with scikit-image 0.26 and scikit-learn 1.9; a photograph that a later wheel no
        longer carries is absent.

    Raises
    ------
    SourceError
        If none is found.
    """
    found = {}
    for folder, names in _PHOTOGRAPHS.items():
        package, _, inner = folder.partition("/")
        spec = find_spec(package)
        for root in (spec.submodule_search_locations or ()) if spec else ():
            for path in (Path(root) / inner / name for name in names):
                if path.is_file():
                    with Image.open(path) as image:
                        found[path.stem] = np.array(image.convert("RGB"))
    if not found:
        raise SourceError(
            "The demo's photographs are not in the installed scikit-image and scikit-learn.",
            "Reinstall them from wheels: pip install --force-reinstall scikit-image scikit-learn",
        )
    return dict(sorted(found.items()))
