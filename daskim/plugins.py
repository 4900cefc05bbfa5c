"""A folder is the registry: a plug-in is the one class that a file of that folder exports as `PLUGIN`.

`find("transforms", "wavelet")` loads `daskim/transforms/wavelet.py`; a dotted name (`mypackage.mymodule.MyClass`) loads
one from outside.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from typing import Any

from daskim.errors import SettingsError, nearest
from daskim.settings import Wavelets
from daskim.similarities import Similarity
from daskim.transforms import Transform

__all__ = ["find", "names", "similarity_of", "transform_of"]


def names(folder: str) -> list[str]:
    """The plug-ins that daskim ships in a folder, sorted."""
    package = importlib.import_module(f"daskim.{folder}")
    return sorted(info.name for info in pkgutil.iter_modules(package.__path__))


def find(folder: str, name: str) -> Any:
    """The plug-in `name` of a folder, or the object that a dotted name leads to.

    Raises
    ------
    SettingsError
        Nothing of that name; says what there is.
    """
    if "." in name:
        module, _, attribute = name.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise SettingsError(f"{folder}: cannot load {name} ({error})", "Give it as package.module.Class.") from None
        if not callable(found):
            raise SettingsError(f"{folder}: {name} is no class", "Give it as package.module.Class.")
        return found
    if name not in names(folder):
        raise SettingsError(f"{folder}: there is no {name}", nearest(name, names(folder)))
    return importlib.import_module(f"daskim.{folder}.{name}").PLUGIN


@lru_cache(maxsize=8)
def transform_of(wavelets: Wavelets, shape: tuple[int, int, int]) -> Transform:
    """The transform of the settings, for standard images of shape (h, w, c)."""
    maker = find("transforms", wavelets.transform)
    return maker(shape, wavelets.name, wavelets.level, wavelets.bands, wavelets.max_columns)


def similarity_of(name: str, shape: tuple[int, ...], *, screen: bool = True) -> Similarity:
    """The similarity `name` for images of shape (h, w, c), or for m coefficients: (m,).

    Parameters
    ----------
    screen : bool
        Let it give up hopeless pairs early, where it knows how.
    """
    maker = find("similarities", name)
    return maker(shape) if screen or not getattr(maker, "screens", False) else maker(shape, screen=False)
