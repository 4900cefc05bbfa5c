r"""Names of files as text that is safe to store: valid UTF-8, one line, reversible.

A byte that is not UTF-8, and each control character, is written ``\xNN``. A backslash stays as it is unless it
would read as such an escape; then it is written ``\x5c``. So ordinary names, backslashes and per cent signs
included, stay unchanged, and `unescape` returns exactly the name that the file system gave.
"""

from __future__ import annotations

import re

__all__ = ["RUN_MARK", "escape", "extension", "split_of_folder", "split_of_prefix", "unescape"]

# The file that tells a run directory from a folder of images.
RUN_MARK = ".daskim-run"

# Surrogates U+DC80..U+DCFF are how Python hands out undecodable bytes of a file name (PEP 383).
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]|\\(?=x[0-9a-f]{2})")
_ESCAPED = re.compile(rb"\\x([0-9a-f]{2})")
_SPLIT = r"train|training|test|testing|t10k|val|valid|validation|dev"
_PREFIX = re.compile(rf"(?i)^({_SPLIT})(?![a-z0-9])")
_NUMBERED = re.compile(r"^([A-Za-z][A-Za-z0-9]*)-\d+-of-\d+")
_FOLDERS = frozenset({"train", "test", "val", "valid", "validation"})


def escape(name: str) -> str:
    r"""The stored form of `name` (a str as from `os.fsdecode`), see the module's text."""
    return _UNSAFE.sub(_escape_one, name) if _UNSAFE.search(name) else name


def _escape_one(match: re.Match[str]) -> str:
    raw = match.group().encode("utf-8", "surrogateescape" if "\udc80" <= match.group() <= "\udcff" else "surrogatepass")
    return "".join(f"\\x{byte:02x}" for byte in raw)


def unescape(name: str) -> str:
    """The name that `escape` was given."""
    if "\\x" not in name:
        return name
    raw = _ESCAPED.sub(lambda match: bytes([int(match.group(1), 16)]), name.encode("utf-8"))
    return raw.decode("utf-8", "surrogateescape")


def extension(name: str) -> str:
    """Lower-case extension of a path's last part, with its dot; "" when it has none."""
    base = name.rpartition("/")[2]
    dot = base.rfind(".")
    return base[dot:].lower() if dot > 0 else ""


def split_of_folder(rel: str) -> str | None:
    """The split named by the first folder of a relative path: train, test, val, valid or validation, else None."""
    head, slash, _ = rel.partition("/")
    return head.lower() if slash and head.lower() in _FOLDERS else None


def split_of_prefix(rel: str) -> str | None:
    """The split of a file that holds many images, from its name, else from its first folder, else None.

    ``train-00000-of-00005.parquet`` gives train (any word in this numbered form is taken), ``t10k-images-...``
    gives test, and a name that starts with train, test, val, valid, validation or dev gives that word.
    """
    base = rel.rpartition("/")[2]
    match = _PREFIX.match(base) or _NUMBERED.match(base)
    if match is None:
        return split_of_folder(rel)
    word = match.group(1).lower()
    return {"t10k": "test", "training": "train", "testing": "test"}.get(word, word)
