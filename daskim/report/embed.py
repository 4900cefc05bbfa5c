"""Data, scripts and styles inside one HTML file, so that nothing in them can break out of it."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from typing import Any

__all__ = ["base64_text", "json_block", "policy", "source_hash", "squeezed"]

_MARKUP = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


def json_block(value: Any) -> str:
    """JSON that may stand inside a script element: ASCII, and without the characters of markup.

    So neither `</script>` nor `<!--` can occur in it, nor U+2028. Numbers that are no numbers become null.
    """
    return json.dumps(_finite(value), separators=(",", ":"), ensure_ascii=True, allow_nan=False).translate(_MARKUP)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value


def squeezed(value: Any) -> str:
    """JSON, deflated (zlib) and in base64: a browser unpacks it by DecompressionStream."""
    return base64_text(zlib.compress(json.dumps(_finite(value), separators=(",", ":")).encode(), 6))


def base64_text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def source_hash(text: str) -> str:
    """The hash of an inline script or style as a content security policy names it."""
    return "'sha256-" + base64_text(hashlib.sha256(text.encode()).digest()) + "'"


def policy(scripts: list[str], styles: list[str]) -> str:
    """The page's own content security policy: its scripts, its styles, pictures from data URIs, and nothing else."""
    return "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            "script-src " + " ".join(source_hash(text) for text in scripts),
            "style-src " + " ".join(source_hash(text) for text in styles),
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
