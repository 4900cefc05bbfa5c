"""Texts of a report: hostile characters made visible, counts and shares in words, commands to type."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path

__all__ = ["command", "counted", "listed", "near_path", "share", "shell_word", "shortened", "visible"]

# Characters that draw nothing, or change how others are drawn or ordered: control, format, surrogate, private,
# unassigned, line and paragraph separators.
INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def visible(text: object) -> str:
    r"""Text without characters that hide or reorder others: each is written as \u and its code.

    It holds no markup of its own and escapes none: that is for whoever writes HTML, SVG or Markdown.
    """
    return "".join(
        c
        if unicodedata.category(c) not in INVISIBLE
        else f"\\u{ord(c):04x}"
        if ord(c) < 0x10000
        else f"\\U{ord(c):08x}"
        for c in str(text)
    )


def shortened(text: str, most: int) -> str:
    """At most `most` characters, the middle left out: beginnings and endings tell file names apart."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return text[: most - 1 - tail] + "…" + text[len(text) - tail :]


def counted(count: int, one: str, several: str = "") -> str:
    """1 image, 1,234 images."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def share(part: float, whole: float) -> str:
    """A share in per cent: 13 %, 1.3 %, 0.013 %; never 0 % or 100 % where it is not."""
    if not whole or not part:
        return "0 %"
    percent = 100 * part / whole
    if 99.5 <= percent < 100:
        return f"{min(percent, 99.9):.1f} %" if percent < 99.95 else "over 99.9 %"
    if percent >= 9.95:
        return f"{percent:.0f} %"
    return f"{percent:.1f} %" if percent >= 0.095 else f"{percent:.2g} %"


def listed(items: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join(part for part in (", ".join(items[:-1]), *items[-1:]) if part)


def shell_word(text: str) -> str:
    """One word of a POSIX shell. A name that no terminal should see as it is becomes $'...' of bash and zsh."""
    if text.startswith("-"):
        text = "./" + text
    if visible(text) == text:
        return shlex.quote(text)
    plain = (c if c.isascii() and c.isprintable() and c not in "'\\" else _octets(c) for c in text)
    return "$'" + "".join(plain) + "'"


def _octets(c: str) -> str:
    if c.isprintable() and not c.isascii():
        return c
    return "".join(f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogateescape"))


def command(job: str, *words: str) -> str:
    """`python -m daskim.jobs.JOB WORDS`, each word quoted for a shell; options as they are."""
    return " ".join([f"python -m daskim.jobs.{job}", *(word if _option(word) else shell_word(word) for word in words)])


def _option(word: str) -> bool:
    return word.startswith("--") and word[2:].replace("-", "").isalpha()


def near_path(path: str) -> str:
    """A path as it is typed from here: relative where it lies below the working directory, URLs as they are."""
    if "://" in path or not path:
        return path
    here, there = Path.cwd(), Path(path)
    return str(there.relative_to(here)) if there.is_absolute() and there.is_relative_to(here) else path
