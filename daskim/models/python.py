"""A Python function as a model: `package.module:function`.

To name one is to run its code, by the user's own will: the module is imported, and the function is called with batches.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from daskim.errors import BlockFailed, DaskimError, SettingsError
from daskim.models.preprocessing import Wanted

__all__ = ["PythonModel"]

HOW = "Give it as package.module:function; the module must be importable from here."


class PythonModel:
    """The function `module:function`: called with a prepared batch, it gives (b, k) scores.

    Raises
    ------
    SettingsError
        It cannot be imported, or is not callable.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.wants = Wanted()
        self._function = _found(name)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(self._function(images))
        except DaskimError:
            raise
        except Exception as error:  # the user's code may raise anything
            raise BlockFailed(
                f"--model {self.name}: failed on a batch of shape {images.shape}, {images.dtype} "
                f"({type(error).__name__}: {error})",
                "Do --size, --mode, --layout and --dtype fit it?",
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return PythonModel, (self.name,)


def _found(name: str) -> Callable[[np.ndarray], Any]:
    module, _, path = name.partition(":")
    if not module or not path or not all(part.isidentifier() for part in [*module.split("."), *path.split(".")]):
        raise SettingsError(f"--model {name}: not module:function", HOW)
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SettingsError(f"--model {name}: {error}", HOW) from None
    except Exception as error:  # the user's code may raise anything
        raise SettingsError(
            f"--model {name}: importing {module} raised {type(error).__name__}: {error}", HOW
        ) from error
    try:
        for part in path.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise SettingsError(f"--model {name}: {error}", HOW) from None
    if not callable(found):
        raise SettingsError(f"--model {name}: is no function", HOW)
    return found
