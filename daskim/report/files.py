"""Files that a report leaves outside the run: at a path or any fsspec URL."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import Any

from daskim.errors import SettingsError, SourceError
from daskim.store import Run

__all__ = ["put", "put_in"]


def put(data: bytes, target: str, option: str, options: Mapping[str, Any] | None = None) -> str:
    """Write one file, whole or not at all; its path.

    Parameters
    ----------
    target : str
        A path or fsspec URL of the file.
    option : str
        The option of the command line that named it: for errors.
    options : mapping, optional
        For fsspec.

    Raises
    ------
    SettingsError
        There is no file of that name.
    SourceError
        It cannot be written.
    """
    folder, name = posixpath.split(target) if "://" in target else os.path.split(target)
    if not name:
        raise SettingsError(f"{option} {target}: no name of a file", f"Write {option} with the name of a file.")
    put_in({name: data}, folder, option, options)
    return target


def put_in(files: Mapping[str, bytes], folder: str, option: str, options: Mapping[str, Any] | None = None) -> list[str]:
    """Write files into one folder, which is made; their paths, in order."""
    place = Run(folder if "://" in folder else os.path.abspath(folder), dict(options or {}))
    paths = []
    for name, data in files.items():
        try:
            place.write(data, name)
        except SourceError as error:
            reason = error.what.partition(": ")[2] or error.what
            raise SourceError(f"{option}: {reason}", f"Choose another place with {option}.") from error
        paths.append(posixpath.join(folder, name) if "://" in folder else os.path.join(folder, name))
    return paths
